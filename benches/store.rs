//! The store through its public interface: writes, reads and scans through the layers, cut, commit,
//! restore.
//!
//! `cargo bench --profile dev --all-features --bench store`. The object store is in memory.

#![allow(missing_docs, reason = "a benchmark")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointMode, ErrorKind, Job, JobOptions, MaterializationOptions, OpenMode, Opened, PendingCheckpoint,
    State, StateOptions, StateStore, TableKind,
};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use object_store::memory::InMemory;

const KEYS: u64 = 200_000;
const VALUE: usize = 100;
const SETTLE: Duration = Duration::from_secs(300);

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

/// 100 bytes, half of them random.
fn value_of(seed: u64) -> [u8; VALUE] {
    let mut value = [0; VALUE];
    for (i, word) in (0..).zip(value[..48].chunks_exact_mut(8)) {
        word.copy_from_slice(&splitmix64(seed ^ i << 32).to_le_bytes());
    }
    value
}

/// A job with one subtask.
struct Subject {
    job: Job,
    store: StateStore,
    state: State,
    draw: u64,
}

impl Subject {
    fn open(remote: &Arc<InMemory>, dir: &Path) -> Self {
        // No base of its own accord: it would run into the measurement.
        let never = MaterializationOptions::on_demand();
        let options = JobOptions::new(dir, OpenMode::CreateOrOpen)
            .mode(CheckpointMode::Changelog)
            .materialization(never);
        let remote = Arc::<InMemory>::clone(remote);
        let Opened { job, mut stores, .. } = Job::open((remote, "job"), options).unwrap();
        let mut store = stores.pop().unwrap();
        let state = store.state(&StateOptions::new("values").table(TableKind::Ordered)).unwrap();
        Self { job, store, state, draw: 0 }
    }

    /// With all keys in a settled table.
    fn loaded(remote: &Arc<InMemory>, dir: &Path) -> Self {
        let mut subject = Self::open(remote, dir);
        (0..KEYS).for_each(|i| subject.put(i));
        subject.checkpoint();
        subject.job.settle(SETTLE).unwrap();
        subject
    }

    fn random(&mut self) -> u64 {
        self.draw += 1;
        splitmix64(self.draw) % KEYS
    }

    fn put(&mut self, i: u64) {
        let key = key_of(i);
        let group = self.store.group_of(&key);
        self.store.put(self.state, group, &key, &value_of(i ^ self.draw)).unwrap();
    }

    fn get(&self, i: u64) -> usize {
        let key = key_of(i);
        let value = self.store.get(self.state, self.store.group_of(&key), &key).unwrap();
        value.map_or(0, |value| value.len())
    }

    fn append(&mut self, i: u64) {
        let key = key_of(i);
        let group = self.store.group_of(&key);
        self.store.append(self.state, group, &key, b"8 bytes.").unwrap();
    }

    /// Seeks to a key and reads up to 20 entries.
    fn scan(&self, i: u64) -> usize {
        let start = key_of(i);
        let scan = self.store.scan_range(self.state, self.store.group_of(&start), &start, None).unwrap();
        scan.take(20).map(|entry| entry.unwrap().1.len()).sum()
    }

