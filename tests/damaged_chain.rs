//! Damage at the top of the manifest chain: a job is not lost for it. If its options allow that, it goes on from
//! the newest checkpoint that is intact. Nothing is overwritten, and no fenced attempt commits. What the damaged
//! checkpoint may refer to stays as long as it would have been retained.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use alluvium::admin::{Savepoints, inspect};
use alluvium::{
    CheckpointId, CheckpointMode, CheckpointReader, Error, ErrorKind, Job, JobOptions, KeyGroup, Opened,
    ReaderOptions, RestoreFrom,
};

use alluvium_testkit::drive::{checkpoint, contents, noise, put_any};
use alluvium_testkit::objects::files_below;
use alluvium_testkit::stored::StoredJob;
use alluvium_testkit::{PATIENCE, eventually};

type Contents = BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>;

const RETAINED: usize = 3;

/// What is done to an object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Header,
    Body,
    Empty,
}

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

    fn options(&self, dir: &str) -> JobOptions {
        self.options_in(dir).retained(RETAINED).inline_limit(1_000)
    }

    fn open(&self, options: JobOptions) -> Result<Opened, Error> {
        Job::open(self.url(), options)
    }

    fn newest(&self) -> PathBuf {
        let newest = files_below(&self.objects().join("manifest")).into_keys().next_back().unwrap();
        self.objects().join("manifest").join(newest)
    }

    fn damage(&self, path: &PathBuf, damage: Damage) {
        let mut bytes = std::fs::read(path).unwrap();
        match damage {
            Damage::Header => bytes[10] ^= 4,
            Damage::Body => {
                let at = bytes.len() - 6;
                bytes[at] ^= 1;
            }
            Damage::Empty => bytes.clear(),
        }
        std::fs::write(path, bytes).unwrap();
    }

    /// A job of five checkpoints, and what the last of them have.
    fn sample(&self, mode: CheckpointMode) -> Vec<(CheckpointId, Contents)> {
        let Opened { job, mut stores, .. } = self.open(self.options("local").mode(mode)).unwrap();
        let mut checkpoints = Vec::new();
        for n in 0..5_u64 {
            for key in 0..10 {
                put_any(&mut stores, &format!("key {key}"), &noise(10 * n + key, 700));
            }
            let report = checkpoint(&job, &mut stores, "").unwrap();
            checkpoints.push((report.id, contents(&mut stores, "words")));
        }
        job.close().unwrap();
        checkpoints
    }

    fn of_epoch(&self, epoch: u64) -> usize {
        let folder = format!("data/{epoch:020}/");
        self.names().iter().filter(|name| name.starts_with(&folder)).count()
    }
}

#[test]
fn i1_a_damaged_newest_checkpoint_is_passed_over_if_the_caller_allows_it() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        for damage in [Damage::Header, Damage::Body, Damage::Empty] {
            println!("{mode:?}, {damage:?}");
            let place = Place::new();
            let checkpoints = place.sample(mode);
            let newest = place.newest();
            let name = format!("manifest/{}", newest.file_name().unwrap().display());
            place.damage(&newest, damage);
            let before = files_below(&place.objects());

            let error = place.open(place.options("local")).unwrap_err();
            assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(name.as_str())));
            assert!(error.to_string().contains("fallback"), "{error}");
            assert_eq!(files_below(&place.objects()), before, "a refused open touches nothing");

            let options = || place.options("local").fallback(true).mode(mode);
            let Opened { job, mut stores, restored, .. } = place.open(options()).unwrap();
            let (id, expected) = &checkpoints[3];
            assert_eq!(restored.checkpoint, Some(*id));
            assert!(restored.damaged[0].1.contains(&name), "{:?}", restored.damaged);
            assert!(contents(&mut stores, "words") == *expected);
            let untouched = || {
                let now = files_below(&place.objects());
                before.iter().all(|(name, bytes)| now.get(name) == Some(bytes))
            };
            // What it may refer to stays as long as it would have been retained, also over a restart.
            checkpoint(&job, &mut stores, "").unwrap();
            job.settle(Duration::from_secs(20)).unwrap();
            assert!(untouched(), "nothing of what was there is gone or overwritten");
            drop((job, stores));
            let Opened { job, mut stores, restored, .. } = place.open(options()).unwrap();
            assert!(restored.damaged.is_empty(), "intact versions lie above it: {:?}", restored.damaged);
            checkpoint(&job, &mut stores, "").unwrap();
            job.settle(Duration::from_secs(20)).unwrap();
            assert!(untouched(), "nothing of what was there is gone or overwritten");
            // Then it goes, as if it had been dropped.
            put_any(&mut stores, "key 0", b"last");
            for _ in 0..RETAINED {
                checkpoint(&job, &mut stores, "").unwrap();
            }
            let state = contents(&mut stores, "words");
            job.compact().unwrap();
            alluvium_testkit::drive::materialize(&job);
            for _ in 0..RETAINED {
                checkpoint(&job, &mut stores, "").unwrap();
            }
            job.close().unwrap();
            drop(stores);
            assert_eq!(place.of_epoch(1), 0, "{:#?}", place.names());
            let Opened { mut stores, .. } = place.open(place.options("local")).unwrap();
            assert!(contents(&mut stores, "words") == state);
        }
    }
}

