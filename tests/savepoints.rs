//! Savepoints: they outlive any number of checkpoints and attempts, restore to exactly the state at their
//! cut, and go when they are released.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alluvium::admin::{Savepoints, inspect};
use alluvium::{
    CheckpointMode, CheckpointReader, CheckpointReport, Error, ErrorKind, Job, JobOptions, KeyGroup,
    OpenMode, Opened, ReaderOptions, RestoreFrom, StateStore,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::drive::{by_hand, checkpoint, contents, materialize, noise, put_any};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{Fault, FaultStore, Gate, Op};
use alluvium_testkit::objects::{files_below, write_files};

type Contents = BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>;

/// A job of two subtasks on a disk, with a store that obeys.
struct Place {
    dir: tempfile::TempDir,
    store: Arc<FaultStore>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(dir.path().join("store")).unwrap());
        Self { dir, store }
    }

    fn objects(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn url(&self) -> String {
        self.objects().to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        files_below(&self.objects()).into_keys().collect()
    }

    fn options(&self) -> JobOptions {
        self.options_in("local")
    }

    fn options_in(&self, dir: &str) -> JobOptions {
        JobOptions::new(self.dir.path().join(dir), OpenMode::CreateOrOpen)
            .subtasks(2)
            .memory(16_000_000)
            .retained(1)
            .inline_limit(2_000)
            .materialization(by_hand())
    }

    fn try_open(&self, options: JobOptions) -> Result<Opened, Error> {
        Job::open((Arc::clone(&self.store) as Arc<dyn ObjectStore>, ""), options)
    }

    fn open(&self, options: JobOptions) -> Opened {
        self.try_open(options).unwrap()
    }

    fn savepoints(&self) -> Savepoints {
        Savepoints::open(self.url()).unwrap()
    }

    /// What a copy of the job has when it is opened at a savepoint, so that the job itself goes on.
    fn restored(&self, name: &str) -> Contents {
        let copied = tempfile::tempdir().unwrap();
        write_files(&copied.path().join("store"), &files_below(&self.objects()));
        let options = JobOptions::new(copied.path().join("local"), OpenMode::Existing)
            .subtasks(2)
            .memory(16_000_000)
            .restore_from(from(name));
        let mut opened = Job::open(copied.path().join("store").to_str().unwrap(), options).unwrap();
        contents(&mut opened.stores, "words")
    }

    /// What a reader from outside sees of a savepoint.
    fn read(&self, name: &str) -> Contents {
        let reader = CheckpointReader::open(self.url(), &from(name), self.reader_options()).unwrap();
        let scan = reader.scan("words", b"").unwrap();
        let found = scan.map(|entry| entry.map(|(group, key, value)| ((group, key), value)));
        let found = found.collect::<Result<_, _>>().unwrap();
        reader.close().unwrap();
        found
    }

    fn reader_options(&self) -> ReaderOptions {
        ReaderOptions::new().dir(self.dir.path().join("reader"))
    }

    /// Objects of a job that was closed in order: open records, what the retained checkpoint reaches,
    /// and nothing else.
    fn assert_nothing_but_live(&self) {
        let seen = inspect(self.url()).unwrap();
        assert_eq!(seen.missing, Vec::<String>::new());
        // Each name that was ever released is remembered by one object.
        let released = self.names().iter().filter(|name| name.starts_with("savepoint/")).count() as u64;
        let garbage = seen.total_objects - seen.live_objects - seen.epochs.len() as u64 - released;
        assert_eq!(garbage, 0, "{:#?}", self.names());
        assert_eq!(seen.savepoints.len(), 0);
    }
}

fn from(name: &str) -> RestoreFrom {
    RestoreFrom::Savepoint(name.to_owned())
}

fn savepoint(job: &Job, stores: &mut [StateStore], name: &str) -> Result<CheckpointReport, Error> {
    let pending = job.savepoint(name, format!("metadata of {name}"))?;
    for store in stores {
        store.cut(pending.id(), format!("offset at {name}"))?;
    }
    pending.wait()
}

