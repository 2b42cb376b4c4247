//! Runs that do not go on as they began: interrupted, fenced, without a reader or a store.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{alluvium, fails, interruptible, json, path, succeeds, tiny};

/// A run in the background, its result in a file.
fn background(dir: &Path, args: &[&str]) -> (std::process::Child, String) {
    let file = path(dir, "result.json");
    let child = interruptible(args)
        .args(["-o", &file, "--quiet"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary was built");
    (child, file)
}

fn read(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).expect("a result was written"))
        .expect("a whole result")
}

/// Until the job has a checkpoint.
fn wait_for_checkpoint(store: &str) {
    for _ in 0..3600 {
        let manifests = std::fs::read_dir(Path::new(store).join("manifest")).map_or(0, Iterator::count);
        if manifests >= 4 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("no checkpoint within 3 minutes");
}

/// Progress that nobody reads any more must neither end a run nor hold it up.
#[test]
fn a_run_goes_on_when_nobody_reads_its_progress() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(tiny("load", &["memory:///"]))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary was built");
    drop(child.stderr.take());
    for _ in 0..1800 {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // Whether it had to be killed.
    let _ = child.kill();
    let out = succeeds(&child.wait_with_output().expect("it ended"));
    assert!(out.contains("records/s"), "{out}");
}

#[test]
#[cfg(unix)]
fn signals_end_a_run_early_with_its_result() {
    for signal in ["INT", "TERM"] {
        let dir = tempfile::tempdir().unwrap();
        let store = path(dir.path(), "job");
        let args =
            ["load", &store, "--keys", "2000", "--duration", "10m", "--rate", "20k", "--memory", "32MB"];
        let (child, file) =
            background(dir.path(), &[&args[..], &["--checkpoint-interval", "50ms", "--verify"]].concat());
        wait_for_checkpoint(&store);
        std::thread::sleep(std::time::Duration::from_millis(500));
        crate::run::signal(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result = read(&file);
        assert!(result["ended_early"].as_str().is_some_and(|reason| reason.contains("signal")), "{result:#}");
        assert!(result["measured_s"].as_f64() < Some(600.0), "it ran to its end");
        // What was done is durable, and can be gone on from.
        let restored = path(dir.path(), "restored");
        let test = ["restore-test", &store, "--dir", &restored, "--verify", "--json", "-q"];
        assert_eq!(json(&alluvium(&test))["restore"]["wrong_keys"], 0);
    }
}

#[test]
fn a_fenced_run_says_so_and_keeps_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    let args = ["load", &store, "--keys", "2000", "--duration", "10m", "--memory", "32MB"];
    let (child, file) =
        background(dir.path(), &[&args[..], &["--checkpoint-interval", "50ms", "--rate", "5k"]].concat());
    wait_for_checkpoint(&store);
    let restored = path(dir.path(), "restored");
    succeeds(&alluvium(&["restore-test", &store, "--dir", &restored, "-q"]));
    fails(&child.wait_with_output().unwrap(), 3, "fenced");
    let result = read(&file);
    assert!(result["ended_early"].as_str().is_some(), "{result:#}");
    assert_eq!(result["load"]["records"], 2000);
}

#[test]
fn a_store_that_goes_away_ends_the_run_with_the_results_so_far() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["changelog", "native"] {
        let args = ["load", "--keys", "2000", "--duration", "1s", "--memory", "32MB", "--mode", mode];
        let more =
            ["--checkpoint-interval", "50ms", "--outage", "1h@300ms", "--patience", "2s", "--rate", "20k"];
        let (child, file) = background(dir.path(), &[&args[..], &more].concat());
        fails(&child.wait_with_output().unwrap(), 1, "nothing has got on for 2s");
        let result = read(&file);
        assert!(
            result["ended_early"].as_str().is_some_and(|reason| reason.contains("object store")),
            "{result:#}"
        );
        assert!(result["checkpoints"]["n"].as_u64() >= Some(1), "{mode}: {result:#}");
        assert!(result["records"].as_u64() > Some(1000));
    }
}

#[test]
fn an_outage_costs_time_and_no_data() {
    let args =
        ["--outage", "400ms@100ms", "--duration", "1s", "--rate", "10k", "--verify", "--json", "--quiet"];
    let result = json(&alluvium(&tiny("load", &args)));
    assert_eq!(result["restore"]["wrong_keys"], 0);
    assert_eq!(result["store_model"]["outages"][0]["end_s"], 0.5);
    assert!(result["durable_lag_ms"]["max"].as_f64() > Some(400.0), "{:#}", result["durable_lag_ms"]);
    assert!(result["store"]["retries"].as_u64() > Some(0));
}

#[test]
fn requests_that_fail_now_and_then_cost_no_data() {
    let args = ["--store-errors", "5%", "--duration", "1s", "--rate", "10k", "--verify", "--json", "--quiet"];
    let result = json(&alluvium(&tiny("load", &args)));
    for wrong in ["missing_keys", "wrong_keys", "extra_keys"] {
        assert_eq!(result["restore"][wrong], 0, "{wrong}");
    }
}

/// Until a run says that it restores.
#[cfg(unix)]
fn until_it_restores(child: &mut std::process::Child) -> std::io::BufReader<std::process::ChildStderr> {
    use std::io::BufRead;

    let mut said = std::io::BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("restoring") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended before it restored");
    }
    said
}

#[test]
#[cfg(unix)]
fn a_signal_during_the_verification_keeps_the_result_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "result.json");
    let slow = ["--store-model", "300ms,50MB/s,100MB/s", "--verify", "-o", &file];
    // Of two modes, the first has been measured, and its result is no longer to be lost.
    for (command, more) in [("load", &[][..]), ("compare", &["--modes", "changelog,native", "--steady", "0"])]
    {
        let slow = if command == "load" {
            &slow[..]
        } else {
            &["--store-model", "300ms,50MB/s,100MB/s", "-o", &file]
        };
        let args =
            [&[command, "--keys", "100", "--duration", "400ms", "--memory", "32MB"][..], slow, more].concat();
        let mut child = interruptible(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut said = until_it_restores(&mut child);
        crate::run::signal(&child, "INT");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}: {rest}");
        assert!(rest.contains("a second signal ends at once"), "{command}: {rest}");
        let result = read(&file);
        let result = if command == "load" { &result } else { &result[0] };
        assert!(result["records"].as_u64() > Some(0), "{command}: {result:#}");
    }
}
