//! I2: after a later epoch opened, no earlier one commits, however long it was paused; and an answer
//! that says nothing (a broken connection, a 409, a timeout) neither loses a checkpoint nor makes two.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use alluvium::{CheckpointId, Error, ErrorKind, Job, JobOptions, OpenMode, Opened, Result, StateStore};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::drive::{
    PREFIX, by_hand, checkpoint, contents, get, materialize, noise, open, put, quiet, state,
};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{Answer, Fault, FaultStore, Gate, block_on};
use alluvium_testkit::objects::{names_of, objects_of};

const LONG: Duration = Duration::from_secs(20);

#[track_caller]
fn fenced(result: Result<()>) {
    let error = result.expect_err("an attempt that was taken over goes on");
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert!(error.to_string().contains("later attempt"), "{error}");
    assert!(error.object_name().is_some_and(|name| name.starts_with("manifest/")), "{error}");
}

/// Every call of an attempt that was taken over says so.
fn assert_fenced(job: &Job, store: &mut StateStore, states: alluvium::State) {
    let group = store.group_of(b"k");
    for _ in 0..2 {
        fenced(job.health());
        fenced(store.health());
        fenced(store.put(states, group, b"k", b"v"));
        fenced(store.append(states, group, b"k", b"v"));
        fenced(store.delete(states, group, b"k"));
        fenced(store.delete_prefix(states, group, b""));
        fenced(store.get(states, group, b"k").map(|_| ()));
        fenced(store.multi_get(states, &[(group, b"k")]).map(|_| ()));
        fenced(store.scan_prefix(states, group, b"").map(|_| ()));
        fenced(store.try_reserve());
        fenced(job.trigger("again").map(|_| ()));
        fenced(store.cut(CheckpointId { epoch: job.epoch(), number: 1_000 }, "").map(|_| ()));
        fenced(job.compact());
        fenced(job.settle(Duration::from_secs(1)));
    }
}

/// One that commits nothing would not find out, and upload one base after the other.
#[test]
fn i2_an_attempt_that_only_uploads_bases_finds_out_that_it_is_fenced() {
    let two = Two::new();
    let Opened { job, mut stores, .. } = two.open_with("first", |options| options.subtasks(2));
    let words = stores.iter_mut().map(state).next_back().unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let _second = two.open("second");
    // The first base after the last commit needs no look; the next one does.
    for n in 0..3 {
        for key in 0..20 {
            let key = format!("key {key}");
            let group = stores[0].group_of(key.as_bytes());
            let owner = stores.iter_mut().find(|store| store.range().contains(group)).unwrap();
            let _ = owner.put(words, group, key.as_bytes(), &noise(n, 200));
        }
        // Only one subtask cuts, so that nothing is committed.
        let Ok(pending) = job.trigger("") else { break };
        let _ = stores[0].cut(pending.id(), "");
        pending.abort();
        pending.wait().unwrap_err();
        job.materialize();
        let _ = job.settle(LONG);
    }
    eventually("it finds out", LONG, || job.health().is_err());
    fenced(job.health());
}

struct Two {
    store: Arc<FaultStore>,
    dir: tempfile::TempDir,
}

impl Two {
    fn new() -> Self {
        Self { store: FaultStore::new(InMemory::new()), dir: tempfile::tempdir().unwrap() }
    }

    fn open(&self, name: &str) -> Opened {
        self.open_with(name, |options| options)
    }

    fn open_with(&self, name: &str, more: impl FnOnce(JobOptions) -> JobOptions) -> Opened {
        open(&self.store, more(quiet(&self.dir.path().join(name), OpenMode::CreateOrOpen))).unwrap()
    }

    fn objects(&self) -> std::collections::BTreeMap<String, bytes::Bytes> {
        objects_of(&(Arc::clone(&self.store) as Arc<dyn ObjectStore>), PREFIX)
    }
}