fn churn(rng: &mut StdRng, stores: &mut [StateStore], changes: usize) {
    for _ in 0..changes {
        let key = format!("key {}", rng.random_range(0..200));
        let value = noise(rng.random(), rng.random_range(0..300));
        put_any(stores, &key, &value);
    }
}

#[test]
fn i3_gc_never_touches_a_savepoint_until_it_is_released() {
    for seed in 0..2 {
        println!("seed {seed}");
        let place = Place::new();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut expected = BTreeMap::new();
        for attempt in 0..4 {
            let mode = if rng.random_bool(0.3) {
                CheckpointMode::NativeIncremental
            } else {
                CheckpointMode::Changelog
            };
            let Opened { job, mut stores, .. } = place.open(place.options().mode(mode).delta_bytes(8_192));
            for n in 0..24 {
                churn(&mut rng, &mut stores, 40);
                match rng.random_range(0..8) {
                    0 | 1 => job.materialize(),
                    2 => job.compact().unwrap(),
                    _ => {}
                }
                if n % 9 == 4 {
                    let name = format!("s{attempt}.{n}");
                    savepoint(&job, &mut stores, &name).unwrap();
                    expected.insert(name, contents(&mut stores, "words"));
                } else {
                    checkpoint(&job, &mut stores, "").unwrap();
                }
            }
            job.close().unwrap();
            // One in between goes; all others stay.
            let (gone, _) = expected.pop_first().unwrap();
            place.savepoints().release(&gone).unwrap();
            let listed = place.savepoints().list().unwrap();
            assert!(listed.iter().map(|one| &one.name).eq(expected.keys()), "{listed:?}");
            assert!(listed.iter().all(|one| one.full_bytes > Some(0)), "{listed:?}");
            for (name, state) in &expected {
                assert!(place.read(name) == *state, "{name} as a reader sees it");
            }
        }
        for (name, state) in &expected {
            assert!(place.restored(name) == *state, "{name} restored");
            place.savepoints().release(name).unwrap();
        }
        let Opened { job, mut stores, .. } = place.open(place.options());
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(30)).unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        job.close().unwrap();
        place.assert_nothing_but_live();
    }
}

/// In one and the same attempt, also for objects of earlier ones.
#[test]
fn a_release_lets_go_at_the_next_collection() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().inline_limit(0));
    put_any(&mut stores, "a", &noise(1, 5_000));
    savepoint(&job, &mut stores, "old").unwrap();
    job.close().unwrap();
    drop(stores);
    let of_first = |names: Vec<String>| {
        names.into_iter().filter(|name| name.contains("data/00000000000000000001/")).count()
    };
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"new");
    materialize(&job);
    // A sweep sees the savepoint.
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("the first sweep", Duration::from_secs(20), || {
        place.store.calls().iter().filter(|call| call.op == Op::List && call.path == "data").count() >= 2
    });
    assert!(of_first(place.names()) > 0, "{:?}", place.names());
    place.savepoints().release("old").unwrap();
    // The next collection comes with a checkpoint some seconds later.
    eventually("what the savepoint kept is gone", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        checkpoint(&job, &mut stores, "").unwrap();
        of_first(place.names()) == 0
    });
    job.close().unwrap();
    place.assert_nothing_but_live();
}

#[test]
fn i1_a_job_goes_back_to_a_savepoint_and_on_from_it() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(7);
    let Opened { job, mut stores, .. } = place.open(place.options());
    churn(&mut rng, &mut stores, 300);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    churn(&mut rng, &mut stores, 100);
    let report = savepoint(&job, &mut stores, "v1").unwrap();
    let at_v1 = contents(&mut stores, "words");
    for _ in 0..20 {
        churn(&mut rng, &mut stores, 50);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    drop((job, stores));

    let Opened { job, mut stores, restored, metadata, .. } =
        place.open(place.options().restore_from(from("v1")));
    assert_eq!(restored.checkpoint, Some(report.id));
    assert_eq!(metadata.as_deref(), Some(b"metadata of v1".as_slice()));
    assert_eq!(stores[0].restored_metadata(), Some(b"offset at v1".as_slice()));
    assert!(contents(&mut stores, "words") == at_v1);
    churn(&mut rng, &mut stores, 20);
    // Until this is committed, the retained checkpoint is the one from before.
    let next = checkpoint(&job, &mut stores, "").unwrap();
    let state = contents(&mut stores, "words");
    assert_eq!(job.checkpoints().iter().map(|one| one.id).collect::<Vec<_>>(), [next.id]);
    drop((job, stores));
    let Opened { mut stores, restored, .. } = place.open(place.options());
    assert_eq!(restored.checkpoint, Some(next.id));
    assert!(contents(&mut stores, "words") == state);
    assert!(place.read("v1") == at_v1, "the savepoint is still what it was");
}

