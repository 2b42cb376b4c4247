//! The table's own rules on a real RocksDB in a temporary directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::snapshot::Snapshot;
use super::{Expiry, OwnedCursor, Table, TableResources};
use crate::delta::{Entry, MergeOp};
use crate::env::Clock;
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

/// I1: whatever is read at any moment belongs to one delta. Each delta writes its number to every key.
#[test]
fn i1_no_view_shows_a_half_delta() {
    const KEYS: u64 = 200;
    let (dir, table) = table();
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|i| k(&format!("{i:05}"))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for seq in 1..=400_u64 {
                let value = seq.to_be_bytes();
                let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
                table.apply(DeltaSeq(seq), NO_TOMBSTONES, entries).unwrap();
                if seq % 100 == 0 {
                    table.flush().unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let number = |value: &[u8]| u64::from_be_bytes(value.try_into().unwrap());
        let mut views = 0;
        while !done.load(Ordering::Acquire) {
            let snapshot = table.snapshot();
            let seq = snapshot.applied().unwrap();
            let seen: Vec<_> = try_scan(&snapshot).unwrap().iter().map(|(_, value)| number(value)).collect();
            assert!(seen.iter().all(|value| *value == seq.0), "{seq}: {seen:?}");
            assert_eq!(seen.len() as u64, if seq.0 == 0 { 0 } else { KEYS });
            // The read that needs no snapshot knows just as well where it stands.
            let (value, at) = table.get_at(&keys[7]).unwrap();
            assert_eq!(value.map_or(0, |value| number(&value)), at.0);
            assert!(at >= seq);
            views += 1;
        }
        writer.join().unwrap();
        assert!(views > 10, "{views}");
    });
    drop(dir);
}

/// I1: a read that says after which delta it was is right, however close a delta comes.
#[test]
fn i1_a_read_knows_its_delta() {
    let (_dir, table) = table();
    let key = k("a");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for seq in 1..=30_000_u64 {
                let value = seq.to_be_bytes();
                table.apply(DeltaSeq(seq), NO_TOMBSTONES, [(key.as_slice(), Entry::Put(&value))]).unwrap();
            }
        });
        while !writer.is_finished() {
            let (value, at) = table.get_at(&key).unwrap();
            let value = value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
            assert_eq!(value, at.0);
        }
    });
}

/// I1: a checkpoint on disk stands at one delta as well, though deltas are applied while it is taken.
#[test]
fn i1_a_checkpoint_stands_at_one_delta() {
    let (dir, table) = table();
    let keys: Vec<Vec<u8>> = (0..100).map(|i| k(&format!("{i:05}"))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion below fails.
        let stop = StopOnDrop(&done);
        scope.spawn(|| {
            for seq in (1..).take_while(|_| !done.load(Ordering::Acquire)) {
                let value = u64::to_be_bytes(seq);
                let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
                table.apply(DeltaSeq(seq), NO_TOMBSTONES, entries).unwrap();
            }
        });
        for i in 0..5 {
            let before = table.applied().unwrap();
            let copy = dir.path().join(format!("copies/{i}"));
            table.checkpoint(&copy).unwrap();
            let copy = Table::open(&copy, RANGE, &resources()).unwrap();
            let applied = copy.applied().unwrap();
            assert!(applied >= before);
            assert!(scan(&copy).iter().all(|(_, value)| *value == applied.0.to_be_bytes()));
        }
        drop(stop);
    });
}

