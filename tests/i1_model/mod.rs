//! I1: a committed checkpoint restores to exactly the state at its cut, from any crash point.
//!
//! A job is driven by random operations next to a model of plain `BTreeMap`s. It is crashed (dropped
//! without a word) at random moments and restored: the newest checkpoint or a given one, in the same
//! local directory or another, in the same mode or the other. After every restore all keys are compared
//! with the model as it was at the cut, by scans and by gets.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.
#![allow(clippy::unwrap_used)]

mod attempt;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointMode, Env, ErrorKind, Job, JobOptions, KeyGroup, MaxParallelism, OpenMode,
    Opened, PendingCheckpoint, RestoreFrom, Scan, SeededNonces, State, StateOptions, StateStore, TableKind,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use alluvium_testkit::drive::{PREFIX, by_hand, noise};
use alluvium_testkit::faults::{Fault, FaultStore};

/// Seeds of an ordinary run.
const SEEDS: u64 = 48;

#[test]
fn i1_random_operations_crashes_and_restores() {
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
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --test all i1_model::replay");
        std::panic::resume_unwind(payload);
    }
}

/// State, group and key to value: what one subtask holds.
type Model = BTreeMap<(usize, u16, Vec<u8>), Vec<u8>>;

/// A scan, and what it must yield.
type OpenScan = (Scan, Vec<(Vec<u8>, Vec<u8>)>);

/// What a checkpoint must restore to.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    metadata: Vec<u8>,
    /// Each subtask's state and metadata.
    subtasks: Vec<(Model, Vec<u8>)>,
}

/// One job over all its attempts.
struct World {
    seed: u64,
    rng: StdRng,
    place: Place,
    local: tempfile::TempDir,
    groups: u16,
    subtasks: u32,
    states: Vec<String>,
    /// The keys that operations choose from.
    keys: Vec<Vec<u8>>,
    mode: CheckpointMode,
    attempts: u64,
    /// Every checkpoint that was ever committed.
    committed: BTreeMap<CheckpointId, Snapshot>,
    /// Those that the job must still have, oldest first.
    retained: Vec<CheckpointId>,
    /// A checkpoint that was under way at the crash, and how many were to be kept then.
    doubt: Option<(CheckpointId, Snapshot, usize)>,
}

/// Where the objects are.
enum Place {
    Memory(Arc<FaultStore>),
    File(tempfile::TempDir),
}

/// One attempt while it runs.
struct Attempt {
    job: Job,
    stores: Vec<StateStore>,
    states: Vec<Vec<State>>,
    models: Vec<Model>,
    pending: Option<Pending>,
    /// Scans that are drained later, with what they must yield.
    scans: Vec<OpenScan>,
    keep: usize,
    triggered: u64,
}

