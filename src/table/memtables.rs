//! The bound on what the memtables of all tables hold together (I6).
//!
//! RocksDB's own write buffer manager cannot keep it. In one mode it stalls every writer, the
//! operator's scans included if they hold a memtable. In the other mode it never stalls, and
//! flushes whichever table happens to write, however little that table holds. The manager therefore
//! only counts here, and every writer asks for room first. When memtables fill up, the fullest
//! table is told to flush. When the bound is reached, the writer waits for a flush. It never waits
//! for memory that only a reader holds.

use std::cmp::Reverse;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rocksdb::{Cache, DB, Options, WriteBufferManager, properties};

use super::ffi;
use crate::env::Clock;

/// How long a writer sleeps before it looks again. RocksDB has no way to wake it.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The bytes of the memtables of all tables of a job, and the choice of the table that is told to
/// flush.
pub(crate) struct Memtables {
    manager: WriteBufferManager,
    limit: AtomicU64,
    tables: Mutex<Vec<Arc<Memtable>>>,
    waits: AtomicU64,
    waited_nanos: AtomicU64,
}

/// The entry of one table in the list of those that may be told to flush.
pub(super) struct Enlisted {
    memtables: Arc<Memtables>,
    memtable: Arc<Memtable>,
}

impl Deref for Enlisted {
    type Target = Memtable;

    fn deref(&self) -> &Memtable {
        &self.memtable
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.memtables.tables().retain(|memtable| !Arc::ptr_eq(memtable, &self.memtable));
    }
}

/// The memtables of one table.
pub(super) struct Memtable {
    db: Arc<DB>,
    /// Bytes of the memtable that takes writes, as of the last write.
    active: AtomicU64,
}

impl Memtables {
    /// Bounded by `limit` bytes, which are charged to `cache` as they are used.
    pub(super) fn new(limit: u64, cache: &Cache) -> Arc<Self> {
        // Above the bound, so that RocksDB never chooses by itself.
        let size = usize::try_from(limit.saturating_mul(2)).unwrap_or(usize::MAX);
        Arc::new(Self {
            manager: WriteBufferManager::new_write_buffer_manager_with_cache(size, false, cache.clone()),
            limit: AtomicU64::new(limit),
            tables: Mutex::default(),
            waits: AtomicU64::new(0),
            waited_nanos: AtomicU64::new(0),
        })
    }

    /// Counts the memtables of the table that is opened with `options`.
    pub(super) fn count(&self, options: &mut Options) {
        options.set_write_buffer_manager(&self.manager);
    }

    /// From now on, and until the result is dropped, the table may be told to flush.
    pub(super) fn enlist(self: &Arc<Self>, db: &Arc<DB>) -> Enlisted {
        let memtable = Arc::new(Memtable { db: Arc::clone(db), active: AtomicU64::new(0) });
        self.tables().push(Arc::clone(&memtable));
        Enlisted { memtables: Arc::clone(self), memtable }
    }

