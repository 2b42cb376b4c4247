//! Damage in a job's store: what is said of it first, and what can still be restored.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use alluvium::{Job, OpenMode};
use serde_json::Value;

use alluvium_testkit::drive::{checkpoint, put, quiet};

use crate::run::{alluvium, fails, json, path, succeeds, tiny};

/// A job of `alluvium load` with several checkpoints, of which the older ones have no base of their own.
fn loaded(dir: &Path) -> String {
    let store = path(dir, "job");
    let args = [&store, "-q", "--materialization-interval", "100ms", "--value-bytes", "1000"];
    succeeds(&alluvium(&tiny("load", &args)));
    store
}

fn inspected(store: &str) -> (Option<i32>, String, Value) {
    let output = alluvium(&["inspect", store]);
    let seen = alluvium(&["inspect", store, "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text, serde_json::from_slice(&seen.stdout).unwrap())
}

fn files(dir: PathBuf, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false if entry.path().to_str().unwrap().ends_with(ending) => found.push(entry.path()),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn restore(store: &str, name: &str, args: &[&str]) -> std::process::Output {
    let dir = format!("{store}-{name}");
    alluvium(&[&["restore-test", store, "--dir", &dir, "--memory", "32MB"], args].concat())
}

/// Flips a bit of a file.
fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// The arguments of the command that `inspect` says to try.
fn trial(text: &str) -> String {
    let (_, after) = text.split_once("Try it: alluvium ").unwrap_or_else(|| panic!("no command in\n{text}"));
    after.split(". ").next().unwrap().to_owned()
}

#[test]
fn i4_objects_that_are_missing_or_cut_are_the_first_that_inspect_says() {
    for cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = loaded(dir.path());
        let (code, text, seen) = inspected(&store);
        assert_eq!(
            (code, &seen["missing"], &seen["cut"]),
            (Some(0), &Value::from([""; 0]), &Value::from([""; 0]))
        );
        assert!(!text.contains("DAMAGED"), "{text}");

        // Every object of data: no checkpoint survives that.
        let objects = files(Path::new(&store).join("data"), "");
        assert!(!objects.is_empty());
        for object in &objects {
            match cut {
                true => std::fs::File::options().write(true).open(object).unwrap().set_len(10).unwrap(),
                false => std::fs::remove_file(object).unwrap(),
            }
        }
        let (code, text, seen) = inspected(&store);
        assert_eq!(code, Some(1));
        assert!(text.starts_with("DAMAGED\n  Checkpoint "), "{text}");
        let says = if cut { "has 10 bytes of at least" } else { "does not exist" };
        assert!(text.contains(says) && text.contains("No retained checkpoint is intact"), "{text}");
        assert!(text.contains("Manifest chain"), "what can be read is shown: {text}");
        let lists =
            (seen["missing"].as_array().unwrap().is_empty(), seen["cut"].as_array().unwrap().is_empty());
        assert_eq!(lists, (cut, !cut));
        let manifests = files(Path::new(&store).join("manifest"), "").len();
        fails(&restore(&store, "x", &[]), 1, "damaged");
        assert_eq!(files(Path::new(&store).join("manifest"), "").len(), manifests, "no attempt was begun");
    }
}

#[test]
fn i4_a_flipped_bit_in_a_manifest_leaves_the_older_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = loaded(dir.path());
    let (_, _, seen) = inspected(&store);
    let ids: Vec<String> = seen["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["checkpoint"]["retained"] == true)
        .map(|record| record["checkpoint"]["id"].as_str().unwrap().to_owned())
        .collect();
    let [.., older, newest] = ids.as_slice() else { panic!("{ids:?}") };
    let savepoint = alluvium(&["savepoint", "create", &store, "kept", "--checkpoint", older]);
    succeeds(&savepoint);
    let manifest = files(Path::new(&store).join("manifest"), "").pop().unwrap();
    flip(&manifest);

    let (code, text, _) = inspected(&store);
    assert_eq!(code, Some(1));
    let first = text.lines().nth(1).unwrap();
    assert!(text.starts_with("DAMAGED") && first.contains("of the manifest chain cannot be read"), "{text}");
    let way_out = format!("The newest intact checkpoint is {older}");
    assert!(text.contains(&way_out), "{text}");
    let restored = format!("{store}-tried");
    let trial = trial(&text).replace("DIR", &restored);
    assert!(trial.contains("restore-test") && trial.contains(&format!("--checkpoint {older}")), "{trial}");
    succeeds(&alluvium(&trial.split(' ').collect::<Vec<_>>()));
    assert!(text.contains("Manifest chain"), "{text}");

    fails(&restore(&store, "a", &[]), 1, &format!("--fallback goes back to {older}"));
    fails(&restore(&store, "b", &["--checkpoint", newest]), 1, "choose one of");
    for (name, args) in
        [("c", &["--checkpoint", older][..]), ("d", &["--savepoint", "kept"]), ("e", &["--fallback"])]
    {
        let result = json(&restore(&store, name, &[args, &["--verify", "--json", "-q"]].concat()));
        assert_eq!(result["restore"]["wrong_keys"], 0, "{name}");
    }
}

/// `restore-test` knows what a load must have left, and nothing of other jobs.
#[test]
fn i4_the_way_out_of_a_job_that_no_load_has_made_is_a_command_that_works_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = path(dir.path(), "job");
    let mut opened = Job::open(&url, quiet(&dir.path().join("local"), OpenMode::Create)).unwrap();
    put(&mut opened.stores[0], "key", b"value").unwrap();
    let older = checkpoint(&opened.job, &mut opened.stores, "offset 1").unwrap().id.to_string();
    let savepoint = alluvium(&["savepoint", "create", &url, "kept"]);
    succeeds(&savepoint);
    checkpoint(&opened.job, &mut opened.stores, "offset 2").unwrap();
    opened.job.close().unwrap();
    flip(files(Path::new(&url).join("manifest"), "").last().unwrap());

    let (code, text, _) = inspected(&url);
    assert_eq!(code, Some(1));
    let trial = trial(&text);
    assert!(trial.starts_with("state list") && trial.contains(&format!("--checkpoint {older}")), "{trial}");
    let shown = succeeds(&alluvium(&trial.split(' ').collect::<Vec<_>>()));
    assert!(shown.contains("words"), "{shown}");

    // A damaged savepoint goes as well, when that is wanted.
    flip(files(Path::new(&url).join("savepoint"), "").last().unwrap());
    let kept = alluvium(&["savepoint", "release", &url, "kept"]);
    fails(&kept, 2, "--yes releases it");
    assert!(String::from_utf8_lossy(&kept.stdout).contains("cannot be read"), "{kept:?}");
    succeeds(&alluvium(&["savepoint", "release", &url, "kept", "--yes"]));
    assert!(succeeds(&alluvium(&["savepoint", "list", &url])).contains("No savepoints"));
}