struct Pending {
    checkpoint: PendingCheckpoint,
    metadata: Vec<u8>,
    cuts: Vec<Option<(Model, Vec<u8>)>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let groups = [1, 2, 5, 8][rng.random_range(0..4)];
        let place = if rng.random_ratio(1, 3) {
            Place::File(tempfile::tempdir().unwrap())
        } else {
            let store = FaultStore::new(InMemory::new());
            if rng.random_bool(0.5) {
                let mut slow = StdRng::seed_from_u64(seed);
                store.rule(move |call| match slow.random_range(0..4) {
                    0 if call.writes() => Fault::Delay(Duration::from_millis(slow.random_range(0..15))),
                    _ => Fault::Pass,
                });
            }
            Place::Memory(store)
        };
        Self {
            seed,
            place,
            local: tempfile::tempdir().unwrap(),
            groups,
            subtasks: rng.random_range(1..=u32::from(groups.min(3))),
            states: (0..rng.random_range(1..=3)).map(|n| format!("state {n}")).collect(),
            keys: keys(&mut rng),
            mode: mode(&mut rng),
            attempts: 0,
            committed: BTreeMap::new(),
            retained: Vec::new(),
            doubt: None,
            rng,
        }
    }

    fn run(mut self) {
        let attempts = self.rng.random_range(3..=6);
        let mut late = Vec::new();
        for _ in 0..attempts {
            let mut attempt = self.open();
            // These outlived their store, their job, and the next one's clearing up.
            drain(&mut late);
            let operations = self.rng.random_range(20..500);
            for _ in 0..operations {
                attempt.step(&mut self);
            }
            late = self.crash(attempt);
        }
        drain(&mut late);
        let mut attempt = self.open();
        // What survived all this can also be ended in order.
        attempt.checkpoint(&mut self);
        attempt.job.close().unwrap();
    }

    /// A new attempt that has restored exactly what it should.
    fn open(&mut self) -> Attempt {
        if self.rng.random_ratio(1, 4) {
            self.mode = mode(&mut self.rng);
        }
        // An attempt elsewhere has no local files to start from.
        let elsewhere = self.rng.random_ratio(1, 3);
        let place = if elsewhere { format!("host {}", self.attempts) } else { "host".to_owned() };
        let dir = self.local.path().join(place);
        let keep = self.rng.random_range(1..=4);
        let wanted = match self.rng.random_range(0..10) {
            0..3 if !self.retained.is_empty() => {
                let at = self.rng.random_range(0..self.retained.len());
                RestoreFrom::Checkpoint(self.retained[at])
            }
            3 => {
                // An id that no checkpoint has: refused, and nothing is lost by it.
                let unknown = RestoreFrom::Checkpoint("77-7".parse().unwrap());
                let options = self.options(dir.clone(), keep).restore_from(unknown);
                assert_eq!(self.try_open(options).unwrap_err().kind(), ErrorKind::NotFound);
                RestoreFrom::Latest
            }
            _ => RestoreFrom::Latest,
        };
        let options = self.options(dir.clone(), keep).restore_from(wanted.clone());
        let opened = self.try_open(options);
        let opened = match opened {
            // The checkpoint in doubt was committed after all, and has taken the wanted one's place.
            Err(error) if error.kind() == ErrorKind::NotFound && self.doubt.is_some() => {
                let options = self.options(dir, keep);
                self.try_open(options).unwrap()
            }
            opened => opened.unwrap(),
        };
        self.resolve_doubt(&opened);
        let found: Vec<_> = opened.job.checkpoints().iter().map(|summary| summary.id).collect();
        assert_eq!(found, self.retained, "the retained checkpoints");
        let expected = match (opened.restored.checkpoint, wanted) {
            (Some(id), RestoreFrom::Checkpoint(wanted)) if found.contains(&wanted) => {
                assert_eq!(id, wanted);
                self.committed[&id].clone()
            }
            (id, _) => {
                assert_eq!(id, self.retained.last().copied(), "the newest is restored");
                id.map_or_else(Snapshot::default, |id| self.committed[&id].clone())
            }
        };
        assert!(opened.restored.skipped.is_empty(), "{:?}", opened.restored);
        self.begin(opened, expected, keep)
    }

    fn options(&mut self, dir: PathBuf, keep: usize) -> JobOptions {
        self.attempts += 1;
        let nonces = SeededNonces::new(self.seed.wrapping_mul(1000).wrapping_add(self.attempts) << 20);
        let mode = if self.attempts == 1 { OpenMode::Create } else { OpenMode::CreateOrOpen };
        let rng = &mut self.rng;
        JobOptions::new(dir, mode)
            .subtasks(self.subtasks)
            .max_parallelism(MaxParallelism::new(self.groups).unwrap())
            .mode(self.mode)
            .memory(u64::from(self.subtasks) * 4_000_000)
            .delta_bytes([4096, 16_384, 100_000][rng.random_range(0..3)])
            .inline_limit([0, 500, 5_000, 131_072][rng.random_range(0..4)])
            .retained(keep)
            .materialization(by_hand())
            .env(Env { nonces: Arc::new(nonces), ..Env::default() })
    }

    fn try_open(&self, options: JobOptions) -> alluvium::Result<Opened> {
        match &self.place {
            Place::Memory(store) => Job::open((Arc::clone(store) as Arc<dyn ObjectStore>, PREFIX), options),
            Place::File(dir) => Job::open(format!("file://{}/job", dir.path().display()), options),
        }
    }

    /// Whether the checkpoint that was under way at the crash was committed shows in the chain.
    fn resolve_doubt(&mut self, opened: &Opened) {
        let Some((id, snapshot, keep)) = self.doubt.take() else { return };
        if opened.job.checkpoints().iter().any(|summary| summary.id == id) {
            self.commit(id, snapshot, keep);
        }
    }

    fn commit(&mut self, id: CheckpointId, snapshot: Snapshot, keep: usize) {
        assert!(self.committed.insert(id, snapshot).is_none(), "{id} was given twice");
        self.retained.push(id);
        let drop = self.retained.len().saturating_sub(keep);
        self.retained.drain(..drop);
    }

    fn begin(&mut self, opened: Opened, expected: Snapshot, keep: usize) -> Attempt {
        let fresh = expected.subtasks.is_empty();
        let Opened { job, mut stores, metadata, .. } = opened;
        assert_eq!(metadata, (!fresh).then_some(expected.metadata), "the coordinator's metadata");
        let mut models = Vec::new();
        let mut states = Vec::new();
        for (index, store) in stores.iter_mut().enumerate() {
            let part = expected.subtasks.get(index).cloned();
            assert_eq!(
                store.restored_metadata(),
                part.as_ref().map(|(_, metadata)| metadata.as_slice()),
                "subtask {index}'s metadata"
            );
            // The kind of table is no property of what is stored: it may change at a restart.
            let kinds = [TableKind::Hash, TableKind::Ordered];
            let handles = self.states.iter().map(|name| {
                let kind = kinds[self.rng.random_range(0..2)];
                store.state(&StateOptions::new(name).table(kind)).unwrap()
            });
            states.push(handles.collect());
            models.push(part.map(|(model, _)| model).unwrap_or_default());
        }
        let attempt =
            Attempt { job, stores, states, models, pending: None, scans: Vec::new(), keep, triggered: 0 };
        attempt.compare_everything(&self.keys);
        attempt
    }

    /// Drops everything in random order, without a word; returns the scans that are still open.
    fn crash(&mut self, attempt: Attempt) -> Vec<OpenScan> {
        let Attempt { job, mut stores, pending, scans, keep, .. } = attempt;
        if let Some(Pending { checkpoint, metadata, cuts }) = pending {
            let id = checkpoint.id();
            // Without all the cuts it cannot have been committed.
            if let Some(subtasks) = cuts.into_iter().collect::<Option<Vec<_>>>() {
                self.doubt = Some((id, Snapshot { metadata, subtasks }, keep));
            }
        }
        if self.rng.random_bool(0.5) {
            drop(job);
            while !stores.is_empty() {
                let at = self.rng.random_range(0..stores.len());
                stores.remove(at);
            }
        } else {
            drop(stores);
            drop(job);
        }
        scans
    }
}