    /// Starts a checkpoint, once the one before has ended.
    fn trigger(&self) -> PendingCheckpoint {
        loop {
            match self.job.trigger([]) {
                Ok(pending) => return pending,
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Cuts and commits.
    fn checkpoint(&mut self) {
        let pending = self.trigger();
        self.store.cut(pending.id(), []).unwrap();
        pending.wait().unwrap();
    }

    /// A base with everything so far, in a checkpoint of its own.
    fn materialize(&mut self) {
        self.checkpoint();
        self.job.materialize();
        self.job.settle(SETTLE).unwrap();
        self.checkpoint();
    }
}

fn timed<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    group
}

fn operations(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let remote = Arc::new(InMemory::new());
    let mut group = timed(c, "store");

    let mut subject = RefCell::new(Subject::loaded(&remote, &dir.path().join("db")));
    group.bench_function("get from the table", |b| {
        b.iter(|| {
            let i = subject.get_mut().random();
            black_box(subject.get_mut().get(i))
        });
    });
    group.bench_function("scan 20 from the table", |b| {
        b.iter(|| {
            let i = subject.get_mut().random();
            black_box(subject.get_mut().scan(i))
        });
    });
    group.bench_function("put", |b| {
        b.iter(|| {
            let i = subject.get_mut().random();
            subject.get_mut().put(i);
        });
    });
    group.bench_function("read-modify-write", |b| {
        b.iter(|| {
            let i = subject.get_mut().random();
            black_box(subject.get_mut().get(i));
            subject.get_mut().put(i);
        });
    });
    group.bench_function("append 8 bytes to one of 1000 lists", |b| {
        b.iter(|| {
            let i = subject.get_mut().random() % 1000;
            subject.get_mut().append(KEYS + i);
        });
    });

    // The layers: 1 in 8 keys anew in the active delta, all in the table.
    let subject = subject.get_mut();
    subject.checkpoint();
    subject.job.settle(SETTLE).unwrap();
    (0..KEYS).step_by(8).for_each(|i| subject.put(i));
    group.bench_function("get from the active delta", |b| {
        b.iter(|| {
            let i = subject.random() / 8 * 8;
            black_box(subject.get(i))
        });
    });
    group.bench_function("scan 20 of the active delta over the table", |b| {
        b.iter(|| {
            let i = subject.random();
            black_box(subject.scan(i))
        });
    });
    let subject = RefCell::new(subject);
    // What was cut a moment ago and is not applied yet.
    let freeze = || {
        let mut subject = subject.borrow_mut();
        subject.job.settle(SETTLE).unwrap();
        (0..KEYS).step_by(8).for_each(|i| subject.put(i));
        let pending = subject.trigger();
        subject.store.cut(pending.id(), []).unwrap();
        pending
    };
    group.bench_function("1000 gets from a frozen delta", |b| {
        b.iter_batched(
            freeze,
            |pending| {
                let mut subject = subject.borrow_mut();
                for _ in 0..1000 {
                    let i = subject.random() / 8 * 8;
                    black_box(subject.get(i));
                }
                pending
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("50 scans of 20, frozen delta over the table", |b| {
        b.iter_batched(
            freeze,
            |pending| {
                let mut subject = subject.borrow_mut();
                for _ in 0..50 {
                    let i = subject.random();
                    black_box(subject.scan(i));
                }
                pending
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn checkpoints(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let remote = Arc::new(InMemory::new());
    let subject = RefCell::new(Subject::loaded(&remote, &dir.path().join("db")));
    let mut group = timed(c, "checkpoint");
    // Must not depend on the number of changes.
    for changes in [100_u64, 10_000, 100_000] {
        let prepare = || {
            let mut subject = subject.borrow_mut();
            subject.job.settle(SETTLE).unwrap();
            for _ in 0..changes {
                let i = subject.random();
                subject.put(i);
            }
            subject.trigger()
        };
        group.bench_function(format!("cut after {changes} changes"), |b| {
            b.iter_batched(
                prepare,
                |pending| {
                    subject.borrow_mut().store.cut(pending.id(), []).unwrap();
                    pending
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("cut and commit after {changes} changes"), |b| {
            b.iter_batched(
                prepare,
                |pending| {
                    subject.borrow_mut().store.cut(pending.id(), []).unwrap();
                    pending.wait().unwrap()
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn restores(c: &mut Criterion) {
    let mut group = c.benchmark_group("restore 200,000 keys");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).throughput(Throughput::Elements(KEYS));
    for name in ["from a base", "from a base and 10 deltas of 20,000", "from deltas alone"] {
        let dir = tempfile::tempdir().unwrap();
        let remote = Arc::new(InMemory::new());
        {
            let mut subject = Subject::loaded(&remote, &dir.path().join("db"));
            if name != "from deltas alone" {
                subject.materialize();
            }
            if name.contains("10 deltas") {
                for _ in 0..10 {
                    for _ in 0..20_000 {
                        let i = subject.random();
                        subject.put(i);
                    }
                    subject.checkpoint();
                }
            }
            subject.job.clone().close().unwrap();
        }
        let mut runs = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    runs += 1;
                    (Arc::new(remote.fork()), dir.path().join(format!("restored-{runs}")))
                },
                |(remote, dir)| Subject::open(&remote, &dir),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, operations, checkpoints, restores);
criterion_main!(benches);
