//! I4: every byte read back is checked. A flipped, cut off or missing byte in any object of a job is an
//! error that names the object, never a wrong value and never a panic; and a failed open leaves all
//! objects as they are.
#![allow(clippy::unwrap_used)]

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
                    // All retained manifests are read, but only what the newest refers to is needed.
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
                // Without the newest manifest the one before is the newest: the chain was cut, which
                // nothing can tell from a chain that ended there. What it restores is still right.
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

/// With the caller's permission the checkpoint before is restored, and what was skipped is reported.
#[test]
fn i4_fallback_restores_the_newest_sound_checkpoint_and_reports_the_others() {
    let sample = Sample::changelog(true);
    let newest = sample.checkpoints.last().unwrap().0;
    let fallen_back = AtomicUsize::new(0);
    let mut cases = Vec::new();
    for (name, bytes) in &sample.objects {
        cases.extend(Damage::some(bytes.len() as u64).into_iter().map(|damage| (name, damage)));
    }
    on_two_threads(&cases, |(name, damage)| {
        let context = format!("{name}, {damage:?}");
        let damaged = damage.apply(&sample.objects, name);
        let (_strict_dir, strict) = open(&damaged, |options| options);
        let (_dir, result) = open(&damaged, |options| options.fallback(true));
        let mut opened = match (result, strict) {
            (Err(error), Ok(_)) => panic!("{context}: fallback fails where nothing is wrong: {error}"),
            (Err(error), Err(_)) => {
                assert_names(&error, "", &context);
                assert!(error.to_string().contains(name.as_str()), "{context}: {error}");
                return;
            }
            (Ok(opened), Ok(_)) => {
                assert!(opened.restored.skipped.is_empty(), "{context}: {:?}", opened.restored.skipped);
                opened
            }
            (Ok(opened), Err(_)) => opened,
        };
        let id = opened.restored.checkpoint.expect("a fallback never ends in an empty state");
        if id != newest && opened.restored.skipped.is_empty() {
            // The chain's end was deleted.
            assert_eq!(*name, sample.newest_manifest(), "{context}");
        }
        for (skipped, reason) in &opened.restored.skipped {
            assert!(*skipped > id, "{context}: {skipped} was skipped for {id}");
            assert!(reason.contains(name.as_str()), "{context}: {reason}");
        }
        if let Some((first, _)) = opened.restored.skipped.first() {
            fallen_back.fetch_add(1, Ordering::Relaxed);
            assert_eq!(*first, newest, "{context}");
            let restored = sample.checkpoints.iter().position(|(found, _)| *found == id).unwrap();
            let expected = sample.checkpoints.len() - 1 - restored;
            assert_eq!(opened.restored.skipped.len(), expected, "{context}: each is reported once");
        }
        let (_, expected) = sample.checkpoints.iter().find(|(found, _)| *found == id).unwrap();
        assert!(contents(&mut opened.stores, "words") == *expected, "{context}: wrong contents");
        // And the job goes on from there.
        checkpoint(&opened.job, &mut opened.stores, "goes on").unwrap();
    });
    assert!(fallen_back.into_inner() >= 4, "hardly any damage led to a fallback");
}

/// Without permission nothing else than what was asked for is restored.
#[test]
fn i4_a_given_checkpoint_is_restored_or_refused() {
    let sample = Sample::changelog(true);
    for (id, expected) in &sample.checkpoints {
        let (_dir, opened) =
            open(&sample.objects, |options| options.restore_from(RestoreFrom::Checkpoint(*id)));
        let mut opened = opened.unwrap();
        assert_eq!(opened.restored.checkpoint, Some(*id));
        assert!(contents(&mut opened.stores, "words") == *expected);
    }
    // The manifest of the one in the middle is gone: the others are not hurt, that one is refused.
    let manifests: Vec<_> = sample.objects.keys().filter(|name| name.starts_with("manifest/")).collect();
    let middle = manifests[manifests.len() - 3];
    let damaged = Damage::Flip { at: 30, mask: 1 }.apply(&sample.objects, middle);
    for (at, (id, expected)) in sample.checkpoints.iter().enumerate() {
        let (_dir, opened) = open(&damaged, |options| options.restore_from(RestoreFrom::Checkpoint(*id)));
        match opened {
            Ok(mut opened) => {
                assert_ne!(at, 1);
                assert!(contents(&mut opened.stores, "words") == *expected);
            }
            // The last one may lean on deltas that travelled in the damaged manifest.
            Err(error) => {
                assert_ne!(at, 0);
                assert_names(&error, middle, "a given checkpoint");
            }
        }
    }
}

