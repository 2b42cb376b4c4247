//! The table: apply a delta, read points, scan; and the experiment that compares how deltas get in.
//!
//! `cargo bench --profile dev --bench table`. The modules are compiled into the benchmark from
//! source, because they are no part of the public interface.

#![allow(
    unused,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "modules of the crate, of which a benchmark uses a part; a benchmark fails by panicking"
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
#[path = "../src/table/mod.rs"]
mod table;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rocksdb::{DB, IngestExternalFileOptions, SstFileWriter, WaitForCompactOptions};

use delta::Entry;
use env::splitmix64;
pub use error::{Error, ErrorKind, Result};
use ids::{DeltaSeq, StateId};
use key_group::{KeyGroup, KeyGroupRange};
use table::{OwnedCursor, Table, TableResources};

const GROUPS: u64 = 128;
const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(GROUPS as u16 - 1) };
const STATE: StateId = StateId(7);
const KEYS: u64 = 1_000_000;
const DELTA: u64 = 20_000;
const MEMORY: u64 = 256 << 20;
const NO_TOMBSTONES: [(&[u8], &[u8]); 0] = [];

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Key `i`: 16 bytes of the user in one of 128 key groups, spread evenly.
fn key_of(i: u64) -> Vec<u8> {
    let hash = splitmix64(i);
    let mut user = hash.to_be_bytes().to_vec();
    user.extend_from_slice(&i.to_be_bytes());
    let mut key = Vec::with_capacity(key::PREFIX_LEN + 16);
    key::encode_into(&mut key, KeyGroup((hash % GROUPS) as u16), STATE, &user);
    key
}

/// 100 bytes, half of them compressible.
fn value_of(seed: u64) -> Vec<u8> {
    let mut value = vec![0; 100];
    for (i, word) in value[..48].chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&splitmix64(seed.wrapping_add(i as u64)).to_le_bytes());
    }
    value
}

/// One delta: `count` draws from the keys below `keys`, sorted, without repetitions.
fn delta_of(seed: u64, count: u64, keys: u64) -> Records {
    let draw = |i| splitmix64(seed.wrapping_mul(count).wrapping_add(i)) % keys;
    let sorted: BTreeMap<_, _> = (0..count).map(|i| (key_of(draw(i)), value_of(seed + i))).collect();
    sorted.into_iter().collect()
}

fn puts(records: &Records) -> impl Iterator<Item = (&[u8], Entry<'_>)> {
    records.iter().map(|(key, value)| (key.as_slice(), Entry::Put(value)))
}

/// A settled table with all keys, and the number of its last delta.
fn loaded(dir: &Path) -> (Table, u64) {
    let table = Table::create(dir, RANGE, &TableResources::new(MEMORY, 2)).unwrap();
    let mut all: Records = (0..KEYS).map(|i| (key_of(i), value_of(i))).collect();
    all.sort_unstable();
    table.load(NO_TOMBSTONES, puts(&all)).unwrap();
    table.set_applied(DeltaSeq(1)).unwrap();
    assert!(table.wait_idle(Duration::from_secs(300)).unwrap());
    (table, 1)
}

fn table(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (table, mut seq) = loaded(&dir.path().join("db"));
    let table = Arc::new(table);
    let mut draw = 0_u64;
    let mut random = move || {
        draw += 1;
        splitmix64(draw) % KEYS
    };

    let mut group = c.benchmark_group("table");
    group.sample_size(20).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));
    group.bench_function("get/hit", |b| {
        b.iter_batched(
            || key_of(random()),
            |key| black_box(table.get(&key).unwrap().expect("loaded").len()),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("get_at/hit", |b| {
        b.iter_batched(
            || key_of(random()),
            |key| black_box(table.get_at(&key).unwrap().0.expect("loaded").len()),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("get/miss", |b| {
        b.iter_batched(
            || key_of(KEYS + random()),
            |key| black_box(table.get(&key).unwrap().is_none()),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(64));
    group.bench_function("multi_get/64 sorted", |b| {
        b.iter_batched(
            || {
                let mut keys: Vec<_> = (0..64).map(|_| key_of(random())).collect();
                keys.sort_unstable();
                keys
            },
            |keys| {
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                black_box(table.multi_get(&keys).into_iter().filter(Result::is_ok).count())
            },
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan/seek and 100 entries", |b| {
        b.iter_batched(
            || key_of(random()),
            |start| {
                let (mut cursor, _) = OwnedCursor::new(Arc::clone(&table), &start, &[0xff]).unwrap();
                for _ in 0..100 {
                    black_box(cursor.entry());
                    cursor.advance().unwrap();
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(DELTA));
    group.bench_function("apply/20,000 of 1 M keys", |b| {
        b.iter_batched(
            || {
                seq += 1;
                (seq, delta_of(seq, DELTA, KEYS))
            },
            |(seq, delta)| table.apply(DeltaSeq(seq), NO_TOMBSTONES, puts(&delta)).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Rounds of updates over a table, until no work is left over: by sorted WriteBatch, by
/// SstFileWriter and ingest of one file per delta, and by ingest of deltas merged to 32 MB first.
fn ways_in(c: &mut Criterion) {
    const DELTAS: u64 = 50;
    const MAX_WAIT: Duration = Duration::from_secs(300);
    let deltas: Vec<Records> = (2..2 + DELTAS).map(|seq| delta_of(seq, DELTA, KEYS)).collect();
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        let (table, _) = loaded(&dir.path().join("db"));
        (dir, table)
    };
    let mut group = c.benchmark_group("ways in: 50 deltas of 20,000, settled");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .throughput(Throughput::Elements(DELTAS * DELTA));
    group.bench_function("WriteBatch", |b| {
        b.iter_batched(
            fresh,
            |(dir, table)| {
                for (seq, delta) in (2..).zip(&deltas) {
                    table.apply(DeltaSeq(seq), NO_TOMBSTONES, puts(delta)).unwrap();
                }
                assert!(table.wait_idle(MAX_WAIT).unwrap());
                (dir, table)
            },
            BatchSize::PerIteration,
        );
    });
    for (name, run_bytes) in [("ingest, a file per delta", 1), ("ingest, runs of 32 MB", 32 << 20)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let (dir, table) = fresh();
                    drop(table);
                    let mut options = TableResources::new(MEMORY, 2).options().unwrap();
                    options.create_if_missing(false);
                    let db = DB::open(&options, dir.path().join("db")).unwrap();
                    (dir, db, options)
                },
                |(dir, db, options)| {
                    let mut run = BTreeMap::new();
                    let mut bytes = 0;
                    for (i, delta) in deltas.iter().enumerate() {
                        bytes += delta.len() * 122;
                        run.extend(delta.iter().map(|(key, value)| (key, value)));
                        if bytes < run_bytes && i + 1 < deltas.len() {
                            continue;
                        }
                        let file = dir.path().join(format!("{i}.sst"));
                        let mut writer = SstFileWriter::create(&options);
                        writer.open(&file).unwrap();
                        for (key, value) in std::mem::take(&mut run) {
                            writer.put(key, value).unwrap();
                        }
                        writer.finish().unwrap();
                        let mut ingest = IngestExternalFileOptions::default();
                        ingest.set_move_files(true);
                        db.ingest_external_file_opts(&ingest, vec![&file]).unwrap();
                        bytes = 0;
                    }
                    db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
                    (dir, db)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, table, ways_in);
criterion_main!(benches);
