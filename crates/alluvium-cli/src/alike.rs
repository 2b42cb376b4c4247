//! Tests that walk over all commands: what means the same is spelled the same, in a new command too.

use std::collections::BTreeMap;

use clap::{Arg, Command, CommandFactory};

use crate::Cli;

/// These show files of results, and run a program that knows its job.
const WITHOUT_JOB: [&str; 2] = ["alluvium report", "alluvium run-job"];
/// What another program prints is passed on as it is.
const WITHOUT_RESULT: [&str; 1] = ["alluvium run-job"];

/// Every command that does something, by all its words.
fn leaves() -> Vec<(String, Command)> {
    fn walk(path: &str, command: &Command, found: &mut Vec<(String, Command)>) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        if !command.has_subcommands() {
            found.push((path, command.clone()));
            return;
        }
        // What no help shows is not for users.
        let shown = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
        for command in command.get_subcommands().filter(shown) {
            walk(&path, command, found);
        }
    }
    let mut cli = Cli::command();
    cli.build();
    let mut found = Vec::new();
    walk("", &cli, &mut found);
    assert!(found.len() > 10, "{found:?}");
    found
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional())
}

fn value_name(arg: &Arg) -> String {
    let takes_value = arg.get_action().takes_values();
    let names = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string);
    if takes_value { names.collect::<Vec<_>>().join(" ") } else { String::new() }
}

/// `load` and `compare` make a temporary job without one.
#[test]
fn a_command_on_a_job_takes_its_url_first() {
    for (path, command) in leaves() {
        let first = command.get_positionals().next().map(value_name);
        let store = command.get_arguments().any(|arg| arg.get_long() == Some("store"));
        let expected = match path.as_str() {
            path if WITHOUT_JOB.contains(&path) => continue,
            _ => (Some("URL".to_owned()), false),
        };
        assert_eq!((first, store), expected, "{path}: its first argument, and whether it has --store");
    }
}

#[test]
fn an_option_has_one_short_form_and_one_kind_of_value_in_all_commands() {
    let mut seen: BTreeMap<String, (Option<char>, String, String)> = BTreeMap::new();
    for (path, command) in leaves() {
        for arg in shown(&command) {
            let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
            let (short, value) = (arg.get_short(), value_name(arg));
            let first = seen.entry(long.to_owned()).or_insert((short, value.clone(), path.clone()));
            assert_eq!((&first.0, &first.1), (&short, &value), "--{long} of {path} and of {}", first.2);
        }
    }
}

#[test]
fn every_command_prints_json_when_asked() {
    for (path, command) in leaves() {
        let json = shown(&command).any(|arg| arg.get_long() == Some("json"));
        assert_eq!(json, !WITHOUT_RESULT.contains(&path.as_str()), "{path}");
    }
}

/// `--dir` is a job's local directory, which stays; `--temp-dir` is where temporary ones are made.
#[test]
fn a_directory_that_stays_has_another_option_than_one_that_goes() {
    for (path, command) in leaves() {
        let has = |long: &str| shown(&command).any(|arg| arg.get_long() == Some(long));
        let stays = ["alluvium load", "alluvium restore-test"].contains(&path.as_str());
        assert_eq!(has("dir"), stays, "{path}");
        assert!(!(stays && has("temp-dir")), "{path}");
    }
}

#[test]
fn nothing_is_released_without_yes() {
    let mut found = 0;
    for (path, command) in leaves().into_iter().filter(|(path, _)| path.ends_with(" release")) {
        found += 1;
        assert!(shown(&command).any(|arg| arg.get_long() == Some("yes")), "{path}");
    }
    assert_eq!(found, 2);
}
