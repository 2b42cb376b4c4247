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

impl Attempt {
    fn owner(&mut self, group: u16) -> &mut StateStore {
        self.stores.iter_mut().find(|store| store.range().contains(KeyGroup(group))).unwrap()
    }

    fn compare(&self, keys: &[Vec<u8>]) {
        for store in &self.stores {
            for (state, handle) in self.states.iter().enumerate() {
                for group in store.range().groups() {
                    let scan = store.scan_prefix(*handle, group, b"").unwrap();
                    let found: Vec<_> = scan.map(Result::unwrap).collect();
                    let from = (state, group.0, Vec::new());
                    let expected = self
                        .model
                        .range(from..)
                        .take_while(|((of, at, _), _)| (*of, *at) == (state, group.0));
                    let expected: Vec<_> =
                        expected.map(|((.., key), value)| (key.clone(), value.clone())).collect();
                    assert_eq!(
                        shown(&found),
                        shown(&expected),
                        "scan of {store:?}, state {state}, group {group}"
                    );
                    assert!(found == expected, "values of {store:?}, state {state}, group {group}");
                    for key in keys {
                        let value = store.get(*handle, group, key).unwrap();
                        let expected = self.model.get(&(state, group.0, key.clone()));
                        assert!(
                            value.as_deref() == expected.map(Vec::as_slice),
                            "get of {key:?} of {store:?}"
                        );
                    }
                }
            }
        }
    }

    /// One random operation.
    fn step(&mut self, world: &mut World) {
        let rng = &mut world.rng;
        let state = rng.random_range(0..STATES.len());
        let handle = self.states[state];
        let group = rng.random_range(0..world.groups);
        let key = world.keys[rng.random_range(0..world.keys.len())].clone();
        let place = (state, group, key.clone());
        match rng.random_range(0..1000) {
            0..350 => {
                let len = if rng.random_ratio(1, 20) { 4000 } else { rng.random_range(0..200) };
                let value = noise(rng.next_u64(), len);
                self.owner(group).put(handle, KeyGroup(group), &key, &value).unwrap();
                self.model.insert(place, value);
            }
            350..480 => {
                self.owner(group).delete(handle, KeyGroup(group), &key).unwrap();
                self.model.remove(&place);
            }
            480..750 => {
                let len = rng.random_range(0..50);
                let bytes = noise(rng.next_u64(), len);
                self.owner(group).append(handle, KeyGroup(group), &key, &bytes).unwrap();
                self.model.entry(place).or_default().extend_from_slice(&bytes);
            }
            750..830 => {
                let prefix = key[..rng.random_range(0..=key.len())].to_vec();
                self.owner(group).delete_prefix(handle, KeyGroup(group), &prefix).unwrap();
                self.model
                    .retain(|(of, at, key), _| (*of, *at) != (state, group) || !key.starts_with(&prefix));
            }
            830..900 => self.checkpoint(world),
            900..920 => {
                // In the midst of a checkpoint: what was cut belongs to the next one.
                let pending = self.job.trigger("given up").unwrap();
                if self.stores.len() > 1 {
                    self.stores[0].cut(pending.id(), "").unwrap();
                }
                pending.abort();
                pending.wait().unwrap_err();
            }
            920..940 => self.job.materialize(),
            940..950 => materialize(&self.job),
            950..960 => self.job.compact().unwrap(),
            960..970 => self.job.settle(Duration::from_secs(60)).unwrap(),
            _ => {
                let found =
                    self.owner(group).get(handle, KeyGroup(group), &key).unwrap().map(|value| value.to_vec());
                assert!(found.as_ref() == self.model.get(&place), "get of {key:?}");
            }
        }
    }