#[test]
fn i3_a_savepoint_may_be_released_while_an_attempt_goes_on_from_it() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(8);
    let Opened { job, mut stores, .. } = place.open(place.options().inline_limit(0));
    churn(&mut rng, &mut stores, 200);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    churn(&mut rng, &mut stores, 100);
    savepoint(&job, &mut stores, "v1").unwrap();
    let at_v1 = contents(&mut stores, "words");
    for _ in 0..5 {
        churn(&mut rng, &mut stores, 200);
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    let late = (job, stores);

    // As on another machine: the earlier attempt is still there.
    let elsewhere = place.options_in("elsewhere").restore_from(from("v1"));
    let Opened { job, mut stores, .. } = place.open(elsewhere);
    place.savepoints().release("v1").unwrap();
    // The fenced attempt still collects what it dropped.
    late.0.close().unwrap();
    drop(late.1);
    let pins = || place.names().iter().filter(|name| name.starts_with("pin/")).count();
    assert_eq!(pins(), 1);
    put_any(&mut stores, "new", b"x");
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("the pin goes with the first commit", Duration::from_secs(20), || pins() == 0);
    let state = contents(&mut stores, "words");
    job.close().unwrap();
    drop(stores);
    assert_eq!(state.len(), at_v1.len() + 1);
    let Opened { job, mut stores, .. } = place.open(place.options());
    assert!(contents(&mut stores, "words") == state);
    checkpoint(&job, &mut stores, "").unwrap();
    job.settle(Duration::from_secs(30)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    place.assert_nothing_but_live();
}

/// One deployment takes over from another by a savepoint, which is released as soon as the new one has committed. The
/// old one does not know yet that it is fenced.
fn switch(mode: CheckpointMode, inline_limit: u64, in_flight: bool) {
    println!("{mode:?}, inline {inline_limit}, {}", if in_flight { "in flight" } else { "close" });
    let place = Place::new();
    let options = |dir| place.options_in(dir).mode(mode).inline_limit(inline_limit);
    let sleepy = FaultStore::around(Arc::clone(&place.store) as Arc<dyn ObjectStore>);
    let mut old = Job::open((Arc::clone(&sleepy) as Arc<dyn ObjectStore>, ""), options("blue")).unwrap();
    put_any(&mut old.stores, "a", &noise(1, 900));
    savepoint(&old.job, &mut old.stores, "switch").unwrap();
    let at_savepoint = contents(&mut old.stores, "words");
    old.job.settle(Duration::from_secs(30)).unwrap();
    let gate = Gate::closed();
    if in_flight {
        let held = gate.clone();
        sleepy.rule(move |call| match call.op {
            Op::List if call.path == "pin" => Fault::Hold(held.clone()),
            _ => Fault::Pass,
        });
    }
    for n in 0..20_u64 {
        put_any(&mut old.stores, "b", &noise(n, 900));
        if n == 10 {
            materialize(&old.job);
        }
        checkpoint(&old.job, &mut old.stores, "").unwrap();
    }
    if in_flight {
        eventually("a collection begins", Duration::from_secs(20), || gate.waiting() == 1);
    }

    let new = options("green").restore_from(from("switch"));
    let Opened { job, mut stores, .. } = place.open(new);
    put_any(&mut stores, "c", b"new");
    let committed = checkpoint(&job, &mut stores, "").unwrap();
    let state = contents(&mut stores, "words");
    assert_eq!(state.len(), at_savepoint.len() + 1);
    let pins = || std::fs::read_dir(place.objects().join("pin")).map_or(0, Iterator::count);
    eventually("the pin goes with the first commit", Duration::from_secs(20), || pins() == 0);
    place.savepoints().release("switch").unwrap();
    if in_flight {
        gate.open();
        eventually("the old one finds out", Duration::from_secs(20), || {
            old.job.health().is_err_and(|error| error.kind() == ErrorKind::Fenced)
        });
    } else {
        old.job.close().unwrap();
    }
    drop((old.stores, job, stores));
    assert_eq!(inspect(place.url()).unwrap().missing, Vec::<String>::new());
    let Opened { mut stores, restored, .. } = place.open(options("green"));
    assert_eq!(restored.checkpoint, Some(committed.id));
    assert!(contents(&mut stores, "words") == state);
}

#[test]
fn i3_what_a_fenced_attempt_collects_is_not_what_a_later_one_has_gone_back_to() {
    for (mode, inline_limit) in [
        (CheckpointMode::Changelog, 2_000),
        (CheckpointMode::Changelog, 0),
        (CheckpointMode::NativeIncremental, 2_000),
    ] {
        for in_flight in [false, true] {
            switch(mode, inline_limit, in_flight);
        }
    }
}

/// A release whose first request is still on its way when the name is given anew.
#[test]
fn i3_a_late_delete_does_not_hit_a_newer_savepoint_of_the_same_name() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"1");
    savepoint(&job, &mut stores, "daily").unwrap();
    let outside = FaultStore::around(Arc::clone(&place.store) as Arc<dyn ObjectStore>);
    let savepoints = Savepoints::open((Arc::clone(&outside) as Arc<dyn ObjectStore>, "")).unwrap();
    savepoints.release("daily").unwrap();
    put_any(&mut stores, "a", b"2");
    savepoint(&job, &mut stores, "daily").unwrap();
    let at_savepoint = contents(&mut stores, "words");
    // Every delete of the release once more.
    let deletes = outside.calls().into_iter().filter(|call| call.op == Op::Delete);
    let deletes: Vec<_> = deletes.map(|call| call.path).collect();
    assert!(!deletes.is_empty());
    for path in deletes {
        let _ = std::fs::remove_file(place.objects().join(path));
    }
    for n in 0..3 {
        put_any(&mut stores, "a", &noise(n, 900));
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.close().unwrap();
    assert_eq!(place.savepoints().list().unwrap().len(), 1);
    assert!(place.read("daily") == at_savepoint);
}

