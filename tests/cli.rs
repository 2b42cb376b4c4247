//! The command line as a user runs it: help, wrong usage, tiny runs, resuming, inspecting.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn alluvium(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alluvium")).args(args).output().expect("the binary was built")
}

/// A tiny run's options besides `args`.
fn tiny<'a>(command: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![command, "--keys", "2000", "--duration", "400ms", "--checkpoint-interval", "50ms"];
    all.extend(["--memory", "32MB"]);
    all.extend(args);
    all
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[track_caller]
fn fails(output: &Output, code: i32, message: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(message), "{err:?} does not say {message:?}");
    assert!(!err.contains("panicked"), "{err}");
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&succeeds(output)).expect("standard output is one JSON document")
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().expect("temporary directories have plain names").to_owned()
}

#[test]
fn help_says_what_the_commands_do() {
    let help = succeeds(&alluvium(&["--help"]));
    for word in ["compare", "load", "inspect", "Examples:", "Exit codes: 0"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = succeeds(&alluvium(&["compare", "--help"]));
    for option in ["--keys", "--rate", "--memory", "--operation", "--distribution", "--steady", "--json"] {
        assert!(help.contains(option), "{option} is missing in\n{help}");
    }
    assert!(succeeds(&alluvium(&["--version"])).starts_with("alluvium "));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    fails(&alluvium(&["pour"]), 2, "unrecognized subcommand");
    fails(&alluvium(&["load", "--keys", "many"]), 2, "whole number");
    fails(&alluvium(&["load", "--keys", "0"]), 2, "--keys must be");
    fails(&alluvium(&["load", "--value-bytes", "7"]), 2, "--value-bytes must be 8");
    fails(&alluvium(&["load", "--distribution", "zipf"]), 2, "zipf:0.99");
    fails(&alluvium(&["load", "--duration", "10"]), 2, "with its unit");
    fails(&alluvium(&["load", "--duration", "0"]), 2, "--duration");
    fails(&alluvium(&["load", "--subtasks", "0"]), 2, "--subtasks");
    fails(&alluvium(&["load", "--memory", "1MB"]), 2, "memory");
    fails(&alluvium(&["load", "--resume"]), 2, "--store");
    fails(&alluvium(&["compare", "--operation", "juggle"]), 2, "read-modify-write");
    fails(&alluvium(&["compare", "--steady-rate", "0"]), 2, "--steady 0");
    fails(&alluvium(&["load", "--store", "ftp://host/x"]), 2, "ftp");
}

#[test]
fn a_place_that_cannot_be_written_is_named_before_the_run() {
    fails(&alluvium(&["load", "--json", "/nonexistent/x.json"]), 1, "/nonexistent/x.json");
    fails(&alluvium(&["compare", "--dir", "/dev/null/x"]), 1, "/dev/null/x");
}

#[test]
fn inspecting_nothing_is_an_error_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "nothing-here");
    let output = alluvium(&["inspect", &store]);
    fails(&output, 1, "nothing-here");
    assert!(!Path::new(&store).exists());
}

#[test]
fn compare_measures_and_verifies_both_modes() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--steady", "500ms", "--json", "--dir", &path(dir.path(), "local")];
    let output = alluvium(&tiny("compare", &args));
    let result = json(&output);
    assert_eq!(result["schema"], 1);
    for (index, mode) in ["changelog", "native-incremental"].into_iter().enumerate() {
        let run = &result["results"][index];
        assert_eq!(run["mode"], mode);
        assert_eq!(run["workload"]["keys"], 2000);
        assert!(run["records"].as_u64() > Some(100), "{run:#}");
        assert!(run["checkpoints"]["n"].as_u64() >= Some(2), "{run:#}");
        assert!(run["checkpoints"]["duration_ms"]["p50"].as_f64() > Some(0.0));
        assert!(run["checkpoints"]["puts_per_checkpoint"].as_f64() >= Some(1.0));
        assert!(run["operator_pause_ms"]["max"].as_f64() > Some(0.0));
        assert!(run["store"]["put_bytes"].as_u64() > Some(0));
        assert!(run["store"]["live_bytes_end"].as_u64() > Some(0));
        assert!(run["steady"]["all"]["bytes"]["max"].as_f64() > Some(0.0));
        assert!(run["restore"]["total_ms"].as_f64() > Some(0.0));
        assert_eq!(run["restore"]["keys"], 2000);
        for wrong in ["missing_keys", "wrong_keys", "extra_keys"] {
            assert_eq!(run["restore"][wrong], 0, "{mode} {wrong}");
        }
    }
    assert!(result["ratios"].as_array().is_some_and(|ratios| ratios.len() > 20));
    let left = std::fs::read_dir(dir.path().join("local")).unwrap().count();
    assert_eq!(left, 0, "local files are removed");
    // A pipe gets no bar: no carriage returns, no escapes.
    assert!(!output.stderr.contains(&b'\r') && !output.stderr.contains(&0x1b));
}