    fn checkpoint(&mut self, world: &mut World) {
        let pending = self.job.trigger("").unwrap();
        let id = pending.id();
        let mut metadata = Vec::new();
        for store in &mut self.stores {
            let own = format!("{id} {}", store.subtask()).into_bytes();
            store.cut(id, own.clone()).unwrap();
            metadata.push((store.subtask(), store.range(), own));
        }
        pending.wait().unwrap();
        assert!(world.committed.insert(id, (self.model.clone(), metadata)).is_none(), "{id} was given twice");
        world.retained.push(id);
        let drop = world.retained.len().saturating_sub(self.keep);
        world.retained.drain(..drop);
    }
}

/// Keys and the sizes of their values: what a failure should show.
fn shown(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, usize)> {
    let key = |key: &[u8]| key.iter().take(20).map(|byte| format!("{byte:02x}")).collect::<String>();
    entries.iter().map(|(name, value)| (key(name), value.len())).collect()
}

/// What lies behind the checkpoint that is rescaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// No base at all.
    Deltas,
    /// Bases, and nothing after them.
    Bases,
    /// Bases, deltas after them, files in level 0 and a compacted level below.
    Both,
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

#[test]
fn i9_every_history_restores_at_every_parallelism_and_back() {
    let pairs = [(1, 2), (2, 1), (2, 3), (3, 2), (1, 8), (8, 1), (3, 7), (5, 4)];
    let histories = [Behind::Deltas, Behind::Bases, Behind::Both];
    let mut cases: Vec<_> = pairs
        .iter()
        .flat_map(|pair| histories.map(|behind| (*pair, behind, CheckpointMode::Changelog)))
        .collect();
    cases.extend(pairs.map(|pair| (pair, Behind::Both, CheckpointMode::NativeIncremental)));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    println!("{case:?}");
                    there_and_back(case.0, case.1, case.2);
                }
            });
        }
    });
}

fn there_and_back((n, m): (u32, u32), behind: Behind, mode: CheckpointMode) {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let groups = MaxParallelism::new(20).unwrap();
    let mut expected = BTreeMap::new();
    // Twice there and back, so that foreign key groups and old markers lie in the files.
    for (generation, subtasks) in [n, m, n, m, n].into_iter().enumerate() {
        let options = quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000).max_parallelism(groups);
        let Opened { job, mut stores, .. } = open(&store, options.mode(mode).subtasks(subtasks)).unwrap();
        assert!(contents(&mut stores, "words") == expected, "generation {generation}");
        if generation % 2 == 1 {
            job.compact().unwrap();
            assert!(contents(&mut stores, "words") == expected, "generation {generation}, compacted");
        }
        let round = generation as u64 * 10;
        change(&mut stores, round);
        checkpoint(&job, &mut stores, "").unwrap();
        match (behind, mode) {
            (Behind::Bases, _) => {
                change(&mut stores, round + 1);
                checkpoint(&job, &mut stores, "").unwrap();
                materialize(&job);
                checkpoint(&job, &mut stores, "").unwrap();
            }
            (Behind::Both, CheckpointMode::Changelog) => {
                job.compact().unwrap();
                for next in 1..4 {
                    change(&mut stores, round + next);
                    // A file in level 0 each.
                    materialize(&job);
                    checkpoint(&job, &mut stores, "").unwrap();
                }
                change(&mut stores, round + 4);
                checkpoint(&job, &mut stores, "").unwrap();
            }
            (Behind::Both, CheckpointMode::NativeIncremental) => {
                job.compact().unwrap();
                for next in 1..4 {
                    change(&mut stores, round + next);
                    checkpoint(&job, &mut stores, "").unwrap();
                }
            }
            (Behind::Deltas, _) => {}
        }
        expected = contents(&mut stores, "words");
        assert!(expected.len() > 100);
    }
}