/// The trap: with the log off, a checkpoint that is not told to flush loses the memtable.
#[test]
fn a_checkpoint_holds_what_is_only_in_the_memtable() {
    let (dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1")), ("z", Entry::Put(b"1"))]).unwrap();
    let first = dir.path().join("first");
    table.checkpoint(&first).unwrap();
    // Nothing new: no flush, the same files.
    let same = dir.path().join("same");
    table.checkpoint(&same).unwrap();
    assert_eq!(sst_files(&same).len(), sst_files(&first).len());
    // A range tombstone alone is something new, too.
    table.delete_range(&k("a"), &k("b")).unwrap();
    let second = dir.path().join("second");
    table.checkpoint(&second).unwrap();
    drop(table);

    let first = Table::open(&first, RANGE, &resources()).unwrap();
    assert_eq!(scan(&first), [(k("a"), b"1".to_vec()), (k("z"), b"1".to_vec())]);
    let second = Table::open(&second, RANGE, &resources()).unwrap();
    assert_eq!(scan(&second), [(k("z"), b"1".to_vec())]);
    assert_eq!(second.applied().unwrap(), DeltaSeq(1));
}

#[test]
fn merges_survive_flush_compaction_and_reopening() {
    let (dir, table) = table();
    apply(&table, 1, &[("list", append(b"a")), ("base", Entry::Put(b"0"))]).unwrap();
    table.flush().unwrap();
    apply(&table, 2, &[("list", append(b"b")), ("base", append(b"1"))]).unwrap();
    table.flush().unwrap();
    apply(&table, 3, &[("list", append(b"c")), ("base", append(b"2"))]).unwrap();
    let expected = [(k("base"), b"012".to_vec()), (k("list"), b"abc".to_vec())];
    assert_eq!(scan(&table), expected);
    let copy = dir.path().join("copy");
    table.checkpoint(&copy).unwrap();
    table.compact_all().unwrap();
    assert_eq!(scan(&table), expected);
    drop(table);

    let table = Table::open(&copy, RANGE, &resources()).unwrap();
    assert_eq!(scan(&table), expected);
    apply(&table, 4, &[("list", append(b"d"))]).unwrap();
    table.compact_all().unwrap();
    assert_eq!(get(&table, "list").as_deref(), Some(b"abcd".as_slice()));
}

#[test]
fn the_marker_lies_inside_the_owned_range_and_no_scan_shows_it() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1"))]).unwrap();
    let (start, end) = key::bounds_of(RANGE);
    let marker = key::marker(RANGE);
    assert!(start.as_slice() <= marker.as_slice() && marker.as_slice() < end.as_slice());
    assert_eq!(scan(&table).len(), 1);
    assert!(table.get(&marker).unwrap().is_some());
}

#[test]
fn a_scan_keeps_to_its_bounds() {
    let (_dir, table) = table();
    apply(&table, 1, &["a", "b", "c", "d"].map(|key| (key, Entry::Put(b"1")))).unwrap();
    let keys = |start: &str, end: &str| {
        let snapshot = table.snapshot();
        let mut cursor = snapshot.cursor(&k(start), &k(end)).unwrap();
        let mut keys = String::new();
        while let Some((key, _)) = cursor.entry() {
            keys.push(char::from(key::user_key(key)[0]));
            cursor.advance().unwrap();
        }
        // Behind the end it stays there.
        cursor.advance().unwrap();
        assert!(cursor.entry().is_none());
        keys
    };
    assert_eq!(keys("b", "d"), "bc");
    assert_eq!(keys("", "z"), "abcd");
    assert_eq!(keys("c", "c"), "");
    assert_eq!(keys("d", "a"), "");
}

#[test]
fn a_snapshot_and_a_cursor_stay_as_they_were() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1")), ("b", Entry::Put(b"1"))]).unwrap();
    let table = Arc::new(table);
    let snapshot = table.snapshot();
    let (mut cursor, at) = OwnedCursor::new(Arc::clone(&table), &k("a"), &k("z")).unwrap();
    assert_eq!(at, DeltaSeq(1));
    apply(&table, 2, &[("a", Entry::Put(b"2")), ("b", Entry::Delete)]).unwrap();
    table.compact_all().unwrap();
    let expected = [(k("a"), b"1".to_vec()), (k("b"), b"1".to_vec())];
    assert_eq!(snapshot.applied().unwrap(), DeltaSeq(1));
    assert_eq!(try_scan(&snapshot).unwrap(), expected);
    drop(snapshot);
    apply(&table, 3, &[("a", Entry::Put(b"3"))]).unwrap();
    table.compact_all().unwrap();
    // The cursor needs neither the snapshot that it came from nor any other handle of the table.
    drop(table);
    for (key, value) in &expected {
        assert_eq!(cursor.entry(), Some((key.as_slice(), value.as_slice())));
        cursor.advance().unwrap();
    }
    assert!(cursor.entry().is_none());
}

