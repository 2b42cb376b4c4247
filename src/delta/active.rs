//! The delta that the operator writes to.
//!
//! It is nearly always one table. A scan may hold that table ([`ActiveDelta::view`]) at no cost. If
//! the program then writes while the scan is open, the table stays as the scan sees it, and an
//! empty one is put on top. Once the scan is gone, the small upper table is folded into the lower
//! one. If the scan is still there at the cut, or the upper table has become large, the two are cut
//! as two deltas, the older first.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::TableKind;
use super::entry::{Lookup, MergeOp};
use super::frozen::FrozenDelta;
use super::memtable::Memtable;
use super::pooled::Pooled;
use super::recycle::Recycler;

/// The most entries that one write folds into the table below, which takes some tens of
/// microseconds.
const FOLDED_AT_ONCE: usize = 256;

/// The most tables below the one that is written to. A scan that would make them more gets no view.
const DEEPEST: usize = 4;

/// All changes since the last cut, one entry per key in each of its tables; the last write wins.
/// One owner, the operator's thread. Keys are encoded keys.
pub(crate) struct ActiveDelta {
    /// The newest table, the one that is written to.
    top: Arc<Pooled>,
    /// Whether a write has to check first whether a scan holds `top`, or whether there are tables
    /// below it.
    lent: Cell<bool>,
    /// Earlier tables, oldest first, which scans may hold.
    below: Vec<Arc<Pooled>>,
    below_bytes: usize,
    /// An empty table to put on top: a program that writes while it scans needs one for each scan.
    spare: Option<Memtable>,
    recycler: Arc<Recycler>,
}

impl ActiveDelta {
    /// The first delta of a store. Later ones come out of [`cut`](Self::cut).
    pub(crate) fn new() -> Self {
        Self::with_hint(0)
    }

    /// A delta that takes about `entries` keys before its hash index grows.
    pub(crate) fn with_hint(entries: usize) -> Self {
        Self::of(Arc::default(), entries)
    }

    /// The first delta of a store that reuses the memory of its deltas through `recycler`.
    pub(crate) fn recycled_by(recycler: Arc<Recycler>) -> Self {
        Self::of(recycler, 0)
    }

    fn of(recycler: Arc<Recycler>, entries: usize) -> Self {
        Self {
            top: Pooled::new(&recycler, entries),
            lent: Cell::new(false),
            below: Vec::new(),
            below_bytes: 0,
            spare: None,
            recycler,
        }
    }

    /// Sets the value of `key`. Keys are shorter than 16 MiB, values than 4 GiB.
    #[inline]
    pub(crate) fn put(&mut self, kind: TableKind, key: &[u8], value: &[u8]) {
        self.writable().put(kind, key, value);
    }

    /// Removes the value of `key`.
    #[inline]
    pub(crate) fn delete(&mut self, kind: TableKind, key: &[u8]) {
        self.writable().delete(kind, key);
    }

    /// Folds `operand` into the value of `key`. A key has the same `op` for life.
    #[inline]
    pub(crate) fn merge(&mut self, kind: TableKind, op: MergeOp, key: &[u8], operand: &[u8]) {
        self.writable().merge(kind, op, key, operand);
    }