/// A crash between a rescale and its first commit loses nothing, and neither does another rescale then.
#[test]
fn i9_a_crash_before_the_first_commit_starts_from_the_same_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000).subtasks(subtasks);
    let Opened { job, mut stores, .. } = open(&store, options(3)).unwrap();
    change(&mut stores, 1);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    let id = checkpoint(&job, &mut stores, "").unwrap().id;
    let expected = contents(&mut stores, "words");
    drop((job, stores));
    for subtasks in [2, 5, 3] {
        let Opened { job, mut stores, restored, .. } = open(&store, options(subtasks)).unwrap();
        assert_eq!(restored.checkpoint, Some(id));
        assert!(contents(&mut stores, "words") == expected, "{subtasks} subtasks");
        // Uploaded, but never committed.
        change(&mut stores, 7);
        let pending = job.trigger("").unwrap();
        stores[0].cut(pending.id(), "").unwrap();
        pending.abort();
        pending.wait().unwrap_err();
        materialize(&job);
    }
}

/// The same when it ends half-way: the objects are untouched, and the directories are cleared.
#[test]
fn i9_a_restore_that_fails_on_the_way_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000).subtasks(subtasks);
    let Opened { job, mut stores, .. } = open(&store, options(3)).unwrap();
    change(&mut stores, 1);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    change(&mut stores, 2);
    checkpoint(&job, &mut stores, "").unwrap();
    let expected = contents(&mut stores, "words");
    drop((job, stores));
    // Nothing local to fall back on.
    std::fs::remove_dir_all(dir.path().join("instances")).unwrap();
    // Each start gets none or one of the files, and keeps it for the next one.
    let mut starts = 0;
    let Opened { job: _job, mut stores, .. } = loop {
        let mut left = i32::from(starts > 0);
        store.rule(move |call| {
            let sst = call.op == Op::Get && call.path.ends_with(".sst");
            left -= i32::from(sst);
            if sst && left < 0 { Fault::Denied } else { Fault::Pass }
        });
        match open(&store, options(2)) {
            Ok(opened) => break opened,
            Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{error}"),
        }
        starts += 1;
        assert!(starts < 20, "what was fetched is not kept");
    };
    assert!(starts > 1, "nothing was refused");
    assert!(contents(&mut stores, "words") == expected);
    // What the others had fetched was kept for this one, and is gone by now.
    let instances = std::fs::read_dir(dir.path().join("instances")).unwrap().count();
    assert_eq!(instances, 2, "directories of starts that failed stay");
}

const KEYS: u64 = 20_000;
const VALUE: usize = 200;
const STATE: u64 = KEYS * VALUE as u64;

/// A state of some megabytes, compacted, with a checkpoint behind it.
fn large(store: &Arc<FaultStore>, options: JobOptions) -> (Job, Vec<StateStore>) {
    let native = CheckpointMode::NativeIncremental;
    let Opened { job, mut stores, .. } = open(store, options).unwrap();
    for key in 0..KEYS {
        put_any(&mut stores, &format!("key {key:08}"), &noise(key, VALUE));
    }
    if job.mode() == native {
        job.compact().unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
    } else {
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(60)).unwrap();
        job.compact().unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    (job, stores)
}

fn put_bytes(store: &FaultStore) -> u64 {
    store.take_calls().iter().filter(|call| call.writes()).map(|call| call.bytes).sum()
}

/// I5 holds across a rescale: the next checkpoint carries its delta, and the next base what is new.
#[test]
fn i5_what_a_split_takes_over_is_not_uploaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| {
        quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks).retained(1)
    };
    drop(large(&store, options(1)));
    let Opened { job, mut stores, restored, .. } = open(&store, options(2)).unwrap();
    assert_eq!(restored.bytes_rewritten, 0, "a split copies nothing");
    store.take_calls();
    put_any(&mut stores, "one more", b"x");
    checkpoint(&job, &mut stores, "").unwrap();
    let first = put_bytes(&store);
    assert!(first < STATE / 50, "{first} bytes for a delta of one key on a state of {STATE}");
    materialize(&job);
    checkpoint(&job, &mut stores, "").unwrap();
    let second = put_bytes(&store);
    assert!(second < STATE / 10, "{second} bytes for the first bases after the split");
    let expected = contents(&mut stores, "words");
    job.close().unwrap();
    drop(stores);
    // The bases stand on what the old subtask had uploaded.
    let Opened { mut stores, .. } = open(&store, options(2)).unwrap();
    assert!(contents(&mut stores, "words") == expected);
}

