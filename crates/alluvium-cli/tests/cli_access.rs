//! The commands that look into a job and keep what is in it, as a user runs them.
#![allow(clippy::unwrap_used)]

use std::process::Output;

use alluvium::{CheckpointReader, Job, OpenMode, Opened, ReaderOptions, RestoreFrom, StateOptions};
use serde_json::Value;

use crate::run::{alluvium, fails, json, succeeds};

use alluvium_testkit::drive::{checkpoint, put, quiet};

/// A running job with some keys, of which one and its value are no text.
struct Running {
    dir: tempfile::TempDir,
    url: String,
    opened: Opened,
}

impl Running {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("job").to_str().unwrap().to_owned();
        let mut opened = Job::open(&url, quiet(&dir.path().join("local"), OpenMode::Create)).unwrap();
        let store = &mut opened.stores[0];
        for n in 0..5 {
            put(store, &format!("page/{n}"), format!("value {n}").as_bytes()).unwrap();
        }
        put(store, "other", "two\nlines".as_bytes()).unwrap();
        let (words, group) = (store.state(&StateOptions::new("words")).unwrap(), store.group_of(b"\xff\x00"));
        store.put(words, group, b"\xff\x00", b"\xfe").unwrap();
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        Self { dir, url, opened }
    }

    fn checkpoint(&mut self) -> String {
        checkpoint(&self.opened.job, &mut self.opened.stores, "").unwrap().id.to_string()
    }

    fn run(&self, command: &[&str], args: &[&str]) -> Output {
        let mut all = command.to_vec();
        all.push(&self.url);
        all.extend(args);
        alluvium(&all)
    }

    fn pins(&self) -> usize {
        std::fs::read_dir(format!("{}/pin", self.url)).map_or(0, Iterator::count)
    }
}

#[test]
fn savepoints_are_made_listed_used_and_released() {
    let mut running = Running::new();
    let made = json(&running.run(&["savepoint", "create"], &["first", "--json"]));
    assert_eq!((&made["name"], &made["checkpoint"]), (&"first".into(), &serde_json::json!("1-1")));
    put(&mut running.opened.stores[0], "page/0", b"later").unwrap();
    for _ in 0..5 {
        running.checkpoint();
    }
    let newest = running.checkpoint();
    let text = succeeds(&running.run(&["savepoint", "create"], &["second", "--checkpoint", &newest]));
    assert!(text.contains("savepoint second keeps checkpoint"), "{text}");
    running.opened.job.health().unwrap();

    let text = succeeds(&running.run(&["savepoint", "list"], &[]));
    for part in ["first", "second", "1-1", &newest] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let listed = json(&running.run(&["savepoint", "list"], &["--json"]));
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["schema_version"]), (2, &1.into()));

    let get = |args: &[&str]| succeeds(&running.run(&["get"], args)).trim_end().to_owned();
    assert_eq!(get(&["words", "page/0"]), "later");
    assert_eq!(get(&["words", "page/0", "--savepoint", "first"]), "value 0");
    assert_eq!(get(&["words", "page/0", "--checkpoint", &newest]), "later");

    fails(&running.run(&["savepoint", "create"], &["first"]), 1, "choose another name");
    fails(&running.run(&["savepoint", "create"], &["a/b"]), 2, "begin with a letter");
    fails(&running.run(&["savepoint", "create"], &["x", "--checkpoint", "1-1"]), 1, "choose one of [");
    fails(&running.run(&["savepoint", "create"], &["x", "--checkpoint", "one"]), 2, "3-17");
    fails(&running.run(&["savepoint", "release"], &["third"]), 1, "[first, second]");
    fails(&running.run(&["get"], &["words", "page/0", "--savepoint", "third"]), 1, "[first, second]");
    for name in ["first", "second"] {
        let kept = running.run(&["savepoint", "release"], &[name]);
        fails(&kept, 2, "--yes releases it");
        assert!(String::from_utf8_lossy(&kept.stdout).contains(name), "it says what it would release");
        let kept: Value =
            serde_json::from_slice(&running.run(&["savepoint", "release"], &[name, "--json"]).stdout)
                .unwrap();
        assert_eq!((&kept["released"], &kept["savepoint"]["name"]), (&false.into(), &name.into()));
        assert!(succeeds(&running.run(&["savepoint", "release"], &[name, "--yes"])).contains("is released"));
    }
    assert!(succeeds(&running.run(&["savepoint", "list"], &[])).contains("No savepoints"));
    assert_eq!(running.pins(), 0);
    running.checkpoint();
}

