//! How a run's memory was divided, and what its cache of records came to.

use serde::{Deserialize, Serialize};

/// The cache of records of all subtasks, over the measured stretch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordCache {
    /// Reads that it answered.
    pub(crate) hits: u64,
    /// Reads of states that it keeps, which it did not answer.
    pub(crate) misses: u64,
    /// `hits / (hits + misses)`. Absent where nothing was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hit_rate: Option<f64>,
    /// Keys that it gave up because others needed their memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evictions: Option<u64>,
    /// Keys that it had at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
    /// Memory that it held at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Memory that it may always hold. It may hold more where others leave theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit_bytes: Option<u64>,
}

impl RecordCache {
    /// Of a stretch with so many hits and misses.
    pub(crate) fn of_reads(hits: u64, misses: u64) -> Self {
        let reads = hits + misses;
        Self {
            hits,
            misses,
            hit_rate: (reads > 0).then(|| hits as f64 / reads as f64),
            evictions: None,
            entries: None,
            bytes: None,
            limit_bytes: None,
        }
    }
}

/// How the memory of [`Settings::memory_bytes`](super::Settings) was divided in the measured stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryUse {
    /// When all parts together were largest, of the moments that were looked at.
    pub(crate) peak: MemoryParts,
    /// When the clock stopped.
    pub(crate) end: MemoryParts,
}

impl MemoryUse {
    /// What was seen, in any order, and what there was at the end.
    pub(crate) fn of(seen: impl IntoIterator<Item = MemoryParts>, end: MemoryParts) -> Self {
        let peak = seen.into_iter().chain([end]).max_by_key(MemoryParts::sum).unwrap_or(end);
        Self { peak, end }
    }
}

/// Who held how much memory at one moment, in bytes, of all subtasks together. No byte is in two parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryParts {
    /// The cache of records, with its index and what it has reserved.
    pub(crate) records: u64,
    /// Deltas that are not yet in RocksDB or not yet durable; the active ones are not counted.
    pub(crate) deltas: u64,
    /// Memory of deltas that are done with, kept for later ones.
    pub(crate) recycled: u64,
    /// RocksDB's memtables.
    pub(crate) memtables: u64,
    /// RocksDB's cached blocks, with indexes and filters.
    pub(crate) blocks: u64,
}

impl MemoryParts {
    pub(crate) fn sum(&self) -> u64 {
        let Self { records, deltas, recycled, memtables, blocks } = self;
        records + deltas + recycled + memtables + blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_is_that_of_all_reads_and_absent_without_any() {
        assert_eq!(RecordCache::of_reads(3, 1).hit_rate, Some(0.75));
        assert_eq!(RecordCache::of_reads(0, 7).hit_rate, Some(0.0));
        assert_eq!(RecordCache::of_reads(0, 0).hit_rate, None);
    }

    #[test]
    fn the_peak_is_the_moment_at_which_all_parts_together_were_largest() {
        let parts = |records, deltas, recycled, memtables, blocks| MemoryParts {
            records,
            deltas,
            recycled,
            memtables,
            blocks,
        };
        // The moments at which single parts are largest are not it.
        let seen = [parts(50, 0, 0, 0, 0), parts(9, 9, 9, 9, 20), parts(0, 0, 0, 40, 0)];
        let end = parts(1, 2, 3, 4, 5);
        assert_eq!(MemoryUse::of(seen, end), MemoryUse { peak: seen[1], end });
        assert_eq!(MemoryUse::of([], end).peak, end);
    }
}
