//! What a rescale does to tables: one goes on under another range of key groups, and takes in key
//! groups of others.
//!
//! Three things must not happen, and none of them shows at once:
//! - **Foreign key groups come back.** Files hold what an earlier owner had. It is deleted, files that
//!   hold nothing else as a whole, before anything of another table may come into the same place.
//! - **A stale marker is believed.** The marker lies in the first owned group. One that an earlier
//!   owner has left in the midst of the range would be read as this table's by whoever owns from that
//!   group on after the next rescale. So all of Alluvium's own keys are deleted, in every owned group,
//!   and none is ever copied.
//! - **A file goes on under a sequence number that is not its own.** The files that a copy comes in as
//!   hold sequence number 0; the number that counts is in the database's MANIFEST alone. They must
//!   never be brought into another database as files, only by another copy.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;

use rocksdb::{IngestExternalFileOptions, SstFileWriter, WriteBatch, properties};

use super::join::{Part, to_join, to_rewrite};
use super::rocks::Table;
use super::{ffi, options};
use crate::error::{Error, Result};
use crate::ids::StateId;
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};

/// Above all encoded keys: key groups stay below 32,768.
const ABOVE_ALL: &[u8] = &[0xff];

/// RocksDB's property: the level that level 0 is compacted into.
const BASE_LEVEL: &str = "rocksdb.base-level";

/// Another table, and the key groups of it that a new one takes in.
pub(crate) struct Source {
    /// Opened to be read, in a directory that is deleted afterwards: it may be opened again to be compacted.
    pub(crate) table: Table,
    /// The key groups that the table belonged to.
    pub(crate) range: KeyGroupRange,
    pub(crate) owned: KeyGroupRange,
}

impl Table {
    /// Makes this, the host, the table of a subtask that owns `range`, of which it has the key groups `kept`, and
    /// takes in what `sources` have, which is disjoint from them: as files where that is possible, otherwise by copies, by
    /// so many threads. Everything else in it is gone, and it stands at no delta until
    /// [`Table::set_applied`]. Returns the bytes of keys and values that were copied.
    ///
    /// Only for a table that nobody reads yet, and that is deleted if the restore fails. Files that
    /// hold wanted key groups stay as they are; compaction drops the rest of them in its own time.
    pub(crate) fn take_over(
        &mut self,
        kept: KeyGroupRange,
        range: KeyGroupRange,
        mut sources: Vec<Source>,
        threads: usize,
    ) -> Result<u64> {
        self.drop_files(kept)?;
        let mut parts = vec![Part::host(kept, ffi::live_files(&self.db))];
        parts.extend(sources.iter().map(Source::part));
        for (at, rewrite) in to_rewrite(&parts).into_iter().enumerate() {
            if !rewrite {
                continue;
            }
            let part = match at.checked_sub(1) {
                None => {
                    self.rewrite(kept)?;
                    Part::host(kept, ffi::live_files(&self.db))
                }
                Some(at) => {
                    let source = sources.remove(at).rewritten()?;
                    let part = source.part();
                    sources.insert(at, source);
                    part
                }
            };
            parts[at] = part;
        }
        let mut owned = vec![kept];
        let mut copied = Vec::new();
        let joins = to_join(&parts, self.base_level(), self.room_in_level_0());
        for (source, (part, join)) in sources.iter().zip(parts.iter().zip(joins).skip(1)) {
            if join && self.join(part) { owned.push(source.owned) } else { copied.push(source) }
        }
        // Before anything is copied: a tombstone would hide it.
        let mut batch = self.tombstones_outside(&owned);
        for owned in owned {
            for key in self.own_keys(owned)? {
                batch.delete(key);
            }
        }
        if !batch.is_empty() {
            self.write(batch)?;
        }
        self.marker = key::marker(range);
        self.applying.store(0, Ordering::Release);
        self.applied.store(0, Ordering::Release);
        let copy = |source: &Source| self.copy(&source.table, source.owned, &source.table.dir, threads);
        copied.into_iter().map(copy).sum()
    }

    /// Drops the files that hold nothing of `kept`.
    fn drop_files(&self, kept: KeyGroupRange) -> Result<()> {
        let (start, end) = key::bounds_of(kept);
        for (from, to) in [([].as_slice(), start.as_slice()), (end.as_slice(), ABOVE_ALL)] {
            self.db
                .delete_file_in_range(from, to)
                .map_err(|source| self.failed("drop the files of other key groups", source))?;
        }
        Ok(())
    }

