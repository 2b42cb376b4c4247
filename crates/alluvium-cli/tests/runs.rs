//! Runs of `load`, `compare` and `restore-test` as a user starts them: tiny ones, resumed, interrupted, fenced.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{alluvium, fails, json, path, succeeds, tiny};

#[test]
fn compare_measures_and_verifies_all_modes() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--steady", "500ms", "--json", "--dir", &path(dir.path(), "local")];
    let output = alluvium(&tiny("compare", &args));
    let results = json(&output);
    assert_eq!(results.as_array().map(Vec::len), Some(3));
    for (index, mode) in ["changelog", "native"].into_iter().enumerate() {
        let run = &results[index];
        assert_eq!((&run["schema_version"], &run["mode"]), (&1.into(), &mode.into()));
        assert_eq!(run["ended_early"], Value::Null);
        assert_eq!(run["workload"]["keys"], 2000);
        assert!(run["records"].as_u64() > Some(100), "{run:#}");
        assert!(run["checkpoints"]["n"].as_u64() >= Some(2), "{run:#}");
        assert!(run["checkpoints"]["duration_ms"]["p50"].as_f64() > Some(0.0));
        assert!(run["checkpoints"]["puts_per_checkpoint"].as_f64() >= Some(1.0));
        assert!(run["operator_pause_ms"]["max"].as_f64() > Some(0.0));
        assert!(run["durable_lag_ms"]["p50"].as_f64() > Some(0.0));
        assert!(run["store"]["put_bytes"].as_u64() > Some(0));
        assert!(run["store"]["live_bytes_end"].as_u64() > Some(0));
        assert!(run["store"]["live_bytes_peak"].as_u64() >= run["store"]["live_bytes_end"].as_u64());
        assert!(run["store"]["usd_per_month"].as_f64() > Some(0.0));
        assert!(run["steady"]["all"]["bytes"]["max"].as_f64() > Some(0.0));
        assert!(run["restore"]["total_ms"].as_f64() > Some(0.0));
        assert_eq!(run["restore"]["keys"], 2000);
        for wrong in ["missing_keys", "wrong_keys", "extra_keys"] {
            assert_eq!(run["restore"][wrong], 0, "{mode} {wrong}");
        }
        // The same settled start.
        assert_eq!(run["compaction_debt"]["start"]["pending_bytes"], 0);
    }
    let none = &results[2];
    assert_eq!(none["mode"], "none");
    assert!(none["records"].as_u64() > Some(100), "{none:#}");
    for absent in ["checkpoints", "store", "restore", "steady", "durable_lag_ms"] {
        assert_eq!(none[absent], Value::Null, "{absent}");
    }
    assert_eq!(results[1]["options"], none["options"], "no checkpoints, and otherwise as in native mode");
    assert_ne!(results[0]["options"]["memory"], Value::Null);
    let left = std::fs::read_dir(dir.path().join("local")).unwrap().count();
    assert_eq!(left, 0, "local files are removed");
    // A pipe gets no bar: no carriage returns, no escapes.
    assert!(!output.stderr.contains(&b'\r') && !output.stderr.contains(&0x1b));
}

#[test]
fn compare_prints_a_table_with_ratios_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = path(dir.path(), "earlier.json");
    succeeds(&alluvium(&tiny("load", &["--json", &earlier, "--label", "earlier", "--quiet"])));
    let file = path(dir.path(), "result.json");
    let args = ["--steady", "0", "--repeat", "2", "--modes", "changelog,native", "--with", &earlier];
    let text = succeeds(&alluvium(&[&tiny("compare", &args)[..], &["--quiet", "--json", &file]].concat()));
    for part in [
        "records/s",
        "operator pause",
        "duration p99",
        "bytes p50",
        "replay",
        "Where the difference",
        "changelog (earlier)",
        "options that differ",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(text.contains("all 2,000 keys right"), "{text}");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let order: Vec<_> =
        written.as_array().unwrap().iter().map(|run| (run["mode"].clone(), run["repeat"].clone())).collect();
    let wanted = [("changelog", 1), ("native", 1), ("changelog", 2), ("native", 2)];
    assert_eq!(order, wanted.map(|(mode, repeat)| (mode.into(), repeat.into())));
}

