//! What must hold of tables that are split and joined, on a real RocksDB.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::TableResources;
use super::join::{Part, to_rewrite};
use super::marker::is_own;
use super::options;
use super::rescale::{Source, TakenOver};
use super::rocks::Table;
use crate::delta::{Entry, MergeOp};
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

fn as_source(table: Table, range: KeyGroupRange, owned: KeyGroupRange) -> Source {
    let dir = table.dir().to_owned();
    drop(table);
    Source { table: Table::open_to_read(&dir, range, &resources()).unwrap(), range, owned }
}

/// RocksDB does not notice: the files do not overlap. But what one has of an earlier owner lies where the other
/// owns key groups, and would be taken for theirs.
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

/// Three key groups in each of two tables, split from one, with some megabytes; joined again at once.
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

#[derive(Clone, Debug)]
enum Op {
    Put(u16, u8, u8),
    /// So many values that levels fill, from a seed.
    Fill(u64),
    Delete(u16, u8),
    Append(u16, u8, u8),
    DeleteRange(u16, u8, u8),
    Flush(usize),
    Compact(usize),
    /// The tables' ranges from now on end at these groups, and the last one. From a seed: which of the old tables is
    /// the host, and what is rewritten.
    Rescale(Vec<u16>, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || (0..GROUPS, 0..6_u8);
    prop_oneof![
        8 => (key(), any::<u8>()).prop_map(|((group, key), value)| Op::Put(group, key, value)),
        2 => any::<u64>().prop_map(Op::Fill),
        3 => key().prop_map(|(group, key)| Op::Delete(group, key)),
        6 => (key(), any::<u8>()).prop_map(|((group, key), value)| Op::Append(group, key, value)),
        3 => (0..GROUPS, 0..42_u8, 0..42_u8).prop_map(|(group, from, to)| Op::DeleteRange(group, from, to)),
        2 => any::<usize>().prop_map(Op::Flush),
        1 => any::<usize>().prop_map(Op::Compact),
        3 => (proptest::collection::vec(0..GROUPS, 0..4), any::<u64>())
            .prop_map(|(ends, seed)| Op::Rescale(ends, seed)),
    ]
}

/// Lets levels fill with a few kilobytes.
fn small_levels(table: Table) -> Table {
    let options = [
        ("target_file_size_base", "2000"),
        ("max_bytes_for_level_base", "8000"),
        ("max_bytes_for_level_multiplier", "3"),
        ("level0_file_num_compaction_trigger", "3"),
    ];
    table.db.set_options(&options).unwrap();
    table
}

/// Tables that together own all key groups.
struct Job {
    dir: tempfile::TempDir,
    made: u32,
    tables: Vec<(KeyGroupRange, Table)>,
    seq: u64,
    model: Model,
    sources: usize,
    taken: TakenOver,
    copies: usize,
}

impl Job {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let all = range(0, GROUPS - 1);
        let table = small_levels(Table::create(&dir.path().join("0"), all, &resources()).unwrap());
        let (model, taken) = (Model::new(), TakenOver::default());
        Self { dir, made: 0, tables: vec![(all, table)], seq: 0, model, sources: 0, taken, copies: 0 }
    }

    fn path(&mut self) -> PathBuf {
        self.made += 1;
        self.dir.path().join(self.made.to_string())
    }

    fn owner(&self, group: u16) -> &Table {
        let owner = self.tables.iter().find(|(range, _)| range.contains(KeyGroup(group)));
        &owner.unwrap().1
    }