/// A newer format is not damage: it is told apart, whether or not its checksums hold.
#[test]
fn i4_a_newer_format_is_refused_as_such() {
    for sample in [Sample::changelog(false), Sample::changelog(true)] {
        let name = sample.newest_manifest().to_owned();
        for checksum in [false, true] {
            let mut bytes = sample.objects[&name].to_vec();
            bytes[4..6].copy_from_slice(&99_u16.to_le_bytes());
            if checksum {
                let crc = crc32c::crc32c(&bytes[..24]);
                bytes[24..28].copy_from_slice(&crc.to_le_bytes());
            }
            let mut objects = sample.objects.clone();
            objects.insert(name.clone(), bytes.into());
            for fallback in [false, true] {
                let (_dir, result) = open(&objects, |options| options.fallback(fallback));
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
                assert!(error.object_name().unwrap().contains(&name), "{error}");
                assert!(error.to_string().contains("99"), "{error}");
            }
        }
    }
}

/// Objects that are sound in themselves, but not the ones that belong there.
#[test]
fn i4_objects_that_were_mixed_up_are_noticed() {
    let sample = Sample::changelog(false);
    let read: Vec<_> = sample.objects.keys().filter(|name| sample.needs(name, 0)).collect();
    let mut mixed = 0;
    for (at, one) in read.iter().enumerate() {
        for other in &read[at + 1..] {
            if sample.objects[*one] == sample.objects[*other] {
                continue;
            }
            let mut objects = sample.objects.clone();
            objects.insert((*one).clone(), sample.objects[*other].clone());
            objects.insert((*other).clone(), sample.objects[*one].clone());
            let (_dir, result) = open(&objects, |options| options);
            let error = result.expect_err("two objects were exchanged");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{one} and {other}: {error}");
            let named = error.object_name().unwrap_or_default();
            assert!(named.contains(one.as_str()) || named.contains(other.as_str()), "{error}");
            mixed += 1;
        }
    }
    assert!(mixed > 3, "only {mixed} pairs");
    // Another job's manifest, or an older one, under the newest name.
    let newest = sample.newest_manifest().to_owned();
    let older = sample.objects.keys().filter(|name| name.starts_with("manifest/")).nth_back(1).unwrap();
    let mut objects = sample.objects.clone();
    objects.insert(newest.clone(), sample.objects[older].clone());
    let (_dir, result) = open(&objects, |options| options);
    assert_names(&result.unwrap_err(), &newest, "an older manifest under a newer name");
}

/// What a broken file system or a careless copy leaves behind.
#[test]
fn i4_strange_objects_in_the_chain_are_named_and_not_touched() {
    let sample = Sample::changelog(false);
    for strange in [Vec::new(), vec![0; 4096], b"ALVM".to_vec(), noise(7, 500)] {
        let name = format!("manifest/{:020}", 900);
        let mut objects = sample.objects.clone();
        objects.insert(name.clone(), strange.into());
        let (_dir, result) = open(&objects, |options| options);
        assert_names(&result.unwrap_err(), &name, "a strange newest manifest");
        // With permission it is passed over, and the attempt's record lies above.
        let (_dir, result) = open(&objects, |options| options.fallback(true));
        let mut opened = result.unwrap();
        assert_eq!(opened.job.epoch().0, 901);
        assert!(opened.restored.damaged[0].1.contains(&name), "{:?}", opened.restored.damaged);
        assert!(contents(&mut opened.stores, "words") == *sample.newest());
    }
    // A name that is none of ours is left alone.
    let mut objects = sample.objects.clone();
    objects.insert("manifest/notes.txt".into(), Bytes::from_static(b"do not delete"));
    objects.insert("manifest/000".into(), Bytes::from_static(b"nor this"));
    let (_dir, result) = open(&objects, |options| options);
    match result {
        Ok(mut opened) => assert!(contents(&mut opened.stores, "words") == *sample.newest()),
        Err(error) => assert!(error.object_name().unwrap_or_default().contains("manifest/"), "{error}"),
    }
}

/// Local files are a cache: whatever happened to them, the state is that of the checkpoint.
#[test]
fn i4_damaged_local_files_are_never_believed() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    let mut expected = Contents::new();
    let mut reused = 0;
    for round in 0..12_u64 {
        let opened = Job::open((Arc::clone(&store), PREFIX), options(&dir)).unwrap();
        let Opened { job, mut stores, restored, .. } = opened;
        assert!(contents(&mut stores, "words") == expected, "round {round}");
        reused += restored.bytes_reused;
        for n in 0..50 {
            put_any(&mut stores, &format!("key {n}"), &noise(round * 1000 + n, 50));
        }
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
        expected = contents(&mut stores, "words");
        drop((job, stores));
        if round % 3 == 2 {
            let local = dir.path().join("local").join("instances");
            for (name, mut bytes) in alluvium_testkit::objects::files_below(&local) {
                match rng.random_range(0..4) {
                    0 if !bytes.is_empty() => {
                        let at = rng.random_range(0..bytes.len());
                        bytes[at] ^= 0x40;
                        // A new file: hard links of it elsewhere keep their bytes.
                        std::fs::remove_file(local.join(&name)).unwrap();
                        std::fs::write(local.join(&name), bytes).unwrap();
                    }
                    1 => std::fs::remove_file(local.join(&name)).unwrap(),
                    2 => std::fs::File::options()
                        .write(true)
                        .open(local.join(&name))
                        .and_then(|file| file.set_len(bytes.len() as u64 / 2))
                        .unwrap(),
                    _ => {}
                }
            }
        }
    }
    assert!(reused > 0, "no local file was ever taken over");
}

