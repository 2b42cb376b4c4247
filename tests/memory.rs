//! I6: what a process takes is what the job was given, a constant, and a little for each subtask, whatever the
//! number of subtasks and whatever they write. Each configuration runs in a process of its own, because only a
//! process knows the most that it ever held.
//!
//! `cargo test --all-features --test memory -- --include-ignored` runs the long forms as well.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use alluvium::{
    CheckpointMode, Job, JobOptions, KeyGroup, MaterializationOptions, MaxParallelism, OpenMode, State,
    StateOptions, StateStore,
};

/// What the process has beside `JobOptions::memory` and its subtasks: code, threads, buffers of compactions and
/// of requests. As in the documentation of `JobOptions::memory`.
const CONSTANT: u64 = 128_000_000;
const PER_SUBTASK: u64 = 1_000_000;

const VALUE: usize = 200;
const CHILD: &str = "ALLUVIUM_MEMORY_TEST";

/// One process.
#[derive(Debug, Clone, Copy)]
struct Case {
    mode: CheckpointMode,
    subtasks: u32,
    memory: u64,
    /// Bytes that are written altogether.
    written: u64,
}

impl Case {
    /// Runs it, and holds what it took against what it may take.
    fn check(self) {
        let said = self.in_a_process_of_its_own("true");
        let peak = said.lines().find_map(|line| line.strip_prefix("peak ")).unwrap();
        let peak: u64 = peak.trim().parse().unwrap();
        let allowed = self.memory + CONSTANT + PER_SUBTASK * u64::from(self.subtasks);
        println!("{self:?}: {} MB of {} MB", peak / 1_000_000, allowed / 1_000_000);
        assert!(peak <= allowed, "{self:?}: {peak} bytes, allowed were {allowed}");
    }

