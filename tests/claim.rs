//! A new job starts from another one's checkpoint: it gets exactly that state, leaves the other alone, and
//! needs nothing of it once it has a checkpoint of its own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluvium::admin::Savepoints;
use alluvium::{
    CheckpointId, CheckpointListener, CheckpointMode, Error, ErrorKind, Job, JobOptions, KeyGroup,
    MaxParallelism, OpenMode, Opened, RestoreFrom, SourceJob,
};
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use alluvium_testkit::drive::{by_hand, checkpoint, contents, materialize, noise, put_any};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{Call, Fault, FaultStore, Gate, Op, block_on};
use alluvium_testkit::objects::{names_of, objects_of};

const MODES: [CheckpointMode; 2] = [CheckpointMode::Changelog, CheckpointMode::NativeIncremental];

type Contents = BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>;

/// Two stores, the first of which holds a job at `a`.
struct World {
    dir: tempfile::TempDir,
    store: Arc<FaultStore>,
    other: Arc<FaultStore>,
    opened: Option<Opened>,
    expected: Contents,
    id: CheckpointId,
}

fn dynamic(store: &Arc<FaultStore>) -> Arc<dyn ObjectStore> {
    Arc::clone(store) as Arc<dyn ObjectStore>
}

fn options(dir: &Path, name: &str) -> JobOptions {
    JobOptions::new(dir.join(name), OpenMode::CreateOrOpen)
        .subtasks(2)
        .memory(16_000_000)
        .retained(1)
        .inline_limit(2_000)
        .materialization(by_hand())
}

impl World {
    /// Base, delta objects and inlined deltas, over several attempts in both modes.
    fn new(mode: CheckpointMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FaultStore::new(InMemory::new());
        let open = |mode| {
            let options =
                options(dir.path(), "a").mode(mode).max_parallelism(MaxParallelism::new(64).unwrap());
            Job::open((dynamic(&store), "a"), options).unwrap()
        };
        let Opened { job, mut stores, .. } = open(CheckpointMode::Changelog);
        for n in 0..300_u64 {
            put_any(&mut stores, &format!("key {n}"), &noise(n, 100));
        }
        checkpoint(&job, &mut stores, "").unwrap();
        materialize(&job);
        for n in 0..100_u64 {
            put_any(&mut stores, &format!("key {}", n * 3), &noise(n + 1000, 100));
        }
        checkpoint(&job, &mut stores, "").unwrap();
        drop((job, stores));
        let mut opened = open(mode);
        put_any(&mut opened.stores, "last", b"of all");
        let id = checkpoint(&opened.job, &mut opened.stores, "of the source").unwrap().id;
        // What it deletes is gone before anyone compares what is there.
        opened.job.settle(Duration::from_secs(30)).unwrap();
        let expected = contents(&mut opened.stores, "words");
        Self { dir, other: FaultStore::new(InMemory::new()), store, opened: Some(opened), expected, id }
    }

    fn source(&self, from: RestoreFrom) -> SourceJob {
        SourceJob::new((dynamic(&self.store), "a"), from)
    }

    fn options(&self) -> JobOptions {
        options(self.dir.path(), "b").start_from(self.source(RestoreFrom::Latest))
    }

    fn try_start(&self, store: &Arc<FaultStore>, options: JobOptions) -> Result<Opened, Error> {
        Job::open((dynamic(store), "b"), options)
    }

    fn start(&self, store: &Arc<FaultStore>, options: JobOptions) -> Opened {
        self.try_start(store, options).unwrap()
    }

    fn pins(&self) -> usize {
        names_of(&dynamic(&self.store), "a").iter().filter(|name| name.starts_with("pin/")).count()
    }

    fn objects(&self) -> BTreeMap<String, Bytes> {
        objects_of(&dynamic(&self.store), "a")
    }

    fn delete_source(&mut self) {
        if let Some(opened) = self.opened.take() {
            drop(opened);
        }
        for name in names_of(&dynamic(&self.store), "a") {
            let store = dynamic(&self.store);
            block_on(async move {
                store.delete(&object_store::path::Path::from(format!("a/{name}"))).await.unwrap();
            });
        }
        assert!(self.objects().is_empty());
    }

    /// Everything that is in the job at `b` belongs to it, as seen by an attempt that finds nothing else.
    fn assert_independent(&self, store: &Arc<FaultStore>, expected: &Contents) {
        let Opened { mut stores, .. } = self.start(store, options(self.dir.path(), "elsewhere"));
        assert!(contents(&mut stores, "words") == *expected);
    }
}

