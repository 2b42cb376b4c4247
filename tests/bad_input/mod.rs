//! What is not right is refused with an error that says what, where, and what to do; and nothing is
//! lost, overwritten, or begun by it.
#![allow(clippy::unwrap_used)]

mod disks;
mod opening;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointMode, Error, ErrorKind, Job, JobLocation, JobOptions, KeyGroup, MaxParallelism, OpenMode,
    Opened, Receipt, RestoreFrom, State, StateOptions, StateStore, TableKind, ValueState,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use alluvium_testkit::drive::{PREFIX, by_hand, checkpoint, contents, get, noise, open, put, quiet, state};
use alluvium_testkit::faults::{Conditions, FaultStore, Op};
use alluvium_testkit::objects::{files_below, names_of, objects_of};

const LIMIT: Duration = Duration::from_secs(30);

fn options(dir: &Path, mode: OpenMode) -> JobOptions {
    quiet(&dir.join("local"), mode)
}

/// The error's kind, and words that its text must have: what failed, on what, and what to do.
#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(!text.contains('\n') && text.len() < 600, "{text}");
}

// Places.

// Options.

// Calls.

/// The first of two. The other one is kept as well, since no checkpoint could do without it.
fn one_store() -> ((tempfile::TempDir, Vec<StateStore>), Job, StateStore, State) {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = options(dir.path(), OpenMode::Create).subtasks(2);
    let Opened { job, mut stores, .. } = open(&store, options).unwrap();
    let mut first = stores.remove(0);
    let state = state(&mut first);
    ((dir, stores), job, first, state)
}

#[test]
fn key_groups_outside_the_range_are_refused() {
    let (_dir, _job, mut store, state) = one_store();
    assert_eq!((store.range().first.0, store.range().last.0), (0, 63));
    for group in [64, 127, 128, u16::MAX] {
        let group = KeyGroup(group);
        let refused = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            assert_error(&error, ErrorKind::InvalidArgument, &["0..=63", &group.to_string(), "subtask 0"]);
        };
        refused(store.put(state, group, b"k", b"v"));
        refused(store.append(state, group, b"k", b"v"));
        refused(store.delete(state, group, b"k"));
        refused(store.delete_prefix(state, group, b""));
        refused(store.get(state, group, b"k").map(|_| ()));
        refused(store.multi_get(state, &[(KeyGroup(0), b"k"), (group, b"k")]).map(|_| ()));
        refused(store.scan_prefix(state, group, b"").map(|_| ()));
        refused(store.scan_range(state, group, b"", None).map(|_| ()));
    }
    // A refused call ends nothing.
    store.put(state, KeyGroup(63), b"k", b"v").unwrap();
    assert_eq!(store.get(state, KeyGroup(63), b"k").unwrap().unwrap(), b"v");
}

#[test]
fn keys_and_values_have_limits_and_keep_to_them() {
    let (_dir, job, mut store, state) = one_store();
    let group = KeyGroup(0);
    let longest = vec![b'k'; 64 * 1024];
    let too_long = vec![b'k'; 64 * 1024 + 1];
    store.put(state, group, &longest, b"v").unwrap();
    store.put(state, group, b"", b"").unwrap();
    assert_eq!(store.get(state, group, &longest).unwrap().unwrap(), b"v");
    assert_eq!(store.get(state, group, b"").unwrap().unwrap(), b"");
    for result in [
        store.put(state, group, &too_long, b"v"),
        store.append(state, group, &too_long, b"v"),
        store.delete(state, group, &too_long),
        store.delete_prefix(state, group, &too_long),
    ] {
        assert_error(&result.unwrap_err(), ErrorKind::InvalidArgument, &["65537", "65536"]);
    }
    assert!(store.get(state, group, &too_long).is_err());
    assert!(store.scan_prefix(state, group, &too_long).is_err());
    let huge = vec![0; (256 << 20) + 1];
    let error = store.put(state, group, b"k", &huge).unwrap_err();
    assert_error(&error, ErrorKind::InvalidArgument, &["268435457", "268435456"]);
    assert!(store.append(state, group, b"k", &huge).is_err());
    drop(huge);
    // What was accepted comes through a table and a checkpoint as well.
    job.settle(LIMIT).unwrap();
    let pending = job.trigger("").unwrap();
    store.cut(pending.id(), "").unwrap();
    job.settle(LIMIT).unwrap();
    let found: Vec<_> = store.scan_prefix(state, group, b"").unwrap().map(Result::unwrap).collect();
    assert_eq!(found, vec![(Vec::new(), Vec::new()), (longest, b"v".to_vec())]);
}

#[test]
fn scans_of_ranges_that_are_empty_or_turned_round_are_empty() {
    let (_dir, _job, mut store, state) = one_store();
    for key in [b"a".as_slice(), b"b", b"c"] {
        store.put(state, KeyGroup(0), key, b"v").unwrap();
    }
    for (start, end) in [("b", "b"), ("c", "a"), ("x", "z"), ("b", "")] {
        let scan = store.scan_range(state, KeyGroup(0), start.as_bytes(), Some(end.as_bytes())).unwrap();
        assert_eq!(scan.count(), 0, "{start}..{end}");
    }
}

