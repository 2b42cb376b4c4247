//! Options of a member: what is its process's own. Every setter's documentation ends in its default.

use std::path::PathBuf;
use std::time::Duration;

use crate::env::Env;
use crate::job::{Assignment, JobOptions};

/// What a [`Member`](crate::Member)'s process decides for itself. The options that must agree are the committer's, and come
/// with the [assignment](Assignment).
///
/// ```
/// use alluvium::MemberOptions;
///
/// let options = MemberOptions::new("/var/cache/job").memory(4_000_000_000);
/// ```
#[derive(Clone, Debug)]
pub struct MemberOptions {
    dir: PathBuf,
    memory: Option<u64>,
    delta_bytes: Option<u64>,
    background_jobs: Option<usize>,
    max_open_files: Option<u32>,
    rocksdb: Vec<(String, String)>,
    restore_patience: Option<Duration>,
    pub(super) env: Env,
}

impl MemberOptions {
    /// The defaults, for a member whose local files live in `dir` (created if absent; used by one
    /// process at a time). The directory is a cache: the truth is in the object store.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory: None,
            delta_bytes: None,
            background_jobs: None,
            max_open_files: None,
            rocksdb: Vec::new(),
            restore_patience: None,
            env: Env::default(),
        }
    }

    /// Bytes for the stores of this member together, as [`JobOptions::memory`]. Default 512 MB.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// As [`JobOptions::delta_bytes`]. Default: the subtask's share of the memory divided by 64, 1 to 4 MiB, but never
    /// more than a sixteenth of the share.
    #[must_use]
    pub fn delta_bytes(mut self, bytes: u64) -> Self {
        self.delta_bytes = Some(bytes);
        self
    }

    /// As [`JobOptions::background_jobs`]. Default: one for each core, 2 to 16, and at least 4 for three subtasks or
    /// more.
    #[must_use]
    pub fn background_jobs(mut self, jobs: usize) -> Self {
        self.background_jobs = Some(jobs);
        self
    }

    /// As [`JobOptions::max_open_files`]. Default: what an eighth of the memory has room for, at 8 KiB a file, and
    /// at least 64 for each subtask.
    #[must_use]
    pub fn max_open_files(mut self, files: u32) -> Self {
        self.max_open_files = Some(files);
        self
    }

    /// As [`JobOptions::rocksdb_option`]. Default none.
    #[must_use]
    pub fn rocksdb_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.rocksdb.push((name.into(), value.into()));
        self
    }

    /// As [`JobOptions::restore_patience`]. Default 10 minutes.
    #[must_use]
    pub fn restore_patience(mut self, patience: Duration) -> Self {
        self.restore_patience = Some(patience);
        self
    }

    /// Time and randomness. Default: the machine's.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// The options of a committer that holds the member's subtasks.
    pub(super) fn with(&self, assignment: &Assignment) -> JobOptions {
        let mut options = assignment.options(self.dir.clone()).env(self.env.clone());
        options.memory = self.memory.unwrap_or(options.memory);
        options.restore_patience = self.restore_patience.unwrap_or(options.restore_patience);
        options.delta_bytes = self.delta_bytes;
        options.background_jobs = self.background_jobs;
        options.max_open_files = self.max_open_files;
        for (name, value) in &self.rocksdb {
            options = options.rocksdb_option(name, value);
        }
        options
    }
}
