//! Tests that every command in the documentation is one: old spellings must not stay in it.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::{Cli, EXAMPLES};

/// Words that stand for a value, with one that they may stand for.
const PLACEHOLDERS: [(&str, &str); 2] = [("MODE", "changelog"), ("N", "4")];

/// The pages of the repository.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("crates/alluvium-cli/README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false if entry.path().extension().is_some_and(|end| end == "md") => pages.push(entry.path()),
                false => {}
            }
        }
    }
    pages
}

/// The commands in a text: lines of code that begin with the program's name, with those that continue them.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let (mut fenced, mut found) = (false, Vec::new());
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let command = line.trim().trim_start_matches("target/release/");
        let verb = command.strip_prefix("alluvium ").and_then(|rest| rest.chars().next());
        if (fenced || line.starts_with("  ")) && verb.is_some_and(char::is_alphabetic) {
            let command = command.split(" # ").next().unwrap_or_default();
            found.push(command.split_whitespace().map(with_a_value).collect());
        }
    }
    found
}

fn with_a_value(word: &str) -> String {
    let known = PLACEHOLDERS.iter().find(|(placeholder, _)| *placeholder == word);
    known.map_or(word, |(_, value)| value).to_owned()
}

#[test]
fn every_command_in_the_documentation_is_understood() {
    let mut found = 0;
    let pages =
        pages().into_iter().map(|page| (page.display().to_string(), std::fs::read_to_string(page).unwrap()));
    for (page, text) in pages.chain([("the examples of --help".to_owned(), EXAMPLES.to_owned())]) {
        for command in commands(&text) {
            found += 1;
            let line = command.join(" ");
            Cli::try_parse_from(&command).unwrap_or_else(|error| panic!("{page}: {line}\n{error}"));
        }
    }
    assert!(found > 40, "{found} commands");
}

/// As supervisors and people read them.
#[test]
fn the_help_has_every_exit_code() {
    let help = EXAMPLES.split("Exit codes: ").nth(1).unwrap().replace('\n', " ");
    for exit in alluvium_supervisor::Exit::ALL {
        let entry = format!("{} {}", exit.code(), exit.meaning());
        assert!(help.contains(&entry), "the help does not say {entry:?}");
    }
    assert!(help.contains("any code but 0, 2 and 3"), "see Exit::is_final");
}

#[test]
fn a_command_is_found_with_its_continuation_and_without_its_remark() {
    let text =
        "Run it:\n    alluvium load --mode MODE \\\n        --keys 5   # a few\nalluvium is a program\n";
    assert_eq!(commands(text)[0].join(" "), "alluvium load --mode changelog --keys 5");
}
