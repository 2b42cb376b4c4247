//! A clock for TTL and processing time that stands still until it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluvium::state::KeyCodec;
use alluvium::{
    CheckpointMode, CheckpointReader, Clock, Env, JobOptions, OpenMode, Opened, ReaderOptions, RestoreFrom,
    StateStore,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::drive::{PREFIX, open, quiet};

pub const MODES: [CheckpointMode; 2] = [CheckpointMode::Changelog, CheckpointMode::NativeIncremental];

/// Its date is set by hand; what waits and measures (timeouts, intervals) goes by real time.
#[derive(Debug)]
pub struct ManualClock {
    millis: AtomicU64,
    start: Instant,
}

impl ManualClock {
    pub fn at(millis: u64) -> Arc<Self> {
        Arc::new(Self { millis: AtomicU64::new(millis), start: crate::now() })
    }

    pub fn set(&self, millis: u64) {
        self.millis.store(millis, Ordering::Release);
    }

    pub fn advance(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::AcqRel);
    }

    /// The machine's environment with this clock.
    pub fn env(self: &Arc<Self>) -> Env {
        Env { clock: Arc::clone(self) as Arc<dyn Clock>, ..Env::default() }
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        self.millis.load(Ordering::Acquire)
    }
}

/// The store that owns a key.
pub fn owner<'s, K: KeyCodec + ?Sized>(stores: &'s mut [StateStore], key: &K) -> &'s mut StateStore {
    let owns = |store: &&mut StateStore| store.range().contains(store.max_parallelism().group_of_key(key));
    stores.iter_mut().find(owns).unwrap()
}

/// A job in memory with a clock set by hand, that can be dropped, as in a crash, and opened again.
#[derive(Debug)]
pub struct ClockedJob {
    store: Arc<InMemory>,
    dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub mode: CheckpointMode,
}

impl ClockedJob {
    /// At 1,000 milliseconds past 1970.
    pub fn new(mode: CheckpointMode) -> Self {
        let (store, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        Self { store, dir, clock: ManualClock::at(1_000), mode }
    }

    pub fn open(&self) -> Opened {
        self.open_as(self.mode, 1)
    }

    /// In another mode, or with another number of subtasks.
    pub fn open_as(&self, mode: CheckpointMode, subtasks: u32) -> Opened {
        let options = self.options(mode, subtasks);
        open(&self.store, options).unwrap()
    }

    /// With other options beside.
    pub fn open_with(&self, change: impl FnOnce(JobOptions) -> JobOptions) -> Opened {
        open(&self.store, change(self.options(self.mode, 1))).unwrap()
    }

    fn options(&self, mode: CheckpointMode, subtasks: u32) -> JobOptions {
        let options = quiet(self.dir.path(), OpenMode::CreateOrOpen).mode(mode).subtasks(subtasks);
        // A small cache of records that is used after a few reads.
        let options = options.record_cache(256 << 10, 4);
        options.memory(u64::from(subtasks) * 16_000_000).env(self.clock.env())
    }

    /// Milliseconds past 1970.
    pub fn now(&self) -> u64 {
        self.clock.unix_millis()
    }

    /// Reads the newest checkpoint from outside, by the same clock.
    pub fn read(&self) -> CheckpointReader {
        let options = ReaderOptions::new().dir(self.dir.path().join("reader")).env(self.clock.env());
        let remote = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        CheckpointReader::open((remote, PREFIX), &RestoreFrom::Latest, options).unwrap()
    }
}
