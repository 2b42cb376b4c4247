//! The runs: each begins in the same state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use alluvium::CheckpointMode;
use object_store::memory::InMemory;

use super::subjects::{Alluvium, Direct, Notes, Store};
use super::{DRAWS, Options, Subject, Workload, fill, key_of, median, splitmix64, zipf_draws};

/// Operations between two looks at the clock and at the barrier.
const STRIDE: u64 = 64;
const WARM_READS: u64 = 200_000;

/// Where all runs begin.
pub(crate) struct Stage {
    options: Options,
    dir: PathBuf,
    /// Loaded and settled: RocksDB's files, and an object store with one native checkpoint.
    direct: PathBuf,
    remote: InMemory,
    zipf: Vec<u32>,
}

/// One measured run.
#[derive(Clone)]
struct Run {
    ops_per_s: f64,
    /// Time of the workload, and of the work that it left behind.
    busy_s: f64,
    settle_s: f64,
    cpu_us: f64,
    notes: Notes,
}

impl Stage {
    pub(crate) fn build(options: Options, dir: &Path) -> Self {
        let start = Instant::now();
        let load = |store: &mut dyn Store| {
            let mut value = vec![0; options.value_bytes];
            for i in 0..options.keys {
                fill(&mut value, splitmix64(i));
                store.put(&key_of(i), &value);
            }
            store.settle();
        };
        let direct = dir.join("direct");
        load(&mut Direct::open(&direct, options.memory));
        let remote = Arc::new(InMemory::new());
        let mut store = Alluvium::open(
            Arc::clone(&remote),
            &dir.join("load"),
            CheckpointMode::NativeIncremental,
            &options,
            None,
        );
        load(&mut store);
        store.job.clone().close().unwrap();
        drop(store);
        let skewed = options.workloads.contains(&Workload::Zipf);
        let zipf = if skewed { zipf_draws(options.keys) } else { Vec::new() };
        println!("loaded in {:.1} s", start.elapsed().as_secs_f64());
        Self { dir: dir.to_owned(), direct, remote: remote.fork(), zipf, options }
    }

    pub(crate) fn measure_all(&self) {
        let options = &self.options;
        println!(
            "{} keys of 16 B, values of {} B, {} MB of memory, {} s a run, a checkpoint every {} ms\n",
            options.keys,
            options.value_bytes,
            options.memory / 1_000_000,
            options.seconds,
            options.interval.as_millis()
        );
        println!(
            "{:<6} {:<10} {:>9} {:>7} {:>7} {:>8} {:>6} {:>8} {:>8} {:>8}",
            "work", "subject", "ops/s", "busy s", "left s", "cpu us", "ckpts", "cut", "max cut", "blocked"
        );
        for workload in &options.workloads {
            let mut runs = vec![Vec::new(); options.subjects.len()];
            for repeat in 0..options.repeats {
                for (subject, runs) in options.subjects.iter().zip(&mut runs) {
                    let run = self.run(*subject, *workload, repeat as u64);
                    println!(
                        "{:<6} {:<10} {:>9.0} {:>7.2} {:>7.2} {:>8.2} {:>6} {:>5.3} ms {:>5.3} ms {:>5.0} ms",
                        workload.name(),
                        subject.name(),
                        run.ops_per_s,
                        run.busy_s,
                        run.settle_s,
                        run.cpu_us,
                        run.notes.checkpoints,
                        run.notes.median_cut_ms,
                        run.notes.max_cut_ms,
                        run.notes.blocked_ms
                    );
                    runs.push(run);
                }
            }
            self.ratios(*workload, &runs);
        }
    }

    /// Speeds and CPU against the first subject's, pair by pair.
    fn ratios(&self, workload: Workload, runs: &[Vec<Run>]) {
        let Some((first, others)) = runs.split_first() else { return };
        let subjects = &self.options.subjects;
        for (subject, runs) in subjects.iter().skip(1).zip(others) {
            let pairs = || runs.iter().zip(first);
            let mut speed: Vec<_> = pairs().map(|(run, base)| run.ops_per_s / base.ops_per_s).collect();
            let mut cpu: Vec<_> = pairs().map(|(run, base)| run.cpu_us / base.cpu_us).collect();
            let max_cut = runs.iter().map(|run| run.notes.max_cut_ms).fold(0.0, f64::max);
            println!(
                "{:<6} {} / {}: speed x{:.2} ({:.2} to {:.2}), cpu per operation x{:.2}, max cut {max_cut:.3} ms",
                workload.name(),
                subject.name(),
                subjects[0].name(),
                median(&mut speed),
                speed[0],
                speed[speed.len() - 1],
                median(&mut cpu),
            );
        }
        println!();
    }

    fn run(&self, subject: Subject, workload: Workload, repeat: u64) -> Run {
        let dir = self.dir.join("run");
        let run = match subject {
            Subject::Direct => {
                copy(&self.direct, &dir);
                self.drive(&mut Direct::open(&dir, self.options.memory), workload, repeat)
            }
            Subject::Changelog => self.alluvium(CheckpointMode::Changelog, &dir, workload, repeat),
            Subject::Native => self.alluvium(CheckpointMode::NativeIncremental, &dir, workload, repeat),
        };
        std::fs::remove_dir_all(&dir).unwrap();
        run
    }

    fn alluvium(&self, mode: CheckpointMode, dir: &Path, workload: Workload, repeat: u64) -> Run {
        let remote = Arc::new(self.remote.fork());
        let mut store = Alluvium::open(remote, dir, mode, &self.options, Some(self.options.interval));
        self.drive(&mut store, workload, repeat)
    }

    fn drive(&self, store: &mut dyn Store, workload: Workload, repeat: u64) -> Run {
        let keys = self.options.keys;
        let mut value = vec![0; self.options.value_bytes];
        for i in 0..WARM_READS.min(keys) {
            assert!(store.get(&key_of(splitmix64(i) % keys)).is_some(), "all keys are loaded");
        }
        store.settle();
        let before = store.notes();

        let (start, cpu) = (Instant::now(), cpu_seconds());
        let seed = repeat << 40;
        let mut ops = 0;
        while start.elapsed().as_secs_f64() < self.options.seconds {
            for i in ops..ops + STRIDE {
                let draw = match workload {
                    Workload::Zipf => u64::from(self.zipf[(i as usize + repeat as usize * 7919) % DRAWS]),
                    Workload::Rmw | Workload::Put => splitmix64(seed + i) % keys,
                };
                let key = key_of(draw);
                let old = match workload {
                    Workload::Put => 0,
                    Workload::Rmw | Workload::Zipf => store.get(&key).expect("all keys are loaded"),
                };
                fill(&mut value, old ^ (seed + i));
                store.put(&key, &value);
            }
            ops += STRIDE;
            store.between();
        }
        let busy = start.elapsed();
        store.settle();
        let all = start.elapsed();
        let cpu = cpu_seconds() - cpu;
        let after = store.notes();
        Run {
            ops_per_s: ops as f64 / all.as_secs_f64(),
            busy_s: busy.as_secs_f64(),
            settle_s: (all - busy).as_secs_f64(),
            cpu_us: cpu * 1e6 / ops as f64,
            notes: Notes {
                checkpoints: after.checkpoints - before.checkpoints,
                median_cut_ms: after.median_cut_ms,
                max_cut_ms: after.max_cut_ms,
                blocked_ms: after.blocked_ms - before.blocked_ms,
            },
        }
    }
}

/// Copies a directory of files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// User and system time of all threads of the process, in units of 1/100 s.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