/// As the first version of this crate made them: the object of the name alone, which a release deletes.
#[test]
fn savepoints_of_the_first_version_are_read_and_released() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"1");
    savepoint(&job, &mut stores, "first").unwrap();
    assert!(place.names().contains(&"savepoint/first".to_owned()), "{:?}", place.names());
    place.savepoints().release("first").unwrap();
    assert!(!place.names().contains(&"savepoint/first".to_owned()), "{:?}", place.names());
    assert_eq!(place.savepoints().release("first").unwrap_err().kind(), ErrorKind::NotFound);
    for _ in 0..2 {
        savepoint(&job, &mut stores, "first").unwrap();
        place.savepoints().release("first").unwrap();
    }
    let names: Vec<_> = place.names().into_iter().filter(|name| name.starts_with("savepoint/")).collect();
    assert_eq!(names, ["savepoint/first!0000000005"], "one object says that the name was released");
}

/// However slowly a savepoint comes into being, and however many checkpoints follow meanwhile.
#[test]
fn i3_checkpoints_go_on_while_a_savepoint_is_made() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"1");
    let gate = Gate::closed();
    let held = gate.clone();
    place.store.rule(move |call| match call.op {
        Op::Put if call.path.starts_with("savepoint/") => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let pending = job.savepoint("slow", "").unwrap();
    stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
    let at_cut = contents(&mut stores, "words");
    eventually("it is being made", Duration::from_secs(20), || gate.waiting() == 1);
    for n in 0..6_u64 {
        put_any(&mut stores, "a", &noise(n, 4_000));
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    assert!(job.checkpoints().len() > 1, "what it names is retained meanwhile");
    gate.open();
    pending.wait().unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    assert_eq!(job.checkpoints().len(), 1, "and no longer");
    job.close().unwrap();
    assert!(place.read("slow") == at_cut);
}

/// The attempt that makes it may be fenced before the savepoint is there, and what it names be dropped. Then it is not
/// made, and nothing stays behind.
#[test]
fn i3_a_savepoint_that_a_fenced_attempt_has_yet_to_create_is_not_made() {
    let place = Place::new();
    let mut fenced = place.open(place.options());
    put_any(&mut fenced.stores, "a", b"1");
    let gate = Gate::closed();
    let held = gate.clone();
    place.store.rule(move |call| match call.op {
        Op::Put if call.path.starts_with("savepoint/") => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let pending = fenced.job.savepoint("slow", "").unwrap();
    fenced.stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
    eventually("it is being made", Duration::from_secs(20), || gate.waiting() == 1);
    // The later attempt's own requests pass.
    place.store.heal();
    let Opened { job, mut stores, .. } = place.open(place.options_in("elsewhere"));
    for n in 0..3_u64 {
        put_any(&mut stores, "a", &noise(n, 4_000));
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.close().unwrap();
    gate.open();
    assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(place.savepoints().list().unwrap(), []);
    assert!(!place.names().iter().any(|name| name.starts_with("pin/")), "{:?}", place.names());
}

#[test]
fn a_name_is_given_once() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().retained(2));
    for wrong in ["", "a/b", "..", "-x", &"x".repeat(101), "é"] {
        let error = job.savepoint(wrong, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(place.savepoints().create(wrong, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    put_any(&mut stores, "a", b"1");
    let first = savepoint(&job, &mut stores, "twice").unwrap();
    put_any(&mut stores, "a", b"2");
    let error = savepoint(&job, &mut stores, "twice").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&first.id.to_string()), "{error}");
    assert_eq!(job.checkpoints().len(), 2, "the checkpoint itself is durable");
    let error = place.savepoints().create("twice", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(place.read("twice").into_values().collect::<Vec<_>>(), [b"1"]);
    place.savepoints().release("twice").unwrap();
    place.savepoints().create("twice", None).unwrap();
    assert_eq!(place.read("twice").into_values().collect::<Vec<_>>(), [b"2"]);
    assert!(!place.names().iter().any(|name| name.starts_with("pin/")), "{:?}", place.names());
}

#[test]
fn a_savepoint_from_outside_does_not_fence_the_job() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().retained(3));
    let mut ids = Vec::new();
    for n in 0..3 {
        put_any(&mut stores, "a", format!("{n}").as_bytes());
        ids.push(checkpoint(&job, &mut stores, "").unwrap().id);
    }
    let savepoints = place.savepoints();
    assert_eq!(savepoints.create("oldest", Some(ids[0])).unwrap().checkpoint, ids[0]);
    assert_eq!(savepoints.create("newest", None).unwrap().checkpoint, ids[2]);
    for _ in 0..3 {
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.health().unwrap();
    assert_eq!(inspect(place.url()).unwrap().epochs.len(), 1);
    let error = savepoints.create("late", Some(ids[1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of ["), "{error}");
    assert_eq!(place.read("oldest").into_values().collect::<Vec<_>>(), [b"0"]);
    assert_eq!(place.read("newest").into_values().collect::<Vec<_>>(), [b"2"]);
}

#[test]
fn an_unknown_savepoint_names_those_that_there_are_and_touches_nothing() {
    let place = Place::new();
    let options = || place.options_in("elsewhere");
    let open = |name: &str| place.try_open(options().restore_from(from(name))).unwrap_err();
    let error = open("x");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(place.names(), Vec::<String>::new(), "no job was created");
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(open("x").to_string().contains("the job has no savepoints"), "{}", open("x"));
    for name in ["b", "a"] {
        place.savepoints().create(name, None).unwrap();
    }
    let before = place.names();
    drop((job, stores));
    let error = open("c");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of [a, b]"), "{error}");
    assert_eq!(open("../c").kind(), ErrorKind::InvalidArgument);
    assert_eq!(place.names(), before, "no attempt began");
    let error = place.savepoints().release("c").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("[a, b]"), "{error}");
    let nowhere = Savepoints::open(place.dir.path().join("no").to_str().unwrap());
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
    // A directory without a job has no savepoints because it is the wrong one.
    let empty = tempfile::tempdir().unwrap();
    let error = Savepoints::open(empty.path().to_str().unwrap()).unwrap().list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// Six switches of the mode, with a savepoint before each; each attempt goes on from the savepoint.
#[test]
fn i1_modes_switch_any_number_of_times_and_old_savepoints_of_both_stay_readable() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(11);
    let mut expected = BTreeMap::new();
    let mut last: Option<String> = None;
    for n in 0..7 {
        let mode = [CheckpointMode::Changelog, CheckpointMode::NativeIncremental][usize::from(n % 2 == 1)];
        let options = place.options().mode(mode);
        let options = match &last {
            Some(name) => options.restore_from(from(name)),
            None => options,
        };
        let Opened { job, mut stores, .. } = place.open(options);
        if let Some(name) = &last {
            assert!(contents(&mut stores, "words") == expected[name], "{name} opened in the other mode");
        }
        for _ in 0..4 {
            churn(&mut rng, &mut stores, 60);
            if rng.random_bool(0.5) {
                materialize(&job);
            }
            checkpoint(&job, &mut stores, "").unwrap();
        }
        let name = format!("switch-{n}");
        savepoint(&job, &mut stores, &name).unwrap();
        expected.insert(name.clone(), contents(&mut stores, "words"));
        last = Some(name);
        // Lost again: the next attempt goes on from the savepoint.
        churn(&mut rng, &mut stores, 60);
        checkpoint(&job, &mut stores, "").unwrap();
        job.close().unwrap();
    }
    for (n, (name, state)) in expected.iter().enumerate() {
        assert!(place.read(name) == *state, "{name}");
        let reader = CheckpointReader::open(place.url(), &from(name), place.reader_options()).unwrap();
        let native = reader.mode() == CheckpointMode::NativeIncremental;
        assert_eq!(native, n % 2 == 1, "{name}");
        reader.close().unwrap();
    }
}

/// Readers, savepoints, releases, and a job that retains few checkpoints, all at once.
#[test]
fn i3_readers_and_releases_race_a_job_that_collects() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().retained(3));
    put_any(&mut stores, "n", b"0");
    put_any(&mut stores, "again", b"0");
    checkpoint(&job, &mut stores, "").unwrap();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let reader =
                    CheckpointReader::open(place.url(), &RestoreFrom::Latest, place.reader_options())
                        .unwrap();
                // Both keys change together: a reader sees one checkpoint or another, nothing between.
                let (one, two) = (reader.get("words", b"n").unwrap(), reader.get("words", b"again").unwrap());
                assert!(one.is_some() && one == two, "{one:?} {two:?}");
                reader.close().unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let saver = scope.spawn(|| {
            let savepoints = place.savepoints();
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("s{}", n % 3);
                match savepoints.create(&name, None) {
                    Ok(_) => {
                        let reader =
                            CheckpointReader::open(place.url(), &from(&name), place.reader_options())
                                .unwrap();
                        savepoints.release(&name).unwrap();
                        let one = reader.get("words", b"n").unwrap();
                        assert!(one.is_some() && one == reader.get("words", b"again").unwrap());
                        reader.close().unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut n = 0;
        while n < 120 || reads.load(Ordering::Relaxed) < 5 {
            n += 1;
            let value = noise(n, 800);
            put_any(&mut stores, "n", &value);
            put_any(&mut stores, "again", &value);
            if n % 5 == 0 {
                job.materialize();
            }
            checkpoint(&job, &mut stores, "").unwrap();
            // Pinning takes five requests; on a busy machine checkpoints would come faster.
            std::thread::sleep(Duration::from_millis(30));
            if saver.is_finished() || reader.is_finished() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        saver.join().unwrap();
        reader.join().unwrap();
    });
    job.settle(Duration::from_secs(30)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    place.assert_nothing_but_live();
}
