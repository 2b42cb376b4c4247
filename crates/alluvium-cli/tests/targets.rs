//! The table of targets from results that lie there, and from a program that writes them.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::results::result;
use crate::run::{alluvium, fails, path, succeeds};

/// A result at so many records a second, under the name of a run.
fn lay(dir: &Path, name: &str, records_per_s: u64, cpu: f64) {
    let mut result = result(if name.contains("native") { "native" } else { "changelog" }, 0, 0);
    result["records_per_s"] = json!(records_per_s);
    result["cpu_s_per_million_records"] = json!(cpu);
    std::fs::write(dir.join(format!("{name}.json")), result.to_string()).unwrap();
}

/// A program of this text.
fn program(dir: &Path, text: &str) -> String {
    let file = dir.join("program");
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn an_interrupted_table_goes_on_with_the_results_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    for (turn, changelog) in [(1, 400_000), (2, 500_000), (3, 900_000)] {
        lay(dir.path(), &format!("zipf-changelog-{turn}"), changelog, 4.0);
        lay(dir.path(), &format!("zipf-native-{turn}"), 200_000, 8.0);
    }
    let out = path(dir.path(), "");
    // Quick, lest it measure for an hour where it does not take what is there.
    let output =
        alluvium(&["targets", "--only", "zipf", "--resume", "--quick", "--runs", "3", "--out", &out]);
    let text = succeeds(&output);
    let row = text.lines().find(|line| line.contains("zipf 0.99 ÷ native")).unwrap();
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row.join(" "), "zipf 0.99 ÷ native ≥ 3.00× 2.50× 2.00× to 4.50× short");
    assert!(text.contains("0 of 1 pass; 3 turn(s)") && text.contains("do not count"), "{text}");
    // Progress, beside the table.
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(progress.contains("run 5 of 6: zipf, changelog, turn 3 of 3"), "{progress}");
}

#[test]
fn the_earlier_build_takes_part_and_a_run_that_fails_ends_the_table() {
    let dir = tempfile::tempdir().unwrap();
    lay(dir.path(), "paced-changelog-1", 50_000, 4.0);
    lay(dir.path(), "paced-native-1", 50_000, 8.0);
    let out = path(dir.path(), "");
    let table = |before: &str| {
        let line = ["--only", "paced", "--quick", "--resume", "--before", before, "--out", &out];
        alluvium(&[&["targets"][..], &line].concat())
    };
    fails(&table(&path(dir.path(), "none")), 1, "cannot start");
    fails(&table(&program(dir.path(), "exit 3")), 1, "a run failed (exit status: 3)");
    // Its result is not one that is taken for whole later on.
    let early = program(dir.path(), r#"echo '{"schema_version": 1}'"#);
    fails(&table(&early), 1, "missing field");
    assert!(!dir.path().join("paced-before-1.json").exists());

    lay(dir.path(), "earlier", 50_000, 5.0);
    let earlier = path(dir.path(), "earlier.json");
    let copies = program(dir.path(), &format!("cat '{earlier}'"));
    let text = succeeds(&table(&copies));
    let row = text.lines().find(|line| line.contains("CPU of a record ÷ before ¹, 50,000/s")).unwrap();
    assert!(row.contains("0.80×") && row.ends_with("short"), "{text}");
    assert!(dir.path().join("paced-before-1.json").exists());
}
