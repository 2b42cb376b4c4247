//! Options of a [`CheckpointReader`](super::CheckpointReader).

use std::path::PathBuf;
use std::time::Duration;

use crate::env::Env;

/// How a checkpoint is read from outside.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    pub(super) dir: PathBuf,
    pub(super) memory: u64,
    pub(super) request_timeout: Duration,
    pub(super) store_options: Vec<(String, String)>,
    pub(super) env: Env,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            dir: std::env::temp_dir(),
            memory: 128_000_000,
            request_timeout: Duration::from_secs(30),
            store_options: Vec::new(),
            env: Env::default(),
        }
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

    /// How long a request to the object store may take, beside the time that its bytes need at
    /// 256 KiB/s. Default 30 seconds.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// A configuration key of the object store, as
    /// [`JobOptions::store_option`](crate::JobOptions::store_option). Default none.
    #[must_use]
    pub fn store_option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.store_options.push((key.into(), value.into()));
        self
    }

    /// Time and randomness. Default: the machine's.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }
}
