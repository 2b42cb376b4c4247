//! Recycles the memory of deltas for later deltas of the same store.
//!
//! A store fills deltas of about the same size for as long as it lives. Fresh memory would cost a
//! page fault per 4 KiB on the operator's thread, and emptying an old table some tens of
//! microseconds. So a delta that is dropped, on any thread, is only put on a list. The next seal,
//! which runs in the background, cleans it, and the next cut finds it ready.
//!
//! Waiting memory counts (I6): a store reports how much it holds, and a writer frees it before
//! waiting for the memory of deltas.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arena::{Arena, CHUNK};
use super::hash::{HashIndex, SpareShards};
use super::memtable::Memtable;

/// Deltas that may wait to be cleaned. When the applier has lagged and then catches up, a cut
/// releases as many deltas as the store's budget holds, and freeing them there would pause the
/// operator.
const MAX_RETIRED: usize = 64;

/// Memory that the deltas of one store hand on to each other. Until the next seal it holds at most
/// [`MAX_RETIRED`] dropped deltas, beside the memory of one cleaned delta.
#[derive(Default)]
pub(crate) struct Recycler {
    pool: Mutex<Pool>,
    /// Bytes of what waits to be cleaned.
    retired: AtomicUsize,
    /// Bytes of cleaned memory, ready to be used again.
    ready: AtomicUsize,
    /// Bytes of the empty table that a program which writes while it scans keeps for the next scan.
    overlay: AtomicUsize,
}

#[derive(Default)]
struct Pool {
    retired: Vec<Memtable>,
    chunks: Vec<Vec<u8>>,
    /// Chunks that the delta cleaned last had filled.
    last_filled: usize,
    shards: Option<SpareShards>,
}

impl Pool {
    fn ready(&self) -> usize {
        self.chunks.len() * CHUNK + self.shards.as_ref().map_or(0, SpareShards::memory)
    }
}

impl fmt::Debug for Recycler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recycler").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Recycler {
    /// An empty table for about `entries` entries, made from cleaned memory if there is any.
    pub(crate) fn memtable(&self, entries: usize) -> Memtable {
        let (chunks, shards) = {
            let mut pool = self.lock();
            self.ready.store(0, Ordering::Relaxed);
            (std::mem::take(&mut pool.chunks), pool.shards.take())
        };
        Memtable::new(Arena::with_spare(chunks), HashIndex::with_hint(entries, shards))
    }

    /// Takes a table that has no readers any more. Frees no memory on the caller's thread, unless
    /// [`MAX_RETIRED`] tables wait already.
    pub(crate) fn retire(&self, table: Memtable) {
        let bytes = table.memory();
        let mut pool = self.lock();
        if pool.retired.len() < MAX_RETIRED {
            pool.retired.push(table);
            self.retired.fetch_add(bytes, Ordering::Relaxed);
        } else {
            drop(pool);
            drop(table);
        }
    }

    /// Cleans the retired tables. It takes up to milliseconds, so it is for background threads, and
    /// for a writer that would have to wait for memory otherwise.
    pub(crate) fn clean(&self) {
        let retired = {
            let mut pool = self.lock();
            self.retired.store(0, Ordering::Relaxed);
            std::mem::take(&mut pool.retired)
        };
        for table in retired {
            let filled = table.filled_chunks();
            let (chunks, shards) = table.into_spare();
            let mut pool = self.lock();
            pool.chunks.extend(chunks);
            // Keeps as much as the larger of the last two deltas had filled. A small delta in
            // between then loses nothing, and a burst does not hold memory for ever.
            let keep = filled.max(pool.last_filled).min(pool.chunks.len());
            let surplus = pool.chunks.split_off(keep);
            pool.last_filled = filled;
            let replaced = shards.and_then(|shards| pool.shards.replace(shards));
            self.ready.store(pool.ready(), Ordering::Relaxed);
            // Freed without the lock.
            drop(pool);
            drop((surplus, replaced));
        }
    }

    /// Bytes of what waits to be cleaned.
    pub(crate) fn retired(&self) -> usize {
        self.retired.load(Ordering::Relaxed)
    }

    /// Bytes of all memory held for later deltas.
    pub(crate) fn bytes(&self) -> usize {
        self.retired() + self.ready.load(Ordering::Relaxed) + self.overlay.load(Ordering::Relaxed)
    }

    /// Notes the memory of the spare table for the next scan.
    pub(super) fn set_overlay(&self, bytes: usize) {
        self.overlay.store(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // Only moves happen under the lock, so a panic elsewhere leaves nothing half done.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ActiveDelta, TableKind};
    use super::*;

    #[test]
    fn memory_goes_round_and_stays_bounded() {
        let recycler = Recycler::default();
        for round in 0..5 {
            let mut table = recycler.memtable(100);
            assert_eq!((table.len(), table.bytes()), (0, 0), "round {round}");
            for key in 0..10_000_u32 {
                table.put(TableKind::Hash, &key.to_be_bytes(), &[round; 100]);
            }
            for _ in 0..MAX_RETIRED + 3 {
                recycler.retire(recycler.memtable(0));
            }
            assert_eq!(recycler.lock().retired.len(), MAX_RETIRED);
            recycler.clean();
            assert_eq!(recycler.retired(), 0);
            let held = table.memory();
            recycler.retire(table);
            assert_eq!(recycler.retired(), held, "1.2 MB of records in five chunks, and an index of 10,000");
            assert!((5 * CHUNK + 80_000..6 * CHUNK + 500_000).contains(&held), "{held} bytes");
            recycler.clean();
            let pool = recycler.lock();
            assert!(pool.retired.is_empty() && pool.shards.is_some());
            // 120 bytes a record.
            assert_eq!(pool.chunks.len(), 5);
            assert_eq!(recycler.bytes(), 5 * CHUNK + pool.shards.as_ref().unwrap().memory());
        }
        drop(recycler.memtable(100));
        assert_eq!(recycler.bytes(), 0, "what is handed out is the delta's own");
    }

    #[test]
    fn i6_the_empty_table_that_waits_for_the_next_scan_counts() {
        let recycler = Arc::<Recycler>::default();
        let mut delta = ActiveDelta::recycled_by(Arc::clone(&recycler));
        delta.put(TableKind::Hash, b"a", b"1");
        let view = delta.tables().next().and_then(|table| delta.view(table)).unwrap();
        delta.put(TableKind::Hash, b"b", b"2");
        assert_eq!(recycler.bytes(), 0, "it is in use");
        drop(view);
        delta.put(TableKind::Hash, b"c", b"3");
        assert!(recycler.bytes() >= CHUNK, "{}", recycler.bytes());
        let view = delta.tables().next().and_then(|table| delta.view(table)).unwrap();
        delta.put(TableKind::Hash, b"d", b"4");
        assert_eq!(recycler.bytes(), 0, "it is in use again");
        drop(view);
    }
}
