//! From the coordinator to a store.

use serde::{Deserialize, Serialize};

use crate::changelog::Moved;
use crate::ids::CheckpointId;
use crate::manifest::DeltaRef;

/// What a store is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToStore {
    /// A checkpoint was triggered that a finished store does not cut for itself.
    CutFinished(CheckpointId),
    /// The coordinator has committed a checkpoint. What was inlined lies in its manifest now, here.
    Committed { id: CheckpointId, refs: Vec<DeltaRef> },
    /// Durable deltas were copied together elsewhere.
    Packed(Moved),
    /// The checkpoint was given up, or its receipt came too late.
    Aborted(CheckpointId),
    /// Take a new base now.
    Materialize,
    /// Upload everything that is held, whatever its size.
    Flush,
}
