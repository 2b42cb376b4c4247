//! I4: every byte read back is checked. A flipped, cut off or missing byte in any object of a job
//! is an error that names the object, never a wrong value and never a panic; and a failed open
//! leaves all objects as they are.
#![allow(clippy::unwrap_used)]

mod checkpoints;
mod local;

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointMode, Error, ErrorKind, Job, JobOptions, KeyGroup, OpenMode, Opened, RestoreFrom,
};
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::drive::{PREFIX, by_hand, checkpoint, contents, materialize, noise, put_any};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{FaultStore, Op};
use alluvium_testkit::objects::{objects_of, store_with};

type Objects = BTreeMap<String, Bytes>;
type Contents = BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>;

const SUBTASKS: u32 = 2;

/// A job that was closed, and what its checkpoints must restore to.
struct Sample {
    objects: Objects,
    /// The retained ones, oldest first.
    checkpoints: Vec<(CheckpointId, Contents)>,
    /// What the restore of the newest reads: name and, if not all of it, which part.
    reads: Vec<(String, Option<std::ops::Range<u64>>)>,
}

fn options(dir: &tempfile::TempDir) -> JobOptions {
    JobOptions::new(dir.path().join("local"), OpenMode::CreateOrOpen)
        .subtasks(SUBTASKS)
        .memory(16_000_000)
        .retained(3)
        .inline_limit(1_500)
        .materialization(by_hand())
}

impl Sample {
    /// One that has every kind of object: manifests with and without deltas inside, delta and pack
    /// objects, SST files and base indexes. `reopened` puts an open record on top.
    fn changelog(reopened: bool) -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        let open = || Job::open((Arc::clone(&store), PREFIX), options(&dir)).unwrap();
        let Opened { job, mut stores, .. } = open();
        for n in 0..80 {
            put_any(&mut stores, &format!("key {n}"), &noise(n, 60));
        }
        checkpoint(&job, &mut stores, "first").unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, "with a base").unwrap();
        for n in 0..18 {
            put_any(&mut stores, &format!("key {n}"), &noise(100 + n, 30));
            checkpoint(&job, &mut stores, "small").unwrap();
        }
        let has = |kind: &str| objects_of(&store, PREFIX).keys().any(|name| name.ends_with(kind));
        eventually("a pack", Duration::from_secs(20), || has(".pack"));
        job.settle(Duration::from_secs(20)).unwrap();

        let mut checkpoints = Vec::new();
        for round in 0..4 {
            put_any(&mut stores, &format!("key {round}"), &noise(200 + round, 4_000));
            let report = checkpoint(&job, &mut stores, "with an object").unwrap();
            checkpoints.push((report.id, contents(&mut stores, "words")));
            put_any(&mut stores, &format!("key {}", round + 40), &noise(300 + round, 40));
            let report = checkpoint(&job, &mut stores, "last").unwrap();
            checkpoints.push((report.id, contents(&mut stores, "words")));
        }
        job.close().unwrap();
        drop(stores);
        Self::of(&store, checkpoints.split_off(checkpoints.len() - 3), || {
            if reopened {
                drop(open());
            }
        })
    }

    fn native() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        let options = options(&dir).mode(CheckpointMode::NativeIncremental).inline_limit(0);
        let Opened { job, mut stores, .. } = Job::open((Arc::clone(&store), PREFIX), options).unwrap();
        let mut checkpoints = Vec::new();
        for round in 0..5 {
            for n in 0..40 {
                put_any(&mut stores, &format!("key {n}"), &noise(1_000 * round + n, 60));
            }
            let report = checkpoint(&job, &mut stores, "native").unwrap();
            checkpoints.push((report.id, contents(&mut stores, "words")));
        }
        job.close().unwrap();
        drop(stores);
        Self::of(&store, checkpoints.split_off(checkpoints.len() - 3), || {})
    }

    fn of(
        store: &Arc<dyn ObjectStore>,
        checkpoints: Vec<(CheckpointId, Contents)>,
        last_touch: impl FnOnce(),
    ) -> Self {
        last_touch();
        let objects = objects_of(store, PREFIX);
        let mut sample = Self { objects, checkpoints, reads: Vec::new() };
        let staged = FaultStore::around(store_with(&sample.objects, PREFIX));
        let dir = tempfile::tempdir().unwrap();
        let mut opened =
            Job::open((Arc::clone(&staged) as Arc<dyn ObjectStore>, PREFIX), options(&dir)).unwrap();
        assert!(contents(&mut opened.stores, "words") == *sample.newest());
        let relative = |path: &str| path.strip_prefix(PREFIX).unwrap().trim_start_matches('/').to_owned();
        let gets = staged.calls().into_iter().filter(|call| call.op == Op::Get);
        sample.reads = gets.map(|call| (relative(&call.path), call.range)).collect();
        sample.reads.retain(|(name, _)| sample.objects.contains_key(name));
        sample
    }

    fn newest(&self) -> &Contents {
        &self.checkpoints.last().unwrap().1
    }

    fn newest_manifest(&self) -> &str {
        self.objects.keys().rfind(|name| name.starts_with("manifest/")).unwrap()
    }

    /// Whether a restore of the newest checkpoint cannot do without this byte.
    fn needs(&self, name: &str, at: u64) -> bool {
        self.reads.iter().any(|(read, range)| {
            read == name
                && match range {
                    Some(range) => range.contains(&at),
                    // All retained manifests are read, but only what the newest refers to is
                    // needed.
                    None => name.starts_with("data/") || name == self.newest_manifest(),
                }
        })
    }
}

