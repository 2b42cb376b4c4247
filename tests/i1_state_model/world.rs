//! One job over all its attempts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointMode, Env, ErrorKind, Job, JobOptions, MaterializationOptions, MaxParallelism, OpenMode,
    Opened, RestoreFrom, SeededNonces,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::attempt::{Attempt, Subtask};
use super::history::{History, Snapshot};
use super::kinds::States;
use super::step::{Pools, pick};
use alluvium_testkit::clock::ManualClock;
use alluvium_testkit::drive::{PREFIX, by_hand};

pub(crate) struct World {
    seed: u64,
    /// Whether each step is printed.
    trace: bool,
    rng: StdRng,
    remote: Arc<InMemory>,
    local: tempfile::TempDir,
    groups: u16,
    subtasks: u32,
    pools: Pools,
    mode: CheckpointMode,
    clock: Arc<ManualClock>,
    /// Of the states with namespaces, in milliseconds.
    ttl: Option<u64>,
    attempts: u64,
    triggered: u64,
    history: History,
    cached: Cached,
}

/// What the caches of records did, as of the last cut of each store.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cached {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) evictions: u64,
}

impl Cached {
    pub(crate) fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
    }
}

fn mode(rng: &mut StdRng) -> CheckpointMode {
    if rng.random_ratio(2, 3) { CheckpointMode::Changelog } else { CheckpointMode::NativeIncremental }
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            seed,
            trace,
            remote: Arc::new(InMemory::new()),
            local: tempfile::tempdir().unwrap(),
            groups: *pick(&mut rng, &[8, 9, 24, 128]),
            subtasks: rng.random_range(1..=8),
            pools: Pools::new(&mut rng),
            mode: mode(&mut rng),
            clock: ManualClock::at(1_000_000),
            ttl: rng.random_bool(0.5).then(|| rng.random_range(50..1000)),
            attempts: 0,
            triggered: 0,
            history: History::default(),
            cached: Cached::default(),
            rng,
        }
    }

    pub(crate) fn run(mut self) -> Cached {
        for _ in 0..self.rng.random_range(3..=6) {
            let mut attempt = self.open();
            for _ in 0..self.rng.random_range(50..1500) {
                let step = self.pools.draw(&mut self.rng, attempt.subtasks.len(), self.groups);
                if self.trace {
                    eprintln!("{step:?}");
                }
                attempt.run(step, &mut self.history);
            }
            // What was written since the last cut, too.
            attempt.compare_everything(&self.pools);
            self.crash(attempt);
        }
        let mut attempt = self.open();
        // What survived all this can also be ended in order.
        attempt.compare_timers();
        attempt.checkpoint(&mut self.history);
        self.count_reads(&attempt);
        attempt.job.close().unwrap();
        self.cached
    }

    fn count_reads(&mut self, attempt: &Attempt) {
        for subtask in &attempt.subtasks {
            let stats = subtask.store.stats();
            let (hits, misses, evictions) = (stats.cache_hits, stats.cache_misses, stats.cache_evictions);
            self.cached.add(Cached { hits, misses, evictions });
        }
    }

    /// A new attempt that has restored exactly what it should.
    fn open(&mut self) -> Attempt {
        if self.rng.random_ratio(1, 3) {
            self.mode = mode(&mut self.rng);
        }
        if self.rng.random_bool(0.5) {
            self.subtasks = self.rng.random_range(1..=8);
        }
        // An attempt elsewhere has no local files to start from.
        let elsewhere = self.rng.random_ratio(1, 3);
        let place = if elsewhere { format!("host {}", self.attempts) } else { "host".to_owned() };
        let dir = self.local.path().join(place);
        let keep = self.rng.random_range(1..=4);
        let older = self.rng.random_ratio(1, 3) && !self.history.retained.is_empty();
        let from = match older {
            true => RestoreFrom::Checkpoint(*pick(&mut self.rng, &self.history.retained)),
            false => RestoreFrom::Latest,
        };
        let options = self.options(dir, keep);
        if self.trace {
            eprintln!("open {from:?} in {:?} by {} subtasks", self.mode, self.subtasks);
        }
        let opened = match self.try_open(options.clone().restore_from(from.clone())) {
            // The checkpoint in doubt was committed after all, and has taken this one's place.
            Err(error) if error.kind() == ErrorKind::NotFound && self.history.doubt.is_some() => {
                self.try_open(options)
            }
            opened => opened,
        };
        let opened = opened.unwrap();
        self.history.settle(&opened.job);
        let restored = opened.restored.checkpoint;
        match from {
            RestoreFrom::Checkpoint(id) if self.history.retained.contains(&id) => {
                assert_eq!(restored, Some(id));
            }
            _ => assert_eq!(restored, self.history.retained.last().copied(), "the newest is restored"),
        }
        assert!(opened.restored.skipped.is_empty(), "{:?}", opened.restored);
        let snapshot = restored.map(|id| self.history.committed[&id].clone());
        self.begin(opened, snapshot, keep)
    }

    fn options(&mut self, dir: PathBuf, keep: usize) -> JobOptions {
        self.attempts += 1;
        let nonces = SeededNonces::new(self.seed.wrapping_mul(1000).wrapping_add(self.attempts) << 20);
        let mode = if self.attempts == 1 { OpenMode::Create } else { OpenMode::CreateOrOpen };
        // By itself a rescaled subtask takes a base at once; by hand it keeps its origins.
        let by_itself = self.rng.random_ratio(1, 4);
        let materialization = if by_itself { MaterializationOptions::default() } else { by_hand() };
        JobOptions::new(dir, mode)
            .subtasks(self.subtasks)
            .max_parallelism(MaxParallelism::new(self.groups).unwrap())
            .mode(self.mode)
            .memory(u64::from(self.subtasks) * 4_000_000)
            .delta_bytes(*pick(&mut self.rng, &[4096, 16_384, 100_000]))
            // Without a cache, with the smallest that there is, and with one that has room for all.
            .record_cache(
                *pick(&mut self.rng, &[0, 256 << 10, 300 << 10, 1 << 30]),
                *pick(&mut self.rng, &[1, 4, 20]),
            )
            .inline_limit(*pick(&mut self.rng, &[0, 5_000, 131_072]))
            .retained(keep)
            .materialization(materialization)
            .env(Env { nonces: Arc::new(nonces), ..self.clock.env() })
    }

    fn try_open(&self, options: JobOptions) -> alluvium::Result<Opened> {
        Job::open((Arc::clone(&self.remote) as Arc<dyn ObjectStore>, PREFIX), options)
    }

    fn begin(&mut self, opened: Opened, snapshot: Option<Snapshot>, keep: usize) -> Attempt {
        let Opened { job, stores, metadata, subtask_metadata, .. } = opened;
        assert_eq!(stores.len(), self.subtasks as usize);
        assert_eq!(metadata, snapshot.as_ref().map(|snapshot| snapshot.metadata.clone()));
        let snapshot = snapshot.unwrap_or_default();
        assert_eq!(subtask_metadata, snapshot.subtask_metadata);
        let mut subtasks = Vec::new();
        for mut store in stores {
            let same = subtask_metadata
                .iter()
                .find(|(subtask, range, _)| (*subtask, *range) == (store.subtask(), store.range()));
            assert_eq!(store.restored_metadata(), same.map(|(.., metadata)| metadata.as_slice()));
            let states = States::register(&mut store, &mut self.rng, self.ttl.map(Duration::from_millis));
            subtasks.push(Subtask { store, states });
        }
        let mut attempt = Attempt {
            job,
            subtasks,
            model: snapshot.model,
            pending: None,
            keep,
            triggered: self.triggered,
            max_parallelism: MaxParallelism::new(self.groups).unwrap(),
            clock: Arc::clone(&self.clock),
            ttl: self.ttl,
        };
        // Time went on since the cut, and nothing that has expired comes back.
        attempt.expire();
        attempt.compare_everything(&self.pools);
        if self.rng.random_ratio(1, 3) {
            attempt.compare_timers();
        }
        if self.rng.random_ratio(1, 4) {
            // What a table hides, a compaction may bring back.
            attempt.job.compact().unwrap();
            attempt.compare_everything(&self.pools);
        }
        attempt
    }

    /// Drops everything in random order, without a word.
    fn crash(&mut self, attempt: Attempt) {
        self.count_reads(&attempt);
        let Attempt { job, mut subtasks, pending, keep, triggered, .. } = attempt;
        self.triggered = triggered;
        if let Some(pending) = pending {
            // Without all the cuts it cannot have been committed.
            let id = pending.checkpoint.id();
            self.history.doubt = pending.snapshot().map(|snapshot| (id, snapshot, keep));
        }
        if self.rng.random_bool(0.5) {
            drop(job);
            while !subtasks.is_empty() {
                let at = self.rng.random_range(0..subtasks.len());
                subtasks.remove(at);
            }
        } else {
            drop(subtasks);
            drop(job);
        }
    }
}
