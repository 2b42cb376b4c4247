//! [`Table`]: one RocksDB with one column family.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rocksdb::{
    ColumnFamilyDescriptor, DB, DBPinnableSlice, DEFAULT_COLUMN_FAMILY_NAME, ReadOptions,
    WaitForCompactOptions, WriteBatch, WriteOptions, properties,
};

use super::filter::{Expiries, Expiry};
use super::long_lists::LongLists;
use super::memtables::Enlisted;
use super::merge::Folds;
use super::options::{self, TableResources};
use super::snapshot::{Cursor, Snapshot};
use super::stats::TableStats;
use super::trouble::Trouble;
use super::{error, ffi, marker, merge};
use crate::delta::{Entry, MergeOp};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, StateId};
use crate::key;
use crate::key_group::KeyGroupRange;

/// A value that still lies in RocksDB's memory, without a copy.
pub(crate) type TableValue<'a> = DBPinnableSlice<'a>;

/// After so many bytes, single writes look whether there is room for more.
const LOOK_AFTER_BYTES: u64 = 64 << 10;

/// How often a caller that waits for compaction looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a table is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Create,
    Open,
    Read,
    Rewrite,
}

/// The state of one subtask as of some delta. See the [module](super).
pub(crate) struct Table {
    // Dropped before the database, which is then closed by whoever drops the table.
    memtable: Enlisted,
    pub(super) db: Arc<DB>,
    /// Bytes written one by one since it was looked whether there is room.
    unlooked: AtomicU64,
    pub(super) dir: PathBuf,
    pub(super) resources: TableResources,
    pub(super) marker: [u8; key::PREFIX_LEN],
    reads: ReadOptions,
    writes: WriteOptions,
    folds: Folds,
    trouble: Arc<Trouble>,
    /// Sequence number of the delta that is being applied, set before the write begins, ...
    pub(super) applying: AtomicU64,
    /// ... and once it is visible. Equal while no write runs; see [`Table::get_at`].
    pub(super) applied: AtomicU64,
    /// Size of the last batch: the next one is probably as large.
    batch_bytes: AtomicU64,
}

