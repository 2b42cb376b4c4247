//! Which checkpoint is meant.

use crate::ids::CheckpointId;

/// Which checkpoint a job continues from, or is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RestoreFrom {
    /// The newest; an empty state where there is none yet.
    #[default]
    Latest,
    /// This one, which must be among the retained ones.
    Checkpoint(CheckpointId),
    /// The savepoint of this name, however old it is.
    Savepoint(String),
}
