//! Consistent views of a table: [`Snapshot`], and [`Cursor`] over a range in order.

use rocksdb::{DBRawIterator, ReadOptions};

use super::options;
use super::rocks::Table;
use crate::delta::Direction;
use crate::error::Result;
use crate::ids::DeltaSeq;

/// The table as of one delta, whatever is applied meanwhile.
pub(crate) struct Snapshot<'a> {
    table: &'a Table,
    // Refers to `inner` by pointer, and is dropped before it.
    reads: ReadOptions,
    inner: rocksdb::Snapshot<'a>,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        let inner = table.db.snapshot();
        let mut reads = options::read_options();
        reads.set_snapshot(&inner);
        Self { table, reads, inner }
    }

    pub(super) fn reads(&self) -> &ReadOptions {
        &self.reads
    }

    /// The last delta that this view holds.
    pub(crate) fn applied(&self) -> Result<DeltaSeq> {
        self.table.read_marker(&self.reads)
    }

    /// Makes reads those of this view.
    pub(super) fn set_for(&self, reads: &mut ReadOptions) {
        reads.set_snapshot(&self.inner);
    }

    /// The entries of the half-open range in order.
    #[cfg(test)]
    pub(crate) fn cursor(&self, start: &[u8], end: &[u8]) -> Result<Cursor<'_>> {
        let mut reads = options::read_options();
        reads.set_snapshot(&self.inner);
        Cursor::new(self.table, reads, start, end)
    }

    /// Copies of all entries of the half-open range in order.
    #[cfg(test)]
    pub(crate) fn iter(
        &self,
        start: &[u8],
        end: &[u8],
    ) -> Result<impl Iterator<Item = Result<(Vec<u8>, Vec<u8>)>> + use<>> {
        let mut cursor = self.cursor(start, end)?;
        let mut entries = Vec::new();
        while let Some((key, value)) = cursor.entry() {
            entries.push(Ok((key.to_vec(), value.to_vec())));
            if let Err(error) = cursor.advance() {
                entries.push(Err(error));
            }
        }
        Ok(entries.into_iter())
    }
}

/// Walks a range of a table, without copies. Stands at an entry, or behind the last one in its
/// direction.
pub(crate) struct Cursor<'a> {
    table: &'a Table,
    inner: DBRawIterator<'a>,
    direction: Direction,
}

impl<'a> Cursor<'a> {
    /// At the first entry of the half-open range.
    #[cfg(test)]
    pub(super) fn new(table: &'a Table, reads: ReadOptions, start: &[u8], end: &[u8]) -> Result<Self> {
        let mut cursor = Self::unplaced(table, reads, start, end);
        cursor.seek(Direction::Forward, start)?;
        Ok(cursor)
    }

    /// A view of the half-open range as of now, which stands nowhere yet: reading begins with a
    /// seek.
    pub(super) fn unplaced(table: &'a Table, mut reads: ReadOptions, start: &[u8], end: &[u8]) -> Self {
        // RocksDB does not define bounds that are the wrong way round.
        let end = end.max(start);
        reads.set_iterate_lower_bound(start);
        reads.set_iterate_upper_bound(end);
        Self { table, inner: table.db.raw_iterator_opt(reads), direction: Direction::Forward }
    }

    /// The key and value that the cursor stands at; None behind the last.
    pub(crate) fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.inner.item()
    }

    /// Goes to the first entry from `bound` on, or to the last one below it.
    pub(crate) fn seek(&mut self, direction: Direction, bound: &[u8]) -> Result<()> {
        self.direction = direction;
        match direction {
            Direction::Forward => self.inner.seek(bound),
            Direction::Backward => {
                self.inner.seek_for_prev(bound);
                if self.inner.key() == Some(bound) {
                    self.inner.prev();
                }
            }
        }
        self.check()?;
        // The marker is the least key of the owned range: forward it comes first or not at all.
        if self.stands_at_marker() { self.advance() } else { Ok(()) }
    }

    /// Steps to the next entry in its direction.
    pub(crate) fn advance(&mut self) -> Result<()> {
        if self.inner.valid() {
            match self.direction {
                Direction::Forward => self.inner.next(),
                Direction::Backward => self.inner.prev(),
            }
        }
        if self.direction == Direction::Backward && self.stands_at_marker() {
            self.inner.prev();
        }
        self.check()
    }

    fn stands_at_marker(&self) -> bool {
        self.inner.key() == Some(&self.table.marker)
    }

    /// A RocksDB iterator ends at a failure just as at the end of the range; only its status tells
    /// them apart (I4).
    fn check(&self) -> Result<()> {
        if self.inner.valid() {
            return Ok(());
        }
        self.inner.status().map_err(|source| self.table.failed("scan the table", source))
    }
}