    /// Takes in the files of a part. If RocksDB will not have them, nothing has come in.
    fn join(&self, part: &Part) -> bool {
        if part.is_empty() {
            return true;
        }
        let files: Vec<_> = part.oldest_first().map(|file| file.path.clone()).collect();
        let joined = ffi::ingest_db_generated(&self.db, &files);
        if let Err(error) = &joined {
            tracing::warn!(%error, "files of another table cannot be joined and are copied instead");
        }
        joined.is_ok()
    }

    /// Deletes whatever lies between and around `owned`. Only where there is something: a tombstone over
    /// nothing would make its compaction rewrite files that are fine as they are, and the next rescale would find it in
    /// other parts' way.
    fn tombstones_outside(&self, owned: &[KeyGroupRange]) -> WriteBatch {
        let mut owned: Vec<_> = owned.iter().map(|owned| key::bounds_of(*owned)).collect();
        owned.sort_unstable();
        let starts = owned.iter().map(|(start, _)| start.as_slice()).chain([ABOVE_ALL]);
        let ends = [[].as_slice()].into_iter().chain(owned.iter().map(|(_, end)| end.as_slice()));
        let files = ffi::live_files(&self.db);
        let mut batch = WriteBatch::default();
        for (from, to) in ends.zip(starts) {
            let within =
                || files.iter().filter(|file| file.last.as_slice() >= from && file.first.as_slice() < to);
            let least = within().map(|file| file.first.as_slice()).min();
            let greatest = within().map(|file| file.last.as_slice()).max();
            if let (Some(least), Some(greatest)) = (least, greatest) {
                // The first key above the greatest.
                let above = [greatest, &[0]].concat();
                batch.delete_range(least.max(from), above.as_slice().min(to));
            }
        }
        batch
    }

    /// Leaves nothing outside of `owned`, by a compaction of the files that have something there.
    fn rewrite(&self, owned: KeyGroupRange) -> Result<()> {
        self.drop_files(owned)?;
        let (start, end) = key::bounds_of(owned);
        self.write(self.tombstones_outside(&[owned]))?;
        self.flush()?;
        for (from, to) in [(None, Some(start)), (Some(end), None)] {
            self.db.compact_range_opt(from, to, &options::compact_options());
        }
        Ok(())
    }

    /// The first level below 0 that compactions of level 0 go to.
    fn base_level(&self) -> usize {
        let level = self.db.property_int_value(BASE_LEVEL).ok().flatten();
        level.and_then(|level| usize::try_from(level).ok()).unwrap_or(usize::MAX)
    }

    /// How many files more can come into level 0 before writes slow down.
    fn room_in_level_0(&self) -> usize {
        let files = self.db.property_int_value(properties::num_files_at_level(0)).ok().flatten();
        let room = options::CROWDED_L0.saturating_sub(files.unwrap_or(u64::MAX));
        usize::try_from(room).unwrap_or_default()
    }