    fn put(&mut self, group: u16, user: u8, value: &[u8]) {
        self.owner(group).put(&k(group, user), value).unwrap();
        self.model.insert(k(group, user), value.to_vec());
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Put(group, user, value) => self.put(group, user, &[value]),
            Op::Fill(seed) => {
                let mut noise = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
                for _ in 0..40 {
                    let mut value = [0; 200];
                    noise.fill(&mut value);
                    self.put(u16::from(value[0]) % GROUPS, value[1] % 40, &value);
                }
                self.flush(seed as usize);
            }
            Op::Delete(group, user) => {
                self.owner(group).delete(&k(group, user)).unwrap();
                self.model.remove(&k(group, user));
            }
            Op::Append(group, user, value) => {
                let key = k(group, user);
                let entry = Entry::Merge { op: MergeOp::ListAppend, operand: &[value] };
                self.owner(group).load([], [(key.as_slice(), entry)]).unwrap();
                self.model.entry(key).or_default().push(value);
            }
            Op::DeleteRange(group, from, to) => {
                let (start, end) = (k(group, from.min(to)), k(group, from.max(to)));
                self.owner(group).delete_range(&start, &end).unwrap();
                self.model.retain(|key, _| *key < start || *key >= end);
            }
            Op::Flush(which) => self.flush(which),
            Op::Compact(which) => self.tables[which % self.tables.len()].1.compact_all().unwrap(),
            Op::Rescale(ends, seed) => {
                self.rescale(ends, seed);
                self.check_tables(seed % 5 == 0);
            }
        }
    }

    fn flush(&self, which: usize) {
        self.tables[which % self.tables.len()].1.flush().unwrap();
    }

    /// As a restore does it: one source goes on as the new table, the others are taken in.
    fn rescale(&mut self, mut ends: Vec<u16>, seed: u64) {
        ends.push(GROUPS - 1);
        ends.sort_unstable();
        ends.dedup();
        self.seq += 1;
        let mut first = 0;
        let mut next = Vec::new();
        for end in ends {
            let wanted = range(first, end);
            first = end + 1;
            let mut sources = Vec::new();
            for at in 0..self.tables.len() {
                let Some(owned) = self.tables[at].0.intersection(wanted) else { continue };
                let dir = self.path();
                let (range, table) = &self.tables[at];
                table.checkpoint(&dir).unwrap();
                sources.push((dir, *range, owned));
            }
            let (dir, old, kept) = sources.remove(seed as usize % sources.len());
            let mut table = small_levels(Table::open(&dir, old, &resources()).unwrap());
            let open = |(dir, range, owned): (PathBuf, _, _)| Source {
                table: Table::open_to_read(&dir, range, &resources()).unwrap(),
                range,
                owned,
            };
            let sources: Vec<_> = sources.into_iter().map(open).collect();
            self.sources += sources.len();
            let decide = |parts: &[Part]| match seed >> 8 & 3 {
                0 => to_rewrite(parts),
                1 => vec![false; parts.len()],
                _ => (0..parts.len()).map(|at| seed >> (16 + at % 32) & 1 == 1).collect(),
            };
            let taken = table.take_over_with(kept, wanted, sources, 2, decide).unwrap();
            self.taken.joined += taken.joined;
            self.taken.rewritten += taken.rewritten;
            self.copies += usize::from(taken.copied > 0);
            table.set_applied(DeltaSeq(self.seq)).unwrap();
            next.push((wanted, table));
        }
        self.tables = next;
    }

    fn check_tables(&mut self, compacted: bool) {
        for at in 0..self.tables.len() {
            let dir = self.path();
            let (range, table) = &self.tables[at];
            self.check_table(*range, table);
            if compacted {
                let copy = reopened(table, &dir, *range);
                copy.compact_all().unwrap();
                self.check_table(*range, &copy);
            }
        }
    }

    /// One marker, what the model has, and nothing of other key groups.
    fn check_table(&self, owned: KeyGroupRange, table: &Table) {
        let mut expected = self.model.clone();
        expected.retain(|key, _| owned.contains(key::group_of(key).unwrap()));
        let mut found = raw(table, range(0, 100));
        assert!(found.remove(&key::marker(owned)[..]).is_some());
        assert!(found == expected, "{}", difference(&found, &expected));
    }

    fn check(&self) {
        for compacted in [false, true] {
            let mut found = Model::new();
            for (range, table) in &self.tables {
                if compacted {
                    table.compact_all().unwrap();
                }
                found.extend(without_own(raw(table, *range)));
            }
            assert!(found == self.model, "compacted: {compacted} {}", difference(&found, &self.model));
        }
        for (key, value) in &self.model {
            let found = self.owner(key::group_of(key).unwrap().0).get(key).unwrap();
            assert_eq!(found.as_deref(), Some(value.as_slice()));
        }
    }
}

/// The keys that are not the same in both, with the lengths of their values.
fn difference(found: &Model, expected: &Model) -> String {
    let keys = found.keys().chain(expected.keys()).filter(|key| found.get(*key) != expected.get(*key));
    let len = |model: &Model, key| model.get(key).map(Vec::len);
    keys.map(|key| format!("{key:?}: {:?} for {:?}; ", len(found, key), len(expected, key))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12),
        ..ProptestConfig::default()
    })]

    /// I9, in one process and without deltas: several generations, by scans and after full compactions.
    #[test]
    fn i9_tables_that_are_split_and_joined_behave_like_a_map(ops in proptest::collection::vec(op(), 1..80)) {
        let mut job = Job::new();
        for op in ops {
            job.step(op);
        }
        job.check();
        // Shown with `--nocapture`: what the cases were about.
        println!("{} sources: {:?}, {} copies", job.sources, job.taken, job.copies);
    }
}
