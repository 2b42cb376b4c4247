//! I1 with everything at once: operators on threads of their own, checkpoints and bases by the clock,
//! compactions, a slow store, and a crash at any moment. Each operator's writes follow from its offset,
//! so the state that belongs to a restored offset can be computed anew.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointListener, CheckpointMode, CheckpointReport, ErrorKind, JobOptions, KeyGroup,
    MaterializationOptions, OpenMode, Opened, RestoreFrom, StateOptions, StateStore, TableKind,
};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::drive::{by_hand, checkpoint, contents, get, materialize, noise, open, put, quiet};
use alluvium_testkit::faults::{Fault, FaultStore, Gate};
use alluvium_testkit::{PATIENCE, eventually};

type Contents = BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>;

/// What an operator does at an offset: one change to a state of counts and lists.
struct Change {
    group: KeyGroup,
    key: Vec<u8>,
    what: What,
}

enum What {
    Put(Vec<u8>),
    Append(Vec<u8>),
    Delete,
    Clear,
}

fn change(subtask: u32, range: alluvium::KeyGroupRange, offset: u64) -> Change {
    let mut rng = StdRng::seed_from_u64((u64::from(subtask) << 40) | offset);
    let group = KeyGroup(rng.random_range(range.first.0..=range.last.0));
    let key = format!("{:03}", rng.random_range(0..120)).into_bytes();
    let what = match rng.random_range(0..20) {
        0..9 => What::Put(noise(offset, rng.random_range(0..200))),
        9..17 => What::Append(format!("{offset},").into_bytes()),
        17..19 => What::Delete,
        _ => What::Clear,
    };
    Change { group, key, what }
}

fn replay(subtask: u32, range: alluvium::KeyGroupRange, offsets: std::ops::Range<u64>, state: &mut Contents) {
    for offset in offsets {
        let Change { group, key, what } = change(subtask, range, offset);
        match what {
            What::Put(value) => drop(state.insert((group, key), value)),
            What::Append(bytes) => state.entry((group, key)).or_default().extend(bytes),
            What::Delete => drop(state.remove(&(group, key))),
            What::Clear => state.retain(|(at, other), _| *at != group || !other.starts_with(&key[..1])),
        }
    }
}

#[derive(Debug, Default)]
struct Last(Mutex<Option<CheckpointId>>, AtomicU64);

