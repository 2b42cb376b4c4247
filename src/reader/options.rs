//! Options of a [`CheckpointReader`](super::CheckpointReader).

use std::path::PathBuf;

use crate::env::Env;

/// How a checkpoint is read from outside.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    pub(super) dir: PathBuf,
    pub(super) memory: u64,
    pub(super) env: Env,
    pub(super) pin: bool,
    pub(super) operator: Option<String>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            dir: std::env::temp_dir(),
            memory: 128_000_000,
            env: Env::default(),
            pin: true,
            operator: None,
        }
    }
}

impl ReaderOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a directory is made for the files of the checkpoint; it is removed at the end.
    /// Default: the system's place for temporary files.
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

    /// Whether the checkpoint is pinned while it is read. Default true. A pin is an object in the
    /// job's store; without one, credentials that may only list and read are enough. A running job
    /// may then collect the checkpoint meanwhile: a read that finds something gone fails with
    /// [`MissingObject`](crate::ErrorKind::MissingObject) and says so. Savepoints are not collected
    /// before they are released.
    #[must_use]
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// The operator whose state is read, of a job that names several. Default: the only one there
    /// is, or what [`CheckpointReader::select`](super::CheckpointReader::select) chooses.
    #[must_use]
    pub fn operator(mut self, id: impl Into<String>) -> Self {
        self.operator = Some(id.into());
        self
    }

    /// Time and randomness. Default: the machine's.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }
}
