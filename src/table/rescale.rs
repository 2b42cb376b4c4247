//! The effect of a rescale on tables: one table continues under another range of key groups, and
//! takes in key groups of other tables.
//!
//! Three things must not happen, and none of them shows at once:
//! - **Foreign key groups come back.** Files hold key groups of an earlier owner. These are deleted
//!   (files that hold nothing else go as a whole) before data of another table may come into the
//!   same place.
//! - **A stale marker is believed.** The marker lies in the first owned group. If an earlier owner
//!   left one in the middle of the range, the subtask that owns from that group on after the next
//!   rescale would read it as its own. So all of Alluvium's own keys are deleted, in every owned
//!   group, and none is ever copied.
//! - **A file continues under a sequence number that is not its own.** The files of a copy hold
//!   sequence number 0, and the effective number is in the database's MANIFEST alone. They must
//!   never be brought into another database as files, only by another copy ([`join`](super::join)
//!   ensures that).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;

use rocksdb::{IngestExternalFileOptions, SstFileWriter, WriteBatch, properties};

use super::join::{JoinInput, to_join, to_rewrite};
use super::marker::is_own;
use super::rocks::Table;
use super::{ffi, options};
use crate::error::{Error, Result};
use crate::ids::StateId;
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};

/// Above all encoded keys: key groups stay below 32,768.
const ABOVE_ALL: &[u8] = &[0xff];

/// Files that are being written to the disk at a time.
const SYNCS: usize = 8;

/// RocksDB's property: the level that level 0 is compacted into.
const BASE_LEVEL: &str = "rocksdb.base-level";

/// Another table, and the key groups of it that a new one takes in.
pub(crate) struct SourceTable {
    /// Opened for reading. Its directory is deleted afterwards, so the table may also be reopened
    /// there and compacted.
    pub(crate) table: Table,
    /// The key groups that the table belonged to.
    pub(crate) range: KeyGroupRange,
    pub(crate) owned: KeyGroupRange,
}

/// What became of the sources.
#[derive(Debug, Default)]
pub(super) struct TakenOver {
    /// Tables, the host included, that were compacted before the join.
    pub(super) rewritten: usize,
    /// Sources that were joined as files.
    pub(super) joined: usize,
    /// Bytes of keys and values of the sources that were copied.
    pub(super) copied: u64,
}

impl Table {
    /// Makes this table, the host, that of a subtask which owns `range`. The host contributes the
    /// key groups `kept`, and each source the groups that it owns; these sets are disjoint. A
    /// source is joined as files if possible, otherwise copied by `threads` threads. All other key
    /// groups are deleted. The table stands at no delta until [`Table::set_applied`]. Returns the
    /// bytes of keys and values that were copied.
    ///
    /// Only for a table that nobody reads yet, and that is deleted if the restore fails. Files that
    /// hold wanted key groups stay as they are; compaction drops the rest of them in its own time.
    pub(crate) fn take_over(
        &mut self,
        kept: KeyGroupRange,
        range: KeyGroupRange,
        sources: Vec<SourceTable>,
        threads: usize,
    ) -> Result<u64> {
        Ok(self.take_over_with(kept, range, sources, threads, to_rewrite)?.copied)
    }

