//! I3: nothing that a retained checkpoint reaches is ever deleted, and what nothing reaches does go, so
//! that the number of objects stays bounded.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium::admin::inspect;
use alluvium::{CheckpointId, CheckpointMode, Job, JobOptions, OpenMode, Opened, RestoreFrom};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::drive::{by_hand, checkpoint, contents, materialize, noise, put_any};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{Fault, Op};
use alluvium_testkit::objects::files_below;
use alluvium_testkit::stored::StoredJob;

type Contents = BTreeMap<(alluvium::KeyGroup, Vec<u8>), Vec<u8>>;

/// A job that retains two checkpoints.
struct Place(StoredJob);

impl Deref for Place {
    type Target = StoredJob;

    fn deref(&self) -> &StoredJob {
        &self.0
    }
}

impl Place {
    fn new() -> Self {
        Self(StoredJob::new())
    }

    fn options(&self) -> JobOptions {
        self.options_in("local").retained(2).inline_limit(2_000)
    }
}

fn copy(from: &Path, to: &Path) {
    alluvium_testkit::objects::write_files(to, &files_below(from));
}

/// Opens a copy of the job at each retained checkpoint and compares what is in it.
fn assert_restorable(place: &Place, expected: &BTreeMap<CheckpointId, Contents>, retained: &[CheckpointId]) {
    for id in retained {
        let copied = tempfile::tempdir().unwrap();
        copy(&place.objects(), &copied.path().join("store"));
        let options = JobOptions::new(copied.path().join("local"), OpenMode::Existing)
            .subtasks(2)
            .memory(16_000_000)
            .restore_from(RestoreFrom::Checkpoint(*id));
        let mut opened = Job::open(copied.path().join("store").to_str().unwrap(), options).unwrap();
        assert_eq!(opened.restored.checkpoint, Some(*id));
        assert!(contents(&mut opened.stores, "words") == expected[id], "contents of {id}");
    }
}

/// Objects of a job that was closed in order: open records, what retained checkpoints reach, and
/// nothing else.
fn assert_nothing_but_live(place: &Place) {
    let seen = place.inspect();
    assert_eq!(seen.missing, Vec::<String>::new());
    let garbage = seen.total_objects - seen.live_objects - seen.epochs.len() as u64;
    assert_eq!(garbage, 0, "{:#?}\n{:#?}", place.names(), seen);
}

fn churn(seed: u64, mode: CheckpointMode) {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut expected = BTreeMap::new();
    let mut retained: Vec<CheckpointId> = Vec::new();
    let mut most = 0;
    let mut epochs = Vec::new();
    for attempt in 0..3 {
        let Opened { job, mut stores, restored, .. } =
            place.open(place.options().mode(mode).delta_bytes(8_192));
        epochs.push(job.epoch().0);
        assert_eq!(restored.checkpoint, retained.last().copied());
        let handle = |store: &mut alluvium::StateStore| alluvium_testkit::drive::state(store);
        for n in 0..40_u64 {
            for _ in 0..rng.random_range(0..60) {
                let key = format!("key {}", rng.random_range(0..400));
                let value = noise(rng.random(), rng.random_range(0..400));
                put_any(&mut stores, &key, &value);
            }
            match rng.random_range(0..20) {
                0..5 => job.materialize(),
                5 => job.compact().unwrap(),
                6 => {
                    let store = &mut stores[rng.random_range(0..2)];
                    let (state, group) = (handle(store), store.range().first);
                    store.delete_prefix(state, group, b"key 1").unwrap();
                }
                7 => {
                    // Given up half-way: what it had uploaded is the next one's, or garbage.
                    let pending = job.trigger("given up").unwrap();
                    stores[0].cut(pending.id(), "").unwrap();
                    pending.abort();
                    pending.wait().unwrap_err();
                }
                _ => {}
            }
            let report = checkpoint(&job, &mut stores, &n.to_string()).unwrap();
            expected.insert(report.id, contents(&mut stores, "words"));
            retained.push(report.id);
            retained = retained.split_off(retained.len().saturating_sub(2));
            if n % 8 == 0 {
                let seen = place.inspect();
                most = most.max(seen.total_objects);
                let live: Vec<_> = retained.to_vec();
                let found: Vec<_> = seen
                    .records
                    .iter()
                    .filter_map(|record| record.checkpoint.as_ref().filter(|found| found.retained))
                    .map(|found| found.id)
                    .collect();
                assert_eq!(found, live);
                assert_eq!(seen.missing, Vec::<String>::new(), "after {n} checkpoints");
            }
        }
        if attempt == 2 {
            // One more base and checkpoint, so that nothing is on its way when it ends.
            job.settle(Duration::from_secs(30)).unwrap();
            let report = checkpoint(&job, &mut stores, "last").unwrap();
            expected.insert(report.id, contents(&mut stores, "words"));
            retained = vec![retained[1], report.id];
            job.close().unwrap();
        }
    }
    assert!(most < 400, "{most} objects at a time, after 120 checkpoints");
    assert_restorable(&place, &expected, &retained);
    assert_eq!(place.inspect().epochs, epochs, "open records are for ever");

    // The last attempt of all collects what those before could not.
    let Opened { job, mut stores, .. } = place.open(place.options().mode(mode));
    checkpoint(&job, &mut stores, "").unwrap();
    let report = checkpoint(&job, &mut stores, "").unwrap();
    expected.insert(report.id, contents(&mut stores, "words"));
    job.close().unwrap();
    assert_restorable(&place, &expected, &[report.id]);
    assert_nothing_but_live(&place);
}

