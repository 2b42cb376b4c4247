//! Instructions of the write path, for callgrind: put, get, cut, seal and apply, in fixed numbers.
//!
//! `scripts/instructions.sh` runs it and reads the counts off by function. Wall time on a shared
//! machine says little about small loops; instructions are the same at every run, whatever else the
//! machine does.

#![allow(missing_docs, reason = "a benchmark")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    Job, JobOptions, KeyGroup, MaterializationOptions, OpenMode, Opened, State, StateOptions, StateStore,
    TableKind,
};
use object_store::memory::InMemory;

const KEYS: u64 = 20_000;
const ROUNDS: u64 = 5;
const CUTS: u64 = 20;
const SETTLE: Duration = Duration::from_secs(3600);

fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

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
fn measured_gets_from_memory(store: &StateStore, state: State) {
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
fn measured_cut(job: &Job, store: &mut StateStore) {
    let pending = job.trigger("").unwrap();
    store.cut(pending.id(), "").unwrap();
    pending.wait().unwrap();
}

fn main() {
    // `cargo test --benches` and the like only want to know that it starts.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let by_hand = MaterializationOptions::on_demand();
    let options = JobOptions::new(dir.path(), OpenMode::Create)
        .memory(512_000_000)
        .delta_bytes(256 << 20)
        .inline_limit(0)
        .materialization(by_hand);
    let store = Arc::new(InMemory::new());
    let Opened { job, mut stores, .. } = Job::open((store, "job"), options).unwrap();
    let store = &mut stores[0];
    for kind in [TableKind::Hash, TableKind::Ordered] {
        let state = store.state(&StateOptions::new(format!("{kind:?}")).table(kind)).unwrap();
        for round in 0..ROUNDS {
            measured_puts(store, state, round);
            measured_gets_from_memory(store, state);
            measured_cut(&job, store);
            job.settle(SETTLE).unwrap();
            measured_gets_from_the_table(store, state);
        }
    }
    let few = store.state(&StateOptions::new("few")).unwrap();
    for round in 0..CUTS {
        for key in 0..100 {
            store.put(few, group(key), &key.to_be_bytes(), &value(round)).unwrap();
        }
        measured_cut(&job, store);
        job.settle(SETTLE).unwrap();
    }
}
