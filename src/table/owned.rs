//! A cursor that keeps its table alive by itself, so that a scan borrows nothing from the store.

use std::fmt;
use std::sync::Arc;

use super::rocks::Table;
use super::snapshot::Cursor;
use crate::error::Result;
use crate::ids::DeltaSeq;

/// Walks a range of the table as of one delta.
pub(crate) struct OwnedCursor {
    // Fields drop in this order: the cursor before the table that it points into.
    cursor: Cursor<'static>,
    _table: Arc<Table>,
}

impl OwnedCursor {
    /// The cursor over the half-open range, and the delta that its view stands at.
    pub(crate) fn new(table: Arc<Table>, start: &[u8], end: &[u8]) -> Result<(Self, DeltaSeq)> {
        let snapshot = table.snapshot();
        let applied = snapshot.applied()?;
        let cursor = snapshot.cursor(start, end)?;
        // The iterator holds its own view from its creation on; the snapshot only says which.
        #[expect(unsafe_code, reason = "a cursor and the table it points into, in one value")]
        // SAFETY: the cursor refers to the `Table` inside the `Arc` and, by pointer, to the RocksDB
        // database that it owns. Neither moves or ends while `_table` is held, and `_table` is dropped
        // after `cursor`. The lifetime never gets out: `entry` ties what it returns to `&self`. RocksDB
        // reads the snapshot only while it creates the iterator.
        let cursor = unsafe { std::mem::transmute::<Cursor<'_>, Cursor<'static>>(cursor) };
        drop(snapshot);
        Ok((Self { cursor, _table: table }, applied))
    }

    /// The key and value that the cursor stands at; None behind the last.
    pub(crate) fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.cursor.entry()
    }

    /// Steps to the next entry.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.cursor.advance()
    }
}

impl fmt::Debug for OwnedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedCursor").finish_non_exhaustive()
    }
}