    /// Removes the values of all keys from `start` up to but without `end`, here and below: entries
    /// of this delta are removed, and a tombstone is written. The cost grows with the removed
    /// entries for ordered states, and with the whole delta for hash states.
    pub(crate) fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.writable().delete_range(start, end);
    }

    /// Looks `key` up in the newest table. If that does not settle it, the [older](Self::older)
    /// ones follow.
    #[inline]
    pub(crate) fn newest(&self, key: &[u8]) -> Lookup<'_> {
        self.top.get(key)
    }

    /// The tables below the newest, the newest of them first. Nearly always none.
    #[inline]
    pub(crate) fn older(&self) -> impl Iterator<Item = &Pooled> {
        self.below.iter().rev().map(|table| &**table)
    }

    /// Its tables, the newest first. Each lies above those that follow.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Pooled> {
        std::iter::once(&*self.top).chain(self.older())
    }

    /// One of its [`tables`](Self::tables), for a scan to hold. It does not change from now on.
    /// None if so many are held already that reads would become slow.
    pub(crate) fn view(&self, table: &Pooled) -> Option<Arc<Pooled>> {
        if std::ptr::eq(table, Arc::as_ptr(&self.top)) {
            if self.below.len() == DEEPEST {
                return None;
            }
            self.lent.set(true);
            return Some(Arc::clone(&self.top));
        }
        self.below.iter().find(|below| std::ptr::eq(table, Arc::as_ptr(below))).map(Arc::clone)
    }

    /// The table to write to.
    #[inline]
    fn writable(&mut self) -> &mut Memtable {
        if self.lent.get() {
            return self.set_apart();
        }
        #[expect(unsafe_code, reason = "what `Arc::get_mut` does, without its atomic operations")]
        // SAFETY: there is no other holder of `top`. Code outside of this type gets hold of it only
        // through `view`, which sets `lent`, and through references that end before `self` is
        // borrowed mutably. Only `set_apart` and `cut` clear `lent`, where `top` is known to be
        // held by `self` alone, or is new.
        unsafe {
            (*Arc::as_ptr(&self.top).cast_mut()).table_mut()
        }
    }

    /// As [`writable`](Self::writable) where scans may hold tables.
    #[cold]
    fn set_apart(&mut self) -> &mut Memtable {
        self.fold();
        if Arc::get_mut(&mut self.top).is_none() {
            let next = self.spare.take().unwrap_or_else(|| self.recycler.memtable(0));
            self.recycler.set_overlay(0);
            let held = std::mem::replace(&mut self.top, Pooled::of(next, &self.recycler));
            self.below_bytes += held.bytes();
            self.below.push(held);
        }
        self.lent.set(!self.below.is_empty());
        Arc::get_mut(&mut self.top).expect("it is held by nobody else, or new").table_mut()
    }

    /// Folds the newest tables into one as far as no scan holds them.
    fn fold(&mut self) {
        while self.top.len() + self.top.tombstones().len() <= FOLDED_AT_ONCE {
            let (Some(newer), Some(older)) = (Arc::get_mut(&mut self.top), self.below.last_mut()) else {
                return;
            };
            let before = older.bytes();
            let Some(table) = Arc::get_mut(older) else { return };
            table.table_mut().absorb(newer);
            let spare = newer.take().emptied();
            self.recycler.set_overlay(spare.memory());
            self.spare = Some(spare);
            self.below_bytes -= before;
            self.top = self.below.pop().expect("it was just there");
        }
    }

    /// Number of entries without tombstones. A key that is in two tables counts twice.
    pub(crate) fn len(&self) -> usize {
        self.tables().map(|table| table.len()).sum()
    }

    /// Whether nothing was changed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.top.is_empty() && self.below.is_empty()
    }

    /// Memory in bytes, with indexes, tombstones and the garbage of overwritten values.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.top.bytes() + self.below_bytes
    }

    /// Freezes the delta. If scans hold tables, it freezes only the oldest, so call it until the
    /// delta [is empty](Self::is_empty). O(1): no sort and no copy. In the steady state it does not
    /// allocate either, because the new delta has the size of this one and reuses memory of earlier
    /// ones.
    pub(crate) fn cut(&mut self) -> FrozenDelta {
        self.fold();
        if self.below.is_empty() {
            let next = Pooled::new(&self.recycler, self.top.len());
            self.lent.set(false);
            return FrozenDelta::new(std::mem::replace(&mut self.top, next), Arc::clone(&self.recycler));
        }
        let oldest = self.below.remove(0);
        self.below_bytes -= oldest.bytes();
        FrozenDelta::new(oldest, Arc::clone(&self.recycler))
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
            .field("tables", &(1 + self.below.len()))
            .field("entries", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
