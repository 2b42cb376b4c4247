//! [`Pooled`]: a table whose memory goes back to its store.

use std::ops::Deref;
use std::sync::Arc;

use super::memtable::Memtable;
use super::recycle::Recycler;

/// A memtable that returns to the pool when its last holder (the frozen delta, or a scan) drops it.
/// That is O(1), on any thread.
pub(crate) struct Pooled {
    table: Memtable,
    recycler: Arc<Recycler>,
}

impl Pooled {
    /// A table for about `entries` entries, made from used memory if there is any.
    pub(super) fn new(recycler: &Arc<Recycler>, entries: usize) -> Arc<Self> {
        Self::of(recycler.memtable(entries), recycler)
    }

    pub(super) fn of(table: Memtable, recycler: &Arc<Recycler>) -> Arc<Self> {
        Arc::new(Self { table, recycler: Arc::clone(recycler) })
    }

    #[inline]
    pub(super) fn table_mut(&mut self) -> &mut Memtable {
        &mut self.table
    }

    /// Takes the table out. It then does not return to the pool.
    pub(super) fn take(&mut self) -> Memtable {
        std::mem::replace(&mut self.table, Memtable::hollow())
    }
}

impl Deref for Pooled {
    type Target = Memtable;

    #[inline]
    fn deref(&self) -> &Memtable {
        &self.table
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let table = self.take();
        if !table.is_hollow() {
            self.recycler.retire(table);
        }
    }
}

impl std::fmt::Debug for Pooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooled").field("entries", &self.table.len()).finish_non_exhaustive()
    }
}
