//! The delta that the operator writes to.
//!
//! Nearly always it is one table. A scan may hold it ([`ActiveDelta::view`]), which costs nothing; if the program
//! then writes while the scan is open, the table stays as the scan sees it, and an empty one is put on top.
//! Once the scan is gone the small table on top is folded into the one below it. If it is not gone
//! when the delta is cut, or the upper one has become large, they are cut as two deltas, the older first.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::TableKind;
use super::entry::{Lookup, MergeOp};
use super::frozen::FrozenDelta;
use super::memtable::Memtable;
use super::pooled::Pooled;
use super::recycle::Recycler;

/// Entries that one write folds into the table below at most: some tens of microseconds.
const FOLDED_AT_ONCE: usize = 256;

/// Tables that may lie below the one that is written to. A scan that would make it more is given no view.
const DEEPEST: usize = 4;

/// All changes since the last cut, one entry per key in each of its tables; the last write wins. One owner, the
/// operator's thread. Keys are encoded keys.
pub(crate) struct ActiveDelta {
    /// The newest table, the one that is written to.
    top: Arc<Pooled>,
    /// Whether a write has to look first: others may hold `top`, or there are tables below it.
    lent: Cell<bool>,
    /// What came before, oldest first, as scans hold it.
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

    /// The first delta of a store whose deltas go round by `recycler`.
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

    /// Takes the value of `key` away.
    #[inline]
    pub(crate) fn delete(&mut self, kind: TableKind, key: &[u8]) {
        self.writable().delete(kind, key);
    }

    /// Folds `operand` into the value of `key`. A key has the same `op` for life.
    #[inline]
    pub(crate) fn merge(&mut self, kind: TableKind, op: MergeOp, key: &[u8], operand: &[u8]) {
        self.writable().merge(kind, op, key, operand);
    }

    /// Takes away the values of all keys from `start` up to but without `end`, here and below: points
    /// of this delta are removed, and a tombstone is written. Costs what it removes for
    /// ordered states, and a walk over the delta for hash states.
    pub(crate) fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.writable().delete_range(start, end);
    }

    /// What the newest table of this delta knows about `key`. Where that does not settle it, the [older](Self::older)
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

    /// One of its [`tables`](Self::tables), to be held: it does not change from now on. None where so many
    /// are held already that reads would become slow.
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
        // SAFETY: nobody else holds `top`. Outside of this type nothing gets hold of it but by `view`, which sets
        // `lent`, and by references that end before `self` is borrowed mutably. `lent` is cleared in `set_apart`
        // and `cut` alone, where `top` is known to be held by `self` only, or is new.
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

    /// Brings the newest tables together as far as no scan holds them.
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

    /// Number of entries, tombstones not counted. A key that is in two tables counts twice.
    pub(crate) fn len(&self) -> usize {
        self.tables().map(|table| table.len()).sum()
    }

    /// Whether nothing was changed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.top.is_empty() && self.below.is_empty()
    }

    /// Memory held, in bytes: indexes, tombstones and the garbage of overwritten values included.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.top.bytes() + self.below_bytes
    }

    /// Gives out what was collected, or, where scans hold parts of it, the oldest of these: to be called until
    /// the delta [is empty](Self::is_empty). O(1): no sort, no copy, and in the
    /// steady state no allocation, since the new delta is made from memory of earlier ones and sized
    /// as this one.
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
