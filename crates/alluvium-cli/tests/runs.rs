//! Runs of `load`, `compare` and `restore-test` as a user starts them: tiny ones, resumed, verified.

use std::path::Path;

use serde_json::Value;

use crate::run::{alluvium, fails, json, path, succeeds, tiny};

#[test]
fn compare_measures_and_verifies_all_modes() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--steady", "500ms", "--json", "--temp-dir", &path(dir.path(), "local")];
    let output = alluvium(&tiny("compare", &args));
    let results = json(&output);
    assert_eq!(results.as_array().map(Vec::len), Some(3));
    for (index, mode) in ["changelog", "native"].into_iter().enumerate() {
        let run = &results[index];
        assert_eq!((&run["schema_version"], &run["mode"]), (&1.into(), &mode.into()));
        assert_eq!(run["ended_early"], Value::Null);
        assert_eq!(run["workload"]["keys"], 2000);
        assert!(run["records"].as_u64() > Some(100), "{run:#}");
        // How many there are in the time is up to the machine.
        assert!(run["checkpoints"]["n"].as_u64() >= Some(1), "{run:#}");
        assert!(run["checkpoints"]["duration_ms"]["p50"].as_f64() > Some(0.0));
        assert!(run["checkpoints"]["puts_per_checkpoint"].as_f64() >= Some(1.0));
        assert!(run["operator_pause_ms"]["max"].as_f64() > Some(0.0));
        assert!(run["durable_lag_ms"]["p50"].as_f64() > Some(0.0));
        assert!(run["store"]["put_bytes"].as_u64() > Some(0));
        assert!(run["store"]["live_bytes_end"].as_u64() > Some(0));
        assert!(run["store"]["live_bytes_peak"].as_u64() >= run["store"]["live_bytes_end"].as_u64());
        assert!(run["store"]["usd_per_month"].as_f64() > Some(0.0));
        assert!(run["steady"]["all"]["bytes"]["max"].as_f64() > Some(0.0));
        assert!(run["memory"]["peak"]["blocks"].as_u64() > Some(0), "{run:#}");
        assert!(run["restore"]["total_ms"].as_f64() > Some(0.0));
        assert_eq!(run["restore"]["keys"], 2000);
        for wrong in ["missing_keys", "wrong_keys", "extra_keys"] {
            assert_eq!(run["restore"][wrong], 0, "{mode} {wrong}");
        }
        // The same settled start.
        assert_eq!(run["compaction_debt"]["start"]["pending_bytes"], 0);
    }
    // Every record reads its key, and all keys fit.
    let cache = &results[0]["record_cache"];
    let reads = cache["hits"].as_u64().unwrap() + cache["misses"].as_u64().unwrap();
    assert_eq!(Some(reads), results[0]["records"].as_u64(), "{cache}");
    assert!(cache["entries"].as_u64() > Some(0) && cache["bytes"].as_u64() > Some(0), "{cache}");
    assert!(results[0]["memory"]["end"]["records"].as_u64() >= cache["bytes"].as_u64());
    let none = &results[2];
    for without in &results.as_array().unwrap()[1..] {
        assert_eq!(without["record_cache"], Value::Null);
        assert_eq!(without["memory"]["end"]["records"], 0);
    }
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
    succeeds(&alluvium(&tiny("load", &["-o", &earlier, "--label", "earlier", "--quiet"])));
    let file = path(dir.path(), "result.json");
    let args = ["--steady", "0", "--repeat", "2", "--modes", "changelog,native", "--with", &earlier];
    let text = succeeds(&alluvium(&[&tiny("compare", &args)[..], &["--quiet", "-o", &file]].concat()));
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
        let mut all = vec![store];
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
    let args = ["memory:///", "--verify", "--json"];
    let result = json(&alluvium(&tiny("load", &args)));
    assert_eq!(result["settings"]["store"], "memory");
    assert_eq!(result["restore"]["missing_keys"], 0);
}

#[test]
fn a_new_process_restores_what_load_left_and_checks_every_key() {
    let dir = tempfile::tempdir().unwrap();
    let (store, restored) = (path(dir.path(), "job"), path(dir.path(), "restored"));
    succeeds(&alluvium(&tiny("load", &[&store, "--subtasks", "3", "--operation", "mixed", "-q"])));
    let test = |args: &[&str]| {
        alluvium(&[&["restore-test", &store, "--dir", &restored, "--memory", "32MB"], args].concat())
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
            let args = [&store, "--subtasks", "3", "--operation", operation, "--mode", mode, "-q"];
            succeeds(&alluvium(&tiny("load", &args)));
            for subtasks in numbers {
                let restored = format!("{store}-{subtasks}");
                let args = ["restore-test", &store, "--dir", &restored, "--memory", "64MB"];
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
    fails(&alluvium(&["restore-test", "/nonexistent", "--dir", &path(dir.path(), "x")]), 1, "/nonexistent");
}

#[test]
fn verification_fails_where_the_state_is_not_that_of_the_workload() {
    // A checkpoint that says of itself that one record more was processed than its state has seen.
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    succeeds(&alluvium(&tiny("load", &[&store, "--subtasks", "1", "-q"])));
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
    let output = alluvium(&["restore-test", &store, "--dir", &restored, "--verify", "-o", &file]);
    fails(&output, 1, "1 keys missing, 1 wrong, 1 extra");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(result["restore"]["missing_keys"], 1);
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
