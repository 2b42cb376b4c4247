//! Savepoints: they outlive any number of checkpoints and attempts, restore to exactly the state at their
//! cut, and go when they are released.
#![allow(clippy::unwrap_used)]

mod creation;
mod going_back;
mod release;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alluvium::admin::{Savepoints, inspect};
use alluvium::{
    CheckpointMode, CheckpointReader, CheckpointReport, Error, ErrorKind, Job, JobOptions, KeyGroup,
    OpenMode, Opened, ReaderOptions, RestoreFrom, StateStore,
};
use object_store::ObjectStore;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::drive::{checkpoint, contents, materialize, noise, put_any};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{Fault, FaultStore, Gate, Op};
use alluvium_testkit::objects::{files_below, write_files};
use alluvium_testkit::stored::StoredJob;

type Contents = BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>;

/// A job that retains one checkpoint, so that a savepoint alone keeps the others.
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
        self.options_in("local")
    }

    fn options_in(&self, dir: &str) -> JobOptions {
        self.0.options_in(dir).retained(1).inline_limit(2_000)
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