#[test]
fn pins_are_shown_and_released_only_on_purpose() {
    let running = Running::new();
    assert!(succeeds(&running.run(&["pin", "list"], &[])).contains("No pins"));
    let options = ReaderOptions::new().dir(running.dir.path().join("reader"));
    // As if it had been killed.
    std::mem::forget(CheckpointReader::open(&running.url, &RestoreFrom::Latest, options).unwrap());
    succeeds(&running.run(&["savepoint", "create"], &["kept"]));
    let listed = json(&running.run(&["pin", "list"], &["--json"]));
    let listed = &listed["items"];
    assert_eq!((&listed[0]["holder"]["kind"], listed.as_array().unwrap().len()), (&"reader".into(), 1));
    let id = listed[0]["id"].as_str().unwrap();
    let text = succeeds(&running.run(&["pin", "list"], &[]));
    for part in [id, "a reader", "1-1"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }

    let text = succeeds(&running.run(&["inspect"], &[]));
    for part in ["Savepoints", "kept", "Pins", id, "savepoints and pins beside that"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let offset = |line: &str| line.trim_end().ends_with("/0");
    assert!(text.lines().any(offset), "what subtask 0 gave to its cut is missing in\n{text}");
    let seen = json(&running.run(&["inspect"], &["--json"]));
    assert_eq!(
        (&seen["savepoints"][0]["name"], &seen["savepoints"][0]["version"]),
        (&"kept".into(), &2.into())
    );
    assert_eq!(&seen["pins"], listed);
    let range = &seen["records"][1]["checkpoint"]["subtasks"][0]["range"];
    assert_eq!((range, &seen["schema_version"]), (&serde_json::json!({"first": 0, "last": 127}), &1.into()));

    fails(&running.run(&["pin", "release"], &["x"]), 1, id);
    fails(&running.run(&["pin", "release"], &["x", "--yes"]), 1, id);
    let kept = running.run(&["pin", "release"], &[id]);
    fails(&kept, 2, "--yes releases it. Say so only if no reader is at work");
    let text = String::from_utf8_lossy(&kept.stdout);
    for part in [id, "a reader", "keeps checkpoint 1-1"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let kept: Value =
        serde_json::from_slice(&running.run(&["pin", "release"], &[id, "--json"]).stdout).unwrap();
    assert_eq!(kept["released"], false);
    assert_eq!(running.pins(), 1, "a dry run");
    assert!(succeeds(&running.run(&["pin", "release"], &[id, "--yes"])).contains("is released"));
    assert_eq!(running.pins(), 0);
    let text = succeeds(&running.run(&["inspect"], &[]));
    assert!(!text.contains("Pins"), "{text}");
    running.opened.job.health().unwrap();
}

#[test]
fn get_prints_what_can_be_printed_and_tags_the_rest() {
    let running = Running::new();
    let get = |args: &[&str]| running.run(&["get"], args);
    assert_eq!(get(&["words", "page/3"]).stdout, b"value 3\n");
    assert_eq!(get(&["words", "other"]).stdout, b"base64:dHdvCmxpbmVz\n");
    assert_eq!(get(&["words", "other", "--raw"]).stdout, b"two\nlines");
    assert_eq!(get(&["words", "ff00", "--key-format", "hex"]).stdout, b"base64:/g==\n");
    assert_eq!(get(&["words", "/wA=", "--key-format", "base64", "--raw"]).stdout, b"\xfe");
    let got = json(&get(&["words", "ff00", "--key-format", "hex", "--json"]));
    assert_eq!(got["key"], serde_json::json!({"base64": "/wA="}));
    assert_eq!(got["value"], serde_json::json!({"base64": "/g=="}));
    let group = got["group"].to_string();
    assert_eq!(get(&["words", "ff00", "--key-format", "hex", "--group", &group]).stdout, b"base64:/g==\n");
    let got = json(&get(&["words", "other", "--json"]));
    assert_eq!(got["value"], serde_json::json!({"text": "two\nlines"}));
    assert_eq!((&got["state"], &got["checkpoint"]), (&"words".into(), &"1-1".into()));

    fails(&get(&["words", "nothing"]), 1, "has no key nothing");
    fails(&get(&["word", "other"]), 1, "choose one of [words]");
    fails(&get(&["words", "xyz", "--key-format", "hex"]), 2, "hexadecimal");
    fails(&get(&["words", "other", "--group", "128"]), 2, "0 to 127");
    fails(&get(&["words", "other", "--json", "--raw"]), 2, "cannot be used with");
    fails(&alluvium(&["get", "/nowhere/at/all", "words", "other"]), 1, "/nowhere/at/all");
    assert_eq!(running.pins(), 0, "no failure leaves a pin");
}

#[test]
fn scan_prints_a_line_for_each_entry() {
    let running = Running::new();
    let scan = |args: &[&str]| succeeds(&running.run(&["scan"], args));
    let all = scan(&["words"]);
    assert_eq!(all.lines().count(), 7);
    let groups: Vec<u16> =
        all.lines().map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
    assert!(groups.is_sorted(), "{all}");
    assert!(all.lines().any(|line| line.ends_with("\tpage/3\tvalue 3")), "{all}");
    assert!(all.lines().any(|line| line.ends_with("\tbase64:/wA=\tbase64:/g==")), "{all}");
    assert_eq!(scan(&["words", "--prefix", "page/"]).lines().count(), 5);
    assert_eq!(scan(&["words", "--prefix", "ff", "--key-format", "hex"]).lines().count(), 1);
    assert_eq!(scan(&["words", "--limit", "3"]).lines().count(), 3);
    let group = groups[0].to_string();
    let here = groups.iter().filter(|other| **other == groups[0]).count();
    assert_eq!(scan(&["words", "--group", &group]).lines().count(), here);
    let lines = scan(&["words", "--json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 7);
    assert!(lines.iter().any(|line| line["key"] == serde_json::json!({"text": "other"})));
    fails(&running.run(&["scan"], &["word"]), 1, "choose one of [words]");
    assert_eq!(running.pins(), 0);
}

#[test]
fn a_key_is_read_as_it_is_printed_and_failures_are_json_where_it_is_asked_for() {
    let running = Running::new();
    let printed = succeeds(&running.run(&["scan"], &["words"]));
    for line in printed.lines() {
        let [_, key, value] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!(succeeds(&running.run(&["get"], &["words", key])).trim_end(), value);
    }
    let failed = running.run(&["get"], &["words", "no-such-key", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert_eq!((&said["schema_version"], &said["error"]["exit"]), (&1.into(), &1.into()));
    assert!(said["error"]["message"].as_str().unwrap().contains("no-such-key"), "{said}");
    let wrong = running.run(&["get"], &["--bogus", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&wrong.stderr).unwrap();
    assert_eq!((&said["error"]["exit"], wrong.status.code()), (&2.into(), Some(2)));
}

#[test]
fn a_reader_without_a_pin_writes_nothing_and_says_when_its_checkpoint_is_gone() {
    let running = Running::new();
    assert_eq!(succeeds(&running.run(&["get"], &["words", "page/0", "--no-pin"])).trim_end(), "value 0");
    let open = |pin| {
        CheckpointReader::open(&running.url, &RestoreFrom::Latest, ReaderOptions::new().pin(pin)).unwrap()
    };
    let reader = open(false);
    assert_eq!(running.pins(), 0);
    open(true).close().unwrap();
    // As if the job had collected it.
    std::fs::remove_dir_all(format!("{}/manifest", running.url)).unwrap();
    let error = reader.get("words", b"page/1").unwrap_err();
    assert_eq!(error.kind(), alluvium::ErrorKind::MissingObject, "{error}");
    assert!(error.to_string().contains("read without a pin"), "{error}");
    reader.close().unwrap();
}

#[test]
fn help_is_worth_reading() {
    let help = succeeds(&alluvium(&["--help"]));
    for word in ["savepoint", "pin ", "get", "scan", "--savepoint before-upgrade"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = succeeds(&alluvium(&["get", "--help"]));
    for word in [
        "--checkpoint <ID>",
        "--savepoint <NAME>",
        "--key-format",
        "--namespace",
        "--map-key",
        "--show-expired",
        "base64:",
        "may be running",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let (arguments, _) = help.split_once("Source:").unwrap();
    for word in ["The state's name", "--map-key"] {
        assert!(arguments.contains(word), "{word} comes after the options of the source in\n{help}");
    }
    let help = succeeds(&alluvium(&["pin", "release", "--help"]));
    for word in ["--yes", "killed or is slow", "next garbage collection"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let help = succeeds(&alluvium(&["savepoint", "--help"]));
    for word in ["create", "list", "release"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}
