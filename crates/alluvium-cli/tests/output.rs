//! Where results go: files, pipes, devices, and readers that have gone away.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::run::{alluvium, command, fails, interruptible, path, signal, succeeds, tiny};

#[test]
fn a_result_goes_into_a_pipe_beside_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = path(dir.path(), "pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = command(&tiny("load", &["-q", "-o", &pipe])).stdout(Stdio::piped()).spawn().unwrap();
    let read = std::fs::read_to_string(&pipe).unwrap();
    let result: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(result["load"]["records"], 2000);
    let mut table = String::new();
    child.stdout.take().unwrap().read_to_string(&mut table).unwrap();
    assert!(child.wait().unwrap().success() && table.contains("records/s"), "{table}");
}

#[test]
fn a_result_that_cannot_be_written_is_printed() {
    let output = alluvium(&tiny("load", &["-q", "-o", "/dev/full"]));
    fails(&output, 1, "/dev/full");
    let out = String::from_utf8(output.stdout).unwrap();
    let json = &out[out.find('{').expect("the result as JSON after the table")..];
    let result: Value = serde_json::from_str(json).unwrap();
    assert_eq!(result["load"]["records"], 2000);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    succeeds(&alluvium(&tiny("load", &[&store, "-q"])));
    for args in
        [&["export", &store, "-q"][..], &["scan", &store, "reference"], &["inspect", &store, "--json"]]
    {
        let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Before it has written anything, or in the middle.
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn a_signal_releases_the_pin_of_a_reader_whose_output_nobody_takes() {
    let dir = tempfile::tempdir().unwrap();
    let store = path(dir.path(), "job");
    succeeds(&alluvium(&tiny("load", &[&store, "-q", "--value-bytes", "500"])));
    let pins = || std::fs::read_dir(format!("{store}/pin")).map_or(0, Iterator::count);
    let mut child = interruptible(&["scan", &store, "reference"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    // It writes, and then nobody reads on.
    out.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(pins(), 1);
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    fails(&ended, 130, "interrupted");
    assert_eq!(pins(), 0);
    drop(out);
}

#[test]
fn a_killed_process_leaves_nothing_that_the_next_one_does_not_remove() {
    let dir = tempfile::tempdir().unwrap();
    let (store, local) = (path(dir.path(), "job"), path(dir.path(), "local"));
    succeeds(&alluvium(&tiny("load", &[&store, "-q"])));
    let mut import = command(&["import", &path(dir.path(), "new"), "-", "--temp-dir", &local]);
    let mut child = import.stdin(Stdio::piped()).spawn().unwrap();
    while std::fs::read_dir(&local).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Its directory is marked once the file is there.
    let inside = || {
        std::fs::read_dir(&local).unwrap().flatten().flat_map(|dir| std::fs::read_dir(dir.path()).unwrap())
    };
    while inside().flatten().all(|file| file.file_name() != ".alluvium-in-use") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(&local).unwrap().count(), 1);
    succeeds(&alluvium(&["scan", &store, "reference", "--limit", "1", "--temp-dir", &local]));
    assert_eq!(std::fs::read_dir(&local).unwrap().count(), 0);
}
