//! What a rescale costs beside a restore at the same parallelism.
//!
//! `cargo bench --profile dev --all-features --bench rescale -- [--short] [--mb N] …` (see
//! [`Options`]).
//!
//! A state is written by some subtasks, compacted, materialized and committed, with a few deltas
//! behind the base. Then the job is restored from the object store (a directory; nothing local is
//! reused) at each of the given numbers of subtasks in turns, and closed without a commit. Printed
//! are the medians: the restore's own times, the whole `Job::open`, and what was copied from table
//! to table.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark measures time, and may stop")]
#![allow(missing_docs, reason = "a program")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alluvium::{
    CheckpointMode, Job, JobOptions, MaterializationOptions, OpenMode, Opened, RestoreReport, State,
    StateOptions, StateStore,
};

const SETTLE: Duration = Duration::from_secs(1800);

/// What can be asked for; `--short` gives the values in parentheses.
#[derive(Clone)]
struct Options {
    /// `--mb` of state, keys and values: 1000 (64).
    mb: u64,
    /// `--value-bytes`, half of which compress away: 200.
    value_bytes: usize,
    /// `--from` as many subtasks: 2.
    from: u32,
    /// `--to` as many subtasks, in turns: 2,3.
    to: Vec<u32>,
    /// `--repeats` of each: 5 (3).
    repeats: usize,
    /// `--memory` in MB for caches, memtables and deltas: 512.
    memory: u64,
    /// `--native`: written and restored in native mode.
    native: bool,
    /// `--dir` for objects and local files: the system's directory for temporary ones.
    dir: PathBuf,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            mb: 1000,
            value_bytes: 200,
            from: 2,
            to: vec![2, 3],
            repeats: 5,
            memory: 512,
            native: false,
            dir: std::env::temp_dir(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} wants a value"));
            match arg.as_str() {
                "--short" => (options.mb, options.repeats) = (64, 3),
                "--mb" => options.mb = value().parse().unwrap(),
                "--value-bytes" => options.value_bytes = value().parse().unwrap(),
                "--from" => options.from = value().parse().unwrap(),
                "--to" => options.to = value().split(',').map(|to| to.parse().unwrap()).collect(),
                "--repeats" => options.repeats = value().parse().unwrap(),
                "--memory" => options.memory = value().parse().unwrap(),
                "--native" => options.native = true,
                "--dir" => options.dir = value().into(),
                // What cargo bench adds.
                "--bench" => {}
                other => panic!("unknown option {other}"),
            }
        }
        options
    }

    fn job(&self, local: &Path, subtasks: u32) -> JobOptions {
        let by_hand = MaterializationOptions::on_demand();
        let mode = if self.native { CheckpointMode::NativeIncremental } else { CheckpointMode::Changelog };
        JobOptions::new(local, OpenMode::CreateOrOpen)
            .subtasks(subtasks)
            .memory(self.memory * 1_000_000)
            .mode(mode)
            .materialization(by_hand)
    }
}

fn main() {
    let options = Options::read();
    let place = tempfile::tempdir_in(&options.dir).unwrap();
    let url = place.path().join("objects").display().to_string();
    let keys = options.mb * 1_000_000 / (16 + options.value_bytes as u64);
    write(&options, &url, &place.path().join("writer"), keys);
    println!(
        "{} MB of state in {keys} keys, written by {} subtask(s), {} mode",
        options.mb,
        options.from,
        if options.native { "native" } else { "changelog" },
    );
    let mut runs: Vec<Vec<(f64, RestoreReport)>> = vec![Vec::new(); options.to.len()];
    for _ in 0..options.repeats {
        for (to, runs) in options.to.iter().zip(&mut runs) {
            let local = tempfile::tempdir_in(&options.dir).unwrap();
            let start = Instant::now();
            let opened = Job::open(&url, options.job(local.path(), *to)).unwrap();
            runs.push((start.elapsed().as_secs_f64() * 1e3, opened.restored));
        }
    }
    let median = |runs: &[(f64, RestoreReport)], of: fn(&(f64, RestoreReport)) -> f64| {
        let mut values: Vec<_> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("   to   open ms  x first  download     open     join   replay   MB read   MB copied");
    let first = median(&runs[0], |run| run.0);
    for (to, runs) in options.to.iter().zip(&runs) {
        println!(
            "{to:5} {:9.0} {:8.2} {:9.0} {:8.0} {:8.0} {:8.0} {:9.0} {:11.0}",
            median(runs, |run| run.0),
            median(runs, |run| run.0) / first,
            median(runs, |run| run.1.download_ms),
            median(runs, |run| run.1.open_ms),
            median(runs, |run| run.1.join_ms),
            median(runs, |run| run.1.replay_ms),
            median(runs, |run| run.1.bytes_downloaded as f64 / 1e6),
            median(runs, |run| run.1.bytes_rewritten as f64 / 1e6),
        );
    }
}

/// The whole state, and a hundredth of it once more after the base.
fn write(options: &Options, url: &str, local: &Path, keys: u64) {
    let Opened { job, mut stores, .. } = Job::open(url, options.job(local, options.from)).unwrap();
    let states: Vec<_> =
        stores.iter_mut().map(|store| store.state(&StateOptions::new("state")).unwrap()).collect();
    for key in 0..keys {
        put(&mut stores, &states, key, options.value_bytes);
    }
    if options.native {
        checkpoint(&job, &mut stores);
        job.compact().unwrap();
    } else {
        job.settle(SETTLE).unwrap();
        job.compact().unwrap();
        job.materialize();
        job.settle(SETTLE).unwrap();
    }
    for key in 0..keys / 100 {
        put(&mut stores, &states, key * 97 % keys, options.value_bytes);
    }
    checkpoint(&job, &mut stores);
    job.close().unwrap();
}

fn checkpoint(job: &Job, stores: &mut [StateStore]) {
    let pending = job.trigger("").unwrap();
    for store in stores {
        store.cut(pending.id(), "").unwrap();
    }
    pending.wait().unwrap();
}

fn put(stores: &mut [StateStore], states: &[State], key: u64, len: usize) {
    let mut name = [0; 16];
    let (hash, number) = name.split_at_mut(8);
    hash.copy_from_slice(&key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    number.copy_from_slice(&key.to_be_bytes());
    let mut value = vec![b'x'; len];
    let mut random = key | 1;
    for bytes in value[..len / 2].chunks_mut(8) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bytes.copy_from_slice(&random.to_le_bytes()[..bytes.len()]);
    }
    let group = stores[0].group_of(&name);
    let owner = stores.iter().position(|store| store.range().contains(group)).unwrap();
    stores[owner].put(states[owner], group, &name, &value).unwrap();
}
