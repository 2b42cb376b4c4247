//! A job with typed state that is checkpointed and restored, in both modes.

use std::sync::Arc;

use alluvium::{
    CheckpointId, CheckpointMode, CheckpointReader, Error, ErrorKind, Job, JobOptions, OpenMode, Opened,
    ReaderOptions, RestoreFrom, StateStore,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;

use crate::drive::{PREFIX, by_hand, checkpoint};

/// Where a job lives, over all its attempts.
#[derive(Debug)]
pub struct Home {
    remote: Arc<InMemory>,
    dir: TempDir,
    mode: CheckpointMode,
    subtasks: u32,
}

/// Runs a test in both modes.
pub fn in_both_modes(test: impl Fn(&Home)) {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        println!("in mode {mode:?}");
        test(&Home {
            remote: Arc::new(InMemory::new()),
            dir: tempfile::tempdir().unwrap(),
            mode,
            subtasks: 1,
        });
    }
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    pub job: Job,
    pub stores: Vec<StateStore>,
}

impl Home {
    pub fn with_subtasks(&self, subtasks: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { remote: Arc::clone(&self.remote), dir, mode: self.mode, subtasks }
    }

    pub fn open(&self) -> Attempt {
        self.try_open(RestoreFrom::Latest).unwrap()
    }

    pub fn open_at(&self, id: CheckpointId) -> Attempt {
        self.try_open(RestoreFrom::Checkpoint(id)).unwrap()
    }

    pub fn is_changelog(&self) -> bool {
        self.mode == CheckpointMode::Changelog
    }

    /// Reads the newest checkpoint from outside.
    pub fn read(&self) -> CheckpointReader {
        self.read_with(ReaderOptions::new().dir(self.dir.path().join("reader")))
    }

    pub fn read_with(&self, options: ReaderOptions) -> CheckpointReader {
        let remote = Arc::clone(&self.remote) as Arc<dyn ObjectStore>;
        CheckpointReader::open((remote, PREFIX), &RestoreFrom::Latest, options).unwrap()
    }

    pub fn try_open(&self, from: RestoreFrom) -> Result<Attempt, Error> {
        let options = JobOptions::new(self.dir.path(), OpenMode::CreateOrOpen)
            .subtasks(self.subtasks)
            .memory(u64::from(self.subtasks) * 16_000_000)
            .mode(self.mode)
            .retained(10)
            .materialization(by_hand())
            .restore_from(from);
        let remote = Arc::clone(&self.remote) as Arc<dyn ObjectStore>;
        let Opened { job, stores, .. } = Job::open((remote, PREFIX), options)?;
        Ok(Attempt { job, stores })
    }
}

impl Attempt {
    /// The store of subtask 0.
    pub fn store(&mut self) -> &mut StateStore {
        &mut self.stores[0]
    }

    pub fn checkpoint(&mut self) -> CheckpointId {
        checkpoint(&self.job, &mut self.stores, "").unwrap().id
    }

    pub fn materialize(&self) {
        crate::drive::materialize(&self.job);
    }
}

#[track_caller]
pub fn assert_error<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

/// All items of an iterator of results.
#[track_caller]
pub fn all<T>(items: impl Iterator<Item = Result<T, Error>>) -> Vec<T> {
    items.collect::<Result<_, _>>().unwrap()
}
