//! The whole store against plain RocksDB: one operator thread that reads, modifies and writes.
//!
//! `cargo bench --profile dev --all-features --bench throughput -- [--short] [--keys N] …` (see
//! [`Options`]).
//!
//! - `direct`: the crate `rocksdb` with the table's options and all of the memory, no log, no
//!   changelog, no checkpoints: what the state would cost if nobody had to recover it.
//! - `changelog` and `native`: Alluvium's two modes, checkpoints on an object store in memory.
//!
//! The subjects take turns. Each run starts from the same settled state, opened anew and read warm.
//! Clock and CPU meter stop only when all deferred work is done: deltas applied and durable,
//! memtables flushed, compaction settled. Ratios are of neighbouring runs; the table shows their
//! median.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark measures time, and may stop")]
#![allow(missing_docs, reason = "a program")]

#[path = "throughput/stage.rs"]
mod stage;
#[path = "throughput/subjects.rs"]
mod subjects;

use std::path::PathBuf;
use std::time::Duration;

use stage::Stage;

/// Draws of a skewed workload are made beforehand, since they cost as much as an operation.
const DRAWS: usize = 1 << 22;

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
