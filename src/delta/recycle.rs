//! Recycles the memory of deltas for later deltas of the same store.
//!
//! A store fills deltas of about the same size for as long as it lives. Fresh memory would cost a
//! page fault per 4 KiB on the operator's thread, and emptying an old table some tens of
//! microseconds. So a delta that is dropped, on any thread, is only put on a list. The next seal,
//! which runs in the background, cleans it, and the next cut finds it ready.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arena::Arena;
use super::hash::{HashIndex, SpareShards};
use super::memtable::Memtable;

/// Deltas that may wait to be cleaned. When the applier has lagged and then catches up, a cut
/// releases as many deltas as the store's budget holds, and freeing them there would pause the
/// operator.
const MAX_RETIRED: usize = 64;

/// What the deltas of one store hand on to each other. Holds the memory of at most [`MAX_RETIRED`]
/// deltas until the next seal, and of one that is cleaned.
#[derive(Default)]
pub(crate) struct Recycler {
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    retired: Vec<Memtable>,
    chunks: Vec<Vec<u8>>,
    /// Chunks that the delta cleaned last had filled.
    last_filled: usize,
    shards: Option<SpareShards>,
}

impl Recycler {
    /// An empty table for about `entries`, out of used memory where there is some.
    pub(crate) fn memtable(&self, entries: usize) -> Memtable {
        let (chunks, shards) = {
            let mut pool = self.lock();
            (std::mem::take(&mut pool.chunks), pool.shards.take())
        };
        Memtable::new(Arena::with_spare(chunks), HashIndex::with_hint(entries, shards))
    }

    /// Takes a table that nothing reads any more. Never frees memory on the caller's thread, unless
    /// nobody has cleaned up for long.
    pub(crate) fn retire(&self, table: Memtable) {
        let mut pool = self.lock();
        if pool.retired.len() < MAX_RETIRED {
            pool.retired.push(table);
        } else {
            drop(pool);
            drop(table);
        }
    }

    /// Cleans what was retired. Takes up to milliseconds; for background threads.
    pub(crate) fn clean(&self) {
        let retired = std::mem::take(&mut self.lock().retired);
        for table in retired {
            let filled = table.filled_chunks();
            let (chunks, shards) = table.into_spare();
            let mut pool = self.lock();
            pool.chunks.extend(chunks);
            // Of the last two, so that a small delta in between is no loss, and a burst does not
            // hold memory for ever.
            let keep = filled.max(pool.last_filled).min(pool.chunks.len());
            let surplus = pool.chunks.split_off(keep);
            pool.last_filled = filled;
            let replaced = shards.and_then(|shards| pool.shards.replace(shards));
            // Freed without the lock.
            drop(pool);
            drop((surplus, replaced));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // Only moves happen under the lock, so a panic elsewhere leaves nothing half done.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TableKind;
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
            recycler.retire(table);
            recycler.clean();
            let pool = recycler.lock();
            assert!(pool.retired.is_empty() && pool.shards.is_some());
            // 120 bytes a record.
            assert_eq!(pool.chunks.len(), 5);
        }
    }
}