#[test]
fn i3_changelog_checkpoints_and_materializations() {
    churn(1, CheckpointMode::Changelog);
    churn(2, CheckpointMode::Changelog);
}

#[test]
fn i3_native_checkpoints() {
    churn(3, CheckpointMode::NativeIncremental);
}

/// The modes take turns, so that bases of either kind are dropped under the other.
#[test]
fn i3_modes_in_turn() {
    let place = Place::new();
    let mut expected = BTreeMap::new();
    let mut last = Vec::new();
    for attempt in 0..6_u64 {
        let mode =
            [CheckpointMode::Changelog, CheckpointMode::NativeIncremental][usize::from(attempt % 2 == 1)];
        let Opened { job, mut stores, .. } = place.open(place.options().mode(mode));
        for n in 0..20_u64 {
            let key = format!("key {}", n % 7);
            put_any(&mut stores, &key, &noise(attempt * 100 + n, 3000));
            if n % 6 == 5 && mode == CheckpointMode::Changelog {
                materialize(&job);
            }
            let report = checkpoint(&job, &mut stores, "").unwrap();
            expected.insert(report.id, contents(&mut stores, "words"));
            last.push(report.id);
        }
        assert_eq!(place.inspect().missing, Vec::<String>::new());
        assert_restorable(&place, &expected, &last[last.len() - 2..]);
    }
}

/// What a crashed attempt had uploaded and not committed goes with the next attempt's first collection.
#[test]
fn i3_orphans_of_a_crashed_attempt_are_collected() {
    let place = Place::new();
    let options = || place.options().inline_limit(0).delta_bytes(4_096);
    let Opened { job, mut stores, .. } = place.open(options());
    let crashed = job.epoch().0;
    checkpoint(&job, &mut stores, "").unwrap();
    for n in 0..200_u64 {
        let key = format!("key {n}");
        put_any(&mut stores, &key, &noise(n, 500));
        if n % 20 == 19 {
            // An object of its own, and not one with all that follows.
            job.settle(Duration::from_secs(30)).unwrap();
        }
    }
    materialize(&job);
    let of_crashed = |names: &[String]| {
        names.iter().filter(|name| name.starts_with(&format!("data/{crashed:020}/"))).count()
    };
    assert!(of_crashed(&place.names()) > 10, "{:?}", place.names());
    drop((job, stores));

    let Opened { job, mut stores, .. } = place.open(options());
    assert!(of_crashed(&place.names()) > 10, "an open alone deletes nothing");
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("orphans are collected", Duration::from_secs(20), || of_crashed(&place.names()) == 0);
    job.close().unwrap();
    assert_nothing_but_live(&place);
}

/// Deletions that fail are made up for later; meanwhile nothing that is alive is hurt.
#[test]
fn i3_failing_deletions_are_made_up_for() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    place.store.rule(|call| match call.op {
        Op::Delete => Fault::Fail,
        _ => Fault::Pass,
    });
    for n in 0..40_u64 {
        put_any(&mut stores, "k", &noise(n, 100));
        if n % 10 == 0 {
            materialize(&job);
        }
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.health().unwrap();
    place.store.heal();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    assert_nothing_but_live(&place);
}