impl Table {
    /// An empty table in `dir`, which must be empty or absent.
    ///
    /// # Errors
    /// `AlreadyExists` if there is something in `dir`; `Disk`.
    pub(crate) fn create(dir: &Path, range: KeyGroupRange, resources: &TableResources) -> Result<Self> {
        fs::create_dir_all(dir)
            .map_err(|source| Error::disk("create the directory of a table", dir, source))?;
        let mut content =
            fs::read_dir(dir).map_err(|source| Error::disk("list the directory of a table", dir, source))?;
        if content.next().is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "the directory for a new table is not empty")
                .object(dir.display())
                .advise("name an empty directory, or delete what is in it"));
        }
        Self::start(dir, range, resources, Access::Create)
    }

    /// The table whose files lie in `dir`, put there by [`Table::checkpoint`] or a restore.
    ///
    /// # Errors
    /// `NotFound` if there is no table, `Corrupt` if files are missing or damaged, `Locked`, `Disk`.
    pub(crate) fn open(dir: &Path, range: KeyGroupRange, resources: &TableResources) -> Result<Self> {
        Self::check_there(dir)?;
        Self::start(dir, range, resources, Access::Open)
    }

    /// As [`Table::open`], but only to read: nothing is compacted, and every write fails.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub(crate) fn open_to_read(dir: &Path, range: KeyGroupRange, resources: &TableResources) -> Result<Self> {
        Self::check_there(dir)?;
        Self::start(dir, range, resources, Access::Read)
    }

    /// As [`Table::open`], but nothing is compacted by itself: files stay where they are until they are told to
    /// go.
    pub(super) fn open_to_rewrite(
        dir: &Path,
        range: KeyGroupRange,
        resources: &TableResources,
    ) -> Result<Self> {
        Self::check_there(dir)?;
        Self::start(dir, range, resources, Access::Rewrite)
    }

    fn check_there(dir: &Path) -> Result<()> {
        if !dir.join("CURRENT").is_file() {
            return Err(Error::new(ErrorKind::NotFound, "there is no table in this directory")
                .object(dir.display())
                .advise("restore it from a checkpoint"));
        }
        Ok(())
    }

    fn start(dir: &Path, range: KeyGroupRange, resources: &TableResources, access: Access) -> Result<Self> {
        let failed = |source| error::map("open the table", dir, source);
        let mut options = resources.options().map_err(failed)?;
        options.create_if_missing(access == Access::Create);
        options.set_error_if_exists(access == Access::Create);
        options.set_disable_auto_compactions(access == Access::Rewrite);
        let folds = resources.install_filter(&mut options);
        let trouble = Trouble::new(resources.clock());
        ffi::listen(&mut options, Arc::clone(&trouble));
        // By descriptor, because only then the handle that batched reads need is kept.
        let family = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
        let db = match access {
            Access::Read => DB::open_cf_descriptors_read_only(&options, dir, [family], false),
            Access::Create | Access::Open | Access::Rewrite => {
                DB::open_cf_descriptors(&options, dir, [family])
            }
        };
        let db = Arc::new(db.map_err(failed)?);
        let table = Self {
            memtable: resources.enlist(&db),
            unlooked: AtomicU64::new(0),
            db,
            dir: dir.to_owned(),
            resources: resources.clone(),
            marker: key::marker(range),
            reads: options::read_options(),
            writes: options::write_options(),
            folds,
            trouble,
            applying: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
        };
        let seq = table.read_marker(&table.reads)?;
        table.applying.store(seq.0, Ordering::Release);
        table.applied.store(seq.0, Ordering::Release);
        Ok(table)
    }

    /// From now on, compaction and deltas lose values of `state` that have expired.
    pub(crate) fn expire(&self, state: StateId, expiry: Expiry) -> Result<()> {
        if self.folds.expiries.set(state, expiry) {
            self.db
                .set_options(&[options::PERIODIC_COMPACTION])
                .map_err(|source| self.failed("set an option of the table", source))?;
        }
        Ok(())
    }

    /// What compaction may remove because it has expired.
    pub(crate) fn expiries(&self) -> &Arc<Expiries> {
        &self.folds.expiries
    }

    /// What folds have shown of how long lists are.
    pub(crate) fn long_lists(&self) -> &LongLists {
        &self.folds.long
    }

    // Reads.

    /// The value of `key` now. A delta that is being applied is seen whole or not at all.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<TableValue<'_>>> {
        self.db.get_pinned_opt(key, &self.reads).map_err(|source| self.failed("read a key", source))
    }

    /// The value of `key`, and the delta after which it was that: what a reader needs who folds
    /// operands of deltas that may be applied at this very moment. As fast as [`Table::get`] unless a
    /// delta is being applied.
    pub(crate) fn get_at(&self, key: &[u8]) -> Result<(Option<TableValue<'_>>, DeltaSeq)> {
        // A seqlock: a write that could have been seen had announced itself before.
        let before = self.applied.load(Ordering::Acquire);
        let value = self.get(key)?;
        std::sync::atomic::fence(Ordering::Acquire);
        if self.applying.load(Ordering::Relaxed) == before {
            return Ok((value, DeltaSeq(before)));
        }
        drop(value);
        let snapshot = self.snapshot();
        Ok((self.get_with(key, snapshot.reads())?, snapshot.applied()?))
    }

    /// A view of the half-open range as of now, and the delta that it stands at. Told apart as in
    /// [`Table::get_at`]: unless a delta is being applied, the view alone is made.
    pub(super) fn cursor_at(&self, start: &[u8], end: &[u8]) -> Result<(Cursor<'_>, DeltaSeq)> {
        let before = self.applied.load(Ordering::Acquire);
        let cursor = Cursor::unplaced(self, options::read_options(), start, end);
        std::sync::atomic::fence(Ordering::Acquire);
        if self.applying.load(Ordering::Relaxed) == before {
            return Ok((cursor, DeltaSeq(before)));
        }
        drop(cursor);
        let snapshot = self.snapshot();
        // The iterator holds its own view from its creation on; the snapshot only says which.
        let mut reads = options::read_options();
        snapshot.set_for(&mut reads);
        Ok((Cursor::unplaced(self, reads, start, end), snapshot.applied()?))
    }

    pub(super) fn get_with(&self, key: &[u8], reads: &ReadOptions) -> Result<Option<TableValue<'_>>> {
        self.db.get_pinned_opt(key, reads).map_err(|source| self.failed("read a key", source))
    }

    /// The values of `keys`, in their order, as one batch; ascending keys are faster.
    pub(crate) fn multi_get(&self, keys: &[&[u8]]) -> Vec<Result<Option<TableValue<'_>>>> {
        let Some(family) = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME) else {
            return keys
                .iter()
                .map(|_| Err(Error::internal("the default column family has no handle")))
                .collect();
        };
        self.db
            .batched_multi_get_cf_opt(&family, keys.iter().copied(), keys.is_sorted(), &self.reads)
            .into_iter()
            .map(|value| value.map_err(|source| self.failed("read a key", source)))
            .collect()
    }

    /// A consistent view that says by itself which delta it stands at.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::new(self)
    }

    /// The last delta that the table holds; `DeltaSeq(0)` before the first.
    pub(crate) fn applied(&self) -> Result<DeltaSeq> {
        self.read_marker(&self.reads)
    }

    pub(super) fn read_marker(&self, reads: &ReadOptions) -> Result<DeltaSeq> {
        let value = self.get_with(&self.marker, reads)?;
        marker::decode(value.as_deref()).map_err(|error| error.object(self.dir.display()))
    }

    // Writes: by one thread at a time.

    /// Brings in delta `seq` in one atomic step: first its tombstones (half-open ranges), then its
    /// entries, then the marker. Entries in ascending order are faster.
    ///
    /// # Errors
    /// `Disk`; `Internal` if the table already holds `seq`. Nothing of the delta is then visible.
    pub(crate) fn apply<'a>(
        &self,
        seq: DeltaSeq,
        tombstones: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        entries: impl IntoIterator<Item = (&'a [u8], Entry<'a>)>,
    ) -> Result<()> {
        self.begin(seq)?;
        let reserve = self.batch_bytes.load(Ordering::Relaxed) as usize;
        let mut batch = WriteBatch::with_capacity_bytes(reserve);
        let mut bytes = 0;
        self.gather(&mut batch, &mut bytes, tombstones, entries, usize::MAX)?;
        batch.put(self.marker, marker::encode(seq));
        self.write(batch)?;
        self.batch_bytes.store(bytes as u64, Ordering::Relaxed);
        self.applied.store(seq.0, Ordering::Release);
        self.memtable.note();
        Ok(())
    }

    /// To be called before about `bytes` are applied: waits while the memtables of all tables of the job hold as
    /// much as they may, unless `stop` says that there is nothing left to wait for (I6).
    pub(crate) fn make_room(&self, bytes: u64, stop: impl Fn() -> bool) {
        self.resources.memtables().make_room(bytes, &*self.resources.clock(), stop);
    }

    /// As [`Table::make_room`], for a caller that writes many small entries: before writing
    /// `bytes`.
    fn make_room_now_and_then(&self, bytes: usize) {
        let unlooked = self.unlooked.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if unlooked >= LOOK_AFTER_BYTES {
            self.unlooked.store(0, Ordering::Relaxed);
            self.memtable.note();
            self.make_room(unlooked, || false);
        }
    }

    /// As [`Table::apply`], but in several steps, for a replay of any size, and without a number:
    /// [`Table::set_applied`] says what the table stands at once all is in. Readers can see a half of
    /// it, and a crash leaves a half under the old marker, which must not be opened again: only for a
    /// table that nobody reads yet, in a directory that is deleted if the restore fails.
    pub(crate) fn load<'a>(
        &self,
        tombstones: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        entries: impl IntoIterator<Item = (&'a [u8], Entry<'a>)>,
    ) -> Result<()> {
        let mut batch = WriteBatch::default();
        self.delete_ranges(&mut batch, &tombstones.into_iter().collect::<Vec<_>>())?;
        self.gather(&mut batch, &mut 0, [], entries, self.resources.bulk_bytes())?;
        self.load_batch(batch)
    }

    fn load_batch(&self, batch: WriteBatch) -> Result<()> {
        self.make_room(batch.size_in_bytes() as u64, || false);
        self.write(batch)?;
        self.memtable.note();
        Ok(())
    }

    /// Adds to `batch`, which weighs `bytes`; writes it whenever it reaches `limit`.
    fn gather<'a>(
        &self,
        batch: &mut WriteBatch,
        bytes: &mut usize,
        tombstones: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        entries: impl IntoIterator<Item = (&'a [u8], Entry<'a>)>,
        limit: usize,
    ) -> Result<()> {
        for (start, end) in tombstones {
            batch.delete_range(start, end);
        }
        let mut stored = Vec::new();
        let mut expiries = self.folds.expiries.now();
        for (key, entry) in entries {
            let Some(entry) = expiries.live(key, entry) else { continue };
            *bytes += key.len() + entry.payload_len() + RECORD_OVERHEAD;
            match entry {
                Entry::Put(value) => batch.put(key, value),
                Entry::Delete => batch.delete(key),
                Entry::Merge { op, operand } => {
                    merge::encode_operand(&mut stored, op, operand);
                    batch.merge(key, &stored);
                }
            }
            if *bytes >= limit {
                self.load_batch(std::mem::take(batch))?;
                *bytes = 0;
            }
        }
        Ok(())
    }

    /// Sets the marker alone: a cut in native mode, where writes are in the table already.
    pub(crate) fn set_applied(&self, seq: DeltaSeq) -> Result<()> {
        self.apply(seq, [], [])
    }

    /// Announces a write to [`Table::get_at`].
    fn begin(&self, seq: DeltaSeq) -> Result<()> {
        let applied = self.applied.load(Ordering::Acquire);
        if seq.0 <= applied {
            return Err(Error::internal(format!("delta {seq} comes after delta {applied} was applied"))
                .object(self.dir.display()));
        }
        self.applying.store(seq.0, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::Release);
        Ok(())
    }

    pub(super) fn write(&self, batch: WriteBatch) -> Result<()> {
        self.db.write_opt(batch, &self.writes).map_err(|source| self.failed("write a delta", source))
    }

    /// Sets a key (native mode).
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.make_room_now_and_then(key.len() + value.len());
        self.db.put_opt(key, value, &self.writes).map_err(|source| self.failed("write a key", source))
    }

    /// Deletes a key (native mode).
    pub(crate) fn delete(&self, key: &[u8]) -> Result<()> {
        self.make_room_now_and_then(key.len());
        self.db.delete_opt(key, &self.writes).map_err(|source| self.failed("delete a key", source))
    }

    /// Adds an operand to a key (native mode).
    pub(crate) fn merge(&self, op: MergeOp, key: &[u8], operand: &[u8]) -> Result<()> {
        self.make_room_now_and_then(key.len() + operand.len());
        let mut stored = Vec::with_capacity(1 + operand.len());
        merge::encode_operand(&mut stored, op, operand);
        self.db.merge_opt(key, &stored, &self.writes).map_err(|source| self.failed("append to a key", source))
    }

    /// Deletes the half-open range of keys (native mode). The caller keeps the marker out of it.
    pub(crate) fn delete_range(&self, start: &[u8], end: &[u8]) -> Result<()> {
        self.make_room_now_and_then(start.len() + end.len());
        let mut batch = WriteBatch::default();
        batch.delete_range(start, end);
        self.db.write_opt(batch, &self.writes).map_err(|source| self.failed("delete a range of keys", source))
    }

    // Files.

    /// Where the table's files lie.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether level 0 is so full that a flush for [`Table::checkpoint`] would have writes held back.
    pub(crate) fn is_crowded(&self) -> bool {
        let files = self.db.property_int_value(properties::num_files_at_level(0)).ok().flatten();
        files.is_some_and(|files| files >= options::CROWDED_L0)
    }

    /// Whether RocksDB would hold back a write until flush or compaction has caught up.
    pub(crate) fn is_stopped(&self) -> bool {
        self.db.property_int_value(properties::IS_WRITE_STOPPED).ok().flatten().is_some_and(|is| is != 0)
    }

    /// Whether RocksDB slows writes down.
    pub(crate) fn is_delayed(&self) -> bool {
        let rate = self.db.property_int_value(properties::ACTUAL_DELAYED_WRITE_RATE);
        rate.ok().flatten().is_some_and(|rate| rate != 0)
    }

    /// Keeps files in level 0 from here on.
    #[cfg(test)]
    pub(crate) fn hold_compactions(&self) {
        self.db.set_options(&[("disable_auto_compactions", "true")]).unwrap();
    }

    /// From here on two files in level 0 stop all writes, or none do.
    #[cfg(test)]
    pub(crate) fn stop_writes(&self, stop: bool) {
        let files = if stop { "2" } else { "2000" };
        let options =
            ["level0_slowdown_writes_trigger", "level0_stop_writes_trigger"].map(|name| (name, files));
        self.db.set_options(&[("level0_file_num_compaction_trigger", "1000")]).unwrap();
        self.db.set_options(&options).unwrap();
    }

    /// Waits until compaction has made room in level 0; blocks. Ends when the background cannot make any, or when
    /// `go_on` says so: what comes in its way must not be waited out.
    ///
    /// # Errors
    /// [`Table::trouble`]; the error of `go_on`.
    pub(crate) fn wait_for_room(&self, go_on: impl Fn() -> Result<()>) -> Result<()> {
        while self.is_crowded() {
            self.trouble().map_or(Ok(()), Err)?;
            go_on()?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Why compaction and flushes fail, while they do: a full disk, most of all. Writes may go on for a while.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let (status, stood) = self.trouble.now()?;
        let error = error::map("compact or flush the table", &self.dir, status);
        // Other than where it ends the attempt.
        let advice = format!("free disk space: it has failed for {stood:.0?}, and goes on by itself then");
        Some(if error.kind() == ErrorKind::Disk { error.advise(advice) } else { error })
    }

    pub(super) fn memtable_is_empty(&self) -> Result<bool> {
        for name in [properties::NUM_ENTRIES_ACTIVE_MEM_TABLE, properties::NUM_ENTRIES_IMM_MEM_TABLES] {
            let entries = self
                .db
                .property_int_value(name)
                .map_err(|source| self.failed("read a property of the table", source))?;
            // Unknown counts as not empty: that only costs a flush.
            if entries != Some(0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the memtable into an SST file and waits for it.
    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush().map_err(|source| self.failed("flush the table", source))
    }

    /// Rewrites all files into the last level, and waits for it.
    pub(crate) fn compact_all(&self) -> Result<()> {
        self.flush()?;
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options::compact_options());
        // A manual compaction reports no status; a failure shows as a background error.
        match TableStats::read(&self.db).background_errors {
            0 => Ok(()),
            _ => self.flush(),
        }
    }

    /// Flushes, and waits until no flush or compaction is due any more: no work is left over. False
    /// if `timeout` passed first.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> Result<bool> {
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        // 0 would mean without end.
        wait.set_timeout(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX).max(1));
        match self.db.wait_for_compact(&wait) {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == rocksdb::ErrorKind::TimedOut => Ok(false),
            Err(source) => Err(self.failed("wait for compaction", source)),
        }
    }

    /// About how many bytes of files hold keys of these ranges, which end before their second key. What is in
    /// memtables does not count.
    pub(crate) fn bytes_within(&self, ranges: &[(Vec<u8>, Vec<u8>)]) -> u64 {
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| rocksdb::Range::new(start, end)).collect();
        self.db.get_approximate_sizes(&ranges).into_iter().fold(0, u64::saturating_add)
    }

    /// The table is about to be dropped, with whatever no checkpoint has: flushes and compactions stop, closing it writes
    /// nothing, and a write that RocksDB holds back ends with an error. It can still be read.
    pub(crate) fn abandon(&self) {
        // Without it the memtable would be flushed first, however long that takes.
        if let Err(error) = ffi::set_db_option(&self.db, c"avoid_flush_during_shutdown", c"true") {
            tracing::debug!(%error, "the table will be flushed before it is closed");
        }
        self.db.cancel_all_background_work(false);
    }

    /// Figures of this moment.
    pub(crate) fn stats(&self) -> TableStats {
        TableStats::read(&self.db)
    }

    pub(super) fn failed(&self, what: &str, source: rocksdb::Error) -> Error {
        let error = error::map(what, &self.dir, source);
        match self.folds.long.refused() {
            // RocksDB only knows that a fold failed.
            Some((key, bytes)) if error.to_string().contains("Merge operator failed") => {
                let message =
                    format!("cannot {what}: what was appended to one key has come to {bytes} bytes");
                Error::new(ErrorKind::Incompatible, message)
                    .object(format!("key {}", key.escape_ascii()))
                    .advise("go on from an older checkpoint, and clear the list, or let it expire, before it grows that long")
            }
            _ => error,
        }
    }
}

/// About what a record of a batch has beside key and value: tag and two lengths.
const RECORD_OVERHEAD: usize = 4;