#[test]
fn i2_the_older_attempt_is_fenced_at_its_next_commit_and_stays_so() {
    let two = Two::new();
    let Opened { job: old, stores: mut old_stores, .. } = two.open("a");
    put(&mut old_stores[0], "both", b"1").unwrap();
    checkpoint(&old, &mut old_stores, "first").unwrap();
    put(&mut old_stores[0], "only the old", b"2").unwrap();

    let Opened { job: new, stores: mut new_stores, metadata, .. } = two.open("b");
    assert!(new.epoch() > old.epoch());
    assert_eq!(metadata.as_deref(), Some(b"first".as_slice()));

    let handle = state(&mut old_stores[0]);
    let error = checkpoint(&old, &mut old_stores, "second").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_fenced(&old, &mut old_stores[0], handle);

    put(&mut new_stores[0], "only the new", b"3").unwrap();
    checkpoint(&new, &mut new_stores, "third").unwrap();
    assert_fenced(&old, &mut old_stores[0], handle);
    drop((old, old_stores, new, new_stores));

    let mut last = two.open("c");
    assert_eq!(last.metadata.as_deref(), Some(b"third".as_slice()));
    assert_eq!(get(&mut last.stores[0], "both"), Some(b"1".to_vec()));
    assert_eq!(get(&mut last.stores[0], "only the old"), None);
    assert_eq!(get(&mut last.stores[0], "only the new"), Some(b"3".to_vec()));
}

/// The old attempt's commit is on its way when it stops; it comes through at some point of the new
/// one's life. Either the new one starts from it, or it never counts.
#[test]
fn i2_an_attempt_paused_inside_its_commit_never_commits_after_the_next_opened() {
    for commits_in_between in [0, 1, 5] {
        let two = Two::new();
        let Opened { job: old, stores: mut old_stores, .. } = two.open("a");
        put(&mut old_stores[0], "k", b"before").unwrap();
        checkpoint(&old, &mut old_stores, "before").unwrap();

        let gate = Gate::closed();
        let held = gate.clone();
        two.store.rule(move |call| match call.is_manifest_put() {
            true => Fault::Hold(held.clone()),
            false => Fault::Pass,
        });
        put(&mut old_stores[0], "k", b"paused").unwrap();
        let pending = old.trigger("paused").unwrap();
        old_stores[0].cut(pending.id(), "paused").unwrap();
        eventually("the manifest is on its way", LONG, || gate.waiting() == 1);
        two.store.heal();

        let Opened { job: new, stores: mut new_stores, metadata, .. } =
            two.open_with("b", |options| options.retained(1));
        assert_eq!(metadata.as_deref(), Some(b"before".as_slice()));
        for n in 0..commits_in_between {
            put(&mut new_stores[0], "k", format!("new {n}").as_bytes()).unwrap();
            checkpoint(&new, &mut new_stores, &format!("new {n}")).unwrap();
        }
        let before = two.objects();

        gate.open();
        let error = pending.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        let handle = state(&mut old_stores[0]);
        assert_fenced(&old, &mut old_stores[0], handle);
        let after = two.objects();
        for (name, bytes) in &before {
            assert_eq!(after.get(name), Some(bytes), "{name} was touched by the late commit");
        }
        assert_eq!(
            after.keys().filter(|name| name.starts_with("manifest/")).count(),
            before.keys().filter(|name| name.starts_with("manifest/")).count(),
            "the late commit left a manifest"
        );

        checkpoint(&new, &mut new_stores, "last").unwrap();
        drop((new, new_stores, old, old_stores));
        let mut last = two.open("c");
        assert_eq!(last.metadata.as_deref(), Some(b"last".as_slice()));
        let expected = match commits_in_between {
            0 => "before".to_owned(),
            n => format!("new {}", n - 1),
        };
        assert_eq!(get(&mut last.stores[0], "k"), Some(expected.into_bytes()));
    }
}

/// The old attempt sleeps, within a long outage of its own, while the new one commits and collects so
/// much that no version of the old one's time is left but the open records.
#[test]
fn i2_an_attempt_that_slept_through_garbage_collection_is_fenced() {
    let two = Two::new();
    let Opened { job: old, stores: mut old_stores, .. } = two.open("a");
    for n in 0..3 {
        put(&mut old_stores[0], "k", format!("old {n}").as_bytes()).unwrap();
        checkpoint(&old, &mut old_stores, "old").unwrap();
    }
    put(&mut old_stores[0], "k", b"asleep").unwrap();
    let Opened { job: new, stores: mut new_stores, .. } = two.open_with("b", |options| options.retained(1));
    for n in 0..40 {
        put(&mut new_stores[0], "k", format!("new {n}").as_bytes()).unwrap();
        if n % 10 == 9 {
            materialize(&new);
        }
        checkpoint(&new, &mut new_stores, &format!("new {n}")).unwrap();
    }
    new.close().unwrap();
    drop(new_stores);

    let handle = state(&mut old_stores[0]);
    assert_eq!(checkpoint(&old, &mut old_stores, "old").unwrap_err().kind(), ErrorKind::Fenced);
    assert_fenced(&old, &mut old_stores[0], handle);
    let mut last = two.open("c");
    assert_eq!(last.metadata.as_deref(), Some(b"new 39".as_slice()));
    assert_eq!(get(&mut last.stores[0], "k"), Some(b"new 39".to_vec()));
}

