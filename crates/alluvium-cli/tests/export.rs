//! State leaves the system and comes back: exactly the same, in both formats, or not at all.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use alluvium::admin::inspect;
use alluvium::{
    CheckpointReader, Job, JobOptions, KeyGroup, MaxParallelism, OpenMode, Opened, ReaderOptions,
    RestoreFrom, StateOptions, ValueState,
};
use serde_json::Value;

use crate::run::{alluvium, fails, succeeds};

use alluvium_testkit::drive::{by_hand, checkpoint, noise, put_any};

struct World {
    dir: tempfile::TempDir,
}

type All = Vec<(String, KeyGroup, Vec<u8>, Vec<u8>)>;

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn options(&self, name: &str) -> JobOptions {
        JobOptions::new(self.path(&format!("local-{name}")), OpenMode::CreateOrOpen)
            .subtasks(2)
            .memory(16_000_000)
            .materialization(by_hand())
    }

    /// A job with raw, appended and typed values, of which some are no text.
    fn job(&self, name: &str) -> Opened {
        let mut opened = Job::open(self.text(name), self.options(name)).unwrap();
        for n in 0..200_u64 {
            put_any(&mut opened.stores, &format!("key {n}"), &noise(n, 20));
            put_any(&mut opened.stores, &format!("Schlüssel {n}"), format!("Wert \"{n}\"\n").as_bytes());
        }
        for store in &mut opened.stores {
            let group = store.range().first;
            let list = store.state(&StateOptions::new("list")).unwrap();
            store.append(list, group, b"\xff\x00", b"one").unwrap();
            store.append(list, group, b"\xff\x00", b"two").unwrap();
            store.put(list, group, b"", b"").unwrap();
            let counts = store.register(ValueState::<u64>::descriptor("counts")).unwrap();
            let own = (0..).find(|n: &u32| store.set_key(n).is_ok()).unwrap();
            counts.put(store, &u64::from(own)).unwrap();
        }
        checkpoint(&opened.job, &mut opened.stores, "offset").unwrap();
        opened
    }

    fn all(&self, name: &str) -> All {
        let options = ReaderOptions::new().dir(self.path("reader"));
        let reader = CheckpointReader::open(self.text(name), &RestoreFrom::Latest, options).unwrap();
        let mut all = Vec::new();
        for state in reader.states() {
            for entry in reader.scan(state.name(), b"").unwrap() {
                let (group, key, value) = entry.unwrap();
                all.push((state.name().to_owned(), group, key, value));
            }
        }
        reader.close().unwrap();
        all
    }

    fn export(&self, name: &str, args: &[&str]) -> Vec<u8> {
        let mut command = vec!["export", "--quiet"];
        let url = self.text(name);
        command.push(&url);
        command.extend(args);
        let output = alluvium(&command);
        succeeds(&output);
        output.stdout
    }

    fn import(&self, name: &str, file: &str, args: &[&str]) -> Output {
        let (url, file) = (self.text(name), self.text(file));
        let mut command = vec!["import", &url, &file];
        command.extend(args);
        alluvium(&command)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn checkpoints(&self, name: &str) -> usize {
        let seen = inspect(self.text(name)).unwrap();
        seen.records.iter().filter(|record| record.checkpoint.is_some()).count()
    }
}