#[test]
fn every_operation_and_distribution_verifies_after_a_restore_in_both_modes() {
    for mode in ["changelog", "native"] {
        for (operation, distribution) in
            [("put", "zipf:0.99"), ("append", "zipf:1.2"), ("mixed", "uniform"), ("window", "uniform")]
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
    assert!(!text.contains("being written"), "{text}");
    // As a process leaves it that was killed while it wrote.
    std::fs::write(Path::new(&store).join(format!("manifest/{:020}#1", 99)), "x").unwrap();
    let text = succeeds(&alluvium(&["inspect", &store]));
    assert!(text.contains("1 file(s) that are being written, or that a killed process has left"), "{text}");
}

#[test]
fn memory_works_as_a_store() {
    let args = ["--store", "memory:///", "--verify", "--json"];
    let result = json(&alluvium(&tiny("load", &args)));
    assert_eq!(result["settings"]["store"], "memory");
    assert_eq!(result["restore"]["missing_keys"], 0);
}

#[test]
fn a_new_process_restores_what_load_left_and_checks_every_key() {
    let dir = tempfile::tempdir().unwrap();
    let (store, restored) = (path(dir.path(), "job"), path(dir.path(), "restored"));
    succeeds(&alluvium(&tiny("load", &["--store", &store, "--subtasks", "3", "--operation", "mixed", "-q"])));
    let test = |args: &[&str]| {
        alluvium(
            &[&["restore-test", "--store", &store, "--dir", &restored, "--memory", "32MB"], args].concat(),
        )
    };
    let result = json(&test(&["--verify", "--json", "-q", "--store-model", "20ms,50MB/s,100MB/s"]));
    let restore = &result["restore"];
    assert_eq!((&result["mode"], &result["workload"]["operation"]), (&"changelog".into(), &"mixed".into()));
    for wrong in ["missing_keys", "wrong_keys", "extra_keys"] {
        assert_eq!(restore[wrong], 0, "{wrong}");
    }
    assert!(restore["keys"].as_u64() > Some(1000), "{restore:#}");
    assert_eq!((&restore["new_process"], &restore["subtasks"]), (&true.into(), &3.into()));
    assert!(restore["total_ms"].as_f64() > Some(60.0), "at least three requests of 20 ms: {restore:#}");
    assert!(restore["first_record_ms"].as_f64() >= restore["total_ms"].as_f64());
    assert!(restore["page_cache_warm"].is_boolean());

    // At another parallelism, less and more.
    for mode in ["changelog", "native"] {
        for (operation, numbers) in [("mixed", &["1", "2", "3", "5", "7"][..]), ("window", &["7"])] {
            let store = path(dir.path(), &format!("{operation}-{mode}"));
            let args = ["--store", &store, "--subtasks", "3", "--operation", operation, "--mode", mode, "-q"];
            succeeds(&alluvium(&tiny("load", &args)));
            for subtasks in numbers {
                let restored = format!("{store}-{subtasks}");
                let args = ["restore-test", "--store", &store, "--dir", &restored, "--memory", "64MB"];
                let more = ["--subtasks", subtasks, "--verify", "--json", "-q"];
                let result = json(&alluvium(&[&args[..], &more].concat()));
                assert_eq!(result["restore"]["subtasks"].to_string(), **subtasks);
                assert!(result["restore"]["keys"].as_u64() > Some(0));
                for wrong in ["missing_keys", "wrong_keys", "extra_keys"] {
                    assert_eq!(result["restore"][wrong], 0, "{mode} {operation} {subtasks} {wrong}");
                }
            }
        }
    }

    fails(&test(&[]), 2, "not empty");
    fails(
        &alluvium(&["restore-test", "--store", "/nonexistent", "--dir", &path(dir.path(), "x")]),
        1,
        "/nonexistent",
    );
}

#[test]
fn verification_fails_where_the_state_is_not_that_of_the_workload() {
    // A checkpoint that says of itself that one record more was processed than its state has seen.
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    succeeds(&alluvium(&tiny("load", &["--store", &store, "--subtasks", "1", "-q"])));
    let url = store.clone();
    let options = alluvium::JobOptions::new(dir.path().join("tampered"), alluvium::OpenMode::Existing)
        .memory(32_000_000);
    let mut opened = alluvium::Job::open(&url, options).unwrap();
    let state = opened.stores[0].state(&alluvium::StateOptions::new("reference")).unwrap();
    let (key, other) = (5_u64.to_be_bytes(), 6_u64.to_be_bytes());
    let group = |key: &[u8]| opened.stores[0].group_of(key);
    let (group, other_group) = (group(&key), group(&other));
    opened.stores[0].delete(state, group, &key).unwrap();
    opened.stores[0].put(state, other_group, &other, b"not what was written").unwrap();
    opened.stores[0].put(state, other_group, b"stranger", b"extra").unwrap();
    let position = opened.stores[0].restored_metadata().unwrap().to_vec();
    let checkpoint = opened.job.trigger(opened.metadata.clone().unwrap()).unwrap();
    opened.stores[0].cut(checkpoint.id(), position).unwrap();
    checkpoint.wait().unwrap();
    drop(opened);

    let file = path(dir.path(), "result.json");
    let restored = path(dir.path(), "restored");
    let output =
        alluvium(&["restore-test", "--store", &store, "--dir", &restored, "--verify", "--json", &file]);
    fails(&output, 1, "1 keys missing, 1 wrong, 1 extra");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(result["restore"]["missing_keys"], 1);
}

/// A run in the background, its result in a file.
fn background(dir: &Path, args: &[&str]) -> (std::process::Child, String) {
    let file = path(dir, "result.json");
    let child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(args)
        .args(["--json", &file, "--quiet"])
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
        .args(tiny("load", &["--store", "memory:///"]))
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
        let args = [
            "load",
            "--store",
            &store,
            "--keys",
            "2000",
            "--duration",
            "10m",
            "--rate",
            "20k",
            "--memory",
            "32MB",
        ];
        let (child, file) =
            background(dir.path(), &[&args[..], &["--checkpoint-interval", "50ms", "--verify"]].concat());
        wait_for_checkpoint(&store);
        std::thread::sleep(std::time::Duration::from_millis(500));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result = read(&file);
        assert!(result["ended_early"].as_str().is_some_and(|reason| reason.contains("signal")), "{result:#}");
        assert!(result["measured_s"].as_f64() < Some(600.0), "it ran to its end");
        // What was done is durable, and can be gone on from.
        let restored = path(dir.path(), "restored");
        let test = ["restore-test", "--store", &store, "--dir", &restored, "--verify", "--json", "-q"];
        assert_eq!(json(&alluvium(&test))["restore"]["wrong_keys"], 0);
    }
}

