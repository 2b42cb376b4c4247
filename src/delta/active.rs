//! The delta that the operator writes to.

use std::fmt;
use std::sync::Arc;

use super::TableKind;
use super::entry::{Entry, Lookup, MergeOp};
use super::frozen::FrozenDelta;
use super::memtable::Memtable;
use super::range_set::RangeSet;
use super::recycle::Recycler;

/// All changes since the last cut, one entry per key; the last write wins. One owner, the operator's
/// thread. Keys are encoded keys.
pub(crate) struct ActiveDelta {
    table: Memtable,
    recycler: Arc<Recycler>,
}

impl ActiveDelta {
    /// The first delta of a store. Later ones come out of [`cut`](Self::cut).
    pub(crate) fn new() -> Self {
        Self::with_hint(0)
    }

    /// A delta that takes about `entries` keys before its hash index grows.
    pub(crate) fn with_hint(entries: usize) -> Self {
        let recycler = Arc::<Recycler>::default();
        Self { table: recycler.memtable(entries), recycler }
    }

    /// Sets the value of `key`. Keys are shorter than 16 MiB, values than 4 GiB.
    #[inline]
    pub(crate) fn put(&mut self, kind: TableKind, key: &[u8], value: &[u8]) {
        self.table.put(kind, key, value);
    }

    /// Takes the value of `key` away.
    #[inline]
    pub(crate) fn delete(&mut self, kind: TableKind, key: &[u8]) {
        self.table.delete(kind, key);
    }

    /// Folds `operand` into the value of `key`. A key has the same `op` for life.
    #[inline]
    pub(crate) fn merge(&mut self, kind: TableKind, op: MergeOp, key: &[u8], operand: &[u8]) {
        self.table.merge(kind, op, key, operand);
    }

    /// Takes away the values of all keys from `start` up to but without `end`, here and below: points
    /// of this delta are removed, and a tombstone is written. Costs what it removes for
    /// ordered states, and a walk over the delta for hash states.
    pub(crate) fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.table.delete_range(start, end);
    }

    /// What this delta knows about `key`.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Lookup<'_> {
        self.table.get(key)
    }

    /// The entries from `start` up to but without `end`, in order. Costs a walk over the delta and a
    /// sort where the range meets a hash state. Tombstones are not in it.
    pub(crate) fn range<'a>(
        &'a self,
        start: &[u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Entry<'a>)> {
        self.table.range(start, end).map(|pos| self.table.point(pos))
    }

    /// The ranges deleted in this delta. They lie below its entries.
    pub(crate) fn tombstones(&self) -> &RangeSet {
        self.table.tombstones()
    }

    /// Number of entries, tombstones not counted.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Memory held, in bytes: indexes, tombstones and the garbage of overwritten values included.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Swaps in an empty delta and gives out what was collected. O(1): no sort, no copy, and in the
    /// steady state no allocation, since the new delta is made from memory of earlier ones and sized
    /// as this one.
    pub(crate) fn cut(&mut self) -> FrozenDelta {
        let next = self.recycler.memtable(self.table.len());
        FrozenDelta::new(std::mem::replace(&mut self.table, next), Arc::clone(&self.recycler))
    }

    /// A delta that nothing follows.
    #[cfg(test)]
    pub(crate) fn freeze(mut self) -> FrozenDelta {
        self.cut()
    }
}

impl fmt::Debug for ActiveDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveDelta")
            .field("entries", &self.len())
            .field("tombstones", &self.tombstones().len())
            .field("bytes", &self.bytes())
            .finish()
    }
}
