//! What is compared: plain RocksDB, and Alluvium in its two modes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium::{
    CheckpointListener, CheckpointMode, CheckpointReport, Job, JobOptions, OpenMode, Opened, State,
    StateOptions, StateStore,
};
use object_store::memory::InMemory;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, WaitForCompactOptions,
    WriteBufferManager, WriteOptions,
};

use super::{Options, median};

const SETTLE: Duration = Duration::from_secs(600);

/// A keyed store under test.
pub(crate) trait Store {
    /// First 8 bytes of the value of `key`.
    fn get(&mut self, key: &[u8]) -> Option<u64>;
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// Called between some records, as an operator would.
    fn between(&mut self) {}
    /// Waits until nothing is left to do.
    fn settle(&mut self);
    fn notes(&mut self) -> Notes {
        Notes::default()
    }
}

/// What a run has to say beside its speed.
#[derive(Default, Clone)]
pub(crate) struct Notes {
    pub(crate) checkpoints: usize,
    pub(crate) median_cut_ms: f64,
    pub(crate) max_cut_ms: f64,
    pub(crate) blocked_ms: f64,
}

fn word(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

pub(crate) struct Direct {
    db: DB,
    writes: WriteOptions,
}

impl Direct {
    /// The options of `src/table/options.rs`, but for the insert hints: they remember a place per
    /// key group, and plain keys have none (judged the fairer baseline, not measured).
    pub(crate) fn open(dir: &Path, memory: u64) -> Self {
        const MIB: usize = 1 << 20;
        let memory = memory as usize;
        let by_name = "avoid_flush_during_shutdown=true;memtable_batch_lookup_optimization=true";
        let mut options = rocksdb::Options::default().get_options_from_string(by_name).unwrap();
        let cache = Cache::new_hyper_clock_cache(memory, 0);
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(memory / 2, false, cache.clone());
        let write_buffer = (memory / 8).clamp(MIB, 64 * MIB);
        options.create_if_missing(true);
        options.set_write_buffer_manager(&memtables);
        options.set_write_buffer_size(write_buffer);
        options.set_max_write_buffer_number(4);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_target_file_size_base(write_buffer as u64);
        options.set_max_bytes_for_level_base(4 * write_buffer as u64);
        options.set_level_zero_file_num_compaction_trigger(8);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(MIB as u64);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_block_size(8 << 10);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_whole_key_filtering(true);
        blocks.set_format_version(6);
        blocks.set_data_block_index_type(DataBlockIndexType::BinarySearch);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_block_based_table_factory(&blocks);
        let mut writes = WriteOptions::default();
        writes.disable_wal(true);
        Self { db: DB::open(&options, dir).unwrap(), writes }
    }
}

impl Store for Direct {
    fn get(&mut self, key: &[u8]) -> Option<u64> {
        self.db.get_pinned(key).unwrap().map(|value| word(&value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.writes).unwrap();
    }

    fn settle(&mut self) {
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        self.db.wait_for_compact(&wait).unwrap();
    }
}

pub(crate) struct Alluvium {
    pub(crate) job: Job,
    store: StateStore,
    state: State,
    cuts: Arc<Cuts>,
}

/// The pauses of all checkpoints that completed.
#[derive(Debug, Default)]
struct Cuts(Mutex<Vec<f64>>);

impl CheckpointListener for Cuts {
    fn completed(&self, report: &CheckpointReport) {
        self.0.lock().unwrap().push(report.cut_ms);
    }
}

impl Alluvium {
    pub(crate) fn open(
        remote: Arc<InMemory>,
        dir: &Path,
        mode: CheckpointMode,
        options: &Options,
        interval: Option<Duration>,
    ) -> Self {
        let cuts = Arc::<Cuts>::default();
        let mut job = JobOptions::new(dir, OpenMode::CreateOrOpen)
            .mode(mode)
            .memory(options.memory)
            .listener(Arc::<Cuts>::clone(&cuts));
        if let Some(interval) = interval {
            job = job.checkpoint_interval(interval);
        }
        if let Some(bytes) = options.delta_bytes {
            job = job.delta_bytes(bytes);
        }
        let Opened { job, mut stores, .. } = Job::open((remote, "job"), job).unwrap();
        let mut store = stores.pop().unwrap();
        let state = store.state(&StateOptions::new("values")).unwrap();
        Self { job, store, state, cuts }
    }
}

impl Store for Alluvium {
    fn get(&mut self, key: &[u8]) -> Option<u64> {
        let group = self.store.group_of(key);
        self.store.get(self.state, group, key).unwrap().map(|value| word(&value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let group = self.store.group_of(key);
        self.store.put(self.state, group, key, value).unwrap();
    }

    fn between(&mut self) {
        if let Some(id) = self.store.due() {
            self.store.cut(id, []).unwrap();
        }
    }

    /// Includes a last checkpoint, without which the active delta would not be applied.
    fn settle(&mut self) {
        loop {
            match self.job.trigger([]) {
                Ok(pending) => {
                    self.store.cut(pending.id(), []).unwrap();
                    pending.wait().unwrap();
                    break;
                }
                Err(error) if error.kind() == alluvium::ErrorKind::WouldBlock => {
                    self.between();
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.job.settle(SETTLE).unwrap();
    }

    fn notes(&mut self) -> Notes {
        let cuts = self.cuts.0.lock().unwrap();
        let stats = self.store.stats();
        Notes {
            checkpoints: cuts.len(),
            median_cut_ms: if cuts.is_empty() { 0.0 } else { median(&mut cuts.clone()) },
            max_cut_ms: cuts.iter().copied().fold(0.0, f64::max),
            blocked_ms: stats.blocked_ms,
        }
    }
}