/// `inspect` looks at damaged jobs as well, and names what is wrong.
#[test]
fn i4_inspect_names_what_is_damaged_or_missing() {
    let sample = Sample::changelog(false);
    let write = |objects: &Objects| {
        let dir = tempfile::tempdir().unwrap();
        let files = objects.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect();
        alluvium_testkit::objects::write_files(dir.path(), &files);
        dir
    };
    let dir = write(&sample.objects);
    let seen = alluvium::admin::inspect(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(seen.missing, Vec::<String>::new());
    assert_eq!(seen.total_objects, sample.objects.len() as u64);
    for name in sample.objects.keys() {
        let deleted = Damage::Delete.apply(&sample.objects, name);
        let dir = write(&deleted);
        let seen = alluvium::admin::inspect(dir.path().to_str().unwrap()).unwrap();
        let live = sample.needs(name, 0) && name.starts_with("data/");
        assert!(!live || seen.missing == vec![name.clone()], "{name}: {:?}", seen.missing);
        assert_eq!(
            alluvium_testkit::objects::files_below(dir.path()).len(),
            deleted.len(),
            "inspect only looks"
        );
    }
    let newest = sample.newest_manifest();
    let dir = write(&Damage::Flip { at: 40, mask: 4 }.apply(&sample.objects, newest));
    let seen = alluvium::admin::inspect(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(seen.damaged_versions.len(), 1);
    assert!(seen.damaged_versions[0].1.contains(newest), "{:?}", seen.damaged_versions);
    let intact = seen.records.last().unwrap();
    assert!(intact.version < seen.newest_version && intact.checkpoint.is_some(), "{intact:?}");
}

/// A bit rots in a local file that no base has yet. Whatever is done then, every key is there after a restart, also
/// on the same directory: the base that would have been built from the file never is, and what the store has is
/// enough to build the state without it.
#[test]
fn i4_rot_on_the_local_disk_never_takes_the_place_of_what_can_repair_it() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        let open = || Job::open((Arc::clone(&store), PREFIX), options(&dir).subtasks(1).mode(mode)).unwrap();
        let Opened { job, mut stores, .. } = open();
        for n in 0..3000 {
            put_any(&mut stores, &format!("key {n}"), &noise(n, 60));
        }
        let expected = contents(&mut stores, "words");
        if mode == CheckpointMode::Changelog {
            checkpoint(&job, &mut stores, "before").unwrap();
            job.settle(Duration::from_secs(30)).unwrap();
            // Into a file that is in no base.
            job.compact().unwrap();
        } else {
            checkpoint(&job, &mut stores, "before").unwrap();
            // A file that is in no checkpoint, with other bytes than the one that is.
            put_any(&mut stores, "key 0", &noise(0, 60));
            job.compact().unwrap();
        }
        let rotten = rot_one(&dir.path().join("local/instances"));

        job.materialize();
        let _ = job.settle(Duration::from_secs(30));
        for _ in 0..3 {
            let _ = checkpoint(&job, &mut stores, "after");
        }
        let health = job.health().unwrap_err();
        assert_eq!(health.kind(), ErrorKind::Corrupt, "{mode:?}: {health}");
        assert!(health.object_name().unwrap().ends_with(&rotten), "{mode:?}: {health}");
        drop((job, stores));

        let Opened { job, mut stores, .. } = open();
        assert!(contents(&mut stores, "words") == expected, "{mode:?}: a key is lost");
        materialize(&job);
        checkpoint(&job, &mut stores, "repaired").unwrap();
        job.close().unwrap();
        drop(stores);
        let elsewhere = tempfile::tempdir().unwrap();
        let mut opened =
            Job::open((Arc::clone(&store), PREFIX), options(&elsewhere).subtasks(1).mode(mode)).unwrap();
        assert!(contents(&mut opened.stores, "words") == expected, "{mode:?}: a key is lost elsewhere");
    }
}

/// Flips a bit in the midst of the largest SST file of the one table below, and returns its name.
fn rot_one(instances: &std::path::Path) -> String {
    let files = alluvium_testkit::objects::files_below(instances);
    let sst = files.iter().filter(|(name, _)| name.ends_with(".sst") && name.contains("/table/"));
    let (name, bytes) = sst.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let at = bytes.len() / 3;
    let mut file = std::fs::File::options().write(true).open(instances.join(name)).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[bytes[at] ^ 8]).unwrap();
    name.rsplit('/').next().unwrap().to_owned()
}
