//! A new job starts from another one's checkpoint: it gets exactly that state, leaves the other alone, and
//! needs nothing of it once it has a checkpoint of its own.
#![allow(clippy::unwrap_used)]

mod first_base;
mod start;

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