#[test]
fn a_state_stays_of_its_kind_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    let clash = |store: &mut StateStore| {
        let error = store.register(ValueState::<u64>::descriptor("words")).unwrap_err();
        assert_error(&error, ErrorKind::Incompatible, &["\"words\"", "raw"]);
        let error = store.state(&StateOptions::new("count")).unwrap_err();
        assert_error(&error, ErrorKind::Incompatible, &["\"count\"", "value"]);
        let error = store.register(ValueState::<u64>::descriptor("count").schema(2)).unwrap_err();
        assert_error(&error, ErrorKind::Incompatible, &["\"count\"", "schema"]);
        let error = store.state(&StateOptions::new("")).unwrap_err();
        assert_error(&error, ErrorKind::InvalidArgument, &["name"]);
    };
    put(&mut stores[0], "k", b"v").unwrap();
    let count = stores[0].register(ValueState::<u64>::descriptor("count")).unwrap();
    stores[0].set_key("k").unwrap();
    count.put(&mut stores[0], &7).unwrap();
    clash(&mut stores[0]);
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    let mut opened = open(&store, options(dir.path(), OpenMode::Existing)).unwrap();
    clash(&mut opened.stores[0]);
    let count = opened.stores[0].register(ValueState::<u64>::descriptor("count")).unwrap();
    opened.stores[0].set_key("k").unwrap();
    assert_eq!(count.get(&opened.stores[0]).unwrap(), Some(7));

    // A value that is not of the type that it would be read as.
    let text = opened.stores[0].register(ValueState::<String>::descriptor("count"));
    assert_error(&text.unwrap_err(), ErrorKind::Incompatible, &["count", "u64", "str"]);
}

/// The kind of table is how changes are kept, not what they are: registering a state a second time
/// with the other kind is refused or makes no difference, but reads never miss a write.
#[test]
fn one_state_with_two_kinds_of_table_reads_its_own_writes() {
    let (_dir, job, mut store, hash) = one_store();
    let group = KeyGroup(5);
    let ordered = match store.state(&StateOptions::new("words").table(TableKind::Ordered)) {
        Ok(ordered) => ordered,
        Err(error) => {
            assert_error(&error, ErrorKind::Incompatible, &["words"]);
            return;
        }
    };
    let check = |store: &StateStore, expected: Option<&[u8]>| {
        for state in [hash, ordered] {
            assert_eq!(store.get(state, group, b"k").unwrap().as_deref(), expected);
            let many = store.multi_get(state, &[(group, b"k")]).unwrap();
            assert_eq!(many[0].as_deref(), expected);
            let found: Vec<_> = store.scan_prefix(state, group, b"").unwrap().map(Result::unwrap).collect();
            let expected: Vec<_> =
                expected.map(|value| (b"k".to_vec(), value.to_vec())).into_iter().collect();
            assert_eq!(found, expected);
        }
    };
    store.put(hash, group, b"k", b"1").unwrap();
    check(&store, Some(b"1"));
    store.put(ordered, group, b"k", b"2").unwrap();
    check(&store, Some(b"2"));
    store.append(hash, group, b"k", b"3").unwrap();
    check(&store, Some(b"23"));
    store.delete(ordered, group, b"k").unwrap();
    check(&store, None);
    store.put(hash, group, b"k", b"4").unwrap();
    check(&store, Some(b"4"));
    store.delete_prefix(ordered, group, b"").unwrap();
    check(&store, None);
    store.append(ordered, group, b"k", b"5").unwrap();
    check(&store, Some(b"5"));
    let pending = job.trigger("").unwrap();
    store.cut(pending.id(), "").unwrap();
    job.settle(LIMIT).unwrap();
    check(&store, Some(b"5"));
}

#[test]
fn cuts_for_checkpoints_that_are_none_are_refused() {
    let (_dir, job, mut store, _state) = one_store();
    assert_eq!(store.due(), None);
    let pending = job.trigger("").unwrap();
    assert_eq!(store.due(), Some(pending.id()));
    assert_error(&job.trigger("").unwrap_err(), ErrorKind::WouldBlock, &[&pending.id().to_string()]);
    store.cut(pending.id(), "").unwrap();
    let again = store.cut(pending.id(), "").unwrap_err();
    assert_error(&again, ErrorKind::InvalidArgument, &[&pending.id().to_string()]);
    let mut foreign = pending.id();
    foreign.epoch.0 += 1;
    assert_error(&store.cut(foreign, "").unwrap_err(), ErrorKind::InvalidArgument, &[&foreign.to_string()]);
    pending.abort();
    assert_error(&pending.wait().unwrap_err(), ErrorKind::Aborted, &["checkpoint"]);
    job.health().unwrap();
}

#[test]
fn receipts_of_another_attempt_or_of_damaged_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    put(&mut stores[0], "k", &noise(1, 300)).unwrap();
    let pending = job.trigger("").unwrap();
    let receipt = stores[0].cut(pending.id(), "offset 5").unwrap().wait().unwrap();
    pending.wait().unwrap();
    let bytes = receipt.to_bytes().unwrap();
    assert_eq!(Receipt::from_bytes(&bytes).unwrap(), receipt);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x11;
        let error = Receipt::from_bytes(&damaged).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion), "{at}: {error}");
        assert!(Receipt::from_bytes(&bytes[..at]).is_err(), "cut off after {at} bytes");
    }
    // Twice, or too late: counts once.
    job.submit(receipt.clone()).unwrap();
    job.submit(receipt.clone()).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    assert_eq!(job.checkpoints().len(), 2);
    drop((job, stores));
    let Opened { job, .. } = open(&store, options(dir.path(), OpenMode::Existing)).unwrap();
    assert_error(&job.submit(receipt).unwrap_err(), ErrorKind::InvalidArgument, &["attempt"]);
}

// Disks.
