//! Random work on tables that are split and joined again, against a model.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::delta::Entry;
use crate::table::join::JoinInput;
use crate::table::rescale::TakenOver;

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
    /// The tables' ranges from now on end at these groups, and the last one. From a seed: which of
    /// the old tables is the host, and what is rewritten.
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
            let open = |(dir, range, owned): (PathBuf, _, _)| SourceTable {
                table: Table::open_to_read(&dir, range, &resources()).unwrap(),
                range,
                owned,
            };
            let sources: Vec<_> = sources.into_iter().map(open).collect();
            self.sources += sources.len();
            let decide = |parts: &[JoinInput]| match seed >> 8 & 3 {
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

    /// I9, in one process and without deltas: several generations, by scans and after full
    /// compactions.
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
