//! The table's own rules on a real RocksDB in a temporary directory.

mod expiry;
mod views;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::snapshot::Snapshot;
use super::{OwnedCursor, Table, TableResources};
use crate::delta::{Entry, MergeOp};
use crate::error::{ErrorKind, Result};
use crate::ids::{DeltaSeq, StateId};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};

const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(3), last: KeyGroup(9) };
const STATE: StateId = StateId(7);
const NO_TOMBSTONES: [(&[u8], &[u8]); 0] = [];

fn resources() -> TableResources {
    TableResources::new(8 << 20, 2)
}

fn table() -> (TempDir, Table) {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::create(&dir.path().join("db"), RANGE, &resources()).unwrap();
    (dir, table)
}

fn k(user: &str) -> Vec<u8> {
    let mut key = Vec::new();
    key::encode_into(&mut key, KeyGroup(4), STATE, user.as_bytes());
    key
}

fn append(operand: &[u8]) -> Entry<'_> {
    Entry::Merge { op: MergeOp::ListAppend, operand }
}

fn apply(table: &Table, seq: u64, entries: &[(&str, Entry<'_>)]) -> Result<()> {
    let keys: Vec<Vec<u8>> = entries.iter().map(|(key, _)| k(key)).collect();
    let entries = keys.iter().zip(entries).map(|(key, (_, entry))| (key.as_slice(), *entry));
    table.apply(DeltaSeq(seq), NO_TOMBSTONES, entries)
}

fn get(table: &Table, key: &str) -> Option<Vec<u8>> {
    table.get(&k(key)).unwrap().map(|value| value.to_vec())
}

fn scan(table: &Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    try_scan(&table.snapshot()).unwrap()
}

fn try_scan(snapshot: &Snapshot<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (start, end) = key::bounds_of(RANGE);
    snapshot.iter(&start, &end)?.collect()
}

fn sst_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    files.sort();
    files
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_table_may_be_shared_with_an_applier_thread() {
    fn shared<T: Send + Sync>() {}
    shared::<Table>();
    shared::<TableResources>();
}

#[test]
fn a_delta_is_applied_with_its_number() {
    let (_dir, table) = table();
    assert_eq!(table.applied().unwrap(), DeltaSeq(0));
    apply(&table, 1, &[("a", Entry::Put(b"1")), ("b", Entry::Put(b"2"))]).unwrap();
    apply(&table, 2, &[("a", Entry::Delete), ("c", append(b"x"))]).unwrap();
    assert_eq!(table.applied().unwrap(), DeltaSeq(2));
    assert_eq!(get(&table, "a"), None);
    assert_eq!(get(&table, "b").as_deref(), Some(b"2".as_slice()));
    assert_eq!(table.get_at(&k("c")).unwrap().0.as_deref(), Some(b"x".as_slice()));
    assert_eq!(table.get_at(&k("c")).unwrap().1, DeltaSeq(2));
    let values: Vec<_> = table
        .multi_get(&[&k("c"), &k("a"), &k("b"), &k("c")])
        .into_iter()
        .map(|value| value.unwrap().map(|value| value.to_vec()))
        .collect();
    assert_eq!(values, [Some(b"x".to_vec()), None, Some(b"2".to_vec()), Some(b"x".to_vec())]);
}

#[test]
fn a_delta_is_never_applied_twice_or_out_of_order() {
    let (_dir, table) = table();
    apply(&table, 5, &[("a", append(b"1"))]).unwrap();
    for seq in [5, 4, 0] {
        assert_eq!(apply(&table, seq, &[("a", append(b"2"))]).unwrap_err().kind(), ErrorKind::Internal);
    }
    assert_eq!(get(&table, "a").as_deref(), Some(b"1".as_slice()));
}

#[test]
fn a_replay_deletes_ranges_by_what_lies_in_them() {
    let (_dir, table) = table();
    let user = |n: usize| k(&format!("{n:05}"));
    let deleted = |ranges: &[(usize, usize)]| {
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| (user(*start), user(*end))).collect();
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| (start.as_slice(), end.as_slice())).collect();
        let mut batch = rocksdb::WriteBatch::default();
        table.delete_ranges(&mut batch, &ranges).unwrap();
        batch.len()
    };
    assert_eq!(deleted(&[(0, 10), (20, 99_999)]), 0, "an empty table");
    for n in (0..400).step_by(2) {
        table.put(&user(n), &[7; 20]).unwrap();
    }
    assert_eq!(deleted(&[(0, 0), (1, 2), (10, 20), (30, 31), (50, 114), (200, 399)]), 5 + 1 + 32 + 1);
    assert_eq!(deleted(&[(0, 66)]), 1, "more than 32 are one range");
    let (first, second) = ([user(10), user(20)], [user(100), user(300)]);
    let ranges = [&first, &second].map(|[start, end]| (start.as_slice(), end.as_slice()));
    let put = user(15);
    table.load(ranges, [(put.as_slice(), Entry::Put(b"new"))]).unwrap();
    let left: Vec<_> = scan(&table).into_iter().map(|(key, _)| key).collect();
    let expected = (0..10).chain([15]).chain(20..100).chain(300..400).filter(|n| *n == 15 || n % 2 == 0);
    assert_eq!(left, expected.map(user).collect::<Vec<_>>());
    // To look would be to read far more than there is to delete.
    // The values do not compress: RocksDB may flush them at any time, and the files count as well.
    let mut noise = blake3::Hasher::new().update(b"values").finalize_xof();
    let mut value = [0; 1_000];
    for n in 1_000..3_000 {
        noise.fill(&mut value);
        table.put(&user(n), &value).unwrap();
    }
    assert_eq!(deleted(&[(600, 601)]), 1);
    table.db.flush().unwrap();
    assert_eq!(deleted(&[(600, 601)]), 1, "in files");
}

#[test]
fn a_memtable_is_flushed_for_its_tombstones() {
    let (_dir, table) = table();
    let mut most = 0;
    for n in 0..2_000 {
        table.delete_range(&k(&format!("{n:05}a")), &k(&format!("{n:05}b"))).unwrap();
        let entries = table.db.property_int_value(rocksdb::properties::NUM_ENTRIES_ACTIVE_MEM_TABLE);
        most = most.max(entries.unwrap().unwrap());
    }
    assert!(most <= 513, "{most} tombstones that every read has to look at");
}

#[test]
fn tombstones_come_before_the_entries_of_their_delta() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1")), ("b", Entry::Put(b"1")), ("d", append(b"1"))]).unwrap();
    let (start, end, b) = (k("a"), k("c"), k("b"));
    table
        .apply(DeltaSeq(2), [(start.as_slice(), end.as_slice())], [(b.as_slice(), Entry::Put(b"2"))])
        .unwrap();
    let expected = [(k("b"), b"2".to_vec()), (k("d"), b"1".to_vec())];
    assert_eq!(scan(&table), expected);
    table.compact_all().unwrap();
    assert_eq!(scan(&table), expected);
    assert_eq!(table.applied().unwrap(), DeltaSeq(2));
}
