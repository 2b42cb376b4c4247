//! The modules' order: a module uses only what stands below it, so that each can be read knowing those alone.
//! The lists in here are the only ones; `docs/design.md` prints the library's.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The library's modules, the highest floor first. Those of one floor don't use each other.
const LIBRARY: &[&[&str]] = &[
    &["reader"],
    &["admin", "member", "state"],
    &["job"],
    &["store"],
    &["messages", "uploads"],
    &["restore", "gc", "changelog"],
    &["materialize"],
    &["manifest", "table"],
    &["delta", "store_model", "budget", "cache"],
    &["key", "remote", "fault_store"],
    &["key_group", "env", "state_map", "shape", "wait", "machine", "intercept", "runtime"],
    &["ids"],
    &["error", "frame"],
];

/// The same for the command line.
const COMMAND_LINE: &[&[&str]] = &[
    &["commands"],
    &["harness", "report", "targets"],
    &["portable"],
    &["display"],
    &["result"],
    &["location"],
    &["signals"],
    &["logging", "output", "scratch", "units"],
    &["document", "spelling"],
    &["failure", "allocator"],
];

/// The same for the supervisor.
const SUPERVISOR: &[&[&str]] = &[
    &["supervisor"],
    &["gang", "process"],
    &["notice", "policy", "place", "output"],
    &["exit", "env"],
    &["error"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below `source`, with the top module that each belongs to. Without those of tests.
fn files(source: &Path) -> Vec<(String, PathBuf)> {
    let (mut found, mut only_tests, mut directories) =
        (Vec::new(), BTreeSet::new(), vec![source.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    for path in &found {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[0].contains("test"))
        {
            let declared = pair[1].trim_start_matches("pub(crate) ").strip_prefix("mod ");
            // A feature's name is no test.
            if let Some(name) = declared.and_then(|name| name.strip_suffix(';'))
                && !pair[0].contains("feature = \"test-util\"")
            {
                let roots = ["mod.rs", "main.rs", "lib.rs"];
                let inside = if path.file_name().is_some_and(|name| roots.iter().any(|root| name == *root)) {
                    path.with_file_name("")
                } else {
                    path.with_extension("")
                };
                only_tests.insert(inside.join(name));
            }
        }
    }
    let top = |path: &Path| {
        let inner = path.strip_prefix(source).unwrap();
        let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    };
    let mut files: Vec<_> = found
        .into_iter()
        .filter(|path| !only_tests.iter().any(|test| path.with_extension("").starts_with(test)))
        .map(|path| (top(&path), path))
        .filter(|(module, _)| module != "lib" && module != "main")
        .collect();
    files.sort();
    files
}

/// The modules that a file's text names by `crate::…`. Comments and the file's own tests don't count.
fn uses(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: Vec<_> = code.lines().map(|line| line.split("//").next().unwrap()).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        // `crate::Error` names no module.
        names.extend(first_name(rest));
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let begins = group.char_indices().take_while(|(_, c)| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth >= 0
            });
            let begins: Vec<_> =
                begins.filter(|(_, c)| matches!(c, ',' | '{')).map(|(at, _)| at + 1).collect();
            names.extend(first_name(group));
            names.extend(begins.into_iter().filter_map(|at| first_name(&group[at..])));
        }
    }
    names
}

fn first_name(text: &str) -> Option<String> {
    let name: String =
        text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// What breaks the order, a line each.
fn violations(source: &Path, floors: &[&[&str]]) -> Vec<String> {
    let height: BTreeMap<&str, usize> = floors
        .iter()
        .rev()
        .enumerate()
        .flat_map(|(height, floor)| floor.iter().map(move |module| (*module, height)))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (module, path) in files(source) {
        let shown = path.strip_prefix(source).unwrap().display().to_string();
        seen.insert(module.clone());
        let Some(own) = height.get(module.as_str()) else {
            wrong.push(format!("{shown}: give the module `{module}` a floor"));
            continue;
        };
        for used in uses(&fs::read_to_string(&path).unwrap()) {
            if let Some(other) = height.get(used.as_str())
                && used != module
                && other >= own
            {
                wrong.push(format!("{shown} uses `{used}`, which does not stand below `{module}`"));
            }
        }
    }
    let gone = height.keys().filter(|module| !seen.contains(**module));
    wrong.extend(gone.map(|module| format!("the module `{module}` has a floor, and does not exist")));
    wrong
}

#[test]
fn modules_use_only_what_stands_below_them() {
    for (source, floors) in [
        ("src", LIBRARY),
        ("crates/alluvium-cli/src", COMMAND_LINE),
        ("crates/alluvium-supervisor/src", SUPERVISOR),
    ] {
        let wrong = violations(&root().join(source), floors);
        assert!(wrong.is_empty(), "{source}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn the_design_shows_the_floors() {
    let design = fs::read_to_string(root().join("docs/design.md")).unwrap();
    let shown = design.split("<!-- floors -->").nth(1).unwrap().split("<!-- /floors -->").next().unwrap();
    let floors: Vec<_> = LIBRARY.iter().map(|floor| floor.join("  ")).collect();
    let expected = format!("\n```text\n{}\n```\n", floors.join("\n"));
    assert_eq!(shown, expected, "write this between the marks in docs/design.md:\n{expected}");
}

#[test]
fn what_breaks_the_order_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path();
    fs::create_dir(source.join("low")).unwrap();
    fs::write(source.join("high.rs"), "use crate::low::Thing;\n").unwrap();
    fs::write(source.join("low/mod.rs"), "#[cfg(test)]\nmod samples;\n// crate::high\nstruct Thing;\n")
        .unwrap();
    fs::write(source.join("low/samples.rs"), "use crate::high::Other;\n").unwrap();
    let wrong = |text: &str| {
        fs::write(source.join("low/thing.rs"), text).unwrap();
        violations(source, &[&["high"], &["low"]])
    };
    assert_eq!(wrong("use crate::low::Thing;\n"), Vec::<String>::new());
    assert_eq!(wrong("#[cfg(test)]\nmod tests {\n    use crate::high::Other;\n}\n"), Vec::<String>::new());
    for text in ["fn f() { crate::high::g() }\n", "use crate::{Thing, low::{self, A}, high::Other};\n"] {
        assert_eq!(wrong(text), ["low/thing.rs uses `high`, which does not stand below `low`"], "{text}");
    }
    fs::write(source.join("new.rs"), "").unwrap();
    assert_eq!(wrong(""), ["new.rs: give the module `new` a floor"]);
}
