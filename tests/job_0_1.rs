//! Jobs that version 0.1 wrote are opened, read key by key, and go on. They lie in `tests/golden/job-0.1` as
//! 0.1 left them, and are never written again.
//!
//! `changelog`: subtasks 0 and 1 with bases, deltas in manifests, objects and packs; then three subtasks that have
//! taken over from them and have no bases yet; 4 retained checkpoints, the savepoint `kept`, and the pin of a
//! reader that was killed. `native`: two subtasks, 3 retained checkpoints.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use alluvium::admin::inspect;
use alluvium::{
    CheckpointId, CheckpointMode, CheckpointReader, Epoch, Job, JobOptions, OpenMode, Opened, ReaderOptions,
    RestoreFrom, StateStore, ValueState,
};

use alluvium_testkit::drive::{by_hand, checkpoint, contents, materialize, noise, put_any, state};
use alluvium_testkit::objects::{files_below, write_files};

/// What is put (or, without a value, deleted) before checkpoint `round` of a job.
fn round(round: u64) -> Vec<(String, Option<Vec<u8>>)> {
    let mut changes = Vec::new();
    for key in 0..60 {
        if !(key * 7 + round * 13).is_multiple_of(5) {
            continue;
        }
        let value = (!(key + round).is_multiple_of(4)).then(|| format!("{round}:{key}").into_bytes());
        changes.push((format!("key {key}"), value));
    }
    if round.is_multiple_of(6) {
        changes.push((format!("large {}", round % 12), Some(noise(round, 3_000))));
    }
    changes
}

/// What the words are after the checkpoint of `rounds`.
fn words(rounds: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut words = BTreeMap::new();
    for (key, value) in (1..=rounds).flat_map(round) {
        match value {
            Some(value) => drop(words.insert(key.into_bytes(), value)),
            None => drop(words.remove(key.as_bytes())),
        }
    }
    words
}

fn apply(stores: &mut [StateStore], changes: u64) {
    for (key, value) in round(changes) {
        match value {
            Some(value) => put_any(stores, &key, &value),
            None => {
                let group = stores[0].group_of(key.as_bytes());
                let store = stores.iter_mut().find(|store| store.range().contains(group)).unwrap();
                let state = state(store);
                store.delete(state, group, key.as_bytes()).unwrap();
            }
        }
    }
    let group = stores[0].group_of(b"total");
    for store in stores {
        let total = store.register(ValueState::<u64>::descriptor("total")).unwrap();
        if store.range().contains(group) {
            store.set_key("total").unwrap();
            total.put(store, &changes).unwrap();
        }
    }
}

#[track_caller]
fn assert_holds(stores: &mut [StateStore], rounds: u64) {
    let found = contents(stores, "words").into_iter().map(|((_, key), value)| (key, value));
    assert!(found.collect::<BTreeMap<_, _>>() == words(rounds), "other words than after {rounds} rounds");
    let group = stores[0].group_of(b"total");
    let store = stores.iter_mut().find(|store| store.range().contains(group)).unwrap();
    let total = store.register(ValueState::<u64>::descriptor("total")).unwrap();
    store.set_key("total").unwrap();
    assert_eq!(total.get(store).unwrap(), Some(rounds));
}

fn options(dir: &Path, subtasks: u32, keep: usize, mode: CheckpointMode) -> JobOptions {
    JobOptions::new(dir.join("local"), OpenMode::CreateOrOpen)
        .subtasks(subtasks)
        .memory(48_000_000)
        .mode(mode)
        .retained(keep)
        .inline_limit(2_000)
        .materialization(by_hand())
}

fn run(job: &Job, stores: &mut [StateStore], rounds: std::ops::RangeInclusive<u64>) -> Vec<CheckpointId> {
    let one = |changes| {
        apply(stores, changes);
        checkpoint(job, stores, &format!("round {changes}")).unwrap().id
    };
    rounds.map(one).collect()
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/job-0.1").join(name)
}

/// A copy of a job of 0.1.
struct Copy {
    dir: tempfile::TempDir,
    mode: CheckpointMode,
}

impl Copy {
    fn new(mode: CheckpointMode) -> Self {
        let name = match mode {
            CheckpointMode::Changelog => "changelog",
            CheckpointMode::NativeIncremental => "native",
        };
        let dir = tempfile::tempdir().unwrap();
        write_files(&dir.path().join("store"), &files_below(&golden(name)));
        Self { dir, mode }
    }