    /// Alluvium's own keys in the groups of `range`.
    fn own_keys(&self, range: KeyGroupRange) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        let (_, end) = key::bounds_of(range);
        let mut reads = options::read_options();
        reads.set_iterate_upper_bound(end);
        let mut cursor = self.db.raw_iterator_opt(reads);
        let mut next = Some(range.first);
        while let Some(group) = next {
            cursor.seek(key::prefix(group, StateId::RESERVED));
            while let Some(key) = cursor.key().filter(|key| is_own(key)) {
                keys.push(key.to_vec());
                cursor.next();
            }
            // The first key that is not our own tells which group is the next that may have some.
            let found = cursor.key().and_then(key::group_of);
            next = found.map(|found| KeyGroup(found.0.max(group.0) + 1)).filter(|next| range.contains(*next));
        }
        cursor.status().map_err(|source| self.failed("look for markers", source))?;
        Ok(keys)
    }

    /// Copies the key groups `owned` of `from`, which this table has nothing of, by way of sorted files
    /// that are made in `scratch`; returns the bytes of keys and values.
    fn copy(&self, from: &Table, owned: KeyGroupRange, scratch: &Path, threads: usize) -> Result<u64> {
        let parts = split(owned, threads);
        let copied = thread::scope(|scope| {
            let work = (0..).zip(parts).map(|(number, part): (u32, _)| {
                scope.spawn(move || from.write_sorted(part, scratch, number))
            });
            let running: Vec<_> = work.collect();
            let panicked = |_| Err(Error::internal("copying a table came to a bad end"));
            // All threads are joined before the first error is returned.
            running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect::<Vec<_>>()
        });
        let copied = copied.into_iter().collect::<Result<Vec<_>>>()?;
        let bytes = copied.iter().map(|(bytes, _)| bytes).sum();
        let files: Vec<_> = copied.into_iter().flat_map(|(_, files)| files).collect();
        if !files.is_empty() {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            self.db
                .ingest_external_file_opts(&options, files)
                .map_err(|source| self.failed("take in key groups of another table", source))?;
        }
        Ok(bytes)
    }

    /// Writes the entries of `range`, but Alluvium's own, into files in `dir`, as they read: operands
    /// folded, deleted ones left out. Returns the bytes of keys and values, and the files.
    fn write_sorted(&self, range: KeyGroupRange, dir: &Path, number: u32) -> Result<(u64, Vec<PathBuf>)> {
        let failed = |source| self.failed("copy a table", source);
        let (start, end) = key::bounds_of(range);
        let mut reads = options::sequential_options();
        reads.set_iterate_lower_bound(start);
        reads.set_iterate_upper_bound(end);
        let mut cursor = self.db.raw_iterator_opt(reads);
        cursor.seek_to_first();
        let options = self.resources.options().map_err(failed)?;
        let (mut bytes, mut files) = (0, Vec::new());
        let mut open: Option<SstFileWriter<'_>> = None;
        while let Some((key, value)) = cursor.item() {
            if !is_own(key) {
                if open.is_none() {
                    let path = dir.join(format!("copy-{number}-{}.sst", files.len()));
                    let writer = SstFileWriter::create(&options);
                    writer.open(&path).map_err(failed)?;
                    files.push(path);
                    open = Some(writer);
                }
                if let Some(writer) = &mut open {
                    writer.put(key, value).map_err(failed)?;
                    bytes += (key.len() + value.len()) as u64;
                    if writer.file_size() >= self.resources.file_size() {
                        writer.finish().map_err(failed)?;
                        open = None;
                    }
                }
            }
            cursor.next();
        }
        // An iterator ends at a failure just as at the end of the range (I4).
        cursor.status().map_err(failed)?;
        if let Some(mut writer) = open {
            writer.finish().map_err(failed)?;
        }
        Ok((bytes, files))
    }
}

impl Source {
    fn part(&self) -> Part {
        Part::source(self.owned, ffi::live_files(&self.table.db))
    }

    /// The same without anything outside of what is taken in.
    fn rewritten(self) -> Result<Self> {
        let Self { table, range, owned } = self;
        let (dir, resources) = (table.dir.clone(), table.resources.clone());
        drop(table);
        let table = Table::open_to_rewrite(&dir, range, &resources)?;
        table.rewrite(owned)?;
        Ok(Self { table, range, owned })
    }
}

/// Whether the key is Alluvium's own in its group.
pub(super) fn is_own(key: &[u8]) -> bool {
    key.get(2..key::PREFIX_LEN) == Some(&StateId::RESERVED.0.to_be_bytes())
}

