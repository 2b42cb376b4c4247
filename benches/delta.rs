//! The delta: insert, read-modify-write, get, cut, seal, decode, merge; hash and ordered states.
//!
//! `cargo bench --profile dev --bench delta`. The module is compiled into the benchmark from
//! source, because it is no part of the public interface.

#![allow(
    unused,
    unreachable_pub,
    missing_docs,
    reason = "modules of the crate, of which a benchmark uses a part"
)]

#[path = "../src/delta/mod.rs"]
mod delta;
#[path = "../src/env.rs"]
mod env;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/ids.rs"]
mod ids;
#[path = "../src/key.rs"]
mod key;
#[path = "../src/key_group.rs"]
mod key_group;
#[path = "../src/state_map.rs"]
mod state_map;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use delta::{
    ActiveDelta, DeltaHeader, DeltaReader, Entry, FrozenDelta, Lookup, MergeOp, TableKind, merge_all, seal,
};
use env::splitmix64;
pub use error::{Error, ErrorKind, Result};
use ids::{DeltaSeq, Epoch, StateId, SubtaskIndex};
use key_group::{KeyGroup, KeyGroupRange};

const ENTRIES: u64 = 250_000;
const KINDS: [(&str, TableKind); 2] = [("hash", TableKind::Hash), ("ordered", TableKind::Ordered)];

/// A user key of 16 bytes in one of 128 key groups: 22 bytes, spread evenly.
fn key(number: u64) -> [u8; 22] {
    let random = splitmix64(number);
    let mut key = [0; 22];
    key[..6].copy_from_slice(&key::prefix(KeyGroup((random % 128) as u16), StateId(7)));
    key[6..14].copy_from_slice(&random.to_be_bytes());
    key[14..].copy_from_slice(&number.to_be_bytes());
    key
}

/// 100 bytes, half of them random: about as compressible as a small record.
fn value(number: u64) -> [u8; 100] {
    let mut value = [0; 100];
    for (at, chunk) in (0..6).zip(value.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&splitmix64(number ^ at << 32).to_le_bytes());
    }
    value
}

fn fill(delta: &mut ActiveDelta, kind: TableKind, seed: u64) {
    for number in 0..ENTRIES {
        delta.put(kind, &key(number), &value(number ^ seed));
    }
}

fn frozen(kind: TableKind, seed: u64) -> FrozenDelta {
    let mut delta = ActiveDelta::with_hint(ENTRIES as usize);
    fill(&mut delta, kind, seed);
    delta.cut()
}

/// Leaves entries as they are.
fn whole<'a>(_key: &[u8], entry: Entry<'a>) -> Option<Entry<'a>> {
    Some(entry)
}

fn header() -> DeltaHeader {
    DeltaHeader {
        epoch: Epoch(1),
        subtask: SubtaskIndex(0),
        range: KeyGroupRange { first: KeyGroup(0), last: KeyGroup(127) },
        first: DeltaSeq(1),
        last: DeltaSeq(1),
    }
}

/// The operator's thread, in the steady state: deltas follow one another and memory goes round.
fn operator(criterion: &mut Criterion) {
    for (name, kind) in KINDS {
        let mut group = criterion.benchmark_group(format!("delta/{name}"));
        group.throughput(Throughput::Elements(ENTRIES));
        let mut delta = ActiveDelta::new();
        let next_round = |delta: &mut ActiveDelta| {
            // What the sealer does in the background.
            black_box(delta.cut().iter().len());
        };
        group.bench_function("insert 250k", |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for round in 0..rounds {
                    next_round(&mut delta);
                    let start = now();
                    fill(&mut delta, kind, round);
                    spent += start.elapsed();
                }
                spent
            });
        });
        group.throughput(Throughput::Elements(1));
        let mut number = 0;
        group.bench_function("get, of 250k", |bencher| {
            bencher.iter(|| {
                number = splitmix64(number);
                let key = key(number % ENTRIES);
                matches!(delta.newest(&key), Lookup::Value(value) if value[0] == 1)
            });
        });
        group.bench_function("get + put, of 250k", |bencher| {
            bencher.iter(|| {
                number = splitmix64(number);
                let key = key(number % ENTRIES);
                let mut new = [0; 100];
                if let Lookup::Value(value) = delta.newest(&key) {
                    new.copy_from_slice(value);
                }
                new[0] = new[0].wrapping_add(1);
                delta.put(kind, &key, &new);
            });
        });
        group.bench_function("append 8 B, 1000 lists", |bencher| {
            let mut delta = ActiveDelta::new();
            let mut number = 0;
            bencher.iter(|| {
                number += 1;
                delta.merge(kind, MergeOp::ListAppend, &key(number % 1000), &number.to_le_bytes());
                if delta.bytes() > 64 << 20 {
                    next_round(&mut delta);
                }
            });
        });
        group.bench_function("cut, of 250k", |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for round in 0..rounds {
                    fill(&mut delta, kind, round);
                    let start = now();
                    let frozen = delta.cut();
                    spent += start.elapsed();
                    black_box(frozen.iter().len());
                }
                spent
            });
        });
        group.finish();
    }

    let mut group = criterion.benchmark_group("delta/ordered");
    let mut delta = ActiveDelta::new();
    fill(&mut delta, TableKind::Ordered, 0);
    let mut number = 0;
    group.bench_function("range of 20, of 250k", |bencher| {
        bencher.iter(|| {
            number = splitmix64(number);
            let start = key(number % ENTRIES);
            let table = delta.tables().next().expect("there is always one");
            black_box(
                table
                    .ordered_range(&start, &[0xff])
                    .take(20)
                    .map(|(_, entry)| entry.payload_len())
                    .sum::<usize>(),
            )
        });
    });
    group.finish();
}

/// The background threads.
fn background(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delta/background");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES));
    for (name, kind) in KINDS {
        group.bench_function(format!("sort 250k, {name}"), |bencher| {
            bencher.iter_batched(|| frozen(kind, 0), |delta| delta.iter().len(), BatchSize::PerIteration);
        });
    }
    let delta = frozen(TableKind::Hash, 0);
    black_box(delta.iter().len());
    group.bench_function("seal 250k, sorted before", |bencher| {
        bencher.iter(|| seal(&delta, &header(), whole));
    });
    let sealed = seal(&delta, &header(), whole);
    println!("250k entries of 122 bytes: {} bytes in memory, {} sealed", delta.bytes(), sealed.bytes.len());
    let decode =
        |bytes: &bytes::Bytes| -> Result<_> { DeltaReader::open(bytes.clone())?.entries_in(header().range) };
    group.bench_function("decode 250k", |bencher| {
        bencher.iter(|| decode(&sealed.bytes).expect("it was just sealed").len());
    });
    for count in [2, 16] {
        group.throughput(Throughput::Elements(ENTRIES * count));
        group.bench_function(format!("merge {count} of 250k, same keys"), |bencher| {
            bencher.iter_batched(
                || (0..count).map(|_| decode(&sealed.bytes).expect("it was just sealed")).collect::<Vec<_>>(),
                merge_all,
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

criterion_group!(benches, operator, background);
criterion_main!(benches);