/// A store that keeps everything by its own rules is no reason to fail.
#[test]
fn deletions_that_are_refused_end_no_job_and_are_not_asked_for_again_and_again() {
    let place = Place::new();
    place.store.rule(|call| match call.op {
        Op::Delete => Fault::Denied,
        _ => Fault::Pass,
    });
    let Opened { job, mut stores, .. } = place.open(place.options().inline_limit(0));
    for n in 0..60_u64 {
        put_any(&mut stores, "k", &noise(n, 100));
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(20)).unwrap();
    }
    job.health().unwrap();
    let asked = || place.store.take_calls().iter().filter(|call| call.op == Op::Delete).count();
    let running = asked();
    job.close().unwrap();
    drop(stores);
    // The first collection asks for all that there is by then, later ones for one object.
    assert!(running < 40, "{running} requests to delete while it ran");
    assert!(asked() < 5, "and one more when it ends");
    place.store.heal();
    let Opened { job, mut stores, .. } = place.open(place.options());
    alluvium_testkit::drive::materialize(&job);
    for _ in 0..3 {
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.close().unwrap();
    // The probe of the first attempt, too.
    assert_nothing_but_live(&place);
}

/// Files of a process that was killed while it wrote into a local store.
#[test]
fn what_a_killed_process_was_writing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("store");
    let open = || {
        let options = JobOptions::new(dir.path().join("local"), OpenMode::CreateOrOpen).memory(16_000_000);
        Job::open(url.to_str().unwrap(), options.materialization(by_hand()).inline_limit(0)).unwrap()
    };
    let Opened { job, mut stores, .. } = open();
    put_any(&mut stores, "a", &noise(1, 500));
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    let data = url.join("data").join(format!("{:020}", 1));
    let of_first = files_below(&data).into_keys().next().unwrap();
    let staged = |name: &std::path::Path| PathBuf::from(format!("{}#1", name.display()));
    let void = [staged(&data.join(&of_first)), staged(&url.join(format!("manifest/{:020}", 3)))];
    let kept = [staged(&url.join(format!("manifest/{:020}", 9))), url.join("data/notes#1")];
    for path in void.iter().chain(&kept) {
        std::fs::write(path, "x").unwrap();
    }
    let staged = || {
        let seen = inspect(url.to_str().unwrap()).unwrap();
        (seen.staged_files, seen.staged_bytes)
    };
    assert_eq!(staged(), (3, 3), "and what is not ours is not counted");
    let Opened { job, stores: _stores, .. } = open();
    eventually("they are gone", Duration::from_secs(20), || void.iter().all(|path| !path.exists()));
    assert!(kept.iter().all(|path| path.exists()));
    assert_eq!(staged(), (1, 1));
    job.health().unwrap();
}

/// No request ever deletes what a retained checkpoint of that moment reaches, and none deletes an
/// open record.
#[test]
fn i3_every_deletion_is_looked_at() {
    let place = Place::new();
    let dir = place.objects();
    let wrong = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen_wrong = Arc::clone(&wrong);
    place.store.rule(move |call| {
        if call.op == Op::Delete && !call.path.starts_with("probe/") {
            // A look from outside, at every deletion: the name is no open record, and a retained
            // checkpoint misses nothing after it (see below).
            let bytes = std::fs::read(dir.join(&call.path)).unwrap_or_default();
            if bytes.starts_with(b"ALVM") && bytes.get(6) == Some(&1) {
                seen_wrong.lock().unwrap().push(call.path.clone());
            }
        }
        Fault::Pass
    });
    for _ in 0..4 {
        let Opened { job, mut stores, .. } = place.open(place.options().inline_limit(0));
        for n in 0..24_u64 {
            let key = format!("key {}", n % 5);
            put_any(&mut stores, &key, &noise(n, 300));
            if n % 5 == 4 {
                job.materialize();
            }
            checkpoint(&job, &mut stores, "").unwrap();
            assert_eq!(place.inspect().missing, Vec::<String>::new());
        }
    }
    assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new(), "open records were deleted");
    let deleted = place.store.calls().iter().filter(|call| call.op == Op::Delete).count();
    assert!(deleted > 50, "only {deleted} deletions: the test has shown nothing");
}
