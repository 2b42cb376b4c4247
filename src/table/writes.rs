//! Writes of a table, by one thread at a time.

use std::sync::atomic::{Ordering, fence};

use rocksdb::WriteBatch;

use super::{Table, marker, merge};
use crate::delta::{Entry, MergeOp};
use crate::error::{Error, Result};
use crate::ids::DeltaSeq;

/// Single writes ask for room in the memtables once for so many bytes.
const LOOK_AFTER_BYTES: u64 = 64 << 10;

/// About the bytes of a record in a batch beside key and value: a tag and two lengths.
const RECORD_OVERHEAD: usize = 4;

impl Table {
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

    /// Must be called before about `bytes` are applied. Waits while the memtables of all tables of
    /// the job are at their bound (I6), until `stop` returns true.
    pub(crate) fn make_room(&self, bytes: u64, stop: impl Fn() -> bool) {
        self.resources.memtables().make_room(bytes, &*self.resources.clock(), stop);
    }

    /// As [`Table::make_room`], for a caller that writes small entries one by one: asks only now
    /// and then.
    fn make_room_now_and_then(&self, bytes: usize) {
        let unlooked = self.unlooked.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if unlooked >= LOOK_AFTER_BYTES {
            self.unlooked.store(0, Ordering::Relaxed);
            self.memtable.note();
            self.make_room(unlooked, || false);
        }
    }

    /// As [`Table::apply`], but in several batches, for a replay of any size, and without a number.
    /// [`Table::set_applied`] sets the number when everything is in. Readers can see part of it,
    /// and a crash leaves part of it under the old marker. So this is only for a table that nobody
    /// reads yet, in a directory that is deleted if the restore fails.
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

    /// Adds to `batch`, which has about `bytes`, and writes it whenever it reaches `limit`.
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

    /// Sets only the marker, for a cut in native mode: its writes are in the table already.
    pub(crate) fn set_applied(&self, seq: DeltaSeq) -> Result<()> {
        self.apply(seq, [], [])
    }

    /// Announces the write of a delta to [`Table::get_at`].
    fn begin(&self, seq: DeltaSeq) -> Result<()> {
        let applied = self.applied.load(Ordering::Acquire);
        if seq.0 <= applied {
            return Err(Error::internal(format!("delta {seq} comes after delta {applied} was applied"))
                .object(self.dir.display()));
        }
        self.applying.store(seq.0, Ordering::Relaxed);
        fence(Ordering::Release);
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
}
