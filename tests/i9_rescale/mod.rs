//! I9: state written at parallelism N restores at any M, key by key.
//!
//! One job is driven by random operations beside a model of a plain `BTreeMap`. It is crashed at
//! random moments and opened again with another number of subtasks, in either mode, from the newest
//! checkpoint or an older one, in the same local directory or another, sometimes in the midst of a
//! restore. After every restore all keys are compared with the model as it was at the cut, by scans
//! and by gets, and now and then once more after a full compaction.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.
#![allow(clippy::unwrap_used)]

mod attempt;
mod costs;
mod histories;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluvium::admin::inspect;
use alluvium::{
    CheckpointId, CheckpointMode, ErrorKind, Job, JobOptions, KeyGroup, KeyGroupRange,
    MaterializationOptions, MaxParallelism, OpenMode, Opened, RestoreFrom, State, StateOptions, StateStore,
    SubtaskIndex,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use alluvium_testkit::drive::{
    PREFIX, by_hand, checkpoint, contents, materialize, noise, open, put_any, quiet,
};
use alluvium_testkit::faults::{Fault, FaultStore, Op};
use alluvium_testkit::objects::files_below;

/// Seeds of an ordinary run.
const SEEDS: u64 = 24;

#[test]
fn i9_random_operations_and_rescales() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    run_printing_seed(seed);
                }
            });
        }
    });
}

/// Runs the one seed in `ALLUVIUM_SEED`, if it is set.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("ALLUVIUM_SEED") {
        run_printing_seed(seed.parse().unwrap());
    }
}

fn run_printing_seed(seed: u64) {
    let outcome = std::panic::catch_unwind(|| World::new(seed).run());
    if let Err(payload) = outcome {
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --test all i9_rescale::replay");
        std::panic::resume_unwind(payload);
    }
}

/// State, group and key to value: what the whole job holds.
type Model = BTreeMap<(usize, u16, Vec<u8>), Vec<u8>>;

type Metadata = Vec<(SubtaskIndex, KeyGroupRange, Vec<u8>)>;

const STATES: [&str; 2] = ["first", "second"];

/// One job over all its attempts.
struct World {
    rng: StdRng,
    store: Arc<FaultStore>,
    local: tempfile::TempDir,
    groups: u16,
    keys: Vec<Vec<u8>>,
    attempts: u32,
    /// What each checkpoint must restore to.
    committed: BTreeMap<CheckpointId, (Model, Metadata)>,
    /// Those that the job must still have, oldest first.
    retained: Vec<CheckpointId>,
}

