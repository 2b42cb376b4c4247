//! RocksDB's options, the same for both checkpoint modes, and what all tables of a process share.
//!
//! Where an option was chosen by measuring, `docs/measurements/table.md` has the figures.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType,
    DataBlockIndexType, LogLevel, Options, ReadOptions, WriteOptions,
};

use super::filter::{Expiries, Factory};
use super::memtables::{Enlisted, Memtables};
use super::merge::{self, Folds};
use super::tuning::Tuning;
use crate::env::{Clock, Env};

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;

const BLOCK_SIZE: usize = 8 * KIB;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;
/// Files in level 0 that start a compaction. Twice RocksDB's default, so that the level below is
/// rewritten half as often. Reads can afford it because level 0's bloom filters stay in memory.
pub(super) const L0_FILES: i32 = 8;
/// Files in level 0 at which a snapshot waits before it flushes. RocksDB slows writes down at 20
/// files (its default), and delays flushes that would reach that. Two below, because a background
/// flush may come in between.
pub(super) const CROWDED_L0: u64 = 18;
/// An estimate of 0 lets the cache size its hash table by itself. No estimate fits memtables,
/// filters and blocks alike.
const VARYING_CHARGE: usize = 0;
const MAX_MANIFEST_FILE_SIZE: usize = 4 * MIB;
const READAHEAD: usize = 2 * MIB;
const BYTES_PER_SYNC: u64 = MIB as u64;
/// Once a state has a TTL, a file is compacted at the latest after this many seconds (30 days), so
/// that expired entries go even where nothing is written. RocksDB's own default for tables with a
/// compaction filter.
pub(super) const PERIODIC_COMPACTION: (&str, &str) = ("periodic_compaction_seconds", "2592000");
/// Options for which neither the Rust nor the C interface has a setter.
/// - `file_checksum_gen_factory`: RocksDB computes each file's checksum from memory while it
///   writes, and keeps it in the MANIFEST. Bytes read back for a base are compared with it (I4).
/// - `avoid_flush_during_shutdown`: the changelog already has everything in the memtable.
/// - `memtable_batch_lookup_optimization`: batched point reads walk the memtable's skip list from
///   key to key rather than from its head.
/// - `memtable_max_range_deletions`: a read examines all range tombstones of a memtable, and
///   indexes them again after each new one. A memtable with this many is flushed, however small it
///   is.
/// - `memtable_insert_with_hint_prefix_extractor`: the memtable remembers where it last inserted
///   into each key group (the first 2 bytes), so the next key of a sorted delta is found from
///   there.
const BY_NAME: &str = "file_checksum_gen_factory=FileChecksumGenCrc32cFactory;\
    avoid_flush_during_shutdown=true;\
    memtable_batch_lookup_optimization=true;\
    memtable_max_range_deletions=512;\
    memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.2";

/// Block cache, memtable budget, background threads and clock that all tables of a process share.
#[derive(Clone)]
pub(crate) struct TableResources {
    pub(super) cache: Cache,
    pub(super) memtables: Arc<Memtables>,
    pub(super) memory: usize,
    /// Bytes of the memory that somebody else has at the moment.
    pub(super) lent: Arc<AtomicU64>,
    pub(super) tables: usize,
    background_jobs: usize,
    open_files: Option<u32>,
    pub(super) tuning: Tuning,
    clock: Arc<dyn Clock>,
}