    fn url(&self) -> String {
        self.dir.path().join("store").to_str().unwrap().to_owned()
    }

    fn open(&self, subtasks: u32, from: RestoreFrom) -> Opened {
        let options = options(self.dir.path(), subtasks, 4, self.mode).restore_from(from);
        Job::open(self.url(), options).unwrap()
    }
}

/// The retained checkpoints of the fixture, each with its rounds.
fn retained(mode: CheckpointMode) -> Vec<(CheckpointId, u64)> {
    let id = |epoch, number| CheckpointId { epoch: Epoch(epoch), number };
    match mode {
        CheckpointMode::Changelog => vec![(id(1, 28), 28), (id(1, 29), 29), (id(31, 1), 30), (id(31, 2), 31)],
        CheckpointMode::NativeIncremental => (3..=5).map(|number| (id(1, number), number)).collect(),
    }
}

const MODES: [CheckpointMode; 2] = [CheckpointMode::Changelog, CheckpointMode::NativeIncremental];

#[test]
fn i1_a_job_of_0_1_restores_to_each_of_its_checkpoints() {
    for mode in MODES {
        let copy = Copy::new(mode);
        let seen = inspect(copy.url()).unwrap();
        assert_eq!((seen.missing, seen.damaged), (vec![], vec![]));
        for (id, rounds) in retained(mode) {
            let copy = Copy::new(mode);
            let Opened { job, mut stores, metadata, .. } = copy.open(3, RestoreFrom::Checkpoint(id));
            assert_eq!(metadata.unwrap(), format!("round {rounds}").into_bytes());
            let known: Vec<_> = job.checkpoints().iter().map(|one| one.id).collect();
            assert_eq!(known, retained(mode).iter().map(|(id, _)| *id).collect::<Vec<_>>());
            assert!(job.checkpoints().iter().all(|one| one.unix_millis > 0 && one.full_bytes > 0));
            assert_holds(&mut stores, rounds);
        }
    }
}

#[test]
fn i3_a_job_of_0_1_goes_on_and_its_savepoint_and_pin_stay_good() {
    for mode in MODES {
        let copy = Copy::new(mode);
        let (_, mut rounds) = *retained(mode).last().unwrap();
        let mut ids = retained(mode).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        for subtasks in [3, 2] {
            let Opened { job, mut stores, .. } = copy.open(subtasks, RestoreFrom::Latest);
            assert_holds(&mut stores, rounds);
            ids.extend(run(&job, &mut stores, rounds + 1..=rounds + 10));
            materialize(&job);
            ids.extend(run(&job, &mut stores, rounds + 11..=rounds + 13));
            rounds += 13;
            job.settle(std::time::Duration::from_secs(30)).unwrap();
            let known: Vec<_> = job.checkpoints().iter().map(|one| one.id).collect();
            assert_eq!(known, ids[ids.len() - 4..]);
            assert_holds(&mut stores, rounds);
            drop(stores);
            job.close().unwrap();
        }
        let seen = inspect(copy.url()).unwrap();
        assert_eq!((seen.missing, seen.damaged), (vec![], vec![]));
        for back in 0..4 {
            let read = RestoreFrom::Checkpoint(ids[ids.len() - 1 - back]);
            let reader = ReaderOptions::new().dir(copy.dir.path().join("reader"));
            let reader = CheckpointReader::open(copy.url(), &read, reader).unwrap();
            let found = reader.scan("words", b"").unwrap().map(|entry| entry.unwrap());
            let found: BTreeMap<_, _> = found.map(|(_, key, value)| (key, value)).collect();
            assert!(found == words(rounds - back as u64), "{back} checkpoints ago");
            reader.close().unwrap();
        }
        if mode == CheckpointMode::Changelog {
            // Pinned by a reader of 0.1 and dropped long ago.
            assert_eq!(seen.pins.len(), 1);
            let pinned = seen.records.iter().find(|record| Some(record.version) == seen.pins[0].version);
            assert!(!pinned.unwrap().checkpoint.as_ref().unwrap().retained);
            let Opened { mut stores, .. } = copy.open(2, RestoreFrom::Savepoint("kept".into()));
            assert_holds(&mut stores, 5);
        }
    }
}
