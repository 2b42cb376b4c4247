//! What a table reports about itself.

use rocksdb::{DB, properties};
use serde::Serialize;

/// Figures of one subtask's RocksDB at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TableStats {
    /// Estimated bytes that compaction still has to rewrite.
    pub pending_compaction_bytes: u64,
    /// Files in level 0; many of them slow reads down, and in the end writes.
    pub l0_files: u64,
    /// Bytes of the SST files of the newest version.
    pub live_sst_bytes: u64,
    /// Bytes of all SST files that something still holds, older versions included.
    pub total_sst_bytes: u64,
    /// Estimated bytes of live data.
    pub live_data_bytes: u64,
    /// Bytes of memtables, those that readers still hold included.
    pub memtable_bytes: u64,
    /// Estimated number of keys.
    pub keys: u64,
    /// Compactions that run now.
    pub running_compactions: u64,
    /// Flushes that run now.
    pub running_flushes: u64,
    /// Whether writes stand still until compaction or flush has caught up.
    pub write_stopped: bool,
    /// Bytes per second to which writes are slowed down; 0 if they are not.
    pub delayed_write_rate: u64,
    /// Background errors so far.
    pub background_errors: u64,
    /// Bytes in the block cache, shared by all tables of the process.
    pub block_cache_bytes: u64,
}

impl TableStats {
    pub(super) fn read(db: &DB) -> Self {
        // A property that RocksDB does not know reads as 0: figures are not worth a failure.
        let int = |name: &properties::PropName| db.property_int_value(name).ok().flatten().unwrap_or(0);
        Self {
            pending_compaction_bytes: int(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            l0_files: db.property_int_value(properties::num_files_at_level(0)).ok().flatten().unwrap_or(0),
            live_sst_bytes: int(properties::LIVE_SST_FILES_SIZE),
            total_sst_bytes: int(properties::TOTAL_SST_FILES_SIZE),
            live_data_bytes: int(properties::ESTIMATE_LIVE_DATA_SIZE),
            memtable_bytes: int(properties::SIZE_ALL_MEM_TABLES),
            keys: int(properties::ESTIMATE_NUM_KEYS),
            running_compactions: int(properties::NUM_RUNNING_COMPACTIONS),
            running_flushes: int(properties::NUM_RUNNING_FLUSHES),
            write_stopped: int(properties::IS_WRITE_STOPPED) != 0,
            delayed_write_rate: int(properties::ACTUAL_DELAYED_WRITE_RATE),
            background_errors: int(properties::BACKGROUND_ERRORS),
            block_cache_bytes: int(properties::BLOCK_CACHE_USAGE),
        }
    }
}