    /// What it says. The shell does `before` in that process first.
    fn in_a_process_of_its_own(self, before: &str) -> String {
        let native = self.mode == CheckpointMode::NativeIncremental;
        let output = Command::new("sh")
            .args(["-c", &format!("{before} && exec \"$@\""), "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "one_process", "--ignored", "--nocapture"])
            // As the documentation has it: the allocator's own losses are another matter.
            .env("MALLOC_ARENA_MAX", "2")
            .env(CHILD, format!("{native} {} {} {}", self.subtasks, self.memory, self.written))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{self:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn run(self) {
        let dir = tempfile::tempdir().unwrap();
        let materialization = MaterializationOptions::on_demand();
        let options = JobOptions::new(dir.path().join("local"), OpenMode::Create)
            .mode(self.mode)
            .subtasks(self.subtasks)
            .max_parallelism(MaxParallelism::new(256).unwrap())
            .memory(self.memory)
            .materialization(materialization);
        let url = format!("file://{}", dir.path().join("store").display());
        #[expect(clippy::disallowed_methods, reason = "a figure to look at, by which nothing is decided")]
        let start = std::time::Instant::now();
        let mut opened = Job::open(&url, options).unwrap();
        println!("opened in {:.2?}", start.elapsed());
        let checkpoints = 3;
        let rounds = self.written / (VALUE as u64 + 8) / u64::from(self.subtasks);
        let states: Vec<_> = opened
            .stores
            .iter_mut()
            .map(|store| store.state(&StateOptions::new("values")).unwrap())
            .collect();
        for round in 0..rounds {
            for (store, state) in opened.stores.iter_mut().zip(&states) {
                put(store, *state, round);
            }
            if (round + 1) % (rounds / checkpoints) == 0 {
                let pending = opened.job.trigger([]).unwrap();
                for store in &mut opened.stores {
                    store.cut(pending.id(), []).unwrap();
                }
                pending.wait().unwrap();
            }
        }
        // What is left to be done takes memory as well.
        opened.job.materialize();
        opened.job.settle(Duration::from_secs(600)).unwrap();
        for (store, state) in opened.stores.iter_mut().zip(&states) {
            let group = group_of(store, 0);
            for entry in store.scan_prefix(*state, group, &[]).unwrap() {
                entry.unwrap();
            }
        }
        println!("open files {}", std::fs::read_dir("/proc/self/fd").unwrap().count());
        let memory = opened.job.stats().memory;
        assert!(memory.memtables <= memory.memtables_limit, "{memory:?}");
        assert!(memory.cache <= memory.cache_limit + self.memory / 8, "{memory:?}");
        println!("{memory:?}");
        drop(opened);
        println!("peak {}", status("VmHWM:"));
    }
}

/// A new key each round, all over the subtask's groups, with a value that does not compress.
fn put(store: &mut StateStore, state: State, round: u64) {
    let mut mixed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(store.subtask().0) << 32;
    let key = mixed.to_be_bytes();
    let mut value = [0; VALUE];
    for word in value.chunks_exact_mut(8) {
        mixed ^= mixed << 13;
        mixed ^= mixed >> 7;
        mixed ^= mixed << 17;
        word.copy_from_slice(&mixed.to_le_bytes());
    }
    let group = group_of(store, round);
    store.put(state, group, &key, &value).unwrap();
}

fn group_of(store: &StateStore, round: u64) -> KeyGroup {
    let range = store.range();
    let groups = u64::from(range.last.0 - range.first.0) + 1;
    KeyGroup(range.first.0 + u16::try_from(round % groups).unwrap())
}

/// A line of what the kernel says about this process, in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "run by the others, in a process of its own"]
fn one_process() {
    let Ok(case) = std::env::var(CHILD) else { return };
    let parts: Vec<_> = case.split(' ').collect();
    let [native, subtasks, memory, written] = parts[..] else { panic!("{case}") };
    let mode = match native.parse().unwrap() {
        true => CheckpointMode::NativeIncremental,
        false => CheckpointMode::Changelog,
    };
    let [memory, written] = [memory, written].map(|number| number.parse().unwrap());
    Case { mode, subtasks: subtasks.parse().unwrap(), memory, written }.run();
}

const CHANGELOG: CheckpointMode = CheckpointMode::Changelog;
const NATIVE: CheckpointMode = CheckpointMode::NativeIncremental;

#[test]
fn i6_one_subtask_with_little_memory() {
    Case { mode: CHANGELOG, subtasks: 1, memory: 16_000_000, written: 200_000_000 }.check();
}

#[test]
fn i6_eight_subtasks_with_little_memory() {
    Case { mode: CHANGELOG, subtasks: 8, memory: 16_000_000, written: 200_000_000 }.check();
}

#[test]
fn i6_many_subtasks() {
    Case { mode: CHANGELOG, subtasks: 64, memory: 256_000_000, written: 700_000_000 }.check();
}

#[test]
fn i6_many_subtasks_in_native_mode() {
    Case { mode: NATIVE, subtasks: 64, memory: 128_000_000, written: 400_000_000 }.check();
}

/// State 9: a shell's usual limit is 1,024, and each table may have more files than that.
#[test]
fn i6_many_subtasks_open_under_a_low_limit_of_open_files() {
    let case = Case { mode: CHANGELOG, subtasks: 64, memory: 64_000_000, written: 60_000_000 };
    let open = |said: &str| -> u64 {
        said.lines().find_map(|line| line.strip_prefix("open files ")).unwrap().trim().parse().unwrap()
    };
    case.in_a_process_of_its_own("ulimit -Sn 1024");
    // 64 subtasks cannot do with less: 18 each, and 64 beside them.
    let said = case.in_a_process_of_its_own("ulimit -n 1216");
    assert!(open(&said) <= 1216, "{said}");
}

#[test]
#[ignore = "minutes, and gigabytes of disk"]
fn i6_long_forms() {
    for mode in [CHANGELOG, NATIVE] {
        for subtasks in [1, 8, 64, 256] {
            for (memory, written) in
                [(16_000_000, 300_000_000), (256_000_000, 1_000_000_000), (4_000_000_000, 6_000_000_000)]
            {
                if memory >= u64::from(subtasks) * 1_000_000 {
                    Case { mode, subtasks, memory, written }.check();
                }
            }
        }
    }
}
