//! A cursor that keeps its table alive by itself, so that a scan borrows nothing from the store.

use std::fmt;
use std::sync::Arc;

use super::rocks::Table;
use super::snapshot::Cursor;
use crate::delta::Direction;
use crate::error::Result;
use crate::ids::DeltaSeq;

/// Walks a range of the table as of one delta.
pub(crate) struct OwnedCursor {
    // Fields drop in this order: the cursor before the table that it points into.
    cursor: Cursor<'static>,
    _table: Arc<Table>,
}

impl OwnedCursor {
    /// The cursor at the first entry of the half-open range, and the delta that its view stands at.
    pub(crate) fn new(table: Arc<Table>, start: &[u8], end: &[u8]) -> Result<(Self, DeltaSeq)> {
        let (mut cursor, applied) = Self::unplaced(table, start, end)?;
        cursor.seek(Direction::Forward, start)?;
        Ok((cursor, applied))
    }

    /// As [`OwnedCursor::new`], but it stands nowhere before it is told to [`seek`](Self::seek).
    pub(crate) fn unplaced(table: Arc<Table>, start: &[u8], end: &[u8]) -> Result<(Self, DeltaSeq)> {
        let (cursor, applied) = table.cursor_at(start, end)?;
        #[expect(unsafe_code, reason = "a cursor and the table it points into, in one value")]
        // SAFETY: the cursor refers to the `Table` inside the `Arc` and, by pointer, to the RocksDB
        // database that it owns. Neither moves or ends while `_table` is held, and `_table` is
        // dropped after `cursor`. The lifetime never gets out: `entry` ties what it returns to
        // `&self`.
        let cursor = unsafe { std::mem::transmute::<Cursor<'_>, Cursor<'static>>(cursor) };
        Ok((Self { cursor, _table: table }, applied))
    }

    /// The key and value that the cursor stands at; None behind the last.
    pub(crate) fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.cursor.entry()
    }

    /// Goes to the first entry from `bound` on, or to the last one below it.
    pub(crate) fn seek(&mut self, direction: Direction, bound: &[u8]) -> Result<()> {
        self.cursor.seek(direction, bound)
    }

    /// Steps to the next entry in its direction.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.cursor.advance()
    }
}

impl fmt::Debug for OwnedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedCursor").finish_non_exhaustive()
    }
}
