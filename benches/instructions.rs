//! Instructions of the write path, for callgrind: put, get, cut, seal, merge and apply, in fixed
//! numbers.
//!
//! `scripts/instructions.sh` runs it, reads the counts off by function, and compares them with
//! those that the repository keeps. Wall time on a shared machine says little about small loops;
//! instructions are nearly the same at every run, whatever else the machine does. Puts and gets go
//! through the public interface. What a store does in the background is called here directly,
//! because its instructions would otherwise depend on how threads meet.

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

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    Job, JobOptions, KeyGroup, MaterializationOptions, OpenMode, Opened, State, StateOptions, StateStore,
    TableKind,
};
use object_store::memory::InMemory;

use delta::{ActiveDelta, DeltaHeader, DeltaReader, FrozenDelta, Sealed, merge_all, seal};
use env::splitmix64;
pub use error::{Error, ErrorKind, Result};
use ids::{DeltaSeq, Epoch, StateId, SubtaskIndex};
use table::{Table, TableResources};

const KEYS: u64 = 20_000;
const ROUNDS: u64 = 5;
const CUTS: u64 = 1_000;
const SETTLE: Duration = Duration::from_secs(3600);

fn group(key: u64) -> KeyGroup {
    KeyGroup((splitmix64(key) % 128) as u16)
}

/// 100 bytes, half of them random.
fn value(seed: u64) -> [u8; 100] {
    let mut value = [0; 100];
    for (at, chunk) in (0..6).zip(value.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&splitmix64(seed ^ at << 32).to_le_bytes());
    }
    value
}

// Never inlined, so that callgrind knows them by name.
#[inline(never)]
fn measured_puts(store: &mut StateStore, state: State, round: u64) {
    for key in 0..KEYS {
        store.put(state, group(key), &splitmix64(key).to_be_bytes(), &value(key ^ round)).unwrap();
    }
}

#[inline(never)]
fn measured_gets_from_the_delta(store: &StateStore, state: State) {
    for key in 0..KEYS {
        assert!(black_box(store.get(state, group(key), &splitmix64(key).to_be_bytes()).unwrap()).is_some());
    }
}

#[inline(never)]
fn measured_gets_from_the_table(store: &StateStore, state: State) {
    for key in 0..KEYS {
        assert!(black_box(store.get(state, group(key), &splitmix64(key).to_be_bytes()).unwrap()).is_some());
    }
}

#[inline(never)]
fn measured_gets_from_the_cache(store: &StateStore, state: State) {
    for key in 0..KEYS {
        assert!(black_box(store.get(state, group(key), &splitmix64(key).to_be_bytes()).unwrap()).is_some());
    }
}

#[inline(never)]
fn measured_cut(delta: &mut ActiveDelta) -> FrozenDelta {
    delta.cut()
}

#[inline(never)]
fn measured_seal(delta: &FrozenDelta, header: &DeltaHeader) -> Sealed {
    seal(delta, header, |_, entry| Some(entry))
}

#[inline(never)]
fn measured_merge(sealed: &[Sealed]) -> usize {
    let range = header(1).range;
    let decode = |sealed: &Sealed| DeltaReader::open(sealed.bytes.clone())?.entries_in(range);
    merge_all(sealed.iter().map(decode).collect::<Result<_>>().unwrap()).unwrap().len()
}

#[inline(never)]
fn measured_apply(table: &Table, seq: DeltaSeq, delta: &FrozenDelta) {
    table.apply(seq, delta.tombstones().iter(), delta.iter()).unwrap();
}

fn header(seq: u64) -> DeltaHeader {
    let (first, last) = (key_group::KeyGroup(0), key_group::KeyGroup(127));
    DeltaHeader {
        epoch: Epoch(1),
        subtask: SubtaskIndex(0),
        range: key_group::KeyGroupRange { first, last },
        first: DeltaSeq(seq),
        last: DeltaSeq(seq),
    }
}

/// Runs `operator` on a store of a job of its own, with a cache of records of so many bytes.
fn with_store(cache: u64, operator: impl FnOnce(&Job, &mut StateStore)) {
    let dir = tempfile::tempdir().unwrap();
    let by_hand = MaterializationOptions::on_demand();
    let options = JobOptions::new(dir.path(), OpenMode::Create)
        .memory(512_000_000)
        .delta_bytes(256 << 20)
        .inline_limit(0)
        .materialization(by_hand)
        .record_cache(cache, 1024);
    let store = Arc::new(InMemory::new());
    let Opened { job, mut stores, .. } = Job::open((store, "job"), options).unwrap();
    operator(&job, &mut stores[0]);
}

fn checkpoint(job: &Job, store: &mut StateStore) {
    let pending = job.trigger("").unwrap();
    store.cut(pending.id(), "").unwrap();
    pending.wait().unwrap();
    job.settle(SETTLE).unwrap();
}

/// Without a cache of records, so that each read ends where it is meant to.
fn layers(job: &Job, store: &mut StateStore) {
    for kind in [TableKind::Hash, TableKind::Ordered] {
        let state = store.state(&StateOptions::new(format!("{kind:?}")).table(kind)).unwrap();
        for round in 0..ROUNDS {
            measured_puts(store, state, round);
            measured_gets_from_the_delta(store, state);
            checkpoint(job, store);
            measured_gets_from_the_table(store, state);
        }
    }
}

/// All keys are in the cache of records when they are read.
fn cached(job: &Job, store: &mut StateStore) {
    let state = store.state(&StateOptions::new("cached")).unwrap();
    for round in 0..ROUNDS {
        for key in 0..KEYS {
            let bytes = splitmix64(key).to_be_bytes();
            black_box(store.get(state, group(key), &bytes).unwrap());
            store.put(state, group(key), &bytes, &value(key ^ round)).unwrap();
        }
        checkpoint(job, store);
    }
    let before = store.stats().cache_hits;
    for _ in 0..ROUNDS {
        measured_gets_from_the_cache(store, state);
    }
    checkpoint(job, store);
    let hits = store.stats().cache_hits - before;
    assert!(hits >= ROUNDS * KEYS, "{hits} of the reads ended in the cache");
}

/// What happens to the deltas of a store, one step after the other.
fn background() {
    let dir = tempfile::tempdir().unwrap();
    let table =
        Table::create(&dir.path().join("db"), header(1).range, &TableResources::new(256 << 20, 2)).unwrap();
    for kind in [delta::TableKind::Hash, delta::TableKind::Ordered] {
        let mut active = ActiveDelta::new();
        let mut sealed = Vec::new();
        for round in 0..ROUNDS {
            for number in 0..KEYS {
                let mut key = Vec::new();
                let user = splitmix64(number).to_be_bytes();
                let group = key_group::KeyGroup(group(number).0);
                key::encode_into(&mut key, group, StateId(kind as u32 + 1), &user);
                active.put(kind, &key, &value(number ^ round));
            }
            let frozen = active.cut();
            sealed.push(measured_seal(&frozen, &header(round + 1)));
            measured_apply(&table, DeltaSeq(table.applied().unwrap().0 + 1), &frozen);
        }
        black_box(measured_merge(&sealed));
    }
}

/// Before there are other threads, because what the allocator does depends on them.
fn cuts() {
    let mut active = ActiveDelta::new();
    for number in 0..CUTS {
        active.put(delta::TableKind::Hash, b"\0\0\0\0\0\x07key", &number.to_be_bytes());
        black_box(measured_cut(&mut active).bytes());
    }
}

fn main() {
    // `cargo test --benches` and the like only want to know that it starts.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    cuts();
    with_store(0, layers);
    with_store(64 << 20, cached);
    background();
}
