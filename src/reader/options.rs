//! Options of a [`CheckpointReader`](super::CheckpointReader).

use std::path::PathBuf;

use crate::env::Env;

/// How a checkpoint is read from outside.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    pub(super) dir: PathBuf,
    pub(super) memory: u64,
    pub(super) env: Env,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { dir: std::env::temp_dir(), memory: 128_000_000, env: Env::default() }
    }
}

impl ReaderOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a directory is made for the files of the checkpoint; it is removed at the end. Default: the
    /// system's place for temporary files.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Bytes for block cache and memtables. Default 128 MB.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Time and randomness. Default: the machine's.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }
}
