//! How the memory of all tables is divided between memtables and blocks, and what follows from it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::options::{KIB, MIB, TableResources};

/// A table flushes by itself at so many times its share of the memory for memtables. Not more,
/// because a memtable's bloom filter is allocated at once, in proportion to this size.
const MOST_SHARES: usize = 4;

/// Memory of all tables that share it, in bytes.
pub(crate) struct TablesMemory {
    pub(crate) memtables: u64,
    pub(crate) memtables_limit: u64,
    /// How often writes have waited for memtables to be flushed, and how long altogether.
    pub(crate) waits: (u64, Duration),
    pub(crate) cache: u64,
    pub(crate) cache_pinned: u64,
    pub(crate) cache_limit: u64,
}

impl TableResources {
    /// The memory that all tables hold and may hold.
    pub(crate) fn held(&self) -> TablesMemory {
        TablesMemory {
            memtables: self.memtables.held(),
            memtables_limit: self.memtables.limit(),
            waits: self.memtables.waited(),
            cache: self.cache.get_usage() as u64,
            cache_pinned: self.cache.get_pinned_usage() as u64,
            cache_limit: self.memory as u64 - self.lent.load(Ordering::Relaxed),
        }
    }

    /// Lends `bytes` of the memory, in place of what was lent before: block cache and memtables have
    /// the rest. At most all but a MiB.
    pub(crate) fn lend(&self, bytes: u64) {
        let lent = bytes.min((self.memory - MIB) as u64);
        self.lent.store(lent, Ordering::Relaxed);
        let rest = self.memory as u64 - lent;
        self.cache.clone().set_capacity(usize::try_from(rest).unwrap_or(usize::MAX));
        self.memtables.set_limit(rest / 2);
    }

    /// Bytes at which compaction ends a file and begins the next.
    pub(super) fn file_size(&self) -> u64 {
        let by_memory = (self.memory / 8).clamp(MIB, 64 * MIB) as u64;
        self.tuning.number("target_file_size_base").unwrap_or(by_memory)
    }

    /// Bytes at which a table flushes by itself. A single table may have four memtables of that
    /// size. With many tables some are busier than others, so each may exceed its share;
    /// [`Memtables`](super::memtables::Memtables) bounds them together.
    pub(super) fn write_buffer_size(&self) -> usize {
        let share = self.memory / 2 / self.tables * MOST_SHARES;
        (self.memory / 8).min(share).clamp(64 * KIB, 64 * MIB)
    }

    /// Bytes that a memtable takes from the allocator at a time. Small with many tables, because a
    /// table that is hardly written to holds one such block.
    pub(super) fn arena_block_size(&self) -> usize {
        (self.memory / 2 / self.tables / 16).min(self.write_buffer_size() / 8).clamp(8 * KIB, MIB)
    }

    /// About how many bytes a replay writes in one batch.
    pub(super) fn bulk_bytes(&self) -> usize {
        (self.memory / 16).clamp(64 * KIB, 8 * MIB)
    }
}
