//! I6, I8: a restore takes the memory that it was given, however long the changelog is. One that took
//! more would fail at every start, for ever.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use alluvium::{JobOptions, OpenMode, Opened};
use object_store::memory::InMemory;

use alluvium_testkit::drive::{checkpoint, noise, open, put_any, quiet};
use alluvium_testkit::faults::{Call, FaultStore, Op};

const SUBTASKS: u32 = 4;
const MEMORY: u64 = 64_000_000;
/// Of a restore's quarter; four are in memory at a time.
const BATCH: u64 = MEMORY / 32;
const VALUE: usize = 10_000;
const KEYS: u64 = 20_000;

fn options(dir: &std::path::Path, subtasks: u32) -> JobOptions {
    quiet(dir, OpenMode::CreateOrOpen).subtasks(subtasks).memory(MEMORY)
}

fn key(number: u64) -> String {
    format!("key {number:06}")
}

/// The value of a key: noise, or what compresses to next to nothing.
fn value(number: u64, noisy: bool) -> Vec<u8> {
    if noisy { noise(number, VALUE) } else { vec![number as u8; VALUE] }
}

/// A changelog of 200 MB and no base, in objects and, for every tenth checkpoint, inside manifests.
fn write(store: &Arc<FaultStore>, noisy: bool) {
    let dir = tempfile::tempdir().unwrap();
    let Opened { job, mut stores, .. } = open(store, options(dir.path(), SUBTASKS)).unwrap();
    for number in 0..KEYS {
        put_any(&mut stores, &key(number), &value(number, noisy));
        if number % (KEYS / 40) < 10 && number % (KEYS / 10) < 10 {
            checkpoint(&job, &mut stores, "").unwrap();
        }
    }
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
}

/// Restores, and looks at every value. Returns the requests for the changelog's objects.
fn read(store: &Arc<FaultStore>, subtasks: u32, noisy: bool) -> Vec<Call> {
    let dir = tempfile::tempdir().unwrap();
    store.take_calls();
    store.take_held();
    let Opened { job, mut stores, restored, .. } = open(store, options(dir.path(), subtasks)).unwrap();
    let (left, most) = store.take_held();
    if noisy {
        assert!(restored.bytes_downloaded > 200_000_000, "{restored:?}");
        // Each delta is read once, but for what lies between two that are wanted at the same time.
        assert!(restored.bytes_downloaded < 260_000_000, "{restored:?}");
        assert!(most > BATCH, "{most} bytes: nothing was fetched ahead");
    }
    // The manifests that were read before as well, and a request may read along what lies between.
    assert!(most <= 4 * BATCH + (4 << 20), "{most} bytes of the changelog were held at a time");
    assert!(left < 1 << 20, "{left} bytes are still held");
    assert_eq!(restored.entries_replayed, KEYS, "{restored:?}");
    let calls = store.take_calls();
    for number in 0..KEYS {
        let key = key(number);
        let owner = stores.iter_mut().find(|store| store.range().contains(store.group_of(key.as_bytes())));
        let found = alluvium_testkit::drive::get(owner.unwrap(), &key);
        assert!(found.unwrap() == value(number, noisy), "{key}");
    }
    job.close().unwrap();
    calls.into_iter().filter(|call| call.op == Op::Get).collect()
}

#[test]
fn i6_a_changelog_that_is_larger_than_memory_is_restored_within_it() {
    let store = FaultStore::new(InMemory::new());
    write(&store, true);
    let calls = read(&store, SUBTASKS, true);
    // Some 200 MB in objects of up to 8 MiB, and 100 borders between batches: not one request a delta.
    assert!(calls.len() < 300, "{} requests", calls.len());
    // What several new subtasks need is still read once (asserted there).
    read(&store, 3, true);
}

#[test]
fn i6_a_changelog_that_compresses_well_is_restored_as_well() {
    let store = FaultStore::new(InMemory::new());
    write(&store, false);
    read(&store, SUBTASKS, false);
}
