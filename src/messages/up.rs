//! From a store, and from what uploads for it, to the coordinator.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::changelog::Receipt;
use crate::error::Error;
use crate::ids::{CheckpointId, SubtaskIndex};
use crate::materialize::MaterializationReport;
use crate::remote::ObjectName;

/// What the coordinator is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FromStore {
    /// What a subtask contributes to a checkpoint.
    Receipt(Box<Receipt>),
    /// A store cannot contribute to the checkpoint.
    Refused { checkpoint: CheckpointId, error: Error },
    /// The store cuts no more for itself. It has for checkpoints up to this number.
    Finished { subtask: SubtaskIndex, last_cut: u64 },
    /// Objects that were written for the job and that nothing refers to any more.
    Retired(Vec<ObjectName>),
    /// A base was made.
    Materialized(MaterializationReport),
    /// How long an upload of deltas took.
    Uploaded { took: Duration },
    /// The attempt cannot go on.
    Failed(Error),
}

/// Brings messages to the coordinator, wherever it is.
#[derive(Clone)]
pub(crate) struct Committer(Arc<dyn Fn(FromStore) + Send + Sync>);

impl Committer {
    pub(crate) fn new(send: impl Fn(FromStore) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Never waits. A message is lost when the job is going down; its effect is of no use then.
    pub(crate) fn tell(&self, message: FromStore) {
        (self.0)(message);
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Committer")
    }
}
