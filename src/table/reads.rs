//! Reads of a table, by any number of threads.

use std::sync::atomic::{Ordering, fence};

use rocksdb::{DBPinnableSlice, DEFAULT_COLUMN_FAMILY_NAME, ReadOptions};

use super::snapshot::{Cursor, Snapshot};
use super::{Table, marker, options};
use crate::error::{Error, Result};
use crate::ids::DeltaSeq;

/// A value that still lies in RocksDB's memory, without a copy.
pub(crate) type TableValue<'a> = DBPinnableSlice<'a>;

impl Table {
    /// The value of `key` now. A delta that is being applied is seen whole or not at all.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<TableValue<'_>>> {
        self.db.get_pinned_opt(key, &self.reads).map_err(|source| self.failed("read a key", source))
    }

    /// The value of `key`, and the last delta that it reflects. A caller that folds operands of
    /// unapplied deltas onto the value must know that, because a delta may be applied at the same
    /// time. As fast as [`Table::get`] unless a delta is being applied.
    pub(crate) fn get_at(&self, key: &[u8]) -> Result<(Option<TableValue<'_>>, DeltaSeq)> {
        // A seqlock. A writer stores `applying` before its batch becomes visible, so if that is
        // unchanged after the read, the read saw no part of a newer delta.
        let before = self.applied.load(Ordering::Acquire);
        let value = self.get(key)?;
        fence(Ordering::Acquire);
        if self.applying.load(Ordering::Relaxed) == before {
            return Ok((value, DeltaSeq(before)));
        }
        drop(value);
        let snapshot = self.snapshot();
        Ok((self.get_with(key, snapshot.reads())?, snapshot.applied()?))
    }

    /// A view of the half-open range as of now, and the delta that it stands at. By the same
    /// seqlock as [`Table::get_at`], so that a snapshot is needed only while a delta is being
    /// applied.
    pub(super) fn cursor_at(&self, start: &[u8], end: &[u8]) -> Result<(Cursor<'_>, DeltaSeq)> {
        let before = self.applied.load(Ordering::Acquire);
        let cursor = Cursor::unplaced(self, options::read_options(), start, end);
        fence(Ordering::Acquire);
        if self.applying.load(Ordering::Relaxed) == before {
            return Ok((cursor, DeltaSeq(before)));
        }
        drop(cursor);
        let snapshot = self.snapshot();
        // The iterator keeps its own view once it is made, so the snapshot may go.
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
}
