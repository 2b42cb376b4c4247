//! How checkpoints are taken.

use serde::{Deserialize, Serialize};

/// How checkpoints are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// Every change goes into a changelog as well; a checkpoint uploads the last bit of it. The default.
    #[default]
    Changelog,
    /// A checkpoint flushes RocksDB and uploads the files that are new.
    NativeIncremental,
}

impl CheckpointMode {
    /// Whether every change goes into the changelog, and bases follow in the background. Where a mode only needs to
    /// say this, it says it here; where it does something of its own, a `match` names every mode.
    pub(crate) fn logs_changes(self) -> bool {
        match self {
            Self::Changelog => true,
            Self::NativeIncremental => false,
        }
    }
}
