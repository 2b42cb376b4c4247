//! The command line as a user runs it: help, wrong usage, scenarios, places that cannot be.

use std::path::Path;

use crate::run::{alluvium, fails, json, path, succeeds, tiny};

#[test]
fn help_says_what_the_commands_do() {
    let help = succeeds(&alluvium(&["--help"]));
    for word in ["compare", "load", "restore-test", "inspect", "Examples:", "Exit codes: 0"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = succeeds(&alluvium(&["compare", "--help"]));
    for option in ["--keys", "--rate", "--memory", "--operation", "--distribution", "--steady", "--json"] {
        assert!(help.contains(option), "{option} is missing in\n{help}");
    }
    for option in ["--repeat", "--with", "--modes", "--scenario", "--store-model", "--outage", "--put-price"]
    {
        assert!(help.contains(option), "{option} is missing in\n{help}");
    }
    // Every scenario says what it is about.
    assert!(help.contains("large-state:") && help.contains("20 GB of state"), "{help}");
    assert!(succeeds(&alluvium(&["--version"])).starts_with("alluvium "));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    fails(&alluvium(&["pour"]), 2, "unrecognized subcommand");
    fails(&alluvium(&["load", "--keys", "many"]), 2, "whole number");
    fails(&alluvium(&["load", "--keys", "1.5"]), 2, "whole number");
    fails(&alluvium(&["load", "--keys", "0"]), 2, "--keys must be");
    fails(&alluvium(&["load", "--value-bytes", "7"]), 2, "--value-bytes must be 8");
    fails(&alluvium(&["load", "--distribution", "zipf"]), 2, "zipf:0.99");
    fails(&alluvium(&["load", "--duration", "10"]), 2, "with its unit");
    fails(&alluvium(&["load", "--duration", "0"]), 2, "--duration");
    fails(&alluvium(&["load", "--subtasks", "0"]), 2, "--subtasks");
    fails(&alluvium(&["load", "--memory", "1MB"]), 2, "memory");
    fails(&alluvium(&["load", "--memory", "100TB"]), 2, "memory");
    fails(&alluvium(&["load", "--background-jobs", "0"]), 2, "background jobs");
    fails(&alluvium(&["load", "--rocksdb", "compression"]), 2, "NAME=VALUE");
    fails(&alluvium(&["load", "--rocksdb", "merge_operator=none"]), 2, "these may be: block");
    fails(&alluvium(&["load", "--resume"]), 2, "URL");
    fails(&alluvium(&["compare", "--operation", "juggle"]), 2, "read-modify-write");
    fails(&alluvium(&["compare", "--steady-rate", "0"]), 2, "--steady 0");
    fails(&alluvium(&["load", "ftp://host/x"]), 2, "ftp");
    fails(&alluvium(&["load", "--mode", "changelg"]), 2, "'changelog'");
    fails(&alluvium(&["load", "--store-model", "fast"]), 2, "30ms,50MB/s,100MB/s");
    fails(&alluvium(&["load", "--store-errors", "7"]), 2, "1%");
    fails(&alluvium(&["load", "--outage", "30s"]), 2, "30s@60s");
    fails(&alluvium(&["load", "--patience", "0"]), 2, "--patience");
    fails(&alluvium(&["load", "--resume", "memory:///"]), 2, "memory:///");
    fails(&alluvium(&["compare", "--repeat", "0"]), 2, "--repeat");
    fails(&alluvium(&["restore-test", "--dir", "x"]), 2, "URL");
}

#[test]
fn an_old_spelling_is_refused_with_todays_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (job, file) = (path(dir.path(), "job"), path(dir.path(), "result.json"));
    for (args, now) in [
        (&["load", "--store", &job][..], "alluvium load ./job"),
        (&["compare", "--store", &job], "alluvium compare ./job"),
        (&["restore-test", "--store", &job, "--dir", "x"], "alluvium restore-test ./job"),
        (&["load", "--json", &file], "--output FILE"),
        (&["load", &job, "--json", &file], "--output FILE"),
        (&["compare", "--no-verify"], "--verify=false"),
        (&["get", &job, "state", "key", "--dir", "x"], "--temp-dir"),
    ] {
        fails(&alluvium(args), 2, now);
    }
    let scenario = path(dir.path(), "mine.toml");
    std::fs::write(&scenario, format!("store = {job:?}")).unwrap();
    fails(&alluvium(&["load", "--scenario-file", &scenario]), 2, "alluvium load ./job");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the scenario is there");
}

#[test]
fn json_is_printed_and_written_as_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "result.json");
    let printed = json(&alluvium(&tiny("load", &["--json", "-o", &file, "-q"])));
    let written: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(printed, written);
    assert_eq!(printed["workload"]["keys"], 2000);
}

#[test]
fn a_typo_in_a_scenario_names_what_was_meant() {
    fails(&alluvium(&["load", "--scenario", "refernce"]), 2, "'reference'");
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "mine.toml");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        alluvium(&["load", "--scenario-file", &file])
    };
    fails(&with("warmup = '1s'"), 2, "'--warm-up'");
    fails(&with("warmup = '1s'"), 2, "mine.toml");
    fails(&with("rate = 'much'"), 2, "whole number");
    fails(&with("rate = [{}]"), 2, "rate must be");
    fails(&with("rate"), 2, "mine.toml");
    fails(&alluvium(&["load", "--scenario-file", "/nonexistent.toml"]), 1, "/nonexistent.toml");
}

#[test]
fn a_scenario_is_run_and_any_of_its_options_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "mine.toml");
    std::fs::write(&file, "rate = '5k'\nkeys = 1_000\nstore-model = '1ms,50MB/s,100MB/s'\nverify = true")
        .unwrap();
    let args = ["load", "--scenario-file", &file, "--keys", "2000", "--duration", "300ms", "--json", "-q"];
    let result = json(&alluvium(&args));
    assert_eq!((&result["settings"]["scenario"], &result["label"]), (&"mine".into(), &"mine".into()));
    assert_eq!((&result["workload"]["keys"], &result["settings"]["rate"]), (&2000.into(), &5000.0.into()));
    assert_eq!(result["restore"]["wrong_keys"], 0, "flags count as well");
    assert_eq!(result["store_model"]["latency_ms"], 1.0);
    assert!(result["checkpoints"]["floor_ms"]["p50"].as_f64() >= Some(1.0));
}

#[test]
fn results_that_cannot_be_compared_with_are_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "other.json");
    std::fs::write(&file, r#"{"schema_version": 99, "system": "of the future"}"#).unwrap();
    fails(&alluvium(&tiny("compare", &["--with", &file])), 1, "newer version");
    std::fs::write(&file, "not json").unwrap();
    fails(&alluvium(&tiny("compare", &["--with", &file])), 1, "other.json");
}

#[test]
fn a_place_that_cannot_be_written_is_named_before_the_run() {
    fails(&alluvium(&["load", "-o", "/nonexistent/x.json"]), 1, "/nonexistent/x.json");
    fails(&alluvium(&["compare", "--temp-dir", "/dev/null/x"]), 1, "/dev/null/x");
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
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letters.txt"), "dear diary").unwrap();
    let store = dir.path().to_str().unwrap();
    let output = alluvium(&tiny("load", &[store]));
    fails(&output, 1, "foreign");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