#[test]
fn i5_a_native_checkpoint_after_a_split_uploads_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| {
        let options = quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks);
        options.mode(CheckpointMode::NativeIncremental)
    };
    drop(large(&store, options(1)));
    let Opened { job, mut stores, .. } = open(&store, options(2)).unwrap();
    put_any(&mut stores, "one more", b"x");
    let report = checkpoint(&job, &mut stores, "").unwrap();
    assert!(report.sst_bytes < STATE / 10, "{report:?}");
}

/// A join takes over the files of all sources as they are, and what it spares is not uploaded again either.
#[test]
fn i5_what_a_join_takes_over_is_not_uploaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks);
    drop(large(&store, options(2)));
    for subtasks in [1, 3] {
        let Opened { job, mut stores, restored, .. } = open(&store, options(subtasks)).unwrap();
        assert_eq!(restored.bytes_rewritten, 0);
        store.take_calls();
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
        let uploaded = put_bytes(&store);
        assert!(uploaded < STATE / 10, "{uploaded} of {STATE} for {subtasks}");
        let expected = contents(&mut stores, "words");
        job.compact().unwrap();
        assert!(contents(&mut stores, "words") == expected);
        job.close().unwrap();
        drop(stores);
        // The bases stand on what the old subtasks had uploaded.
        let Opened { mut stores, .. } = open(&store, options(subtasks)).unwrap();
        assert!(contents(&mut stores, "words") == expected);
    }
}

/// Each object is fetched once, however many subtasks take over a part of it.
#[test]
fn i8_a_rescale_fetches_each_object_once() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = FaultStore::new(InMemory::new());
    let options = |dir: &tempfile::TempDir, subtasks| {
        quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks)
    };
    let (job, mut stores) = large(&store, options(&dir, 2));
    change(&mut stores, 3);
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    store.take_calls();
    let opened = open(&store, options(&elsewhere, 5)).unwrap();
    let gets: Vec<_> =
        store.take_calls().into_iter().filter(|call| call.op == Op::Get && call.is_data()).collect();
    let mut paths: Vec<_> = gets.iter().map(|call| &call.path).collect();
    paths.sort();
    let all = paths.len();
    paths.dedup();
    assert_eq!(paths.len(), all, "{gets:?}");
    assert!(opened.restored.bytes_downloaded < STATE * 2);
    drop(opened);
    // And none at all where the files are still there.
    let opened = open(&store, options(&dir, 5)).unwrap();
    assert!(opened.restored.bytes_reused > STATE / 2, "{:?}", opened.restored);
    assert!(opened.restored.bytes_downloaded < STATE / 10, "{:?}", opened.restored);
}

