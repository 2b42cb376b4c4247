//! Numbers of one store.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::table::{Table, TableStats};

use super::shared::StoreShared;

/// Numbers of one store: sizes as of now, counts since the job was opened.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Entries in the active delta. Only known on the operator's thread.
    pub active_entries: u64,
    /// Bytes in the active delta. Only known on the operator's thread.
    pub active_bytes: u64,
    /// Bytes of keys and values that reads have given a new time
    /// ([`TtlUpdate::OnReadAndWrite`](crate::TtlUpdate::OnReadAndWrite)), and that wait for the
    /// next call that may write: a write, a cut, `try_reserve`, or another current key. Only known
    /// on the operator's thread.
    pub renewed_bytes: u64,
    /// Bytes of the longest list that appends or compactions have met since the job was opened; 0
    /// if none was large. Lists end at 1 GiB. Only known on the operator's thread.
    pub longest_list_bytes: u64,
    /// Bytes of deltas that are not yet applied or not yet durable.
    pub held_bytes: u64,
    /// Deltas that the table does not hold yet.
    pub unapplied_deltas: u64,
    /// Deltas encoded for the changelog.
    pub deltas_sealed: u64,
    /// Their bytes as encoded.
    pub sealed_bytes: u64,
    /// How often a write waited at the memory bound.
    pub blocked_writes: u64,
    /// How long these writes waited, in milliseconds.
    pub blocked_ms: f64,
    /// Reads that the cache of records has answered. The five numbers of the cache are those of the
    /// last cut.
    pub cache_hits: u64,
    /// Reads that it has not answered, of states that it keeps.
    pub cache_misses: u64,
    /// Keys that it has given up because others needed their memory.
    pub cache_evictions: u64,
    /// Keys that it has.
    pub cache_entries: u64,
    /// Memory that it holds.
    pub cache_bytes: u64,
    /// RocksDB's own numbers.
    pub table: TableStats,
}

impl StoreStats {
    pub(crate) fn gather(shared: &StoreShared, table: &Table) -> Self {
        let (blocked_writes, blocked) = shared.budget.blocked();
        let cache = shared.cache.get();
        Self {
            active_entries: 0,
            active_bytes: 0,
            renewed_bytes: 0,
            longest_list_bytes: 0,
            held_bytes: shared.budget.held(),
            unapplied_deltas: shared.unapplied(),
            deltas_sealed: shared.deltas_sealed.load(Ordering::Relaxed),
            sealed_bytes: shared.sealed_bytes.load(Ordering::Relaxed),
            blocked_writes,
            blocked_ms: blocked.as_secs_f64() * 1e3,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_evictions: cache.evictions,
            cache_entries: cache.entries,
            cache_bytes: cache.bytes,
            table: table.stats(),
        }
    }
}
