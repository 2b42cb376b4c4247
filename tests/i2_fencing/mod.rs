//! I2: after a later epoch opened, no earlier one commits, however long it was paused; and an answer
//! that says nothing (a broken connection, a 409, a timeout) neither loses a checkpoint nor makes two.
#![allow(clippy::unwrap_used)]

mod creates;
mod races;

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