/// A create that was given up on may be applied much later, when its version was collected long ago.
#[test]
fn i2_a_late_create_into_a_hole_changes_nothing() {
    let two = Two::new();
    let Opened { job, mut stores, .. } = two.open_with("a", |options| options.retained(1));
    put(&mut stores[0], "k", b"old").unwrap();
    let mut first = true;
    two.store.rule(move |call| match call.is_manifest_put() && std::mem::take(&mut first) {
        true => Fault::Late,
        false => Fault::Pass,
    });
    let report = checkpoint(&job, &mut stores, "old").unwrap();
    let hole = format!("manifest/{:020}", report.version);
    for n in 0..20 {
        put(&mut stores[0], "k", format!("{n}").as_bytes()).unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, &format!("{n}")).unwrap();
    }
    eventually("the old manifest is collected", LONG, || !two.objects().contains_key(&hole));
    assert_eq!(block_on(two.store.deliver()), 1, "the late create fills the hole");
    assert!(two.objects().contains_key(&hole));

    // Neither the running attempt nor the next one minds.
    put(&mut stores[0], "k", b"20").unwrap();
    checkpoint(&job, &mut stores, "20").unwrap();
    drop((job, stores));
    let Opened { job, mut stores, metadata, .. } = two.open_with("a", |options| options.retained(1));
    assert_eq!(metadata.as_deref(), Some(b"20".as_slice()));
    assert_eq!(get(&mut stores[0], "k"), Some(b"20".to_vec()));
    assert_eq!(job.checkpoints().len(), 1);
    checkpoint(&job, &mut stores, "21").unwrap();
    job.close().unwrap();
    drop(stores);
    assert!(!two.objects().contains_key(&hole), "the next attempt collects it");
}

/// A create that was given up on fills the very version that the next attempt wants.
#[test]
fn i2_a_late_create_before_the_next_open_counts_as_a_whole_or_not_at_all() {
    for deliver_first in [true, false] {
        let two = Two::new();
        let Opened { job: old, stores: mut old_stores, .. } =
            two.open_with("a", |options| options.checkpoint_timeout(Duration::from_millis(400)));
        put(&mut old_stores[0], "k", b"first").unwrap();
        checkpoint(&old, &mut old_stores, "first").unwrap();
        two.store.rule(|call| match call.is_manifest_put() {
            true => Fault::Late,
            false => Fault::Pass,
        });
        put(&mut old_stores[0], "k", b"late").unwrap();
        let error = checkpoint(&old, &mut old_stores, "late").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable), "{error}");
        old.health().unwrap();
        two.store.heal();
        drop((old, old_stores));

        if deliver_first {
            assert_eq!(block_on(two.store.deliver()), 1);
        }
        let mut new = two.open("b");
        if !deliver_first {
            assert_eq!(block_on(two.store.deliver()), 0, "the open record is in the way");
        }
        let expected = if deliver_first { "late" } else { "first" };
        assert_eq!(new.metadata.as_deref(), Some(expected.as_bytes()));
        assert_eq!(get(&mut new.stores[0], "k"), Some(expected.into()));
        checkpoint(&new.job, &mut new.stores, "next").unwrap();
    }
}

/// A commit that got no verdict, and turns out at the next one to have been applied, is one of the
/// job's checkpoints; its id is not given again.
#[test]
fn i2_a_commit_given_up_that_was_applied_is_adopted() {
    let two = Two::new();
    let Opened { job, mut stores, .. } =
        two.open_with("a", |options| options.checkpoint_timeout(Duration::from_millis(300)).retained(5));
    put(&mut stores[0], "k", b"1").unwrap();
    let first = checkpoint(&job, &mut stores, "1").unwrap();
    // Applied, but no answer arrives, and none to the questions that follow.
    two.store.rule(|call| match call.is_manifest_put() {
        true => Fault::Answer(Answer::Lost),
        false => Fault::Fail,
    });
    put(&mut stores[0], "k", b"2").unwrap();
    let pending = job.trigger("2").unwrap();
    let second = pending.id();
    stores[0].cut(second, "2").unwrap();
    pending.wait().unwrap_err();
    job.health().unwrap();
    two.store.heal();
    put(&mut stores[0], "k", b"3").unwrap();
    let third = checkpoint(&job, &mut stores, "3").unwrap();
    let ids: Vec<_> = job.checkpoints().iter().map(|summary| summary.id).collect();
    assert_eq!(ids, vec![first.id, second, third.id], "none lost, none twice");
    drop((job, stores));

    for (id, value) in [(first.id, "1"), (second, "2"), (third.id, "3")] {
        let mut opened = two.open_with("a", |options| {
            options.retained(5).restore_from(alluvium::RestoreFrom::Checkpoint(id))
        });
        assert_eq!(opened.restored.checkpoint, Some(id));
        assert_eq!(opened.metadata.as_deref(), Some(value.as_bytes()));
        assert_eq!(get(&mut opened.stores[0], "k"), Some(value.into()));
    }
}

