//! The delta after its cut: immutable, shared by operator, sealer and applier.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::arena::Pos;
use super::entry::{Entry, Lookup};
use super::pooled::Pooled;
use super::range_set::RangeSet;
use super::recycle::Recycler;

/// Records that a walk in key order fetches from memory at the same time.
const FETCHED_TOGETHER: usize = 16;

/// All changes between two cuts. Its memory goes back to the store when the last holder drops it.
pub(crate) struct FrozenDelta {
    table: Arc<Pooled>,
    /// All positions in key order, built at the first use.
    sorted: OnceLock<Vec<Pos>>,
    recycler: Arc<Recycler>,
}

impl FrozenDelta {
    pub(super) fn new(table: Arc<Pooled>, recycler: Arc<Recycler>) -> Self {
        Self { table, sorted: OnceLock::new(), recycler }
    }

    /// The table that it was collected in.
    #[inline]
    pub(crate) fn table(&self) -> &Arc<Pooled> {
        &self.table
    }

    /// What this delta knows about `key`.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Lookup<'_> {
        self.table().get(key)
    }

    /// All entries in order. The first caller sorts the keys of hash states (some 100 ns a key), so
    /// it should be a background thread.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Entry<'_>)> {
        let (table, sorted) = (self.table(), self.sorted());
        sorted.iter().enumerate().map(move |(at, pos)| {
            if at % FETCHED_TOGETHER == 0 {
                // In key order records lie all over the arena, each a miss of the cache.
                table.fetch(&sorted[at..sorted.len().min(at + FETCHED_TOGETHER)]);
            }
            table.point(*pos)
        })
    }

    fn sorted(&self) -> &[Pos] {
        self.sorted.get_or_init(|| {
            // This runs in the background, where the work belongs that cut and drop have put off.
            self.recycler.clean();
            let mut positions = Vec::with_capacity(self.len());
            positions.extend(self.table().all());
            positions
        })
    }

    /// The entries from `start` up to but without `end`, in order. Never waits for the sort: before
    /// it is done, it costs what [`Memtable::range`](super::memtable::Memtable::range) does.
    /// Tombstones are not in it.
    pub(crate) fn range<'a>(
        &'a self,
        start: &[u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Entry<'a>)> {
        let table = self.table();
        let below = |bound: &[u8]| {
            self.sorted.get().map(|sorted| sorted.partition_point(|pos| table.point(*pos).0 < bound))
        };
        let (sorted, unsorted) = match (self.sorted.get(), below(start), below(end)) {
            (Some(sorted), Some(from), Some(to)) => (&sorted[from..to.max(from)], None),
            _ => (&[][..], Some(table.range(start, end))),
        };
        sorted.iter().copied().chain(unsorted.into_iter().flatten()).map(|pos| table.point(pos))
    }

    /// How many keys lie below `bound`, if the order is known already: a scan never sorts on its
    /// own thread.
    pub(crate) fn position(&self, bound: &[u8]) -> Option<usize> {
        let sorted = self.sorted.get()?;
        Some(sorted.partition_point(|pos| self.table().point(*pos).0 < bound))
    }

    /// The entry at a [`position`](Self::position), which is the number of keys below it. None
    /// behind the last.
    pub(crate) fn nth(&self, at: usize) -> Option<(&[u8], Entry<'_>)> {
        self.sorted.get()?.get(at).map(|pos| self.table().point(*pos))
    }

    /// The ranges deleted in this delta. They lie below its entries.
    pub(crate) fn tombstones(&self) -> &RangeSet {
        self.table().tombstones()
    }

    /// Number of entries, tombstones not counted.
    pub(crate) fn len(&self) -> usize {
        self.table().len()
    }

    /// Memory held, in bytes, as [`ActiveDelta::bytes`](super::ActiveDelta::bytes) counted at the
    /// cut.
    pub(crate) fn bytes(&self) -> usize {
        self.table().bytes()
    }
}

impl fmt::Debug for FrozenDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenDelta")
            .field("entries", &self.len())
            .field("tombstones", &self.tombstones().len())
            .field("bytes", &self.bytes())
            .finish()
    }
}