#[test]
fn compare_prints_a_table_with_ratios_and_says_why() {
    let file = tempfile::tempdir().unwrap();
    let file = path(file.path(), "result.json");
    let text = succeeds(&alluvium(&tiny("compare", &["--steady", "300ms", "--quiet", "--json", &file])));
    for part in ["records/s", "operator pause", "duration p99", "bytes p50", "replay", "Where the difference"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(text.contains("all 2,000 keys right"), "{text}");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(written["results"].as_array().map(Vec::len), Some(2));
}

#[test]
fn every_operation_and_distribution_verifies_after_a_restore_in_both_modes() {
    for mode in ["changelog", "native"] {
        for (operation, distribution) in
            [("put", "zipf:0.99"), ("append", "uniform"), ("mixed", "uniform"), ("append", "zipf:1.2")]
        {
            let args = [
                "--mode",
                mode,
                "--operation",
                operation,
                "--distribution",
                distribution,
                "--verify",
                "--json",
                "--quiet",
                "--materialization-interval",
                "150ms",
            ];
            let result = json(&alluvium(&tiny("load", &args)));
            assert_eq!(result["restore"]["wrong_keys"], 0, "{mode} {operation} {distribution}");
        }
    }
}

#[test]
fn load_refuses_an_earlier_run_unless_it_is_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    let at = |args: &[&'static str]| {
        let store = store.clone();
        let mut all: Vec<String> = ["--store".to_owned(), store].into();
        all.extend(args.iter().map(ToString::to_string));
        all
    };
    let run = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        alluvium(&args)
    };
    let with = |args: Vec<String>| {
        let base = ["load", "--duration", "300ms", "--checkpoint-interval", "50ms", "--memory", "32MB"];
        let mut all: Vec<String> = base.iter().map(ToString::to_string).collect();
        all.extend(args);
        run(&all)
    };

    fails(&with(at(&["--resume"])), 1, "job");
    assert!(!Path::new(&store).exists(), "a job that is to be resumed is not created");

    let first = json(&with(at(&["--keys", "3000", "--subtasks", "3", "--seed", "7", "--json"])));
    assert_eq!(first["load"]["records"], 3000);
    fails(&with(at(&["--keys", "3000"])), 2, "--resume");
    fails(&with(at(&["--resume", "--keys", "4000"])), 2, "another workload");

    // What is not said is that of the run before; another mode may go on.
    let second = json(&with(at(&["--resume", "--mode", "native", "--verify", "--json"])));
    assert_eq!(second["workload"], first["workload"]);
    assert_eq!(second["load"], Value::Null, "the keys were loaded before");
    assert_eq!(second["restore"]["keys"], 3000);
    assert_eq!(second["restore"]["wrong_keys"], 0);

    let inspected = json(&alluvium(&["inspect", &store, "--json"]));
    assert!(inspected["epochs"].as_array().is_some_and(|epochs| epochs.len() >= 3), "{inspected:#}");
    let text = succeeds(&alluvium(&["inspect", &store]));
    for part in ["Manifest chain", "checkpoint", "subtask", "reference", "retained"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letters.txt"), "dear diary").unwrap();
    let store = dir.path().to_str().unwrap();
    let output = alluvium(&tiny("load", &["--store", store]));
    fails(&output, 1, "foreign");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn memory_works_as_a_store() {
    let args = ["--store", "memory:///", "--verify", "--json"];
    let result = json(&alluvium(&tiny("load", &args)));
    assert_eq!(result["settings"]["store"], "memory");
    assert_eq!(result["restore"]["missing_keys"], 0);
}