/// The record of an attempt that came to nothing.
#[test]
fn i2_a_damaged_open_record_on_top_is_passed_over_and_still_fences() {
    for damage in [Damage::Header, Damage::Body, Damage::Empty] {
        let place = Place::new();
        let mut sleeper = place.open(place.options("sleeper")).unwrap();
        put_any(&mut sleeper.stores, "a", b"1");
        let last = checkpoint(&sleeper.job, &mut sleeper.stores, "").unwrap();
        // A collection that is under way would see the later attempt before its record is damaged.
        sleeper.job.settle(PATIENCE).unwrap();
        drop(place.open(place.options("dead")).unwrap());
        place.damage(&place.newest(), damage);
        // Who was fenced by it finds out, or at least never commits.
        put_any(&mut sleeper.stores, "a", b"2");
        let error = checkpoint(&sleeper.job, &mut sleeper.stores, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");

        assert_eq!(place.open(place.options("next")).unwrap_err().kind(), ErrorKind::Corrupt);
        let next = place.open(place.options("next").fallback(true)).unwrap();
        let Opened { job, mut stores, restored, .. } = next;
        assert_eq!(restored.checkpoint, Some(last.id));
        assert_eq!(restored.damaged.len(), 1);
        checkpoint(&job, &mut stores, "").unwrap();
        checkpoint(&sleeper.job, &mut sleeper.stores, "").unwrap_err();
        drop((job, stores));
        // And once there is something above, it needs no permission.
        assert_eq!(place.open(place.options("next")).unwrap().restored.damaged, []);
    }
}

#[test]
fn i2_who_was_fenced_by_a_record_that_is_damaged_by_now_learns_it_from_what_lies_above() {
    let place = Place::new();
    let mut sleeper = place.open(place.options("sleeper")).unwrap();
    checkpoint(&sleeper.job, &mut sleeper.stores, "").unwrap();
    drop(place.open(place.options("dead")).unwrap());
    place.damage(&place.newest(), Damage::Empty);
    drop(place.open(place.options("next").fallback(true)).unwrap());
    let error = checkpoint(&sleeper.job, &mut sleeper.stores, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
}

/// Nothing to go back to is never taken for a new job.
#[test]
fn i1_a_job_whose_only_checkpoint_is_damaged_does_not_begin_anew() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options("local").retained(1)).unwrap();
    put_any(&mut stores, "a", b"1");
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    place.damage(&place.newest(), Damage::Body);
    let before = files_below(&place.objects());
    for fallback in [false, true] {
        let error = place.open(place.options("local").fallback(fallback)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(files_below(&place.objects()), before);
    }
    // The very first record is that of an attempt, before which there was nothing.
    let place = Place::new();
    drop(place.open(place.options("local")).unwrap());
    place.damage(&place.newest(), Damage::Empty);
    place.open(place.options("local")).unwrap_err();
    let opened = place.open(place.options("local").fallback(true)).unwrap();
    assert_eq!(opened.restored.checkpoint, None);
}

/// One in the middle keeps nobody from opening; its neighbours go when they are dropped.
#[test]
fn a_damaged_retained_checkpoint_in_the_middle_is_passed_over() {
    let place = Place::new();
    let checkpoints = place.sample(CheckpointMode::Changelog);
    let seen = inspect(place.url()).unwrap();
    let middle = seen.records.iter().rev().filter(|record| record.checkpoint.is_some()).nth(1).unwrap();
    let path = place.objects().join(format!("manifest/{:020}", middle.version));
    place.damage(&path, Damage::Body);
    let Opened { job, mut stores, restored, .. } = place.open(place.options("local")).unwrap();
    assert_eq!(restored.checkpoint, Some(checkpoints[4].0));
    for _ in 0..RETAINED + 1 {
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.health().unwrap();
    job.close().unwrap();
}

#[test]
fn what_is_intact_can_be_looked_at_and_read() {
    let place = Place::new();
    let checkpoints = place.sample(CheckpointMode::Changelog);
    Savepoints::open(place.url()).unwrap().create("kept", Some(checkpoints[3].0)).unwrap();
    let newest = place.newest();
    place.damage(&newest, Damage::Body);
    let seen = inspect(place.url()).unwrap();
    assert_eq!(seen.damaged_versions.len(), 1);
    assert_eq!(seen.damaged_versions[0].0, seen.newest_version);
    assert_eq!(seen.savepoints.len(), 1);
    let read = |from: &RestoreFrom| {
        let options = ReaderOptions::new().dir(place.dir.path().join("reader"));
        let reader = CheckpointReader::open(place.url(), from, options)?;
        let scan = reader.scan("words", b"")?;
        let found = scan.map(|entry| entry.map(|(group, key, value)| ((group, key), value)));
        let found = found.collect::<Result<Contents, _>>()?;
        reader.close()?;
        Ok::<_, Error>(found)
    };
    assert!(read(&RestoreFrom::Checkpoint(checkpoints[3].0)).unwrap() == checkpoints[3].1);
    assert!(read(&RestoreFrom::Savepoint("kept".to_owned())).unwrap() == checkpoints[3].1);
    let error = read(&RestoreFrom::Latest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("by its id"), "{error}");
    eventually("no pin stays", Duration::from_secs(20), || {
        !place.names().iter().any(|name| name.starts_with("pin/"))
    });
}