    fn tables(&self) -> MutexGuard<'_, Vec<Arc<Memtable>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all memtables, those included that only readers hold on to.
    pub(crate) fn held(&self) -> u64 {
        self.manager.get_usage() as u64
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// The bound from now on, at most what it was at first.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How often writers have waited for room, and how long altogether.
    pub(crate) fn waited(&self) -> (u64, Duration) {
        let nanos = self.waited_nanos.load(Ordering::Relaxed);
        (self.waits.load(Ordering::Relaxed), Duration::from_nanos(nanos))
    }

    /// To be called before about `incoming` bytes are written. Waits while memtables are at their
    /// bound, unless `stop` says that there is nothing left to wait for.
    pub(super) fn make_room(&self, incoming: u64, clock: &dyn Clock, stop: impl Fn() -> bool) {
        // Far below the bound no table needs to flush.
        if self.held().saturating_add(incoming) <= self.limit() / 2 || self.look(incoming) {
            return;
        }
        let start = clock.monotonic();
        while !stop() && !self.look(incoming) {
            thread::sleep(LOOK_AGAIN);
        }
        let waited = clock.monotonic().saturating_sub(start);
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.waited_nanos.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Tells the fullest table to flush if that is due. Returns whether there is room.
    fn look(&self, incoming: u64) -> bool {
        // Under the lock: a reference taken out of the list could become the last one, and this
        // thread would close the table.
        let tables = self.tables();
        let active: Vec<_> = tables.iter().map(|table| table.active.load(Ordering::Relaxed)).collect();
        due(&active, self.limit()).into_iter().filter_map(|at| tables.get(at)).any(|table| table.flush());
        if self.held().saturating_add(incoming) <= self.limit() {
            return true;
        }
        // Memory that only readers hold is not waited for: this very thread may be the reader.
        let (mut unflushed, mut flushing) = (0, false);
        for table in tables.iter() {
            unflushed += table.unflushed();
            flushing |= table.is_flushing();
        }
        may_write(unflushed, incoming, flushing, self.limit())
    }
}

impl Memtable {
    /// Notes what the table holds after a write.
    pub(super) fn note(&self) {
        self.active.store(self.int(properties::CUR_SIZE_ACTIVE_MEM_TABLE), Ordering::Relaxed);
    }

    /// Begins a flush without waiting for it. False if the table cannot flush now, because its
    /// writes are stopped, by too many files or by a failure that the next write reports.
    fn flush(&self) -> bool {
        let begun = ffi::begin_flush(&self.db).is_ok();
        self.note();
        begun
    }

    fn unflushed(&self) -> u64 {
        self.int(properties::CUR_SIZE_ALL_MEM_TABLES)
    }

    /// Whether a flush under way will free memory. A failed flush may never be repeated.
    fn is_flushing(&self) -> bool {
        self.int(properties::NUM_IMMUTABLE_MEM_TABLE) > 0 && self.int(properties::BACKGROUND_ERRORS) == 0
    }

    fn int(&self, name: &properties::PropName) -> u64 {
        self.db.property_int_value(name).ok().flatten().unwrap_or(0)
    }
}

/// Which tables may be flushed now, the fullest first, by the bytes of the memtables that take
/// writes. None before these together are so large that they leave no room for memtables being
/// flushed: earlier flushes would make more and smaller files, which cost more compaction.
fn due(active: &[u64], limit: u64) -> Vec<usize> {
    let together = active.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    if together <= limit / 8 * 5 {
        return Vec::new();
    }
    let mut due: Vec<_> = active.iter().enumerate().filter(|(_, bytes)| **bytes > 0).collect();
    due.sort_unstable_by_key(|(at, bytes)| (Reverse(**bytes), *at));
    due.into_iter().map(|(at, _)| at).collect()
}

/// Whether to write although all memtables together are at the bound. Only a flush under way frees
/// memory, so without one a wait would never end.
fn may_write(unflushed: u64, incoming: u64, flushing: bool, limit: u64) -> bool {
    unflushed.saturating_add(incoming) <= limit || !flushing
}

impl fmt::Debug for Memtables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtables").field("held", &self.held()).field("limit", &self.limit()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i6_the_fullest_table_is_flushed_and_only_when_all_hold_much_together() {
        assert!(due(&[], 80).is_empty());
        assert!(due(&[20, 30], 80).is_empty(), "what is flushed finds room beside that");
        assert_eq!(due(&[20, 31], 80), [1, 0]);
        assert_eq!(due(&[0, 5, 60, 1, 5], 80), [2, 1, 4, 3]);
        assert!(due(&[0, 0], 0).is_empty(), "there is nothing to flush");
    }

    #[test]
    fn i6_a_writer_waits_only_for_a_flush_and_only_at_the_bound() {
        assert!(may_write(70, 10, true, 80));
        assert!(!may_write(70, 11, true, 80));
        assert!(may_write(500, 11, false, 80), "nothing would ever be freed");
        assert!(may_write(0, 80, true, 80));
        assert!(!may_write(u64::MAX, u64::MAX, true, 80));
    }
}