/// What was found on the local disk was not read from the store, so it is not copied from there: that object
/// may be damaged.
#[test]
fn i4_a_new_job_does_not_copy_what_it_has_not_read() {
    let world = World::new(CheckpointMode::Changelog);
    // An attempt that ended before it had a checkpoint of its own leaves its files.
    drop(world.start(&world.store, world.options()));
    for (name, bytes) in world.objects().into_iter().filter(|(name, _)| name.ends_with(".sst")) {
        let mut damaged = bytes.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let (store, path) = (dynamic(&world.store), object_store::path::Path::from(format!("a/{name}")));
        block_on(async move { store.put(&path, damaged.into()).await.unwrap() });
    }
    let Opened { job, mut stores, restored, .. } = world.start(&world.store, world.options());
    assert!(restored.bytes_reused > 0, "nothing was found on the local disk: {restored:?}");
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("the new job needs nothing of the other one", Duration::from_secs(30), || {
        checkpoint(&job, &mut stores, "").unwrap();
        job.is_independent()
    });
    drop((job, stores));
    world.assert_independent(&world.store, &world.expected);
}

#[test]
fn i1_a_new_job_has_the_other_ones_state_and_lives_when_that_is_deleted() {
    for source_mode in MODES {
        for mode in MODES {
            for same_store in [true, false] {
                println!("from {source_mode:?} to {mode:?}, same store: {same_store}");
                let mut world = World::new(source_mode);
                let store = Arc::clone(if same_store { &world.store } else { &world.other });
                let before = world.objects();
                let Opened { job, mut stores, restored, metadata, .. } =
                    world.start(&store, world.options().mode(mode));
                assert_eq!(restored.checkpoint, Some(world.id));
                assert_eq!(metadata.as_deref(), Some(b"of the source".as_slice()));
                assert_eq!(stores[1].restored_metadata(), Some(b"of the source/1".as_slice()));
                assert_eq!(stores[0].max_parallelism().get(), 64);
                assert!(contents(&mut stores, "words") == world.expected);
                assert!(!job.is_independent());
                assert_eq!(world.pins(), 1);

                put_any(&mut stores, "new", b"of the new job");
                checkpoint(&job, &mut stores, "").unwrap();
                assert!(job.is_independent());
                let expected = contents(&mut stores, "words");
                assert_eq!(expected.len(), world.expected.len() + 1);
                eventually("the source is let go", Duration::from_secs(20), || world.pins() == 0);
                // But for what it collects itself.
                let untouched = world.objects().iter().all(|(name, bytes)| before.get(name) == Some(bytes));
                assert!(untouched, "nothing is added to the source, and nothing in it is changed");
                world.opened.as_ref().unwrap().job.health().unwrap();
                world.delete_source();
                // The running job goes on, and so does the next attempt.
                put_any(&mut stores, "key 1", b"again");
                checkpoint(&job, &mut stores, "").unwrap();
                if mode == CheckpointMode::Changelog {
                    materialize(&job);
                    checkpoint(&job, &mut stores, "").unwrap();
                }
                let expected = contents(&mut stores, "words");
                job.close().unwrap();
                drop(stores);
                world.assert_independent(&store, &expected);
            }
        }
    }
}

#[test]
fn within_one_store_the_store_copies_and_what_it_cannot_is_sent() {
    let is_sst = |call: &Call| call.path.ends_with(".sst");
    for copies_work in [true, false] {
        let world = World::new(CheckpointMode::Changelog);
        if !copies_work {
            world.store.rule(|call| if call.op == Op::Copy { Fault::Denied } else { Fault::Pass });
        }
        world.store.take_calls();
        let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
        checkpoint(&job, &mut stores, "").unwrap();
        let calls = world.store.take_calls();
        let copied = calls.iter().filter(|call| call.op == Op::Copy && is_sst(call)).count();
        let sent = calls.iter().filter(|call| call.op == Op::Put && is_sst(call)).count();
        assert_eq!(copied, 2, "each subtask has one file from the source's base");
        if copies_work {
            assert!(sent <= 2, "only what the replay has made is sent: {sent}");
        } else {
            assert!(sent >= 2, "{sent}");
        }
        drop((job, stores));
        world.assert_independent(&world.store, &world.expected);
    }
}

#[derive(Debug, Default)]
struct Told(AtomicUsize);

