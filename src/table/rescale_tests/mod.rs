//! What must hold of tables that are split and joined, on a real RocksDB.

mod random;

use std::collections::BTreeMap;
use std::path::Path;

use super::TableResources;
use super::join::to_rewrite;
use super::marker::is_own;
use super::options;
use super::rescale::SourceTable;
use super::rocks::Table;
use crate::delta::MergeOp;
use crate::ids::{DeltaSeq, StateId};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};

const GROUPS: u16 = 6;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn range(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

fn resources() -> TableResources {
    TableResources::new(8 << 20, 2)
}

fn k(group: u16, user: u8) -> Vec<u8> {
    let mut key = Vec::new();
    key::encode_into(&mut key, KeyGroup(group), StateId(7), &[user]);
    key
}

/// Everything in the owned groups, Alluvium's own keys as well.
fn raw(table: &Table, range: KeyGroupRange) -> Model {
    let (start, end) = key::bounds_of(range);
    let mut reads = options::read_options();
    reads.set_iterate_lower_bound(start);
    reads.set_iterate_upper_bound(end);
    let mut cursor = table.db.raw_iterator_opt(reads);
    cursor.seek_to_first();
    let mut found = Model::new();
    while let Some((key, value)) = cursor.item() {
        found.insert(key.to_vec(), value.to_vec());
        cursor.next();
    }
    cursor.status().unwrap();
    found
}

fn without_own(mut all: Model) -> Model {
    all.retain(|key, _| !is_own(key));
    all
}

fn reopened(table: &Table, dir: &Path, range: KeyGroupRange) -> Table {
    table.checkpoint(dir).unwrap();
    Table::open(dir, range, &resources()).unwrap()
}

#[test]
fn what_is_not_kept_is_gone_and_the_marker_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let all = range(0, GROUPS - 1);
    let mut table = Table::create(&dir.path().join("a"), all, &resources()).unwrap();
    for group in 0..GROUPS {
        // As a subtask would leave it that once owned from here on.
        table.put(&key::prefix(KeyGroup(group), StateId::RESERVED), b"stale").unwrap();
        table.put(&k(group, 1), b"x").unwrap();
    }
    table.set_applied(DeltaSeq(5)).unwrap();
    table.flush().unwrap();
    table.put(&k(2, 2), b"y").unwrap();
    table.flush().unwrap();
    assert_eq!(table.take_over(range(2, 4), range(2, 5), Vec::new(), 2).unwrap(), 0);
    let kept = Model::from([
        (k(2, 1), b"x".to_vec()),
        (k(2, 2), b"y".to_vec()),
        (k(3, 1), b"x".to_vec()),
        (k(4, 1), b"x".to_vec()),
    ]);
    assert_eq!(raw(&table, range(0, 200)), kept);
    assert_eq!(table.applied().unwrap(), DeltaSeq(0));
    table.set_applied(DeltaSeq(3)).unwrap();
    // Group 3 was never the first of anything that anyone would believe.
    for first in 2..=3 {
        let next = reopened(&table, &dir.path().join(format!("next {first}")), range(first, 5));
        assert_eq!(next.applied().unwrap(), DeltaSeq(if first == 2 { 3 } else { 0 }));
    }
    table.compact_all().unwrap();
    assert_eq!(without_own(raw(&table, range(0, 200))), kept);
}

#[test]
fn a_split_leaves_the_files_that_it_keeps_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let all = range(0, GROUPS - 1);
    let table = Table::create(&dir.path().join("a"), all, &resources()).unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut value = vec![0; 4000];
    for group in 0..GROUPS {
        for user in 0..200 {
            noise.fill(&mut value);
            table.put(&k(group, user), &value).unwrap();
        }
    }
    table.set_applied(DeltaSeq(1)).unwrap();
    table.compact_all().unwrap();
    let names = |table: &Table| -> BTreeMap<String, usize> {
        table.db.live_files().unwrap().into_iter().map(|file| (file.name, file.size)).collect()
    };
    let before = names(&table);
    assert!(before.len() >= 3, "{before:?}");
    let mut half = reopened(&table, &dir.path().join("half"), all);
    half.take_over(range(0, 2), range(0, 2), Vec::new(), 2).unwrap();
    half.set_applied(DeltaSeq(2)).unwrap();
    half.flush().unwrap();
    let after = names(&half);
    let kept: usize = after.iter().filter(|(name, _)| before.contains_key(*name)).map(|(_, size)| size).sum();
    let whole: usize = before.values().sum();
    assert!(kept * 2 >= whole && kept < whole, "{before:?} {after:?}");
    assert_eq!(raw(&half, all).len(), 3 * 200 + 1);
}