    /// [`Table::take_over`] with a decision on which parts are rewritten before they are joined.
    pub(super) fn take_over_with(
        &mut self,
        kept: KeyGroupRange,
        range: KeyGroupRange,
        mut sources: Vec<SourceTable>,
        threads: usize,
        to_rewrite: impl Fn(&[JoinInput]) -> Vec<bool>,
    ) -> Result<TakenOver> {
        let mut taken = TakenOver::default();
        self.drop_files(kept)?;
        let mut parts = vec![JoinInput::host(kept, ffi::live_files(&self.db))];
        parts.extend(sources.iter().map(SourceTable::part));
        for (at, rewrite) in to_rewrite(&parts).into_iter().enumerate() {
            if !rewrite {
                continue;
            }
            taken.rewritten += 1;
            let part = match at.checked_sub(1) {
                None => {
                    self.rewrite(kept)?;
                    JoinInput::host(kept, ffi::live_files(&self.db))
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
        taken.joined = owned.len() - 1;
        // Before the copies, because a tombstone written later would hide copied entries.
        self.delete_outside(&owned)?;
        let mut batch = WriteBatch::default();
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
        for source in copied {
            taken.copied += self.copy(&source.table, source.owned, &source.table.dir, threads)?;
        }
        Ok(taken)
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

    /// Ingests the files of a part: all of them, or none if RocksDB refuses. Returns whether it
    /// did.
    fn join(&self, part: &JoinInput) -> bool {
        if part.is_empty() {
            return true;
        }
        let files: Vec<_> = part.oldest_first().map(|file| file.path.clone()).collect();
        sync(&files);
        let joined = ffi::ingest_db_generated(&self.db, &files);
        if let Err(error) = &joined {
            tracing::warn!(%error, "files of another table cannot be joined and are copied instead");
        }
        joined.is_ok()
    }

    /// Deletes all keys outside the ranges `owned`. A gap without keys gets no tombstone, because
    /// compacting a tombstone rewrites files that need no change. Each tombstone gets a file of its
    /// own: a file with two of them would span the range in between, and would have to be rewritten
    /// at the next rescale.
    fn delete_outside(&self, owned: &[KeyGroupRange]) -> Result<()> {
        let mut owned: Vec<_> = owned.iter().map(|owned| key::bounds_of(*owned)).collect();
        owned.sort_unstable();
        let starts = owned.iter().map(|(start, _)| start.as_slice()).chain([ABOVE_ALL]);
        let ends = [[].as_slice()].into_iter().chain(owned.iter().map(|(_, end)| end.as_slice()));
        let files = ffi::live_files(&self.db);
        for (from, to) in ends.zip(starts) {
            let within =
                || files.iter().filter(|file| file.last.as_slice() >= from && file.first.as_slice() < to);
            let least = within().map(|file| file.first.as_slice()).min();
            let greatest = within().map(|file| file.last.as_slice()).max();
            let (Some(least), Some(greatest)) = (least, greatest) else { continue };
            // The first key above the greatest.
            let above = [greatest, &[0]].concat();
            let (least, above) = (least.max(from), above.as_slice().min(to));
            let mut batch = WriteBatch::default();
            batch.delete_range(least, above);
            // A second entry gives the file two sequence numbers. With one it would look like a
            // file of `SstFileWriter` (`JoinInput::has_assigned_seqs`).
            batch.delete(least);
            self.write(batch)?;
            if !self.is_crowded() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Removes everything outside `owned` by compacting the files that hold such keys.
    fn rewrite(&self, owned: KeyGroupRange) -> Result<()> {
        self.drop_files(owned)?;
        let (start, end) = key::bounds_of(owned);
        self.delete_outside(&[owned])?;
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
            // Skips the groups without keys: the next key decides where to look on.
            let found = cursor.key().and_then(key::group_of);
            next = found.map(|found| KeyGroup(found.0.max(group.0) + 1)).filter(|next| range.contains(*next));
        }
        cursor.status().map_err(|source| self.failed("look for markers", source))?;
        Ok(keys)
    }

    /// Copies the key groups `owned` from the table `from`, by sorted files that are written to
    /// `scratch` and ingested. This table must have nothing in these groups. Returns the bytes of
    /// keys and values.
    pub(super) fn copy(
        &self,
        from: &Table,
        owned: KeyGroupRange,
        scratch: &Path,
        threads: usize,
    ) -> Result<u64> {
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

    /// Writes the entries of `range`, except Alluvium's own, into files in `dir`, as a reader sees
    /// them: operands folded, deleted entries left out. Returns the bytes of keys and values, and
    /// the files.
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

impl SourceTable {
    fn part(&self) -> JoinInput {
        JoinInput::source(self.owned, ffi::live_files(&self.table.db))
    }

    /// The same table after a compaction that removes everything outside `owned`.
    fn rewritten(self) -> Result<Self> {
        let Self { table, range, owned } = self;
        let (dir, resources) = (table.dir.clone(), table.resources.clone());
        drop(table);
        let table = Table::open_to_rewrite(&dir, range, &resources)?;
        table.rewrite(owned)?;
        Ok(Self { table, range, owned })
    }
}

/// Syncs files to the disk, several at a time. RocksDB syncs each file before it ingests it, one
/// after the other, which costs nothing for a file that is synced already. Failures are ignored
/// here, because RocksDB's own sync reports them.
fn sync(files: &[PathBuf]) {
    let threads = SYNCS.min(files.len()).max(1);
    thread::scope(|scope| {
        for share in files.chunks(files.len().div_ceil(threads).max(1)) {
            scope.spawn(move || {
                for file in share {
                    let _ = File::open(file).and_then(|file| file.sync_data());
                }
            });
        }
    });
}

/// Splits a range into at most `count` ranges of about the same size.
fn split(range: KeyGroupRange, count: usize) -> Vec<KeyGroupRange> {
    let groups: Vec<_> = range.groups().collect();
    let size = groups.len().div_ceil(count.max(1)).max(1);
    let part = |groups: &[KeyGroup]| Some(KeyGroupRange { first: *groups.first()?, last: *groups.last()? });
    groups.chunks(size).filter_map(part).collect()
}