/// By itself a rescaled subtask takes a base at once, whatever the interval, and its checkpoints name the
/// old subtasks no longer.
#[test]
fn a_rescaled_subtask_takes_a_base_of_its_own() {
    let (dir, objects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = FaultStore::new(LocalFileSystem::new_with_prefix(objects.path()).unwrap());
    let options = |subtasks| {
        quiet(dir.path(), OpenMode::CreateOrOpen)
            .memory(64_000_000)
            .subtasks(subtasks)
            .materialization(MaterializationOptions::default())
    };
    let origins = || {
        let inspection = inspect(objects.path().join(PREFIX).to_str().unwrap()).unwrap();
        assert_eq!(inspection.missing, Vec::<String>::new());
        let newest = inspection.records.iter().rev().find_map(|record| record.checkpoint.clone()).unwrap();
        newest.subtasks.into_iter().map(|subtask| subtask.origins).collect::<Vec<_>>()
    };
    let Opened { job, mut stores, .. } = open(&store, options(2)).unwrap();
    change(&mut stores, 1);
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(origins().iter().all(Vec::is_empty));
    drop((job, stores));
    // By hand, the origins stay.
    let Opened { job, mut stores, .. } = open(&store, options(3).materialization(by_hand())).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let found = origins();
    let ranges: Vec<_> = found
        .iter()
        .map(|origins| origins.iter().map(|origin| origin.range.as_str()).collect::<Vec<_>>())
        .collect();
    assert_eq!(ranges, [vec!["0..=42"], vec!["43..=63", "64..=85"], vec!["86..=127"]]);
    let expected = contents(&mut stores, "words");
    drop((job, stores));

    let Opened { job, mut stores, .. } = open(&store, options(3)).unwrap();
    assert!(contents(&mut stores, "words") == expected);
    alluvium_testkit::eventually("bases of their own", Duration::from_secs(20), || {
        checkpoint(&job, &mut stores, "").unwrap();
        origins().iter().all(Vec::is_empty)
    });
}

/// I3: what the old subtasks had lives exactly as long as something refers to it.
#[test]
fn i3_the_old_subtasks_objects_go_with_their_last_reference() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        let (dir, objects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(objects.path()).unwrap());
        let place = objects.path().join(PREFIX);
        let look = || {
            let inspection = inspect(place.to_str().unwrap()).unwrap();
            assert_eq!(inspection.missing, Vec::<String>::new());
            inspection
        };
        let options = |subtasks| {
            let options = quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks);
            options.mode(mode).retained(1).inline_limit(500)
        };
        let mut expected = BTreeMap::new();
        for (generation, subtasks) in [3, 2, 4, 1, 5].into_iter().enumerate() {
            let Opened { job, mut stores, .. } = open(&store, options(subtasks)).unwrap();
            assert!(contents(&mut stores, "words") == expected, "{mode:?}, generation {generation}");
            // The first checkpoint drops the one that was restored.
            for n in 0..3 {
                checkpoint(&job, &mut stores, "").unwrap();
                change(&mut stores, generation as u64 * 10 + n);
                checkpoint(&job, &mut stores, "").unwrap();
                look();
                if n == 1 && generation % 2 == 0 {
                    materialize(&job);
                }
            }
            expected = contents(&mut stores, "words");
            if generation == 2 {
                // In the middle of it a crash; the others end in order.
                drop((job, stores));
            } else {
                job.close().unwrap();
                drop(stores);
            }
            look();
        }
        // The last attempt compacts all, so nothing of the old files is left in any base.
        let Opened { job, mut stores, .. } = open(&store, options(2)).unwrap();
        assert!(contents(&mut stores, "words") == expected, "{mode:?}");
        let epoch = job.epoch().0;
        job.compact().unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(30)).unwrap();
        job.close().unwrap();
        let seen = look();
        let garbage = seen.total_objects - seen.live_objects - seen.epochs.len() as u64;
        let names: Vec<PathBuf> = files_below(&place).into_keys().map(PathBuf::from).collect();
        assert_eq!(garbage, 0, "{mode:?}: {names:#?}");
        let older = names.iter().filter_map(|name| {
            let name = name.to_str().unwrap().strip_prefix("data/")?;
            Some(name.split('/').next().unwrap().parse::<u64>().unwrap())
        });
        assert!(older.clone().all(|of| of == epoch), "{mode:?}: {names:#?}");
    }
}

/// The job's max parallelism bounds what it can be rescaled to, and never changes.
#[test]
fn more_subtasks_than_key_groups_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let groups = |groups| MaxParallelism::new(groups).unwrap();
    let options = || quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000);
    let open = |options| Job::open((Arc::clone(&store), PREFIX), options);
    drop(open(options().subtasks(2).max_parallelism(groups(4))).unwrap());
    assert_eq!(open(options().subtasks(5)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let other = open(options().subtasks(4).max_parallelism(groups(8))).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Incompatible);
    assert_eq!(open(options().subtasks(4)).unwrap().stores.len(), 4);
}