impl CheckpointListener for Told {
    fn independent(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn i3_the_first_checkpoint_waits_for_the_copies_and_the_source_may_go_on_meanwhile() {
    let mut world = World::new(CheckpointMode::Changelog);
    let gate = Gate::closed();
    let held = gate.clone();
    world.store.rule(move |call| match call.op {
        Op::Copy | Op::Put if call.path.starts_with("b/data/") && call.path.ends_with(".sst") => {
            Fault::Hold(held.clone())
        }
        _ => Fault::Pass,
    });
    let told = Arc::new(Told::default());
    let listener = Arc::clone(&told) as Arc<dyn CheckpointListener>;
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options().listener(listener));
    eventually("copies are under way", Duration::from_secs(20), || gate.waiting() > 0);
    put_any(&mut stores, "new", b"1");
    let pending = job.trigger("").unwrap();
    stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
    let at_cut = contents(&mut stores, "words");
    // Operators are not held up, and the source collects as it likes.
    for n in 0..500_u64 {
        put_any(&mut stores, &format!("later {n}"), &noise(n, 50));
    }
    let source = world.opened.as_mut().unwrap();
    for n in 0..12_u64 {
        for key in 0..100 {
            put_any(&mut source.stores, &format!("key {key}"), &noise(n * 100 + key, 100));
        }
        materialize(&source.job);
        checkpoint(&source.job, &mut source.stores, "").unwrap();
    }
    source.job.clone().close().unwrap();
    assert!(job.checkpoints().is_empty() && !job.is_independent());
    assert_eq!((world.pins(), told.0.load(Ordering::SeqCst)), (1, 0));
    gate.open();
    pending.wait().unwrap();
    assert!(job.is_independent());
    drop((job, stores));
    assert_eq!(told.0.load(Ordering::SeqCst), 1);
    world.delete_source();
    world.assert_independent(&world.store, &at_cut);
}

#[test]
fn i3_a_crash_before_the_first_checkpoint_leaves_nothing_that_the_next_attempt_does_not_collect() {
    let world = World::new(CheckpointMode::Changelog);
    let of_epoch = |epoch: u64| {
        let names = names_of(&dynamic(&world.store), "b");
        names.iter().filter(|name| name.starts_with(&format!("data/{epoch:020}/"))).count()
    };
    for attempt in 1..4 {
        let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
        assert_eq!(job.epoch().0, attempt);
        assert!(contents(&mut stores, "words") == world.expected);
        job.settle(Duration::from_secs(30)).unwrap();
        assert!(of_epoch(attempt) >= 4, "the first base is there");
        assert_eq!(world.pins(), 1, "that of an earlier attempt is gone");
        // Crashes.
    }
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("orphans go", Duration::from_secs(20), || (1..4).all(|epoch| of_epoch(epoch) == 0));
    eventually("pins go", Duration::from_secs(20), || world.pins() == 0);
    drop((job, stores));
    world.assert_independent(&world.store, &world.expected);
}

#[test]
fn i6_an_outage_while_the_first_base_is_sent_costs_time_only() {
    let world = World::new(CheckpointMode::Changelog);
    world.other.rule(|call| if call.path.ends_with(".sst") { Fault::Fail } else { Fault::Pass });
    let Opened { job, mut stores, .. } =
        world.start(&world.other, world.options().checkpoint_timeout(Duration::from_millis(300)));
    for _ in 0..3 {
        let error = checkpoint(&job, &mut stores, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
    }
    job.health().unwrap();
    world.other.heal();
    eventually("a checkpoint completes", Duration::from_secs(30), || {
        checkpoint(&job, &mut stores, "").is_ok()
    });
    assert!(job.is_independent());
    drop((job, stores));
    world.assert_independent(&world.other, &world.expected);
}

/// It answers again just when the new job would be created.
#[test]
fn i1_a_store_that_does_not_answer_at_first_makes_no_job_that_starts_empty() {
    let world = World::new(CheckpointMode::Changelog);
    let mut failures = 5;
    world.other.rule(move |call| match call.op {
        Op::List if failures > 0 => {
            failures -= 1;
            Fault::Fail
        }
        _ => Fault::Pass,
    });
    let error = world.try_start(&world.other, world.options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    let mut opened = world.start(&world.other, world.options());
    assert!(contents(&mut opened.stores, "words") == world.expected);
}

#[test]
fn any_retained_checkpoint_and_any_savepoint_will_do() {
    let mut world = World::new(CheckpointMode::Changelog);
    let savepoints = Savepoints::open((dynamic(&world.store), "a")).unwrap();
    savepoints.create("old", None).unwrap();
    let source = world.opened.as_mut().unwrap();
    for _ in 0..3 {
        put_any(&mut source.stores, "key 1", b"later");
        checkpoint(&source.job, &mut source.stores, "").unwrap();
    }
    let from = world.source(RestoreFrom::Savepoint("old".to_owned()));
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options().start_from(from));
    savepoints.release("old").unwrap();
    assert!(contents(&mut stores, "words") == world.expected);
    let id = checkpoint(&job, &mut stores, "").unwrap().id;
    drop((job, stores));
    // And from that one, a third.
    let from = SourceJob::new((dynamic(&world.store), "b"), RestoreFrom::Checkpoint(id));
    let options = options(world.dir.path(), "c").start_from(from);
    let Opened { job, mut stores, .. } = Job::open((dynamic(&world.other), "c"), options).unwrap();
    assert!(contents(&mut stores, "words") == world.expected);
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(job.is_independent());
}

#[test]
fn a_job_that_has_a_checkpoint_goes_on_from_its_own() {
    let mut world = World::new(CheckpointMode::Changelog);
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
    put_any(&mut stores, "own", b"1");
    checkpoint(&job, &mut stores, "").unwrap();
    let expected = contents(&mut stores, "words");
    drop((job, stores));
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
    assert!(job.is_independent());
    assert!(contents(&mut stores, "words") == expected);
    drop((job, stores));
    world.delete_source();
    let Opened { mut stores, .. } = world.start(&world.store, world.options());
    assert!(contents(&mut stores, "words") == expected);
    drop(stores);
    let gone = SourceJob::new("/no/longer/there", RestoreFrom::Latest);
    let Opened { mut stores, .. } = world.start(&world.store, world.options().start_from(gone));
    assert!(contents(&mut stores, "words") == expected);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let world = World::new(CheckpointMode::Changelog);
    let refused = |options: JobOptions| {
        let error = world.try_start(&world.other, options).unwrap_err();
        assert_eq!(names_of(&dynamic(&world.other), "b"), Vec::<String>::new(), "{error}");
        assert_eq!(world.pins(), 0, "{error}");
        error
    };
    let fresh = |mode| {
        JobOptions::new(world.dir.path().join("b"), mode)
            .subtasks(2)
            .memory(16_000_000)
            .start_from(world.source(RestoreFrom::Latest))
    };
    let error = refused(fresh(OpenMode::Existing));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = refused(world.options().max_parallelism(MaxParallelism::new(128).unwrap()));
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("64"), "{error}");
    let nowhere = SourceJob::new((dynamic(&world.store), "nowhere"), RestoreFrom::Latest);
    let error = refused(world.options().start_from(nowhere));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = refused(world.options().start_from(world.source(RestoreFrom::Savepoint("x".into()))));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let unknown = RestoreFrom::Checkpoint("9-9".parse().unwrap());
    let error = refused(world.options().start_from(world.source(unknown)));
    assert!(error.to_string().contains("choose one of ["), "{error}");

    // A new job must be new where that is said.
    let Opened { job, mut stores, .. } = world.start(&world.other, fresh(OpenMode::Create));
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    let error = world.try_start(&world.other, fresh(OpenMode::Create)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn an_empty_job_can_be_started_from() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    for mode in MODES {
        let prefix = format!("{mode:?}");
        let options = |name: &str| options(dir.path(), &format!("{prefix}-{name}")).mode(mode);
        let Opened { job, mut stores, .. } =
            Job::open((dynamic(&store), &prefix), options("source")).unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        let from = SourceJob::new((dynamic(&store), &prefix), RestoreFrom::Latest);
        let target = format!("{prefix}-target");
        let Opened { job, mut stores, .. } =
            Job::open((dynamic(&store), &target), options("target").start_from(from)).unwrap();
        assert!(contents(&mut stores, "words").is_empty());
        put_any(&mut stores, "a", b"b");
        checkpoint(&job, &mut stores, "").unwrap();
        assert!(job.is_independent());
        drop((job, stores));
        let Opened { mut stores, .. } = Job::open((dynamic(&store), &target), options("target")).unwrap();
        assert_eq!(contents(&mut stores, "words").len(), 1);
    }
}