impl CheckpointListener for Last {
    fn completed(&self, report: &CheckpointReport) {
        *self.0.lock().unwrap() = Some(report.id);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_operator(store: &mut StateStore, from: u64, stop: &AtomicBool) {
    let (subtask, range) = (store.subtask().0, store.range());
    let kind = if subtask == 0 { TableKind::Hash } else { TableKind::Ordered };
    let state = store.state(&StateOptions::new("words").table(kind)).unwrap();
    let mut offset = from;
    while !stop.load(Ordering::Relaxed) {
        let Change { group, key, what } = change(subtask, range, offset);
        match what {
            What::Put(value) => store.put(state, group, &key, &value),
            What::Append(bytes) => store.append(state, group, &key, &bytes),
            What::Delete => store.delete(state, group, &key),
            What::Clear => store.delete_prefix(state, group, &key[..1]),
        }
        .unwrap();
        offset += 1;
        if offset.is_multiple_of(64) {
            std::thread::sleep(Duration::from_micros(300));
        }
        if let Some(id) = store.due() {
            match store.cut(id, offset.to_string()) {
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn threads(mode: CheckpointMode, attempts: u64) {
    const SUBTASKS: u32 = 3;
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let mut slow = StdRng::seed_from_u64(1);
    store.rule(move |call| match slow.random_range(0..5) {
        0 if call.writes() => Fault::Delay(Duration::from_millis(slow.random_range(0..40))),
        _ => Fault::Pass,
    });
    let mut rng = StdRng::seed_from_u64(2);
    let last = Arc::new(Last::default());
    let mut states = vec![(0, Contents::new()); SUBTASKS as usize];
    for attempt in 0..attempts {
        let options = JobOptions::new(dir.path().join((attempt % 2).to_string()), OpenMode::CreateOrOpen)
            .subtasks(SUBTASKS)
            .mode(mode)
            .memory(12_000_000)
            .delta_bytes(16_384)
            .inline_limit([0, 4_000, 131_072][(attempt % 3) as usize])
            .retained(2)
            .checkpoint_interval(Duration::from_millis(15))
            .min_pause(Duration::from_millis(1))
            .materialization(
                MaterializationOptions::new().interval(Duration::from_millis(120)).changelog_bytes(100_000),
            )
            .listener(Arc::clone(&last) as Arc<dyn CheckpointListener>);
        let Opened { job, mut stores, restored, .. } = open(&store, options).unwrap();
        let reported = *last.0.lock().unwrap();
        assert!(restored.checkpoint >= reported, "{:?} after {reported:?}", restored.checkpoint);
        let found = contents(&mut stores, "words");
        let mut expected = Contents::new();
        for (store, (offset, state)) in stores.iter().zip(&mut states) {
            let restored = store
                .restored_metadata()
                .map_or(0, |text| std::str::from_utf8(text).unwrap().parse::<u64>().unwrap());
            assert!(restored >= *offset, "subtask {} went back", store.subtask());
            replay(store.subtask().0, store.range(), *offset..restored, state);
            *offset = restored;
            expected.extend(state.clone());
        }
        assert!(found == expected, "attempt {attempt}: wrong contents");

        let stop = AtomicBool::new(false);
        // The crash comes after so many checkpoints, at whatever the operators are at then.
        let life = rng.random_range(3..12);
        let compacts = rng.random_bool(0.5);
        let begun = last.1.load(Ordering::Relaxed);
        let committed = || last.1.load(Ordering::Relaxed) - begun;
        std::thread::scope(|scope| {
            for (store, (offset, _)) in stores.iter_mut().zip(&states) {
                let (stop, offset) = (&stop, *offset);
                scope.spawn(move || run_operator(store, offset, stop));
            }
            eventually("half of its life", PATIENCE, || committed() >= life / 2);
            if compacts {
                job.compact().unwrap();
            }
            eventually("the rest of its life", PATIENCE, || committed() >= life);
            stop.store(true, Ordering::Relaxed);
        });
        job.health().unwrap();
        drop((job, stores));
    }
    assert!(states.iter().all(|(offset, _)| *offset > 0), "an operator has done nothing");
}

#[test]
fn i1_operators_on_threads_with_a_schedule_and_crashes() {
    threads(CheckpointMode::Changelog, 12);
}

#[test]
fn i1_operators_on_threads_in_native_mode() {
    threads(CheckpointMode::NativeIncremental, 8);
}

/// A base that was taken after a cut becomes durable before the cut's own delta: the checkpoint stands
/// on the base before.
#[test]
fn i1_a_base_that_overtakes_a_waiting_checkpoint_is_not_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = || quiet(dir.path(), OpenMode::CreateOrOpen).inline_limit(0).delta_bytes(4_096).retained(3);
    let Opened { job, mut stores, .. } = open(&store, options()).unwrap();
    put(&mut stores[0], "k", b"first").unwrap();
    checkpoint(&job, &mut stores, "first").unwrap();

    let gate = Gate::closed();
    let held = gate.clone();
    store.rule(move |call| match call.path.ends_with(".delta") || call.path.ends_with(".pack") {
        true => Fault::Hold(held.clone()),
        false => Fault::Pass,
    });
    put(&mut stores[0], "k", b"at the cut").unwrap();
    let pending = job.trigger("cut").unwrap();
    let id = pending.id();
    stores[0].cut(id, "").unwrap();
    eventually("the delta is on its way", Duration::from_secs(20), || gate.waiting() > 0);
    for n in 0..40 {
        put(&mut stores[0], "k", b"after the cut").unwrap();
        put(&mut stores[0], &format!("later {n}"), &noise(n, 500)).unwrap();
    }
    job.materialize();
    let base = || store.calls().iter().any(|call| call.path.ends_with(".base"));
    eventually("a base", Duration::from_secs(20), base);
    std::thread::sleep(Duration::from_millis(100));
    gate.open();
    pending.wait().unwrap();
    store.heal();
    // The next one stands on the new base, with its own deltas after it.
    let next = checkpoint(&job, &mut stores, "next").unwrap().id;
    let expected = contents(&mut stores, "words");
    drop((job, stores));

    let mut opened = open(&store, options().restore_from(RestoreFrom::Checkpoint(id))).unwrap();
    assert_eq!(get(&mut opened.stores[0], "k"), Some(b"at the cut".to_vec()));
    assert_eq!(contents(&mut opened.stores, "words").len(), 1, "later writes are in the checkpoint");
    drop(opened);
    let mut opened = open(&store, options().restore_from(RestoreFrom::Checkpoint(next))).unwrap();
    assert!(contents(&mut opened.stores, "words") == expected);
}

/// Going back to an older checkpoint begins a new branch: neither its sequence numbers nor its files
/// are mixed up with those of the branch that was left.
#[test]
fn i1_branches_from_older_checkpoints_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = || {
        JobOptions::new(dir.path(), OpenMode::CreateOrOpen)
            .memory(16_000_000)
            .retained(50)
            .inline_limit(0)
            .materialization(by_hand())
    };
    let mut known: Vec<(CheckpointId, Contents)> = Vec::new();
    let mut rng = StdRng::seed_from_u64(5);
    for branch in 0..8_u64 {
        let from = if known.is_empty() { None } else { Some(rng.random_range(0..known.len())) };
        let restore = from.map_or(RestoreFrom::Latest, |at| RestoreFrom::Checkpoint(known[at].0));
        let Opened { job, mut stores, .. } = open(&store, options().restore_from(restore)).unwrap();
        let expected = from.map(|at| known[at].1.clone()).unwrap_or_default();
        assert!(contents(&mut stores, "words") == expected, "branch {branch}");
        for n in 0..4_u64 {
            for key in 0..20 {
                let key = format!("key {}", (key * 7 + n * branch) % 25);
                put(&mut stores[0], &key, &noise(branch * 100 + n, 80)).unwrap();
            }
            if n == 2 {
                materialize(&job);
            }
            let report = checkpoint(&job, &mut stores, "").unwrap();
            known.push((report.id, contents(&mut stores, "words")));
        }
    }
    for (id, expected) in &known {
        let options = options().restore_from(RestoreFrom::Checkpoint(*id));
        let mut opened = open(&store, options).unwrap();
        assert!(contents(&mut opened.stores, "words") == *expected, "{id}");
    }
    let unknown = options().restore_from(RestoreFrom::Checkpoint("1-99".parse().unwrap()));
    assert_eq!(open(&store, unknown).unwrap_err().kind(), ErrorKind::NotFound);
}