#[test]
fn a_copy_brings_values_and_no_markers() {
    let dir = tempfile::tempdir().unwrap();
    let from = Table::create(&dir.path().join("from"), range(0, 5), &resources()).unwrap();
    from.put(&k(1, 1), b"a").unwrap();
    from.merge(MergeOp::ListAppend, &k(1, 1), b"b").unwrap();
    from.merge(MergeOp::ListAppend, &k(3, 1), b"c").unwrap();
    from.put(&k(2, 2), b"gone").unwrap();
    from.delete_range(&k(2, 0), &k(2, 9)).unwrap();
    from.put(&key::prefix(KeyGroup(3), StateId::RESERVED), b"stale").unwrap();
    from.put(&k(4, 1), b"not taken over").unwrap();
    from.set_applied(DeltaSeq(9)).unwrap();
    let copy = dir.path().join("copy");
    from.checkpoint(&copy).unwrap();
    let read = Table::open_to_read(&copy, range(0, 5), &resources()).unwrap();
    assert_eq!(read.applied().unwrap(), DeltaSeq(9));
    assert!(read.put(&k(1, 1), b"x").is_err());
    let into = Table::create(&dir.path().join("into"), range(1, 9), &resources()).unwrap();
    into.put(&k(7, 7), b"own").unwrap();
    let bytes = into.copy(&read, range(1, 3), &copy, 2).unwrap();
    assert_eq!(bytes, 2 * 7 + 3);
    let expected =
        Model::from([(k(1, 1), b"ab".to_vec()), (k(3, 1), b"c".to_vec()), (k(7, 7), b"own".to_vec())]);
    assert_eq!(raw(&into, range(0, 20)), expected);
    into.merge(MergeOp::ListAppend, &k(3, 1), b"d").unwrap();
    into.compact_all().unwrap();
    assert_eq!(into.get(&k(3, 1)).unwrap().as_deref(), Some(b"cd".as_slice()));
    assert_eq!(into.copy(&read, range(5, 5), &copy, 2).unwrap(), 0, "nothing to copy is no error");
}

/// A table of `owner`'s with these keys, in one file, in the lowest level or in the highest.
fn table_with(dir: &Path, owner: KeyGroupRange, keys: &[(u16, u8)], compacted: bool) -> Table {
    let table = Table::create(dir, owner, &resources()).unwrap();
    for (group, user) in keys {
        table.put(&k(*group, *user), &[*user]).unwrap();
    }
    if compacted {
        table.compact_all().unwrap();
    } else {
        table.flush().unwrap();
    }
    table
}

fn as_source(table: Table, range: KeyGroupRange, owned: KeyGroupRange) -> SourceTable {
    let dir = table.dir().to_owned();
    drop(table);
    SourceTable { table: Table::open_to_read(&dir, range, &resources()).unwrap(), range, owned }
}

/// RocksDB does not notice: the files do not overlap. But what one has of an earlier owner lies
/// where the other owns key groups, and would be taken for theirs.
#[test]
fn what_an_earlier_owner_has_left_does_not_come_back_in_anothers_range() {
    let expected = Model::from([(k(1, 1), vec![1]), (k(8, 8), vec![8])]);
    for compacted in [false, true] {
        for foreign_in_host in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (lower, upper) = ([(1, 1), (6, 6)], [(4, 4), (8, 8)]);
            let lower = if foreign_in_host { &lower[..] } else { &lower[..1] };
            let upper = if foreign_in_host { &upper[1..] } else { &upper[..] };
            let mut host = table_with(&dir.path().join("host"), range(0, 9), lower, compacted);
            let source = table_with(&dir.path().join("source"), range(0, 9), upper, compacted);
            let source = as_source(source, range(0, 9), range(5, 9));
            host.take_over(range(0, 4), range(0, 9), vec![source], 2).unwrap();
            assert_eq!(raw(&host, range(0, 20)), expected, "{compacted} {foreign_in_host}");
            host.compact_all().unwrap();
            assert_eq!(raw(&host, range(0, 20)), expected, "{compacted} {foreign_in_host}");
        }
    }
}

/// Three key groups in each of two tables, split from one, with some megabytes; joined again at
/// once.
#[cfg(unix)]
#[test]
fn what_was_split_is_joined_again_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let all = range(0, 5);
    let table = Table::create(&dir.path().join("a"), all, &resources()).unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut value = vec![0; 4000];
    for group in 0..=5 {
        for user in 0..250 {
            noise.fill(&mut value);
            table.put(&k(group, user), &value).unwrap();
        }
    }
    table.set_applied(DeltaSeq(1)).unwrap();
    table.compact_all().unwrap();
    let expected = without_own(raw(&table, all));
    let half = |name: &str, owned| {
        let mut half = reopened(&table, &dir.path().join(name), all);
        half.take_over(owned, owned, Vec::new(), 2).unwrap();
        half.set_applied(DeltaSeq(2)).unwrap();
        half.flush().unwrap();
        half
    };
    let mut host = half("lower", range(0, 2));
    let inodes = |table: &Table| -> Vec<_> {
        use std::os::unix::fs::MetadataExt;
        let files = super::ffi::live_files(&table.db).into_iter();
        files.map(|file| (std::fs::metadata(&file.path).unwrap().ino(), file.bytes)).collect()
    };
    let upper = half("upper", range(3, 5));
    let before: Vec<_> = inodes(&host).into_iter().chain(inodes(&upper)).collect();
    let upper = as_source(upper, range(3, 5), range(3, 5));
    let taken = host.take_over_with(range(0, 2), all, vec![upper], 2, to_rewrite).unwrap();
    assert_eq!((taken.copied, taken.joined), (0, 1), "{taken:?}");
    assert!(taken.rewritten > 0, "{taken:?}");
    assert!(raw(&host, all) == expected);
    let unchanged: u64 = inodes(&host).iter().filter(|file| before.contains(file)).map(|file| file.1).sum();
    assert!(unchanged > 250 * 6 * 4000 / 2, "{unchanged} bytes of files are still the same");
    host.compact_all().unwrap();
    assert!(raw(&host, all) == expected);
}