/// What was done to an object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip { at: u64, mask: u8 },
    Cut { len: u64 },
    Grow,
    Delete,
}

impl Damage {
    fn apply(self, objects: &Objects, name: &str) -> Objects {
        let mut damaged = objects.clone();
        let mut bytes = objects[name].to_vec();
        match self {
            Self::Flip { at, mask } => bytes[at as usize] ^= mask,
            Self::Cut { len } => bytes.truncate(len as usize),
            Self::Grow => bytes.push(0),
            Self::Delete => {}
        }
        damaged.insert(name.to_owned(), bytes.into());
        if matches!(self, Self::Delete) {
            damaged.remove(name);
        }
        damaged
    }

    /// The damages that an object of `len` bytes is put to.
    fn all(len: u64, rng: &mut StdRng) -> Vec<Self> {
        let masks = [0x01, 0x10, 0x80, 0xff];
        let mut flips: Vec<u64> = vec![0, 4, 5, 6, 7, 8, 16, 24, 27, 28];
        flips.extend((1..=10).map(|back| len.saturating_sub(back * back)));
        flips.extend((0..12).map(|part| part * len / 12 + rng.random_range(0..len / 12 + 1)));
        flips.retain(|at| *at < len);
        flips.sort_unstable();
        flips.dedup();
        let mut all: Vec<_> =
            flips.into_iter().map(|at| Self::Flip { at, mask: masks[rng.random_range(0..4)] }).collect();
        all.extend([0, 1, len / 2, len - 1].map(|len| Self::Cut { len }));
        all.extend([Self::Grow, Self::Delete]);
        all
    }

    fn some(len: u64) -> Vec<Self> {
        vec![Self::Flip { at: len / 2, mask: 0x20 }, Self::Cut { len: len - 1 }, Self::Delete]
    }
}

/// Opens a job made of `objects` and sees to it that all of them are still there afterwards.
fn open(
    objects: &Objects,
    more: impl FnOnce(JobOptions) -> JobOptions,
) -> (tempfile::TempDir, Result<Opened, Error>) {
    let store = store_with(objects, PREFIX);
    let dir = tempfile::tempdir().unwrap();
    let result = Job::open((Arc::clone(&store), PREFIX), more(options(&dir)));
    let after = objects_of(&store, PREFIX);
    for (name, bytes) in objects {
        assert_eq!(after.get(name), Some(bytes), "{name} was changed by an open: {result:?}");
    }
    let added: Vec<_> = after.keys().filter(|name| !objects.contains_key(*name)).collect();
    assert!(added.len() <= 1 && added.iter().all(|name| name.starts_with("manifest/")), "{added:?}");
    (dir, result)
}

/// Runs `check` on all items on two threads.
fn on_two_threads<T: Sync>(items: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(item);
                }
            });
        }
    });
}

fn assert_names(error: &Error, name: &str, context: &str) {
    let expected = [ErrorKind::Corrupt, ErrorKind::MissingObject, ErrorKind::UnsupportedVersion];
    assert!(expected.contains(&error.kind()), "{context}: {error}");
    let object = error.object_name().unwrap_or_default();
    assert!(object.contains(name), "{context}: the error is about {object:?}: {error}");
}

fn damage_everything(sample: &Sample) {
    let mut rng = StdRng::seed_from_u64(4);
    let mut cases = Vec::new();
    for (name, bytes) in &sample.objects {
        let len = bytes.len() as u64;
        let read = sample.reads.iter().any(|(read, _)| read == name);
        let damages = if read { Damage::all(len, &mut rng) } else { Damage::some(len) };
        cases.extend(damages.into_iter().map(|damage| (name, damage)));
    }
    on_two_threads(&cases, |(name, damage)| {
        let context = format!("{name}, {damage:?}");
        let (_dir, result) = open(&damage.apply(&sample.objects, name), |options| options);
        let len = sample.objects[*name].len() as u64;
        let needed = match damage {
            Damage::Flip { at, .. } => sample.needs(name, *at),
            Damage::Cut { len: cut } => (*cut..len).any(|at| sample.needs(name, at)),
            Damage::Grow => false,
            Damage::Delete => (0..len).any(|at| sample.needs(name, at)),
        };
        match result {
            Err(error) => assert_names(&error, name, &context),
            Ok(mut opened) => {
                // Without the newest manifest the one before is the newest: the chain was cut,
                // which nothing can tell from a chain that ended there. What it restores is still
                // right.
                let ended = matches!(damage, Damage::Delete) && *name == sample.newest_manifest();
                assert!(!needed || ended, "{context}: the damage went unnoticed");
                let id = opened.restored.checkpoint.unwrap();
                let (_, expected) = sample.checkpoints.iter().find(|(found, _)| *found == id).unwrap();
                assert!(contents(&mut opened.stores, "words") == *expected, "{context}: wrong contents");
            }
        }
    });
}

#[test]
fn i4_damage_to_any_object_of_a_changelog_job_is_noticed_and_named() {
    let sample = Sample::changelog(false);
    for kind in [".delta", ".pack", ".sst", ".base", "manifest/"] {
        assert!(
            sample.reads.iter().any(|(name, _)| name.contains(kind)),
            "the restore reads no {kind}: {:#?}",
            sample.reads
        );
    }
    assert!(
        sample.reads.iter().any(|(name, range)| name.starts_with("manifest/") && range.is_some()),
        "no delta is read out of a manifest: {:#?}",
        sample.reads
    );
    damage_everything(&sample);
}

#[test]
fn i4_damage_to_any_object_of_a_native_job_is_noticed_and_named() {
    damage_everything(&Sample::native());
}
