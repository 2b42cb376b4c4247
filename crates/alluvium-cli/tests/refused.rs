//! A command that is refused has touched no job: its chain is as it was, and its owner goes on.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use alluvium::{Job, JobOptions, OpenMode, Opened, StateOptions};

use alluvium_testkit::drive::{by_hand, checkpoint, put};

use crate::run::{alluvium, path, succeeds, tiny};

/// All files below a directory with their sizes.
fn objects(dir: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    found.insert(entry.path().display().to_string(), entry.metadata().unwrap().len());
                }
            }
        }
    }
    found
}

/// A running job of two subtasks that commits another checkpoint only while it is the owner.
struct Owner {
    url: String,
    opened: Opened,
}

impl Owner {
    fn new(dir: &Path) -> Self {
        let url = path(dir, "job");
        let options = JobOptions::new(dir.join("local"), OpenMode::CreateOrOpen).memory(16_000_000);
        let mut opened = Job::open(&url, options.materialization(by_hand())).unwrap();
        put(&mut opened.stores[0], "page/1", b"value").unwrap();
        let other = opened.stores[0].state(&StateOptions::new("other")).unwrap();
        let group = opened.stores[0].group_of(b"x");
        opened.stores[0].put(other, group, b"x", b"y").unwrap();
        checkpoint(&opened.job, &mut opened.stores, "not a workload").unwrap();
        checkpoint(&opened.job, &mut opened.stores, "not a workload").unwrap();
        Self { url, opened }
    }
}

/// Every command that can open a job, refused for each reason that it has.
#[test]
fn i2_a_refused_command_leaves_the_chain_and_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = Owner::new(dir.path());
    let url = owner.url.clone();
    let at = |name: &str| path(dir.path(), name);
    let exported = at("words.jsonl");
    succeeds(&alluvium(&["export", &url, "--state", "words", "-o", &exported, "-q"]));
    let broken = at("broken.jsonl");
    std::fs::write(&broken, "{}").unwrap();

    let load = |more: &[&'static str]| -> Vec<String> {
        let all = [&tiny("load", &[&url])[..], more].concat();
        all.iter().map(ToString::to_string).collect()
    };
    let import = |file: &str, more: &[&str]| -> Vec<String> {
        [&["import", &url, file][..], more].concat().iter().map(ToString::to_string).collect()
    };
    let restore = |more: &[&str]| -> Vec<String> {
        let restored = at("restored");
        let all = [&["restore-test", &url, "--dir", &restored][..], more].concat();
        all.iter().map(ToString::to_string).collect()
    };
    let words = |all: &[&str]| -> Vec<String> { all.iter().map(ToString::to_string).collect() };
    let refused = [
        load(&[]),
        load(&["--resume"]),
        load(&["--resume", "--subtasks", "3"]),
        load(&["--resume", "--memory", "1MB"]),
        words(&["compare", &url, "--modes", "none", "--keys", "0"]),
        restore(&[]),
        restore(&["--subtasks", "0"]),
        restore(&["--checkpoint", "9-9"]),
        restore(&["--savepoint", "none"]),
        import(&exported, &[]),
        import(&broken, &["--into-existing"]),
        import(&exported, &["--into-existing", "--subtasks", "3"]),
        import(&exported, &["--into-existing", "--memory", "1kB"]),
        import(&exported, &["--rename", "no-such=x"]),
        import(&at("no-such-file"), &[]),
        words(&["state", "drop", &url, "words", "--into", &url]),
        words(&["state", "drop", &url, "no-such", "--into", &at("new")]),
        words(&["state", "rename", &url, "words=hits", "--into", &url]),
        words(&["state", "rename", &url, "words=other", "--into", &at("new")]),
        words(&["savepoint", "create", &url, "x", "--checkpoint", "9-9"]),
        words(&["savepoint", "release", &url, "none"]),
        words(&["savepoint", "release", &url, "none", "--yes"]),
        words(&["pin", "release", &url, "none", "--yes"]),
        words(&["get", &url, "no-such", "key"]),
        words(&["scan", &url, "words", "--checkpoint", "9-9"]),
        words(&["export", &url, "--state", "no-such"]),
        words(&["inspect", &at("nothing")]),
    ];
    let before = objects(Path::new(&url));
    for args in &refused {
        let output = alluvium(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}: {said}");
        assert_eq!(objects(Path::new(&url)), before, "{args:?}: {said}");
        owner.opened.job.health().unwrap();
    }
    assert!(!Path::new(&at("new")).exists() || objects(Path::new(&at("new"))).is_empty(), "a job was begun");
    // The owner is told that it was fenced when it commits.
    checkpoint(&owner.opened.job, &mut owner.opened.stores, "").unwrap();
}

/// A load that runs on two subtasks, and one that wants to resume it on three.
#[test]
fn i2_a_load_is_not_fenced_by_one_that_asks_for_another_workload() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    succeeds(&alluvium(&tiny("load", &[&store, "-q"])));
    let before = objects(Path::new(&store));
    for wrong in [&["--subtasks", "3"][..], &["--keys", "3000"], &["--operation", "put"], &["--seed", "1"]] {
        let args = [&["load", &store, "--resume", "--duration", "1s"][..], wrong].concat();
        let output = alluvium(&args);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(objects(Path::new(&store)), before, "{wrong:?}");
    }
}