/// Failures of every kind at random requests: each checkpoint that was reported is there, those that
/// were given up are there as a whole or not at all, and no id comes twice.
#[test]
fn i2_ambiguous_answers_neither_lose_nor_double_a_checkpoint() {
    for seed in 0..8 {
        let place = tempfile::tempdir().unwrap();
        let url = place.path().join("store");
        std::fs::create_dir(&url).unwrap();
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(&url).unwrap());
        let mut rng = StdRng::seed_from_u64(seed);
        let local = place.path().join("local");
        let options = || {
            JobOptions::new(&local, OpenMode::CreateOrOpen)
                .memory(16_000_000)
                .retained(100)
                .inline_limit(if seed % 2 == 0 { 0 } else { 100_000 })
                .checkpoint_timeout(Duration::from_secs(3))
                .materialization(by_hand())
        };
        let open = || Job::open((Arc::clone(&store) as Arc<dyn ObjectStore>, ""), options());
        let Opened { job, mut stores, .. } = open().unwrap();
        let mut fates = StdRng::seed_from_u64(seed);
        store.rule(move |call| match (fates.random_range(0..10), call.op) {
            (0, _) => Fault::Fail,
            (1 | 2, alluvium_testkit::faults::Op::Put) => Fault::Answer(Answer::Lost),
            (3, alluvium_testkit::faults::Op::Put) if call.create => Fault::Conflict,
            _ => Fault::Pass,
        });
        let mut reported = Vec::new();
        let mut triggered = Vec::new();
        for n in 0..20 {
            put(&mut stores[0], "n", n.to_string().as_bytes()).unwrap();
            put(&mut stores[0], &format!("key {n}"), &noise(n, 100)).unwrap();
            if rng.random_ratio(1, 5) {
                job.materialize();
            }
            let pending = job.trigger(n.to_string()).unwrap();
            triggered.push((pending.id(), n));
            stores[0].cut(pending.id(), n.to_string()).unwrap();
            let id = pending.id();
            match pending.wait() {
                Ok(report) => reported.push((report.id, n)),
                Err(error) => {
                    let passing = matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable);
                    assert!(passing, "seed {seed}, checkpoint {id}: {error}");
                }
            }
            job.health().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        store.heal();
        put(&mut stores[0], "n", b"last").unwrap();
        checkpoint(&job, &mut stores, "last").unwrap();
        assert!(reported.len() >= 10, "seed {seed}: only {} of 20 came through", reported.len());
        drop((job, stores));

        let seen = alluvium::admin::inspect(url.to_str().unwrap()).unwrap();
        assert_eq!(seen.missing, Vec::<String>::new(), "seed {seed}");
        let ids: Vec<_> =
            seen.records.iter().filter_map(|record| Some(record.checkpoint.as_ref()?.id)).collect();
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            ids.len(),
            "seed {seed}: an id twice in {ids:?}"
        );
        for (id, _) in &reported {
            assert!(ids.contains(id), "seed {seed}: {id} was reported and is lost");
        }
        let sample = [ids[rng.random_range(0..ids.len())], ids[rng.random_range(0..ids.len())]];
        for id in sample {
            let from = alluvium::RestoreFrom::Checkpoint(id);
            let mut opened =
                Job::open((Arc::clone(&store) as Arc<dyn ObjectStore>, ""), options().restore_from(from))
                    .unwrap();
            let Some((_, n)) = triggered.iter().find(|(triggered, _)| *triggered == id) else { continue };
            assert_eq!(
                get(&mut opened.stores[0], "n"),
                Some(n.to_string().into_bytes()),
                "seed {seed}, {id}"
            );
            assert_eq!(contents(&mut opened.stores, "words").len() as u64, n + 2, "seed {seed}, {id}");
        }
    }
}