/// One attempt while it runs.
struct Attempt {
    job: Job,
    stores: Vec<StateStore>,
    states: Vec<State>,
    model: Model,
    keep: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let alphabet = [0x00, b'a', 0xff];
        let mut keys: Vec<Vec<u8>> = (0..10)
            .map(|_| (0..rng.random_range(0..5)).map(|_| alphabet[rng.random_range(0..3)]).collect())
            .collect();
        keys.push(vec![0xff; 30]);
        keys.sort();
        keys.dedup();
        Self {
            store: FaultStore::new(InMemory::new()),
            local: tempfile::tempdir().unwrap(),
            groups: [1, 2, 5, 8, 13, 32][rng.random_range(0..6)],
            keys,
            attempts: 0,
            committed: BTreeMap::new(),
            retained: Vec::new(),
            rng,
        }
    }

    fn run(mut self) {
        for _ in 0..self.rng.random_range(4..9) {
            let mut attempt = self.open();
            // None: a crash before the first commit.
            for _ in 0..[0, 40, 400][self.rng.random_range(0..3)] {
                attempt.step(&mut self);
            }
            if self.rng.random_bool(0.7) {
                attempt.checkpoint(&mut self);
            }
        }
        let mut attempt = self.open();
        attempt.job.compact().unwrap();
        attempt.compare(&self.keys);
        attempt.checkpoint(&mut self);
        attempt.job.close().unwrap();
    }

    fn options(&mut self, subtasks: u32, keep: usize) -> JobOptions {
        self.attempts += 1;
        // An attempt elsewhere has no local files to start from.
        let host = if self.rng.random_ratio(1, 3) { self.attempts } else { 0 };
        let rng = &mut self.rng;
        let mode = if rng.random_ratio(2, 3) {
            CheckpointMode::Changelog
        } else {
            CheckpointMode::NativeIncremental
        };
        // By itself a rescaled subtask takes a base at once; by hand it keeps its origins.
        let materialization =
            if rng.random_ratio(1, 4) { MaterializationOptions::default() } else { by_hand() };
        JobOptions::new(self.local.path().join(format!("host {host}")), OpenMode::CreateOrOpen)
            .subtasks(subtasks)
            .max_parallelism(MaxParallelism::new(self.groups).unwrap())
            .mode(mode)
            .memory(u64::from(subtasks) * 4_000_000)
            .delta_bytes([4096, 16_384, 100_000][rng.random_range(0..3)])
            .inline_limit([0, 500, 131_072][rng.random_range(0..3)])
            .retained(keep)
            .materialization(materialization)
    }

    /// A new attempt at some parallelism that has restored exactly what it should.
    fn open(&mut self) -> Attempt {
        let subtasks = self.rng.random_range(1..=u32::from(self.groups.min(8)));
        let keep = self.rng.random_range(1..=3);
        let wanted = match self.retained.len() {
            0 => None,
            some => {
                let older = self.rng.random_ratio(1, 5);
                Some(self.retained[if older { self.rng.random_range(0..some) } else { some - 1 }])
            }
        };
        let from = wanted.map_or(RestoreFrom::Latest, RestoreFrom::Checkpoint);
        if self.rng.random_ratio(1, 5) {
            self.fail_on_the_way(from.clone());
        }
        let options = self.options(subtasks, keep).restore_from(from);
        let opened = open(&self.store, options).unwrap();
        let found: Vec<_> = opened.job.checkpoints().iter().map(|summary| summary.id).collect();
        assert_eq!(found, self.retained, "the retained checkpoints");
        assert_eq!(opened.restored.checkpoint, wanted);
        assert!(opened.restored.skipped.is_empty(), "{:?}", opened.restored);
        let (model, metadata) =
            wanted.map_or_else(|| (Model::new(), Vec::new()), |id| self.committed[&id].clone());
        assert_eq!(opened.subtask_metadata, metadata);
        let Opened { job, mut stores, .. } = opened;
        let mut states = Vec::new();
        for store in &mut stores {
            let same = |part: &&(SubtaskIndex, KeyGroupRange, Vec<u8>)| {
                (part.0, part.1) == (store.subtask(), store.range())
            };
            let same = metadata.iter().find(same).map(|part| part.2.as_slice());
            assert_eq!(store.restored_metadata(), same);
            states = STATES.iter().map(|name| store.state(&StateOptions::new(*name)).unwrap()).collect();
        }
        let attempt = Attempt { job, stores, states, model, keep };
        attempt.compare(&self.keys);
        if self.rng.random_ratio(1, 3) {
            attempt.job.compact().unwrap();
            attempt.compare(&self.keys);
        }
        attempt
    }

    /// A restore that ends half-way. It leaves nothing but its open record.
    fn fail_on_the_way(&mut self, from: RestoreFrom) {
        let subtasks = self.rng.random_range(1..=u32::from(self.groups.min(8)));
        let options = self.options(subtasks, 1).restore_from(from);
        let mut left = self.rng.random_range(0..4);
        self.store.rule(move |call| {
            if call.op != Op::Get || !call.is_data() {
                return Fault::Pass;
            }
            left -= 1;
            if left < 0 { Fault::Denied } else { Fault::Pass }
        });
        // Few objects may be enough for it.
        drop(open(&self.store, options));
        self.store.heal();
    }
}

/// Keys and the sizes of their values: what a failure should show.
fn shown(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, usize)> {
    let key = |key: &[u8]| key.iter().take(20).map(|byte| format!("{byte:02x}")).collect::<String>();
    entries.iter().map(|(name, value)| (key(name), value.len())).collect()
}

/// Some changes that go across every cut: appends to what is there, range deletes, new and old keys.
fn change(stores: &mut [StateStore], round: u64) {
    for store in stores {
        let state = store.state(&StateOptions::new("words")).unwrap();
        for group in store.range().groups() {
            for n in 0..12_u64 {
                let key = format!("k{:02}", (n * 7 + round * 5) % 40);
                store.put(state, group, key.as_bytes(), &noise(round * 100 + n, 60)).unwrap();
                store.append(state, group, b"list", format!("{round}.{n} ").as_bytes()).unwrap();
            }
            store.delete(state, group, format!("k{:02}", round % 40).as_bytes()).unwrap();
            store.delete_prefix(state, group, format!("k{}", round % 4).as_bytes()).unwrap();
            store.append(state, group, b"k1 and more", b"x").unwrap();
        }
    }
}
