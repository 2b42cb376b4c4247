//! The prose in the repository: links inside it lead somewhere, files that it names exist, and lines can be
//! read side by side.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest line of prose. Tables, code blocks, and lines that hold nothing but a link may be longer.
const COLUMNS: usize = 100;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// README, CONTRIBUTING, and everything below `docs/` that is Markdown.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let mut directories = vec![root().join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The lines outside code blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push((number, line));
        }
    }
    lines
}

/// The targets of a text's inline links and pictures. A link may be wrapped between two lines.
fn links(text: &str) -> Vec<String> {
    let lines: Vec<_> = prose(text).into_iter().map(|(_, line)| line).collect();
    let text = lines.join("\n");
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to.to_owned()).collect()
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim().to_lowercase();
    let kept = heading.chars().filter_map(|char| match char {
        ' ' => Some('-'),
        '-' | '_' => Some(char),
        _ => char.is_alphanumeric().then_some(char),
    });
    kept.collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#'))).collect()
}

/// What is wrong with a link of `page`, if anything is.
fn fault(page: &Path, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = page.parent().unwrap().join(file);
    if !file.is_empty() && !target.exists() {
        return Some(format!("{}: there is no {link}", page.display()));
    }
    if heading.is_empty() {
        return None;
    }
    let text = if file.is_empty() { text.to_owned() } else { fs::read_to_string(&target).unwrap() };
    (!anchors(&text).contains(heading)).then(|| format!("{}: {link} has no such heading", page.display()))
}

/// Every file below the folders that the prose speaks of, relative to the root.
fn files() -> Vec<String> {
    let folders = ["benches", "crates", "docs", "examples", "scripts", "src", "tests"];
    let mut open: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    files
}

/// The source files and scripts that a line names in backquotes, by the end of their paths at least.
fn named_files(line: &str) -> impl Iterator<Item = &str> {
    // `build.rs` is that of another crate, and capitals stand for a name of the reader's choice.
    let is_ours = |name: &&str| *name != "build.rs" && !name.contains(char::is_uppercase);
    let is_plain =
        |name: &&str| name.chars().all(|char| char.is_ascii_alphanumeric() || "_-./".contains(char));
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.ends_with(".rs") || name.ends_with(".sh"))
        .filter(is_plain)
        .filter(is_ours)
}

/// Whether `file` is `name`, or ends in it.
fn is_named(file: &str, name: &str) -> bool {
    file.strip_suffix(name).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
}

fn is_too_long(line: &str) -> bool {
    let exempt = line.starts_with('|') || line.starts_with("![") || !line.trim().contains(' ');
    line.chars().count() > COLUMNS && !exempt
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut seen = 0;
    let mut faults = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let links = links(&text);
        seen += links.len();
        faults.extend(links.iter().filter_map(|link| fault(&page, &text, link)));
    }
    assert!(seen > 50, "only {seen} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_that_are_named_exist() {
    let files = files();
    let mut seen = 0;
    let mut faults = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in prose(&text) {
            for name in named_files(line) {
                seen += 1;
                if !files.iter().any(|file| is_named(file, name)) {
                    faults.push(format!("{}:{number}: there is no {name}", page.display()));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} files were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_file_is_named_by_the_end_of_its_path() {
    let named = |line| named_files(line).collect::<Vec<_>>();
    assert_eq!(
        named("`a/b.rs`, not `cargo test`, c.rs, `build.rs` or `src/KIND.rs`; `x.sh`"),
        ["a/b.rs", "x.sh"]
    );
    assert!(is_named("src/a/b.rs", "a/b.rs") && is_named("b.rs", "b.rs"));
    assert!(!is_named("src/aa/b.rs", "a/b.rs"));
}

#[test]
fn lines_of_prose_have_at_most_a_hundred_columns() {
    let mut faults = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let long = prose(&text).into_iter().filter(|(_, line)| is_too_long(line));
        faults.extend(long.map(|(number, _)| format!("{}:{number}", page.display())));
    }
    assert!(faults.is_empty(), "longer than {COLUMNS} columns:\n{}", faults.join("\n"));
}

#[test]
fn a_broken_link_is_found() {
    let page = root().join("README.md");
    let text = "# One: two, *three*\n```\n[a](nowhere.md)\n```\n[b](Cargo.toml)";
    assert_eq!(links(text), ["Cargo.toml"]);
    for good in ["Cargo.toml", "#one-two-three", "CONTRIBUTING.md#contributing", "https://example.org/#x"] {
        assert_eq!(fault(&page, text, good), None);
    }
    for bad in ["nowhere.md", "#nowhere", "CONTRIBUTING.md#nowhere"] {
        assert!(fault(&page, text, bad).is_some(), "{bad}");
    }
}

/// The types of all kinds of state, from the table of kinds: those with keys, and those without.
fn state_kinds() -> (Vec<String>, Vec<String>) {
    let table = fs::read_to_string(root().join("src/store/kind.rs")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(" = "));
    let rows = rows.filter(|(_, code)| code.starts_with(|char: char| char.is_ascii_digit()));
    let rows = rows.filter(|(kind, _)| kind.chars().all(char::is_alphanumeric) && *kind != "Raw");
    let (unkeyed, keyed): (Vec<_>, Vec<_>) = rows.partition(|(_, row)| row.contains("Unkeyed"));
    let types = |rows: Vec<(&str, &str)>| {
        let name = |(kind, _)| match kind {
            "Timers" => "TimerService".to_owned(),
            kind => format!("{kind}State"),
        };
        rows.into_iter().map(name).collect::<Vec<_>>()
    };
    (types(keyed), types(unkeyed))
}

#[test]
fn every_kind_of_state_is_documented_and_in_the_tests_of_all_kinds() {
    let (keyed, unkeyed) = state_kinds();
    assert!(keyed.len() >= 6 && unkeyed.len() >= 2, "only {keyed:?} and {unkeyed:?} were found");
    let pages = ["src/lib.rs", "docs/design/state.md", "docs/quickstart.md"];
    let of_keyed = ["tests/i1_state_model/kinds.rs", "crates/alluvium-cli/tests/cli_typed.rs"];
    let of_unkeyed = ["tests/operators/elements.rs", "crates/alluvium-cli/tests/operators.rs"];
    let mut faults = Vec::new();
    for (kinds, tests) in [(&keyed, of_keyed), (&unkeyed, of_unkeyed)] {
        for place in pages.iter().chain(&tests) {
            let text = fs::read_to_string(root().join(place)).unwrap();
            let missing = kinds.iter().filter(|kind| !text.contains(kind.as_str()));
            faults.extend(missing.map(|kind| format!("{place} has no {kind}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
