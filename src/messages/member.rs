//! What passes between the committer and a member: the process that commits, and one that holds some
//! of the subtasks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::{CheckpointId, SubtaskIndex};
use crate::manifest::DeltaRef;

use super::standing::Standing;
use super::up::FromStore;

/// What a member is told. [`ToStore`](super::ToStore) is what its stores are told of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToMember {
    /// A checkpoint has started: its stores may cut. Bases give way for at most this long.
    Triggered { id: CheckpointId, way: Duration },
    /// A barrier is near: operators cut what the manifest would not take.
    CutEarly { way: Duration },
    /// A checkpoint was committed. What was inlined lies in its manifest now, here.
    Committed { id: CheckpointId, refs: Vec<(SubtaskIndex, Vec<DeltaRef>)> },
    /// The checkpoint was given up.
    Aborted(CheckpointId),
    /// The receipt of this subtask came too late for its checkpoint.
    Late(SubtaskIndex, CheckpointId),
    /// Take new bases now.
    Materialize,
    /// The job was closed.
    Closed,
    /// The attempt has failed.
    Failed(Error),
}

impl ToMember {
    /// Whether it is of no use once newer messages wait behind it.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::CutEarly { .. })
    }
}

/// What a member tells the committer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FromMember {
    /// What one of its stores, or its uploader, says.
    Told(FromStore),
    /// How its stores stand.
    Standing(MemberStanding),
}

/// How a member and its stores stand at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct MemberStanding {
    pub(crate) stores: Vec<(SubtaskIndex, Standing)>,
    /// A store was dropped that later checkpoints would wait for.
    pub(crate) abandoned: Option<Error>,
    /// What cannot be done in the background at the moment.
    pub(crate) trouble: Option<Error>,
}

impl MemberStanding {
    /// Whether the other one says something else that somebody may be waiting to hear.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let trouble = |standing: &Self| {
            [&standing.abandoned, &standing.trouble].map(|error| error.as_ref().map(Error::kind))
        };
        let stores =
            |standing: &Self| standing.stores.iter().map(|(subtask, _)| *subtask).collect::<Vec<_>>();
        let mut pairs = self.stores.iter().zip(&other.stores);
        trouble(self) != trouble(other)
            || stores(self) != stores(other)
            || pairs.any(|((_, one), (_, other))| one.differs(other))
    }
}

impl FromMember {
    /// As [`ToMember::is_passing`].
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Standing(_) | Self::Told(FromStore::Uploaded { .. }))
    }
}
