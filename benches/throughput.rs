//! The whole store against plain RocksDB: one operator thread that reads, modifies and writes.
//!
//! `cargo bench --profile dev --all-features --bench throughput -- [--short] [--keys N] …` (see [`Options`]).
//!
//! - `direct`: the crate `rocksdb` with the table's options and all of the memory, no log, no changelog, no
//!   checkpoints: what the state would cost if nobody had to recover it.
//! - `changelog` and `native`: Alluvium's two modes, checkpoints on an object store in memory.
//!
//! The subjects take turns. Each run starts from the same settled state, opened anew and read warm.
//! Clock and CPU meter stop only when all deferred work is done: deltas applied and durable, memtables
//! flushed, compaction settled. Ratios are of neighbouring runs; the table shows their median.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark measures time, and may stop")]
#![allow(missing_docs, reason = "a program")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alluvium::{
    CheckpointListener, CheckpointMode, CheckpointReport, Job, JobOptions, OpenMode, Opened, State,
    StateOptions, StateStore,
};
use object_store::memory::InMemory;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, WaitForCompactOptions,
    WriteBufferManager, WriteOptions,
};

const SETTLE: Duration = Duration::from_secs(600);
/// Operations between two looks at the clock and at the barrier.
const STRIDE: u64 = 64;
/// Draws of a skewed workload are made beforehand, since they cost as much as an operation.
const DRAWS: usize = 1 << 22;
const WARM_READS: u64 = 200_000;