/// Keys with much in common, and with bytes at the ends of the range.
fn keys(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let alphabet = [0x00, b'a', b'b', 0xff];
    let mut keys: Vec<Vec<u8>> = (0..24)
        .map(|_| (0..rng.random_range(0..6)).map(|_| alphabet[rng.random_range(0..4)]).collect())
        .collect();
    keys.push(Vec::new());
    keys.push(vec![0xff; 40]);
    keys.push(vec![b'k'; 3000]);
    keys.sort();
    keys.dedup();
    keys
}

fn mode(rng: &mut StdRng) -> CheckpointMode {
    if rng.random_ratio(3, 4) { CheckpointMode::Changelog } else { CheckpointMode::NativeIncremental }
}

fn value(rng: &mut StdRng) -> Vec<u8> {
    let len = match rng.random_range(0..20) {
        0 => rng.random_range(3000..9000),
        1..6 => rng.random_range(100..1000),
        _ => rng.random_range(0..40),
    };
    if rng.random_bool(0.5) { noise(rng.next_u64(), len) } else { vec![rng.random(); len] }
}

fn drain(scans: &mut Vec<OpenScan>) {
    for (scan, expected) in scans.drain(..) {
        let found: Vec<_> = scan.map(Result::unwrap).collect();
        assert_eq!(found, expected, "a scan is a snapshot of the moment it was made");
    }
}

/// What a scan of `start..end` must yield.
fn range(
    model: &Model,
    state: usize,
    group: u16,
    start: &[u8],
    end: Option<&[u8]>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let from = Bound::Included((state, group, start.to_vec()));
    model
        .range((from, Bound::Unbounded))
        .take_while(|((of, at, key), _)| {
            (*of, *at) == (state, group) && end.is_none_or(|end| key.as_slice() < end)
        })
        .map(|((.., key), value)| (key.clone(), value.clone()))
        .collect()
}

fn with_prefix(model: &Model, state: usize, group: u16, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = range(model, state, group, prefix, None);
    all.retain(|(key, _)| key.starts_with(prefix));
    all
}

/// Keys and the sizes of their values: what a failure should show.
fn shown(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, usize)> {
    let key = |key: &[u8]| key.iter().take(20).map(|byte| format!("{byte:02x}")).collect::<String>();
    entries.iter().map(|(name, value)| (key(name), value.len())).collect()
}