#[test]
fn native_writes_and_bulk_equal_single_deltas() {
    let (_dir, native) = table();
    native.put(&k("a"), b"1").unwrap();
    native.merge(MergeOp::ListAppend, &k("a"), b"2").unwrap();
    native.put(&k("b"), b"1").unwrap();
    native.put(&k("c"), b"1").unwrap();
    native.delete(&k("b")).unwrap();
    native.delete_range(&k("c"), &k("d")).unwrap();
    native.set_applied(DeltaSeq(3)).unwrap();
    assert_eq!(native.applied().unwrap(), DeltaSeq(3));
    assert_eq!(scan(&native), [(k("a"), b"12".to_vec())]);

    // 24 MB in chunks of 8 MiB, behind a tombstone.
    let (_dir, bulk) = table();
    bulk.put(&k("00000"), b"old").unwrap();
    bulk.put(&k("zzz"), b"old").unwrap();
    let value = vec![b'x'; 4000];
    let keys: Vec<Vec<u8>> = (1..6000).map(|i| k(&format!("{i:05}"))).collect();
    let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
    bulk.load([(k("").as_slice(), k("zz").as_slice())], entries).unwrap();
    assert_eq!(bulk.applied().unwrap(), DeltaSeq(0));
    bulk.set_applied(DeltaSeq(9)).unwrap();
    assert_eq!(bulk.applied().unwrap(), DeltaSeq(9));
    let scanned = scan(&bulk);
    assert_eq!(scanned.len(), 6000);
    assert_eq!(scanned[0].0, k("00001"));
    assert_eq!(scanned[5999], (k("zzz"), b"old".to_vec()));
}

#[test]
fn work_left_over_can_be_awaited() {
    let (_dir, table) = table();
    let value = vec![b'x'; 20_000];
    for seq in 1..=300 {
        apply(&table, seq, &[(&format!("{:03}", seq * 7919 % 1000), Entry::Put(&value))]).unwrap();
        if seq % 20 == 0 {
            table.flush().unwrap();
        }
    }
    assert!(table.wait_idle(Duration::from_secs(60)).unwrap());
    let stats = table.stats();
    assert_eq!((stats.running_compactions, stats.running_flushes), (0, 0), "{stats:?}");
    assert!(
        stats.live_sst_bytes > 0 && stats.l0_files < super::options::L0_FILES as u64 && !stats.write_stopped,
        "{stats:?}"
    );
}