impl TableResources {
    /// `memory` bytes for block caches and memtables together, and at most `background_jobs`
    /// flushes and compactions at once. Memtables are charged to the cache and may fill half of it.
    pub(crate) fn new(memory: u64, background_jobs: usize) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX).max(MIB);
        let cache = Cache::new_hyper_clock_cache(memory, VARYING_CHARGE);
        let memtables = Memtables::new(memory as u64 / 2, &cache);
        Self {
            cache,
            memtables,
            memory,
            lent: Arc::default(),
            tables: 1,
            background_jobs: background_jobs.clamp(1, 64),
            open_files: None,
            tuning: Tuning::default(),
            clock: Env::default().clock,
        }
    }

    /// Shared by so many tables. Default 1.
    #[must_use]
    pub(crate) fn for_tables(mut self, tables: u32) -> Self {
        self.tables = usize::try_from(tables).unwrap_or(usize::MAX).max(1);
        self
    }

    /// SST files that each table keeps open. Default: all.
    #[must_use]
    pub(crate) fn with_open_files(mut self, files: u32) -> Self {
        self.open_files = Some(files);
        self
    }

    /// What a host sets by RocksDB's names. Default: nothing.
    #[must_use]
    pub(crate) fn with_tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// How many flushes and how many compactions may run at a time. Writes wait for flushes when
    /// memory is full, so with more than two tables there are at least two flush threads, if there
    /// are jobs for them.
    fn jobs(&self) -> (usize, usize) {
        let least = if self.tables > 2 { 2 } else { 1 };
        let flushes = (self.background_jobs / 4).max(least).min(self.background_jobs.div_ceil(2));
        (flushes, (self.background_jobs - flushes).max(1))
    }

    pub(super) fn memtables(&self) -> &Memtables {
        &self.memtables
    }

    pub(super) fn enlist(&self, db: &Arc<DB>) -> Enlisted {
        self.memtables.enlist(db)
    }

    /// The clock by which entries expire. Default: the machine's.
    #[must_use]
    pub(crate) fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The clock by which entries expire and waits are measured.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Installs the compaction filter and the merge operator. Compaction removes entries that have
    /// expired by the TTLs set in the result, and folds note long lists there.
    pub(super) fn install_filter(&self, options: &mut Options) -> Folds {
        let expiries = Expiries::new(Arc::clone(&self.clock));
        options.set_compaction_filter_factory(Factory(Arc::clone(&expiries)));
        let folds = Folds { expiries, long: Arc::default() };
        merge::install_with(options, folds.clone());
        folds
    }

    pub(crate) fn options(&self) -> Result<Options, rocksdb::Error> {
        let mut options = self.plain_options();
        // The last value of a name counts, so the host's options follow ours. Memtables, cache and
        // merge operator come after both, because a host must not replace them.
        let (flushes, compactions) = self.jobs();
        let jobs = format!("max_background_flushes={flushes};max_background_compactions={compactions}");
        let by_name = format!("{BY_NAME};{jobs};{}", self.tuning.by_name());
        let mut options = options.get_options_from_string(by_name)?;
        self.memtables.count(&mut options);
        options.set_block_based_table_factory(&self.blocks());
        self.tuning.tune(&mut options, self.tables);
        merge::install(&mut options);
        Ok(options)
    }

    fn plain_options(&self) -> Options {
        let mut options = Options::default();
        let write_buffer = self.write_buffer_size();

        // Memory.
        options.set_write_buffer_size(write_buffer);
        options.set_arena_block_size(self.arena_block_size());
        options.set_max_write_buffer_number(4);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        // One thread writes, so there is nothing to make concurrent.
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);

        // Levels.
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_target_file_size_base(self.file_size());
        options.set_max_bytes_for_level_base(4 * write_buffer as u64);
        options.set_level_zero_file_num_compaction_trigger(L0_FILES);
        // RocksDB's default for tables with a compaction filter, and ours always have one, is 30
        // days. Every file would be rewritten, and the next base uploaded as a whole. Only a state
        // with a TTL turns it on (`PERIODIC_COMPACTION`).
        options.set_periodic_compaction_seconds(0);

        // Files. The MANIFEST is small because every base embeds it.
        if let Some(files) = self.open_files {
            // RocksDB subtracts 10 for files other than SSTs.
            options.set_max_open_files(i32::try_from(files.saturating_add(10)).unwrap_or(i32::MAX));
            // Each shard of the table cache may hold at least one file, whatever the limit.
            options.set_table_cache_num_shard_bits(table_cache_bits(files));
        }
        options.set_max_manifest_file_size(MAX_MANIFEST_FILE_SIZE);
        options.set_manifest_preallocation_size(64 * KIB);
        options.set_bytes_per_sync(BYTES_PER_SYNC);
        options.set_skip_stats_update_on_db_open(true);
        // A background thread deletes files that an iterator held, not the operator's thread.
        options.set_avoid_unnecessary_blocking_io(true);

        // RocksDB's own log: warnings only, of bounded size.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(MIB);
        options.set_keep_log_file_num(2);

        options
    }

    fn blocks(&self) -> BlockBasedOptions {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_block_size(BLOCK_SIZE);
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        blocks.set_whole_key_filtering(true);
        blocks.set_format_version(6);
        blocks.set_data_block_index_type(DataBlockIndexType::BinarySearch);
        // Index and filter blocks count in the memory budget. Those of level 0 are never evicted.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        self.tuning.tune_blocks(&mut blocks);
        blocks
    }

    /// Names and values of the main options, for reports.
    pub(crate) fn options_summary(&self) -> Vec<(String, String)> {
        let mib = |bytes: usize| format!("{} MiB", bytes / MIB);
        [
            ("memory", mib(self.memory)),
            ("write_buffer_size", format!("{} KiB", self.write_buffer_size() / KIB)),
            ("level0_file_num_compaction_trigger", L0_FILES.to_string()),
            ("max_background_jobs", self.background_jobs.to_string()),
            ("block_size", format!("{} KiB", BLOCK_SIZE / KIB)),
            ("bloom_bits_per_key", BLOOM_BITS_PER_KEY.to_string()),
            ("memtable_bloom_ratio", MEMTABLE_BLOOM_RATIO.to_string()),
            ("compression", "lz4".to_owned()),
            ("block_cache", "hyper clock, memtables charged".to_owned()),
            ("wal", "off".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(self.open_files.map(|files| ("max_open_files".to_owned(), files.to_string())))
        .chain(self.tuning.iter().cloned())
        .collect()
    }
}

/// Shards of the cache of open files, as a power of two. RocksDB's 64, unless that would leave
/// fewer than 16 files for each.
fn table_cache_bits(files: u32) -> i32 {
    i32::try_from((files / 16).max(1).ilog2().min(6)).unwrap_or(0)
}

pub(super) fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

pub(super) fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_background_purge_on_iterator_cleanup(true);
    options
}