#[test]
fn a_fenced_run_says_so_and_keeps_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    let args = ["load", "--store", &store, "--keys", "2000", "--duration", "10m", "--memory", "32MB"];
    let (child, file) =
        background(dir.path(), &[&args[..], &["--checkpoint-interval", "50ms", "--rate", "5k"]].concat());
    wait_for_checkpoint(&store);
    let restored = path(dir.path(), "restored");
    succeeds(&alluvium(&["restore-test", "--store", &store, "--dir", &restored, "-q"]));
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
fn a_run_that_measured_nothing_fails() {
    let args =
        ["load", "--keys", "100", "--rate", "20", "--duration", "1500ms", "--memory", "32MB", "-q", "--json"];
    let output = alluvium(&args);
    fails(&output, 1, "nothing was measured");
    fails(&output, 1, "releases 32 records at a time");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["records"], &result["store"]["usd_per_month"]), (&0.into(), &Value::Null));
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
    let slow = ["--store-model", "300ms,50MB/s,100MB/s", "--verify", "--json", &file];
    // Of two modes, the first has been measured, and its result is no longer to be lost.
    for (command, more) in [("load", &[][..]), ("compare", &["--modes", "changelog,native", "--steady", "0"])]
    {
        let slow = if command == "load" {
            &slow[..]
        } else {
            &["--store-model", "300ms,50MB/s,100MB/s", "--json", &file]
        };
        let args =
            [&[command, "--keys", "100", "--duration", "400ms", "--memory", "32MB"][..], slow, more].concat();
        let mut child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
            .args(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut said = until_it_restores(&mut child);
        let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}: {rest}");
        assert!(rest.contains("a second signal ends at once"), "{command}: {rest}");
        let result = read(&file);
        let result = if command == "load" { &result } else { &result[0] };
        assert!(result["records"].as_u64() > Some(0), "{command}: {result:#}");
    }
}
