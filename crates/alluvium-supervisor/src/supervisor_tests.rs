//! The supervisor over real processes: small shell scripts. What is asserted is what they did, never how long it took.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Ended, Exit, Outcome, Policy, Program, Supervisor};

/// A directory for what scripts leave, and what was told.
struct Case {
    dir: TempDir,
    told: Vec<String>,
    stop: Arc<AtomicBool>,
}

impl Case {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), told: Vec::new(), stop: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a script wrote.
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs a script, with the directory as `$D`.
    fn run(&mut self, processes: u32, policy: Policy, script: &str) -> Outcome {
        let program = Program::new("sh").args(["-c", script]).env("D", self.dir.path());
        let supervisor = Supervisor::new(program).processes(processes).workers(3).policy(policy);
        let told = &mut self.told;
        supervisor.run(&self.stop, &mut |notice| told.push(notice.to_string())).unwrap()
    }

    fn was_told(&self, text: &str) -> usize {
        self.told.iter().filter(|told| told.contains(text)).count()
    }

    /// Sets `stop` once a script has made a file.
    fn stop_after(&self, name: &str) {
        let (stop, file) = (Arc::clone(&self.stop), self.path(name));
        std::thread::spawn(move || {
            until(|| file.exists());
            stop.store(true, Ordering::Release);
        });
    }
}

fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Restarts at once; everything else takes as long as it takes.
fn hasty() -> Policy {
    Policy::default()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .grace(Duration::from_secs(600))
        .limit(Some(3), Duration::from_secs(3600))
}

/// Whether a process is no more: gone, or waiting for a parent that never asks.
fn has_ended(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

#[test]
fn every_process_learns_its_place() {
    let mut case = Case::new();
    let script = "echo $ALLUVIUM_PROCESS/$ALLUVIUM_PROCESSES/$ALLUVIUM_WORKERS/$ALLUVIUM_RESTARTS \
        $ALLUVIUM_INSTANCE $ALLUVIUM_ADDRESSES $ALLUVIUM_SECRET >$D/$ALLUVIUM_PROCESS";
    assert_eq!(case.run(2, hasty(), script), Outcome::Well);
    let (first, second) = (case.read("0"), case.read("1"));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (words(&first), words(&second));
    assert_eq!((first[0].as_str(), second[0].as_str()), ("0/2/3/0", "1/2/3/0"));
    assert_eq!(first[1..], second[1..], "the rest is the same for both");
    let addresses: Vec<_> = first[2].split(',').collect();
    assert!(addresses.len() == 2 && addresses[0] != addresses[1], "{addresses:?}");
    assert!(addresses.iter().all(|address| address.starts_with("127.0.0.1:")), "{addresses:?}");
    assert_eq!((first[1].len(), first[3].len()), (32, 64));
}

#[test]
fn when_one_is_killed_all_start_again_with_another_name_and_secret() {
    let mut case = Case::new();
    let script = "echo $ALLUVIUM_INSTANCE $ALLUVIUM_SECRET >>$D/$ALLUVIUM_PROCESS.log
        [ $ALLUVIUM_RESTARTS = 0 ] || exit 0
        if [ $ALLUVIUM_PROCESS = 1 ]; then
            until [ -s $D/0.log ]; do sleep 0.01; done
            kill -9 $$
        fi
        exec sleep 1000";
    assert_eq!(case.run(2, hasty(), script), Outcome::Well);
    for process in 0..2 {
        let log = case.read(&format!("{process}.log"));
        let words: Vec<_> = log.split_whitespace().collect();
        assert_eq!(words.len(), 4, "{process} was started twice: {log}");
        assert!(words[0] != words[2] && words[1] != words[3], "{log}");
    }
    assert_eq!(case.was_told("process 1 was ended by signal 9"), 1, "{:?}", case.told);
    assert_eq!(case.was_told("process 0 was ended by signal 15"), 1, "{:?}", case.told);
    assert_eq!(case.was_told("started again, restart 1"), 1, "{:?}", case.told);
}

#[test]
fn one_that_does_not_listen_is_killed_with_all_that_it_has_started() {
    let mut case = Case::new();
    let script = "if [ $ALLUVIUM_PROCESS = 0 ]; then
            until [ -s $D/deaf ]; do sleep 0.01; done
            exit 3
        fi
        trap '' TERM
        sleep 1000 & echo $! >$D/deaf
        while :; do sleep 0.05; done";
    let outcome = case.run(2, hasty().grace(Duration::from_millis(100)), script);
    assert_eq!(outcome, Outcome::Final { process: 0, exit: Exit::Fenced });
    assert_eq!(case.was_told("killing 1 process"), 1, "{:?}", case.told);
    assert_eq!(case.was_told("process 1 was ended by signal 9"), 1, "{:?}", case.told);
    until(|| has_ended(case.read("deaf").trim()));
}

#[test]
fn what_a_process_leaves_behind_ends_with_it() {
    let mut case = Case::new();
    let outcome = case.run(1, hasty(), "sleep 1000 & echo $! >$D/left; exit 0");
    assert_eq!(outcome, Outcome::Well);
    until(|| has_ended(case.read("left").trim()));
}

#[test]
fn a_crash_loop_comes_to_its_end() {
    let mut case = Case::new();
    let outcome = case.run(1, hasty(), "echo x >>$D/starts; exit 1");
    assert_eq!(outcome, Outcome::GivenUp { process: 0, how: Ended::Code(1), restarts: 3 });
    assert_eq!(outcome.exit(), Exit::GivenUp);
    assert_eq!(case.read("starts").lines().count(), 4);
}

#[test]
fn a_stop_is_passed_on_and_a_last_checkpoint_has_its_time() {
    let mut case = Case::new();
    case.stop_after("ready.1");
    let script = "trap 'echo stopped >>$D/log; exit 0' TERM
        [ $ALLUVIUM_PROCESS = 0 ] || until [ -e $D/ready.0 ]; do sleep 0.01; done
        : >$D/ready.$ALLUVIUM_PROCESS
        while :; do sleep 0.02; done";
    assert_eq!(case.run(2, hasty(), script), Outcome::Stopped { well: true });
    assert_eq!(case.read("log").lines().count(), 2);

    let mut careless = Case::new();
    careless.stop_after("ready");
    let outcome = careless.run(1, hasty(), ": >$D/ready; exec sleep 1000");
    assert_eq!((outcome.exit(), outcome), (Exit::Interrupted, Outcome::Stopped { well: false }));
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let supervisor = Supervisor::new(Program::new("/nonexistent/program")).processes(2);
    let outcome = supervisor.run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(outcome.exit(), Exit::Usage);
    assert!(outcome.to_string().contains("/nonexistent/program"), "{outcome}");
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_starts() {
    let supervisor = || Supervisor::new(Program::new("/nonexistent/program"));
    for wrong in [
        supervisor().processes(0),
        supervisor().workers(0),
        supervisor().processes(1025),
        supervisor().policy(Policy::default().limit(Some(1), Duration::ZERO)),
    ] {
        wrong.run(&AtomicBool::new(false), &mut |_| unreachable!("nothing happens")).unwrap_err();
    }
}