/// For reading a whole range once, in order.
pub(super) fn sequential_options() -> ReadOptions {
    let mut options = read_options();
    // Blocks that are read once would only evict blocks that are needed again.
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD);
    options
}

pub(super) fn compact_options() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_jobs_are_divided_between_flushes_and_compactions() {
        let jobs = |tables, jobs| TableResources::new(8 << 20, jobs).for_tables(tables).jobs();
        assert_eq!(
            [1, 2, 4, 8, 16, 64].map(|all| jobs(2, all)),
            [(1, 1), (1, 1), (1, 3), (2, 6), (4, 12), (16, 48)]
        );
        assert_eq!(
            [1, 2, 3, 4, 8, 16].map(|all| jobs(64, all)),
            [(1, 1), (1, 1), (2, 1), (2, 2), (2, 6), (4, 12)]
        );
    }

    #[test]
    fn the_cache_of_open_files_has_no_more_shards_than_it_can_fill() {
        assert_eq!([1, 10, 31, 32, 64, 1024, 9999].map(table_cache_bits), [0, 0, 0, 1, 2, 6, 6]);
    }

    /// What RocksDB was told is what it has: options by name are put over others of that kind.
    #[test]
    fn i4_a_host_sets_what_it_may_and_nothing_else_is_lost() {
        let mut tuning = Tuning::default();
        for (name, value) in
            [("compression", "kZSTD"), ("target_file_size_base", "9000000"), ("partition_filters", "true")]
        {
            tuning.set(name.to_owned(), value.to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        let resources =
            TableResources::new(8 << 20, 7).for_tables(64).with_open_files(55).with_tuning(tuning);
        assert_eq!(resources.file_size(), 9_000_000);
        let mut options = resources.options().unwrap();
        options.create_if_missing(true);
        let db = DB::open(&options, dir.path()).unwrap();
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
        let written = files.filter(|path| path.to_string_lossy().contains("OPTIONS")).last().unwrap();
        let written = std::fs::read_to_string(written).unwrap();
        for line in [
            "compression=kZSTD",
            "target_file_size_base=9000000",
            "partition_filters=true",
            "max_open_files=65",
            "max_background_flushes=2",
            "max_background_compactions=5",
            "avoid_flush_during_shutdown=true",
            "memtable_max_range_deletions=512",
            "level0_file_num_compaction_trigger=8",
            "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.2",
            "format_version=6",
        ] {
            assert!(written.lines().any(|one| one.trim() == line), "{line} is not in {written}");
        }
        assert!(written.contains("FileChecksumGenCrc32c"), "{written}");
        drop(db);
    }
}