#[test]
fn i2_sixteen_racing_opens_get_distinct_epochs_and_one_of_them_commits() {
    for round in 0..3 {
        let two = Two::new();
        if round > 0 {
            let mut before = two.open("before");
            put(&mut before.stores[0], "k", b"v").unwrap();
            checkpoint(&before.job, &mut before.stores, "before").unwrap();
        }
        let results: Mutex<Vec<Result<Opened, Error>>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..16 {
                let (two, results) = (&two, &results);
                scope.spawn(move || {
                    let dir = two.dir.path().join(format!("racer {n}"));
                    let opened = open(&two.store, quiet(&dir, OpenMode::CreateOrOpen));
                    results.lock().unwrap().push(opened);
                });
            }
        });
        let mut opened = Vec::new();
        for result in results.into_inner().unwrap() {
            match result {
                Ok(one) => opened.push(one),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Fenced | ErrorKind::StoreUnavailable),
                    "{error}"
                ),
            }
        }
        opened.sort_by_key(|one| one.job.epoch());
        assert!(!opened.is_empty(), "nobody got in");
        let epochs: BTreeSet<_> = opened.iter().map(|one| one.job.epoch()).collect();
        assert_eq!(epochs.len(), opened.len(), "an epoch was given twice");
        for one in &mut opened {
            let expected = (round > 0).then(|| b"v".to_vec());
            assert_eq!(get(&mut one.stores[0], "k"), expected, "what a racer restored");
        }
        // The oldest tries first: whoever comes, only the newest may commit.
        let newest = opened.len() - 1;
        for (at, one) in opened.iter_mut().enumerate() {
            put(&mut one.stores[0], "racer", at.to_string().as_bytes()).unwrap();
            let result = checkpoint(&one.job, &mut one.stores, "race");
            match result {
                Ok(_) => assert_eq!(at, newest, "an attempt that was taken over has committed"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                    // A later opener may have got its record in and failed in what followed.
                }
            }
        }
        drop(opened);
        let mut last = two.open("last");
        if last.metadata.as_deref() == Some(b"race".as_slice()) {
            assert_eq!(get(&mut last.stores[0], "racer"), Some(newest.to_string().into_bytes()));
        }
    }
}

/// Two that fight for hours: every attempt opens while the one before is in the middle of a commit.
#[test]
fn i2_a_relay_of_attempts_loses_no_reported_checkpoint() {
    let two = Two::new();
    let mut reported = 0_u64;
    let mut attempts = Vec::new();
    for round in 0..12_u64 {
        let mut opened = two.open(&format!("{round}"));
        let found = get(&mut opened.stores[0], "count")
            .map_or(0, |bytes| String::from_utf8(bytes).unwrap().parse::<u64>().unwrap());
        assert!(found >= reported, "round {round}: {found} was restored after {reported} had been reported");
        // What was in flight at the take-over may count as well, but nothing beyond it.
        assert!(found <= reported + 1, "round {round}: {found}, though only {reported} had been reported");
        reported = found;
        for _ in 0..3 {
            put(&mut opened.stores[0], "count", (reported + 1).to_string().as_bytes()).unwrap();
            checkpoint(&opened.job, &mut opened.stores, "").unwrap();
            reported += 1;
        }
        // One more is under way when the next attempt opens.
        two.store.rule(move |call| match call.is_manifest_put() && round % 2 == 0 {
            true => Fault::Delay(Duration::from_millis(20 * (round % 5))),
            false => Fault::Pass,
        });
        put(&mut opened.stores[0], "count", (reported + 1).to_string().as_bytes()).unwrap();
        let pending = opened.job.trigger("").unwrap();
        opened.stores[0].cut(pending.id(), "").unwrap();
        if round % 3 == 0 && pending.wait().is_ok() {
            reported += 1;
        }
        attempts.push(opened);
    }
    for opened in &mut attempts[..11] {
        let result = opened.job.trigger("").and_then(|pending| {
            opened.stores[0].cut(pending.id(), "")?;
            pending.wait()
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
    }
    let names = names_of(&(Arc::clone(&two.store) as Arc<dyn ObjectStore>), PREFIX);
    assert!(names.iter().all(|name| !name.starts_with("probe/")), "a probe was left: {names:?}");
}
