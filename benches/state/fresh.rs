//! Maps with much that is fresh: looked at from either end, worked off as queues, cleared. Beside
//! RocksDB with its own defaults and without its log.

use std::hint::black_box;

use alluvium::{MapState, StateOptions, TableKind};
use criterion::{BenchmarkId, Criterion};
use rocksdb::{DB, IteratorMode, WriteOptions};

use super::{Quiet, number, splitmix64};

const SIZES: [u64; 3] = [10, 10_000, 40_000];
const ENTRIES: u64 = 8;

struct Raw {
    db: DB,
    writes: WriteOptions,
    _dir: tempfile::TempDir,
}

impl Raw {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let mut writes = WriteOptions::default();
        writes.disable_wal(true);
        Self { db: DB::open(&options, dir.path()).unwrap(), writes, _dir: dir }
    }

    fn put(&self, key: u64, entry: u64) {
        self.db.put_opt(Self::key(key, entry), number(entry).to_le_bytes(), &self.writes).unwrap();
    }

    fn delete(&self, key: u64, entry: u64) {
        self.db.delete_opt(Self::key(key, entry), &self.writes).unwrap();
    }

    fn key(key: u64, entry: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_be_bytes());
        bytes[8..].copy_from_slice(&entry.to_be_bytes());
        bytes
    }
}

/// Looks at one of the ends of a map all of whose entries are in the active delta.
pub(crate) fn peeks(c: &mut Criterion) {
    let mut group = c.benchmark_group("fresh entries");
    group.sample_size(20);
    for size in SIZES {
        let mut quiet = Quiet::open();
        let map = quiet.store.register(MapState::<u64, u64>::descriptor("map")).unwrap();
        quiet.store.set_key(&1_u64).unwrap();
        let raw = Raw::new();
        for entry in 0..size {
            map.put(&mut quiet.store, &entry, &number(entry)).unwrap();
            raw.put(1, entry);
        }
        assert_eq!(quiet.store.stats().active_entries, size, "all is fresh");
        let store = &quiet.store;
        let mut bench = |name: &str, f: &dyn Fn()| {
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter(f));
        };
        bench("is_empty", &|| _ = black_box(map.is_empty(store).unwrap()));
        bench("first", &|| _ = black_box(map.first(store).unwrap()));
        bench("last", &|| _ = black_box(map.last(store).unwrap()));
        bench("last 8 by rev", &|| _ = black_box(map.iter(store).unwrap().rev().take(8).count()));
        bench("RocksDB first", &|| _ = black_box(raw.db.iterator(IteratorMode::Start).next()));
        bench("RocksDB last", &|| _ = black_box(raw.db.iterator(IteratorMode::End).next()));
        bench("RocksDB last 8", &|| _ = black_box(raw.db.iterator(IteratorMode::End).take(8).count()));
    }
    group.finish();
}

/// One entry comes at the end of a queue of 10,000, and one goes at the front.
pub(crate) fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue of 10,000");
    group.sample_size(20);
    let mut quiet = Quiet::open();
    let map = quiet.store.register(MapState::<u64, u64>::descriptor("queue")).unwrap();
    quiet.store.set_key(&1_u64).unwrap();
    let mut next = 0_u64;
    let mut push = |quiet: &mut Quiet| {
        map.put(&mut quiet.store, &next, &number(next)).unwrap();
        next += 1;
    };
    (0..10_000).for_each(|_| push(&mut quiet));
    group.bench_function("map/put and pop_first", |b| {
        b.iter(|| {
            push(&mut quiet);
            map.pop_first(&mut quiet.store).unwrap().unwrap()
        });
    });
    let (raw, mut next) = (Raw::new(), 10_000);
    (0..next).for_each(|entry| raw.put(1, entry));
    group.bench_function("RocksDB/put, first and delete", |b| {
        b.iter(|| {
            raw.put(1, next);
            next += 1;
            let (key, _) = raw.db.iterator(IteratorMode::Start).next().unwrap().unwrap();
            raw.db.delete_opt(key, &raw.writes).unwrap();
        });
    });
    group.finish();
}

/// A map of 8 entries is written and cleared, at one of a million keys; and what that costs another
/// state's reads.
pub(crate) fn clears(c: &mut Criterion) {
    let mut group = c.benchmark_group("clear");
    group.sample_size(20);
    let mut quiet = Quiet::open();
    let map = quiet.store.register(MapState::<u64, u64>::descriptor("map")).unwrap();
    let other = quiet.store.state(&StateOptions::new("other").table(TableKind::Ordered)).unwrap();
    let other_group = quiet.store.group_of(b"other");
    for entry in 0..100_u64 {
        quiet.store.put(other, other_group, &entry.to_be_bytes(), &number(entry).to_le_bytes()).unwrap();
    }
    quiet.settle();
    let read_other = |quiet: &Quiet| quiet.store.scan_prefix(other, other_group, &[]).unwrap().count();
    group.bench_function("read 100 of another state/before", |b| b.iter(|| read_other(&quiet)));
    let mut draw = 0;
    let fill = |quiet: &mut Quiet, draw: u64| {
        quiet.store.set_key(&(splitmix64(draw) % 1_000_000)).unwrap();
        (0..ENTRIES).for_each(|entry| map.put(&mut quiet.store, &entry, &number(entry)).unwrap());
    };
    group.bench_function("map/put 8", |b| {
        b.iter(|| {
            draw += 1;
            fill(&mut quiet, draw);
        });
    });
    group.bench_function("map/put 8 and clear", |b| {
        b.iter(|| {
            draw += 1;
            fill(&mut quiet, draw);
            map.clear(&mut quiet.store).unwrap();
        });
    });
    for _ in 0..200_000 {
        draw += 1;
        quiet.store.set_key(&(splitmix64(draw) % 1_000_000)).unwrap();
        map.put(&mut quiet.store, &1, &1).unwrap();
        map.clear(&mut quiet.store).unwrap();
    }
    quiet.settle();
    group.bench_function("read 100 of another state/after 200,000 more", |b| b.iter(|| read_other(&quiet)));
    let raw = Raw::new();
    let fill = |draw: u64| {
        let key = splitmix64(draw) % 1_000_000;
        (0..ENTRIES).for_each(|entry| raw.put(key, entry));
        key
    };
    group.bench_function("RocksDB/put 8", |b| {
        b.iter(|| {
            draw += 1;
            fill(draw)
        });
    });
    group.bench_function("RocksDB/put 8 and delete 8", |b| {
        b.iter(|| {
            draw += 1;
            let key = fill(draw);
            (0..ENTRIES).for_each(|entry| raw.delete(key, entry));
        });
    });
    group.finish();
}