/// Scripts, shells and clones may point cargo at a library that was compiled earlier, and nothing
/// else would notice one of another version.
#[test]
fn the_linked_rocksdb_is_the_pinned_one() {
    let (_dir, table) = table();
    let pinned = include_str!("../../Cargo.lock")
        .split("[[package]]")
        .find(|package| package.contains("name = \"librocksdb-sys\""))
        .and_then(|package| package.lines().find(|line| line.starts_with("version = ")))
        .and_then(|line| line.trim_end_matches('"').rsplit_once('+'))
        .map(|(_, version)| version)
        .unwrap();
    let options = fs::read_dir(&table.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS-"))
        .unwrap();
    let linked = fs::read_to_string(options).unwrap();
    assert!(
        linked.contains(&format!("rocksdb_version={pinned}\n")),
        "{pinned} is pinned, linked is {linked}"
    );
}

#[test]
fn opening_names_what_is_wrong() {
    let (dir, table) = table();
    let db = table.dir.clone();
    let kind = |result: Result<Table>| result.map(drop).unwrap_err().kind();

    // Held by another.
    assert_eq!(kind(Table::open(&db, RANGE, &resources())), ErrorKind::Locked);
    // Not empty.
    assert_eq!(kind(Table::create(&db, RANGE, &resources())), ErrorKind::AlreadyExists);
    // Nothing there, and nothing created.
    let absent = dir.path().join("absent");
    assert_eq!(kind(Table::open(&absent, RANGE, &resources())), ErrorKind::NotFound);
    assert!(!absent.exists());
    // A file in the place of the directory.
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    assert_eq!(kind(Table::create(&file, RANGE, &resources())), ErrorKind::Disk);
    // A file missing.
    apply(&table, 1, &[("a", Entry::Put(b"1"))]).unwrap();
    let copy = dir.path().join("copy");
    table.checkpoint(&copy).unwrap();
    fs::remove_file(&sst_files(&copy)[0]).unwrap();
    let error = Table::open(&copy, RANGE, &resources()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(error.object_name(), Some(copy.to_str().unwrap()));
    // A CURRENT that is no such thing.
    fs::write(copy.join("CURRENT"), b"rubbish").unwrap();
    let error = Table::open(&copy, RANGE, &resources()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// I4: a flipped byte in any file is an error, never a wrong value.
#[test]
fn i4_a_flipped_byte_never_reads_as_a_value() {
    let (dir, table) = table();
    let value: Vec<u8> = (0..5000_u32).map(|i| (i * 31 % 251) as u8).collect();
    apply(&table, 1, &["a", "b", "c", "d"].map(|key| (key, Entry::Put(&value)))).unwrap();
    let clean = scan(&table);
    let copy = dir.path().join("copy");
    table.checkpoint(&copy).unwrap();
    let [file] = &sst_files(&copy)[..] else { panic!("one file") };
    let original = fs::read(file).unwrap();
    // Hard-linked: never write through the link.
    fs::remove_file(file).unwrap();
    let mut noticed = 0;
    for position in (0..original.len()).step_by(97) {
        let mut damaged = original.clone();
        damaged[position] ^= 0x10;
        fs::write(file, &damaged).unwrap();
        let read = Table::open(&copy, RANGE, &resources()).and_then(|table| try_scan(&table.snapshot()));
        match read {
            // The flip hit what a scan does not read (filter, properties).
            Ok(entries) => assert_eq!(entries, clean, "byte {position}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {position}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 10, "{noticed}");
}

/// I6: a disk that fails shows as an error, at once and at every later write; nothing pretends to
/// have been written.
#[test]
fn a_failing_disk_is_an_error() {
    let (_dir, table) = table();
    apply(&table, 1, &[("a", Entry::Put(b"1"))]).unwrap();
    fs::remove_dir_all(&table.dir).unwrap();
    let error = table.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert_eq!(table.checkpoint(&table.dir.join("../copy")).unwrap_err().kind(), ErrorKind::Disk);
    assert_eq!(apply(&table, 2, &[("a", Entry::Put(b"2"))]).unwrap_err().kind(), ErrorKind::Disk);
    assert_eq!(get(&table, "a").as_deref(), Some(b"1".as_slice()));
    assert!(table.stats().background_errors > 0);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    Append(u8, u8),
    DeleteRange(u8, u8),
    Flush,
    Compact,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        3 => (0..12_u8).prop_map(Op::Delete),
        6 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Op::Append(key, value)),
        2 => (0..12_u8, 0..12_u8).prop_map(|(start, end)| Op::DeleteRange(start, end)),
        1 => Just(Op::Flush),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against a plain map: every operation is a delta of its own.
    #[test]
    fn behaves_like_a_map(ops in proptest::collection::vec(op(), 1..60)) {
        let (dir, mut table) = table();
        let mut model = BTreeMap::<Vec<u8>, Vec<u8>>::new();
        let name = |key: u8| k(&format!("{key:02}"));
        for (i, op) in ops.iter().enumerate() {
            let seq = DeltaSeq(i as u64 + 1);
            match *op {
                Op::Put(key, value) => {
                    table.apply(seq, NO_TOMBSTONES, [(name(key).as_slice(), Entry::Put(&[value]))]).unwrap();
                    model.insert(name(key), vec![value]);
                }
                Op::Delete(key) => {
                    table.apply(seq, NO_TOMBSTONES, [(name(key).as_slice(), Entry::Delete)]).unwrap();
                    model.remove(&name(key));
                }
                Op::Append(key, value) => {
                    table.apply(seq, NO_TOMBSTONES, [(name(key).as_slice(), append(&[value]))]).unwrap();
                    model.entry(name(key)).or_default().push(value);
                }
                Op::DeleteRange(a, b) => {
                    let (start, end) = (name(a.min(b)), name(a.max(b)));
                    table.apply(seq, [(start.as_slice(), end.as_slice())], []).unwrap();
                    model.retain(|key, _| *key < start || *key >= end);
                }
                Op::Flush => table.flush().unwrap(),
                Op::Compact => table.compact_all().unwrap(),
                Op::Reopen => {
                    let copy = dir.path().join(i.to_string());
                    table.checkpoint(&copy).unwrap();
                    let applied = table.applied().unwrap();
                    table = Table::open(&copy, RANGE, &resources()).unwrap();
                    prop_assert_eq!(table.applied().unwrap(), applied);
                }
            }
        }
        prop_assert_eq!(scan(&table), model.clone().into_iter().collect::<Vec<_>>());
        for key in 0..12 {
            let value = table.get(&name(key)).unwrap().map(|value| value.to_vec());
            prop_assert_eq!(value.as_ref(), model.get(&name(key)));
        }
    }
}

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_millis())
    }

    fn unix_millis(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Values whose first byte is their time, and that live for 10 milliseconds.
const EXPIRY: Expiry = Expiry {
    ttl_millis: 10,
    last_access: |value| value.first().copied().map(u64::from),
    first_part: |_| None,
};

fn table_with_clock() -> (TempDir, Table, Arc<ManualClock>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::<ManualClock>::default();
    let resources = resources().with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let table = Table::create(&dir.path().join("db"), RANGE, &resources).unwrap();
    (dir, table, clock)
}

#[test]
fn compaction_removes_what_has_expired_and_nothing_else() {
    let (_dir, table, clock) = table_with_clock();
    let mut other = Vec::new();
    key::encode_into(&mut other, KeyGroup(4), StateId(8), b"old");
    table.apply(DeltaSeq(1), NO_TOMBSTONES, [(other.as_slice(), Entry::Put(&[1]))]).unwrap();
    let values = [("never", &[][..]), ("old", &[5]), ("young", &[6])];
    apply(&table, 2, &values.map(|(key, value)| (key, Entry::Put(value)))).unwrap();
    clock.0.store(15, Ordering::Release);
    table.compact_all().unwrap();
    assert_eq!(scan(&table).len(), 4, "no TTL is registered yet");

    table.expire(STATE, EXPIRY).unwrap();
    // As if somebody had registered one for the reserved state: the marker must survive.
    table.expire(StateId::RESERVED, Expiry { ttl_millis: 0, last_access: |_| Some(0), ..EXPIRY }).unwrap();
    table.compact_all().unwrap();
    let left: Vec<_> = scan(&table).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [k("never"), k("young"), other.clone()]);
    assert_eq!(table.applied().unwrap(), DeltaSeq(2));

    clock.0.store(1000, Ordering::Release);
    table.compact_all().unwrap();
    assert_eq!(get(&table, "young"), None);
    assert_eq!(scan(&table).len(), 2);
}

/// What compaction removes from an upper level must go on hiding what lies below.
#[test]
fn an_older_value_does_not_show_through_where_a_newer_has_expired() {
    let (_dir, table, clock) = table_with_clock();
    // Without a time: it would never expire.
    apply(&table, 1, &[("a", Entry::Put(b"")), ("b", Entry::Put(b""))]).unwrap();
    table.compact_all().unwrap();
    table.expire(STATE, EXPIRY).unwrap();
    clock.0.store(100, Ordering::Release);
    // So many files in level 0 that RocksDB compacts them, into a level above that of the first.
    for _ in 0..50 {
        table.put(&k("a"), &[5]).unwrap();
        table.put(&k("b"), &[95]).unwrap();
        table.flush().unwrap();
    }
    assert!(table.wait_idle(Duration::from_secs(30)).unwrap());
    assert_ne!(get(&table, "a").as_deref(), Some(b"".as_slice()));
    table.compact_all().unwrap();
    assert_eq!(get(&table, "a"), None);
    assert_eq!(get(&table, "b").as_deref(), Some(&[95][..]));
    assert_eq!(scan(&table).len(), 1);
}

/// RocksDB does not show operands to the filter: a value that is appended to loses what has expired only once
/// it is a value again.
#[test]
fn operands_survive_the_filter() {
    let (_dir, table, clock) = table_with_clock();
    table.expire(STATE, EXPIRY).unwrap();
    clock.0.store(100, Ordering::Release);
    table.put(&k("base"), &[5]).unwrap();
    table.merge(MergeOp::ListAppend, &k("operands"), &[5]).unwrap();
    table.compact_all().unwrap();
    assert_eq!(get(&table, "base"), None);
    apply(&table, 2, &[("base", append(&[95])), ("operands", append(&[96]))]).unwrap();
    assert_eq!(get(&table, "base").as_deref(), Some(&[95][..]));
    assert_eq!(get(&table, "operands").as_deref(), Some(&[5, 96][..]));
    table.compact_all().unwrap();
    assert_eq!(get(&table, "base").as_deref(), Some(&[95][..]));
}

/// A list of bytes, each of which is its own time.
const PARTS: Expiry = Expiry {
    last_access: |value| Some(value.iter().max().copied().map_or(0, u64::from)),
    first_part: |value| value.first().map(|time| (Some(u64::from(*time)), 1)),
    ..EXPIRY
};

/// What is appended to again and again must not grow for ever.
#[test]
fn folds_leave_out_what_has_expired_at_the_front() {
    let (_dir, table, clock) = table_with_clock();
    table.expire(STATE, PARTS).unwrap();
    for time in 1..=60_u8 {
        clock.0.store(time.into(), Ordering::Release);
        let operand = append(std::slice::from_ref(&time));
        apply(&table, time.into(), &[("list", operand), ("never read", operand)]).unwrap();
        if time % 5 == 0 {
            table.compact_all().unwrap();
            let list = get(&table, "list").unwrap();
            assert!(list.len() <= 10 && list.ends_with(&[time]), "{list:?}");
        }
    }
    assert!(scan(&table).iter().all(|(_, value)| value.len() <= 10), "{:?}", scan(&table));
    // Lists that only consist of operands as well, in the first compaction.
    let mut bytes = Vec::new();
    clock.0.store(100, Ordering::Release);
    table.put(&k("put"), &[99]).unwrap();
    for time in 80..=89_u8 {
        bytes.extend_from_slice(&[time; 1000]);
        table.merge(MergeOp::ListAppend, &k("expired"), &[time; 1000]).unwrap();
    }
    table.merge(MergeOp::ListAppend, &k("expired"), &[91]).unwrap();
    table.merge(MergeOp::ListAppend, &k("gone"), &bytes).unwrap();
    table.compact_all().unwrap();
    let left: Vec<_> = scan(&table).into_iter().filter(|(_, value)| !value.is_empty()).collect();
    assert_eq!(left, [(k("expired"), vec![91]), (k("put"), vec![99])]);
    // What is left of a list without elements goes with the next compaction.
    table.compact_all().unwrap();
    assert_eq!(scan(&table).len(), 2);
}

#[test]
fn a_delta_loses_what_has_expired_when_it_is_applied() {
    let (_dir, table, clock) = table_with_clock();
    // Without a time: these never expire, and must not show through either.
    apply(&table, 1, &[("put", Entry::Put(b"")), ("list", Entry::Put(b""))]).unwrap();
    table.expire(STATE, EXPIRY).unwrap();
    clock.0.store(100, Ordering::Release);
    let entries = [("list", append(&[90])), ("put", Entry::Put(&[90])), ("young", Entry::Put(&[91]))];
    apply(&table, 2, &entries).unwrap();
    assert_eq!(get(&table, "put"), None);
    assert_eq!(get(&table, "list").as_deref(), Some(b"".as_slice()), "what lies below an operand stays");
    assert_eq!(get(&table, "young").as_deref(), Some(&[91][..]));
    assert_eq!(table.applied().unwrap(), DeltaSeq(2));
}

/// The newest of RocksDB's files with the options in use.
fn options_file(table: &Table) -> String {
    let files = fs::read_dir(&table.dir).unwrap().map(|entry| entry.unwrap().path());
    let options = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS-"));
    fs::read_to_string(options.max().unwrap()).unwrap()
}

#[test]
fn files_are_rewritten_by_age_only_where_entries_expire() {
    let (_dir, table) = table();
    assert!(options_file(&table).contains("periodic_compaction_seconds=0\n"));
    table.expire(STATE, EXPIRY).unwrap();
    table.expire(StateId(8), EXPIRY).unwrap();
    assert!(options_file(&table).contains("periodic_compaction_seconds=2592000\n"));
}