/// What can be asked for; `--short` gives the values in parentheses.
#[derive(Clone)]
struct Options {
    /// `--keys`: 2,000,000 (500,000).
    keys: u64,
    /// `--value-bytes`: 100.
    value_bytes: usize,
    /// `--seconds` of each run, to which settling comes: 20 (4).
    seconds: f64,
    /// `--repeats` of each trio: 3 (2).
    repeats: usize,
    /// `--memory` in MB for caches, memtables and deltas: 512 (128).
    memory: u64,
    /// `--interval-ms` between checkpoints: 1000.
    interval: Duration,
    /// `--delta-bytes`: the job's default.
    delta_bytes: Option<u64>,
    /// `--workloads`: rmw,zipf,put.
    workloads: Vec<Workload>,
    /// `--subjects`: direct,changelog,native.
    subjects: Vec<Subject>,
    /// `--dir` for local files: the system's directory for temporary ones.
    dir: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Workload {
    /// Uniform read-modify-write.
    Rmw,
    /// Read-modify-write with a Zipf distribution of exponent 0.99.
    Zipf,
    /// Uniform puts without a read.
    Put,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Subject {
    Direct,
    Changelog,
    Native,
}

impl Options {
    fn parse(args: &[String]) -> Self {
        let short = args.iter().any(|arg| arg == "--short");
        let value = |name: &str| {
            let at = args.iter().position(|arg| arg == name)?;
            Some(args.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")).clone())
        };
        fn number<T: std::str::FromStr>(text: Option<String>, default: T) -> T {
            text.map_or(default, |text| {
                text.replace(['_', ','], "").parse().unwrap_or_else(|_| panic!("{text} is not a number"))
            })
        }
        let list = |name: &str, default: &str| value(name).unwrap_or_else(|| default.to_owned());
        let workload = |name: &str| match name {
            "rmw" => Workload::Rmw,
            "zipf" => Workload::Zipf,
            "put" => Workload::Put,
            other => panic!("{other} is no workload: rmw, zipf, put"),
        };
        let subject = |name: &str| match name {
            "direct" => Subject::Direct,
            "changelog" => Subject::Changelog,
            "native" => Subject::Native,
            other => panic!("{other} is no subject: direct, changelog, native"),
        };
        Self {
            keys: number(value("--keys"), if short { 500_000 } else { 2_000_000 }),
            value_bytes: number(value("--value-bytes"), 100),
            seconds: number(value("--seconds"), if short { 4.0 } else { 20.0 }),
            repeats: number(value("--repeats"), if short { 2 } else { 3 }),
            memory: number(value("--memory"), if short { 128 } else { 512 }) * 1_000_000,
            interval: Duration::from_millis(number(value("--interval-ms"), 1000)),
            delta_bytes: value("--delta-bytes").map(|bytes| number(Some(bytes), 0)),
            workloads: list("--workloads", "rmw,zipf,put").split(',').map(workload).collect(),
            subjects: list("--subjects", "direct,changelog,native").split(',').map(subject).collect(),
            dir: value("--dir").map_or_else(std::env::temp_dir, PathBuf::from),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` does not say so.
    if !args.iter().any(|arg| arg == "--bench") || args.iter().any(|arg| arg == "--test") {
        println!("throughput: skipped, run it by `cargo bench --bench throughput`");
        return;
    }
    let options = Options::parse(&args);
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    Stage::build(options, dir.path()).measure_all();
}

// The workload.

fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Key `i`: 16 bytes, in no order.
fn key_of(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&splitmix64(i).to_be_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}

/// Fills a value with bytes that no compressor makes smaller.
fn fill(value: &mut [u8], seed: u64) {
    for (word, i) in value.chunks_mut(8).zip(0..) {
        word.copy_from_slice(&splitmix64(seed.wrapping_add(i)).to_le_bytes()[..word.len()]);
    }
}

/// Ranks drawn by the law k^-0.99, as numbers of keys: by inversion of the cumulated law.
fn zipf_draws(keys: u64) -> Vec<u32> {
    let mut cumulated = Vec::with_capacity(keys as usize);
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += (rank as f64).powf(-0.99);
        cumulated.push(sum);
    }
    let draw = |i: u64| {
        let point = (splitmix64(i) >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        // The number of the key; `key_of` scatters neighbours.
        cumulated.partition_point(|at| *at < point).min(keys as usize - 1) as u32
    };
    (0..DRAWS as u64).map(draw).collect()
}

// The subjects.

/// A keyed store under test.
trait Store {
    /// First 8 bytes of the value of `key`.
    fn get(&mut self, key: &[u8]) -> Option<u64>;
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// Called between some records, as an operator would.
    fn between(&mut self) {}
    /// Waits until nothing is left to do.
    fn settle(&mut self);
    fn notes(&mut self) -> Notes {
        Notes::default()
    }
}

/// What a run has to say beside its speed.
#[derive(Default, Clone)]
struct Notes {
    checkpoints: usize,
    median_cut_ms: f64,
    max_cut_ms: f64,
    blocked_ms: f64,
}

fn word(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

struct Direct {
    db: DB,
    writes: WriteOptions,
}

impl Direct {
    /// The options of `src/table/options.rs`, but for the insert hints: they remember a place per key
    /// group, and plain keys have none (judged the fairer baseline, not measured).
    fn open(dir: &Path, memory: u64) -> Self {
        const MIB: usize = 1 << 20;
        let memory = memory as usize;
        let by_name = "avoid_flush_during_shutdown=true;memtable_batch_lookup_optimization=true";
        let mut options = rocksdb::Options::default().get_options_from_string(by_name).unwrap();
        let cache = Cache::new_hyper_clock_cache(memory, 0);
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(memory / 2, false, cache.clone());
        let write_buffer = (memory / 8).clamp(MIB, 64 * MIB);
        options.create_if_missing(true);
        options.set_write_buffer_manager(&memtables);
        options.set_write_buffer_size(write_buffer);
        options.set_max_write_buffer_number(4);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_target_file_size_base(write_buffer as u64);
        options.set_max_bytes_for_level_base(4 * write_buffer as u64);
        options.set_level_zero_file_num_compaction_trigger(8);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(MIB as u64);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_block_size(8 << 10);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_whole_key_filtering(true);
        blocks.set_format_version(6);
        blocks.set_data_block_index_type(DataBlockIndexType::BinarySearch);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_block_based_table_factory(&blocks);
        let mut writes = WriteOptions::default();
        writes.disable_wal(true);
        Self { db: DB::open(&options, dir).unwrap(), writes }
    }
}

impl Store for Direct {
    fn get(&mut self, key: &[u8]) -> Option<u64> {
        self.db.get_pinned(key).unwrap().map(|value| word(&value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.writes).unwrap();
    }

    fn settle(&mut self) {
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        self.db.wait_for_compact(&wait).unwrap();
    }
}

struct Alluvium {
    job: Job,
    store: StateStore,
    state: State,
    cuts: Arc<Cuts>,
}

/// The pauses of all checkpoints that completed.
#[derive(Debug, Default)]
struct Cuts(Mutex<Vec<f64>>);

impl CheckpointListener for Cuts {
    fn completed(&self, report: &CheckpointReport) {
        self.0.lock().unwrap().push(report.cut_ms);
    }
}

impl Alluvium {
    fn open(
        remote: Arc<InMemory>,
        dir: &Path,
        mode: CheckpointMode,
        options: &Options,
        interval: Option<Duration>,
    ) -> Self {
        let cuts = Arc::<Cuts>::default();
        let mut job = JobOptions::new(dir, OpenMode::CreateOrOpen)
            .mode(mode)
            .memory(options.memory)
            .listener(Arc::<Cuts>::clone(&cuts));
        if let Some(interval) = interval {
            job = job.checkpoint_interval(interval);
        }
        if let Some(bytes) = options.delta_bytes {
            job = job.delta_bytes(bytes);
        }
        let Opened { job, mut stores, .. } = Job::open((remote, "job"), job).unwrap();
        let mut store = stores.pop().unwrap();
        let state = store.state(&StateOptions::new("values")).unwrap();
        Self { job, store, state, cuts }
    }
}

impl Store for Alluvium {
    fn get(&mut self, key: &[u8]) -> Option<u64> {
        let group = self.store.group_of(key);
        self.store.get(self.state, group, key).unwrap().map(|value| word(&value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let group = self.store.group_of(key);
        self.store.put(self.state, group, key, value).unwrap();
    }

    fn between(&mut self) {
        if let Some(id) = self.store.due() {
            self.store.cut(id, []).unwrap();
        }
    }

    /// Includes a last checkpoint, without which the active delta would not be applied.
    fn settle(&mut self) {
        loop {
            match self.job.trigger([]) {
                Ok(pending) => {
                    self.store.cut(pending.id(), []).unwrap();
                    pending.wait().unwrap();
                    break;
                }
                Err(error) if error.kind() == alluvium::ErrorKind::WouldBlock => {
                    self.between();
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.job.settle(SETTLE).unwrap();
    }

    fn notes(&mut self) -> Notes {
        let cuts = self.cuts.0.lock().unwrap();
        let stats = self.store.stats();
        Notes {
            checkpoints: cuts.len(),
            median_cut_ms: if cuts.is_empty() { 0.0 } else { median(&mut cuts.clone()) },
            max_cut_ms: cuts.iter().copied().fold(0.0, f64::max),
            blocked_ms: stats.blocked_ms,
        }
    }
}

// The runs.

/// Where all runs begin.
struct Stage {
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
    fn build(options: Options, dir: &Path) -> Self {
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

    fn measure_all(&self) {
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

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Rmw => "rmw",
            Self::Zipf => "zipf",
            Self::Put => "put",
        }
    }
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Changelog => "changelog",
            Self::Native => "native",
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
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
