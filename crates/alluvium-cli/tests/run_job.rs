//! `alluvium run-job` from outside: what it passes on, how it ends, and that nothing outlives it.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use alluvium_testkit::eventually;
use tempfile::TempDir;

use crate::run::{alluvium, command, fails, interruptible, signal, succeeds};

const SOON: Duration = Duration::from_secs(60);

/// Runs a script by the shell, under these options.
fn line<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["run-job"], options, &["--", "sh", "-c", script]].concat()
}

/// A script whose processes leave their numbers in a directory, and then do the rest.
struct Running {
    dir: TempDir,
    child: Child,
}

impl Running {
    fn start(options: &[&str], rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Its name appears once the number is in it.
        let ready = "mv $D/new.$ALLUVIUM_PROCESS $D/pid.$ALLUVIUM_PROCESS";
        let script = format!("echo $$ >$D/new.$ALLUVIUM_PROCESS; {}", rest.replace("READY", ready));
        let child = interruptible(&line(options, &script))
            .env("D", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        Self { dir, child }
    }

    /// The numbers of all processes, once all are there.
    fn pids(&self, processes: u32) -> Vec<String> {
        let files: Vec<_> = (0..processes).map(|n| self.dir.path().join(format!("pid.{n}"))).collect();
        eventually("all processes run", SOON, || files.iter().all(|file| file.exists()));
        files.iter().map(|file| std::fs::read_to_string(file).unwrap().trim().to_owned()).collect()
    }
}

/// Whether a process is no more: gone, or waiting for a parent that never asks.
fn has_ended(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

#[test]
fn lines_are_passed_on_with_the_index_of_their_process() {
    let script = "echo out $ALLUVIUM_PROCESS of $ALLUVIUM_PROCESSES by $ALLUVIUM_WORKERS; echo err >&2";
    let output = alluvium(&line(&["-n", "2", "-w", "3"], script));
    let out = succeeds(&output);
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[0] out 0 of 2 by 3", "[1] out 1 of 2 by 3"]);
    let err = String::from_utf8_lossy(&output.stderr);
    for line in ["[0] err", "[1] err", "run-job: started", "run-job: process 1 ended with exit code 0"] {
        assert!(err.lines().any(|said| said.starts_with(line)), "{line}: {err}");
    }
    let quiet = alluvium(&line(&["--quiet"], "exit 0"));
    assert_eq!((succeeds(&quiet).as_str(), quiet.stderr.as_slice()), ("", &b""[..]));
}

#[test]
fn it_ends_with_the_code_that_it_does_not_start_after() {
    fails(&alluvium(&line(&[], "exit 3")), 3, "would fence the later attempt");
    fails(&alluvium(&line(&[], "exit 2")), 2, "would fail alike");
    let hasty = ["--max-restarts", "2", "--backoff", "1ms", "--max-backoff", "1ms"];
    let output = alluvium(&line(&hasty, "echo start; exit 5"));
    fails(&output, 6, "given up after 2 restarts: process 0 ended with exit code 5");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[0] start\n".repeat(3));
    fails(&alluvium(&["run-job", "--", "/nonexistent/program"]), 2, "/nonexistent/program");
    for wrong in [&["run-job"][..], &["run-job", "sh"], &["run-job", "-n", "0", "--", "sh"]] {
        assert_eq!(alluvium(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn the_program_s_own_options_are_not_those_of_the_command() {
    let output = alluvium(&[&line(&[], "echo $@; exit 3")[..], &["sh", "--json", "-n", "7"]].concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[0] --json -n 7\n");
    fails(&output, 3, "error: process 0");
}

#[test]
fn a_signal_is_passed_on_and_the_processes_have_time_for_their_end() {
    for name in ["TERM", "INT"] {
        let trap =
            "trap 'echo $ALLUVIUM_PROCESS >>$D/ended; exit 0' TERM; READY; while :; do sleep 0.02; done";
        let mut running = Running::start(&["-n", "2", "--grace", "10m"], trap);
        let pids = running.pids(2);
        signal(&running.child, name);
        assert_eq!(running.child.wait().unwrap().code(), Some(0), "{name}");
        assert_eq!(std::fs::read_to_string(running.dir.path().join("ended")).unwrap().lines().count(), 2);
        assert!(pids.iter().all(|pid| has_ended(pid)));
    }
    let mut careless = Running::start(&["--grace", "10m"], "READY; exec sleep 1000");
    careless.pids(1);
    signal(&careless.child, "TERM");
    assert_eq!(careless.child.wait().unwrap().code(), Some(130), "by a signal");
}

/// Neither does a second signal wait for processes that do not listen, nor do they survive it.
#[test]
fn nothing_outlives_it() {
    for ends in ["a second signal", "SIGKILL"] {
        let mut running =
            Running::start(&["-n", "3", "--grace", "10m"], "trap '' TERM INT; READY; exec sleep 1000");
        let pids = running.pids(3);
        assert!(!pids.iter().any(|pid| has_ended(pid)));
        if ends == "SIGKILL" {
            running.child.kill().unwrap();
        } else {
            // The same signal may be seen once only, where both come before it looks.
            signal(&running.child, "TERM");
            eventually("it has seen the first one", SOON, || {
                signal(&running.child, "INT");
                running.child.try_wait().unwrap().is_some()
            });
        }
        let code = running.child.wait().unwrap().code();
        assert_eq!(code, if ends == "SIGKILL" { None } else { Some(130) });
        eventually(ends, SOON, || pids.iter().all(|pid| has_ended(pid)));
    }
}

#[test]
fn a_secret_that_is_there_already_is_left_alone() {
    let script = "echo $ALLUVIUM_SECRET $ALLUVIUM_SECRET_FILE";
    let said = |name: &str| {
        let mut command = command(&line(&[], script));
        command.env_remove("ALLUVIUM_SECRET").env_remove("ALLUVIUM_SECRET_FILE");
        if !name.is_empty() {
            command.env(name, "of the user");
        }
        succeeds(&command.output().unwrap())
    };
    assert_eq!(said("ALLUVIUM_SECRET"), "[0] of the user\n");
    assert_eq!(said("ALLUVIUM_SECRET_FILE"), "[0] of the user\n");
    assert_eq!(said("").len(), "[0] \n".len() + 64);
}