#[test]
fn export_import_export_is_byte_identical_in_both_formats() {
    let world = World::new();
    drop(world.job("source"));
    let (json, raw) = (world.export("source", &[]), world.export("source", &["--raw"]));
    assert!(raw.len() < json.len());
    world.write("all.jsonl", &json);
    world.write("all.bin", &raw);
    for (target, file, subtasks) in [("a", "all.jsonl", "1"), ("b", "all.bin", "3")] {
        let output = world.import(target, file, &["--json", "--subtasks", subtasks]);
        succeeds(&output);
        let imported: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(imported["entries"], world.all("source").len());
        assert_eq!(imported["states"], serde_json::json!(["counts", "list", "words"]));
        assert!(world.all(target) == world.all("source"), "{target}");
        assert!(world.export(target, &[]) == json, "{target} as JSON");
        assert!(world.export(target, &["--raw"]) == raw, "{target} raw");
        assert_eq!(world.checkpoints(target), 1, "one checkpoint");
    }
    // A job goes on from what was imported, with the types that it had.
    let mut opened = Job::open(world.text("b"), world.options("b").subtasks(3)).unwrap();
    let mut found = 0;
    for store in &mut opened.stores {
        let counts = store.register(ValueState::<u64>::descriptor("counts")).unwrap();
        for n in 0..100_u32 {
            if store.set_key(&n).is_ok()
                && let Some(value) = counts.get(store).unwrap()
            {
                assert_eq!(value, u64::from(n));
                found += 1;
            }
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn lines_are_sorted_and_tell_text_from_bytes() {
    let world = World::new();
    drop(world.job("source"));
    let lines = String::from_utf8(world.export("source", &["--state", "list", "--state", "words"])).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (header, rest) = lines.split_first().unwrap();
    let (end, entries) = rest.split_last().unwrap();
    assert_eq!((&header["alluvium_export"], &header["max_parallelism"]), (&1.into(), &128.into()));
    assert_eq!(header["states"].as_array().unwrap().len(), 2);
    assert_eq!(end["entries"], entries.len());
    let order: Vec<_> = entries
        .iter()
        .map(|line| (line["state"].as_str().unwrap().to_owned(), line["group"].as_u64().unwrap()))
        .collect();
    assert!(order.is_sorted());
    let appended = serde_json::json!({"state": "list", "kind": "raw", "group": 0, "key": {"base64": "/wA="}, "value": {"text": "onetwo"}});
    assert!(entries.contains(&appended), "{entries:#?}");
    assert!(entries.iter().any(|line| line["key"] == serde_json::json!({"text": "Schlüssel 7"})));

    fails(&alluvium(&["export", &world.text("source"), "--state", "word"]), 1, "choose one of [");
    let file = world.text("words.jsonl");
    let written = alluvium(&["export", &world.text("source"), "--state", "words", "-o", &file, "--json"]);
    let written: Value = serde_json::from_str(&succeeds(&written)).unwrap();
    let lines = std::fs::read_to_string(&file).unwrap().lines().count() as u64;
    assert_eq!((&written["file"], &written["entries"]), (&file.as_str().into(), &(lines - 2).into()));
    assert_eq!((&written["checkpoint"], &written["states"]), (&"1-1".into(), &serde_json::json!(["words"])));
    fails(&alluvium(&["export", &world.text("source"), "--raw", "--json"]), 2, "not JSON");
    assert_eq!(std::fs::read(file).unwrap(), world.export("source", &["--state", "words"]));
    let nowhere = world.text("no/such/place");
    fails(&alluvium(&["export", &world.text("source"), "-o", &nowhere]), 1, "no/such/place");
    // What others read from must not be replaced by a file.
    let elsewhere = tempfile::tempdir().unwrap();
    let socket = elsewhere.path().join("socket").to_str().unwrap().to_owned();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fails(&alluvium(&["export", &world.text("source"), "-o", &socket]), 2, "not a regular file");
    assert!(!std::fs::metadata(&socket).unwrap().is_file());
    assert!(!files(world.dir.path()).iter().any(|name| name.contains("partial") || name.contains("pin/")));
}

fn files(dir: &Path) -> Vec<String> {
    alluvium_testkit::objects::files_below(dir).into_keys().collect()
}

#[test]
fn a_savepoint_can_be_exported_and_a_pipe_be_imported() {
    let world = World::new();
    let mut opened = world.job("source");
    succeeds(&alluvium(&["savepoint", "create", &world.text("source"), "kept"]));
    let before = world.export("source", &[]);
    put_any(&mut opened.stores, "key 1", b"later");
    for _ in 0..4 {
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    }
    assert!(world.export("source", &[]) != before);
    let exported = world.export("source", &["--savepoint", "kept"]);
    assert!(exported == before);
    opened.job.health().unwrap();

    let mut import = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["import", &world.text("piped"), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(&exported).unwrap();
    let output = import.wait_with_output().unwrap();
    succeeds(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("entries of counts, list, words"));
    assert!(world.export("piped", &[]) == before);
}

#[test]
fn what_is_there_is_not_overwritten_unless_told() {
    let world = World::new();
    drop(world.job("source"));
    let words = world.export("source", &["--state", "words"]);
    world.write("words.jsonl", &words);

    // Another job, with a state of its own and one of the same name.
    let mut opened = Job::open(world.text("target"), world.options("target")).unwrap();
    put_any(&mut opened.stores, "key 1", b"mine");
    put_any(&mut opened.stores, "own", b"mine");
    for store in &mut opened.stores {
        let other = store.state(&StateOptions::new("other")).unwrap();
        let group = store.range().first;
        store.put(other, group, b"x", b"y").unwrap();
    }
    checkpoint(&opened.job, &mut opened.stores, "offset").unwrap();
    let before = world.all("target");
    fails(&world.import("target", "words.jsonl", &[]), 1, "--into-existing");
    opened.job.health().unwrap();
    drop(opened);
    assert!(world.all("target") == before);
    assert_eq!(world.checkpoints("target"), 1);

    // The offsets of two subtasks are not those of three.
    fails(&world.import("target", "words.jsonl", &["--into-existing", "--subtasks", "3"]), 2, "--subtasks");
    assert_eq!(world.checkpoints("target"), 1);
    succeeds(&world.import("target", "words.jsonl", &["--into-existing"]));
    let after = world.all("target");
    let others = |all: &All| all.iter().filter(|entry| entry.0 == "other").count();
    assert_eq!(others(&after), 2);
    let source = world.all("source");
    let imported: Vec<_> = source.iter().filter(|entry| entry.0 == "words").collect();
    assert!(imported.iter().all(|entry| after.contains(entry)));
    assert_eq!(after.len(), imported.len() + 3, "one key of its own, and two of another state");
    assert!(after.iter().any(|(_, _, key, value)| key == b"own" && value == b"mine"));
    // The source offsets are still those of the job.
    let opened = Job::open(world.text("target"), world.options("target")).unwrap();
    assert_eq!(opened.metadata.as_deref(), Some(b"offset".as_slice()));
    assert_eq!(opened.stores[1].restored_metadata(), Some(b"offset/1".as_slice()));
    drop(opened);

    // A job that does not fit.
    let options = world.options("small").max_parallelism(MaxParallelism::new(64).unwrap());
    let mut opened = Job::open(world.text("small"), options).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    fails(&world.import("small", "words.jsonl", &[]), 1, "64");
    let mut opened = Job::open(world.text("typed"), world.options("typed")).unwrap();
    opened.stores.iter_mut().for_each(|store| {
        store.register(ValueState::<u64>::descriptor("words")).unwrap();
    });
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    fails(&world.import("typed", "words.jsonl", &[]), 1, "\"words\"");
}

#[test]
fn damage_changes_nothing_and_is_said_precisely() {
    let world = World::new();
    drop(world.job("source"));
    let (json, raw) = (world.export("source", &[]), world.export("source", &["--raw"]));
    let mut flipped = raw.clone();
    let at = flipped.len() - 14;
    flipped[at] ^= 1;
    let text = String::from_utf8(json.clone()).unwrap();
    let line = text.lines().position(|line| line.contains("Schl")).unwrap() + 1;
    let changed = text.replacen("Schl", "Stuhl", 1);
    let misspelt = text.replacen("{\"text\":\"Schl", "{\"txt\":\"Schl", 1);
    let within_line_2 = text.find('\n').unwrap() + 20;
    let at_line = format!("line {line}");
    let cases: &[(&[u8], &str)] = &[
        (b"", "empty"),
        (b"dear diary\n", "line 1 is not the header"),
        (&json[..within_line_2], "damaged: line 2"),
        (&raw[..raw.len() / 2], "not whole"),
        (&flipped, "checksum"),
        (changed.as_bytes(), "checksum"),
        (misspelt.as_bytes(), &at_line),
    ];
    for (bytes, message) in cases {
        world.write("damaged", bytes);
        fails(&world.import("target", "damaged", &[]), 1, message);
        if world.path("target").exists() {
            assert_eq!(world.checkpoints("target"), 0, "{message}");
        }
    }
    fails(&world.import("target", "absent", &[]), 1, "absent");
    // The place is none the worse for it.
    world.write("whole", &json);
    succeeds(&world.import("target", "whole", &[]));
    assert!(world.export("target", &[]) == json);
}

#[test]
fn a_state_gets_another_name_by_the_import() {
    let world = World::new();
    drop(world.job("source"));
    world.write("all.jsonl", &world.export("source", &[]));
    world.write("all.bin", &world.export("source", &["--raw"]));
    for (target, file) in [("a", "all.jsonl"), ("b", "all.bin")] {
        succeeds(&world.import(target, file, &["--rename", "words=texts", "--rename", "counts=clicks"]));
        let renamed = |mut all: All| {
            all.retain(|(name, ..)| name != "list");
            let new = |name: &str| if name == "words" { "texts" } else { "clicks" }.to_owned();
            all.iter_mut().for_each(|(name, ..)| *name = new(name));
            all.sort();
            all
        };
        let mut found = world.all(target);
        found.retain(|(name, ..)| name != "list");
        found.sort();
        assert!(found == renamed(world.all("source")), "{target}");
    }
    // Into a job that has it under that name already.
    let renames = ["--rename", "words=texts", "--rename", "list=l", "--rename", "counts=c"];
    fails(&world.import("a", "all.jsonl", &renames), 1, "\"texts\" of the job is not empty");
    for (rename, says) in [
        ("nothing=b", "no state \"nothing\""),
        ("words=list", "\"list\" already"),
        ("words", "old=new"),
        ("words=", "old=new"),
    ] {
        fails(&world.import("c", "all.jsonl", &["--rename", rename]), 2, says);
    }
    assert!(!world.path("c").exists());
}

/// Also one that is only found out at its end.
#[test]
fn a_refused_import_leaves_nothing_behind() {
    let world = World::new();
    drop(world.job("source"));
    let json = String::from_utf8(world.export("source", &[])).unwrap();
    let raw = world.export("source", &["--raw"]);
    let last = json.lines().last().unwrap();
    world.write("cut.jsonl", json.replace(&format!("{last}\n"), "").as_bytes());
    world.write("cut.bin", &raw[..raw.len() - 1]);
    world.write("renamed.jsonl", json.replace("\"words\"", "\"texts\"").as_bytes());
    world.write("damaged.jsonl", json.replacen("key 7", "key 8", 1).as_bytes());
    for (file, says) in [
        ("cut.jsonl", "ends without"),
        ("cut.bin", "not whole"),
        ("renamed.jsonl", "import --rename"),
        ("damaged.jsonl", "checksum"),
        ("absent", "read"),
    ] {
        let output = world.import("target", file, &[]);
        fails(&output, 1, says);
        assert!(!world.path("target").exists(), "{file} left something behind");
    }
    // Standard input cannot be read twice, but it is not believed either.
    let mut child = Command::new(env!("CARGO_BIN_EXE_alluvium"))
        .args(["import", &world.text("target"), "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&raw[..raw.len() - 1]).unwrap();
    fails(&child.wait_with_output().unwrap(), 1, "standard input");
    assert!(!world.path("target").exists());
}