/// At most `count` parts of about as many key groups each.
fn split(range: KeyGroupRange, count: usize) -> Vec<KeyGroupRange> {
    let groups: Vec<_> = range.groups().collect();
    let size = groups.len().div_ceil(count.max(1)).max(1);
    let part = |groups: &[KeyGroup]| Some(KeyGroupRange { first: *groups.first()?, last: *groups.last()? });
    groups.chunks(size).filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::TableResources;
    use super::*;
    use crate::delta::{Entry, MergeOp};
    use crate::ids::DeltaSeq;

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
        let kept: usize =
            after.iter().filter(|(name, _)| before.contains_key(*name)).map(|(_, size)| size).sum();
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

    #[derive(Clone, Debug)]
    enum Op {
        Put(u16, u8, u8),
        Delete(u16, u8),
        Append(u16, u8, u8),
        DeleteRange(u16, u8, u8),
        Flush(usize),
        Compact(usize),
        /// The tables' ranges from now on end at these groups, and the last one.
        Rescale(Vec<u16>),
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = || (0..GROUPS, 0..4_u8);
        prop_oneof![
            8 => (key(), any::<u8>()).prop_map(|((group, key), value)| Op::Put(group, key, value)),
            3 => key().prop_map(|(group, key)| Op::Delete(group, key)),
            6 => (key(), any::<u8>()).prop_map(|((group, key), value)| Op::Append(group, key, value)),
            3 => (key(), 0..5_u8).prop_map(|((group, from), to)| Op::DeleteRange(group, from, to)),
            2 => any::<usize>().prop_map(Op::Flush),
            1 => any::<usize>().prop_map(Op::Compact),
            3 => proptest::collection::vec(0..GROUPS, 0..4).prop_map(Op::Rescale),
        ]
    }

    /// Tables that together own all key groups.
    struct Job {
        dir: tempfile::TempDir,
        made: u32,
        tables: Vec<(KeyGroupRange, Table)>,
        seq: u64,
        rng: usize,
        sources: usize,
        copies: usize,
    }

    impl Job {
        fn path(&mut self) -> PathBuf {
            self.made += 1;
            self.dir.path().join(self.made.to_string())
        }

        fn owner(&self, group: u16) -> &Table {
            let owner = self.tables.iter().find(|(range, _)| range.contains(KeyGroup(group)));
            &owner.unwrap().1
        }

        /// As a restore does it: one source goes on as the new table, the others are copied.
        fn rescale(&mut self, ends: &[u16]) {
            let mut ends = ends.to_vec();
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
                let host = self.rng % sources.len();
                self.rng = self.rng.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) | 1;
                let (dir, old, kept) = sources.remove(host);
                let mut table = Table::open(&dir, old, &resources()).unwrap();
                let open = |(dir, range, owned): (PathBuf, _, _)| Source {
                    table: Table::open_to_read(&dir, range, &resources()).unwrap(),
                    range,
                    owned,
                };
                let sources: Vec<_> = sources.into_iter().map(open).collect();
                self.sources += sources.len();
                self.copies += usize::from(table.take_over(kept, wanted, sources, 2).unwrap() > 0);
                table.set_applied(DeltaSeq(self.seq)).unwrap();
                next.push((wanted, table));
            }
            self.tables = next;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        /// I9, in one process and without deltas: several generations, by scans and after full compactions.
        #[test]
        fn i9_tables_that_are_split_and_joined_behave_like_a_map(ops in proptest::collection::vec(op(), 1..80)) {
            let dir = tempfile::tempdir().unwrap();
            let all = range(0, GROUPS - 1);
            let table = Table::create(&dir.path().join("0"), all, &resources()).unwrap();
            let mut job = Job { dir, made: 0, tables: vec![(all, table)], seq: 0, rng: 1, sources: 0, copies: 0 };
            let mut model = Model::new();
            for op in ops {
                match op {
                    Op::Put(group, key, value) => {
                        job.owner(group).put(&k(group, key), &[value]).unwrap();
                        model.insert(k(group, key), vec![value]);
                    }
                    Op::Delete(group, key) => {
                        job.owner(group).delete(&k(group, key)).unwrap();
                        model.remove(&k(group, key));
                    }
                    Op::Append(group, key, value) => {
                        let key = k(group, key);
                        job.owner(group).load([], [(key.as_slice(), Entry::Merge { op: MergeOp::ListAppend, operand: &[value] })]).unwrap();
                        model.entry(key).or_default().push(value);
                    }
                    Op::DeleteRange(group, from, to) => {
                        let (start, end) = (k(group, from.min(to)), k(group, from.max(to)));
                        job.owner(group).delete_range(&start, &end).unwrap();
                        model.retain(|key, _| *key < start || *key >= end);
                    }
                    Op::Flush(which) => job.tables[which % job.tables.len()].1.flush().unwrap(),
                    Op::Compact(which) => job.tables[which % job.tables.len()].1.compact_all().unwrap(),
                    Op::Rescale(ends) => {
                        job.rescale(&ends);
                        for (range, table) in &job.tables {
                            let mut expected = model.clone();
                            expected.retain(|key, _| range.contains(key::group_of(key).unwrap()));
                            // One marker, and nothing of other key groups.
                            let mut found = raw(table, KeyGroupRange { first: KeyGroup(0), last: KeyGroup(100) });
                            prop_assert!(found.remove(&key::marker(*range)[..]).is_some());
                            prop_assert_eq!(found, expected);
                        }
                    }
                }
            }
            for compacted in [false, true] {
                let mut found = Model::new();
                for (range, table) in &job.tables {
                    if compacted {
                        table.compact_all().unwrap();
                    }
                    found.extend(without_own(raw(table, *range)));
                }
                prop_assert_eq!(&found, &model, "compacted: {}", compacted);
            }
            for (key, value) in &model {
                let group = key::group_of(key).unwrap().0;
                let found = job.owner(group).get(key).unwrap();
                prop_assert_eq!(found.as_deref(), Some(value.as_slice()));
            }
        }
    }
}
