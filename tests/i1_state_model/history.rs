//! The checkpoints of the job, over all its attempts.

use std::collections::BTreeMap;

use alluvium::{CheckpointId, Job, KeyGroupRange, SubtaskIndex};

use super::model::Model;

/// What a checkpoint must restore to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) metadata: Vec<u8>,
    /// Of each subtask that there was.
    pub(crate) subtask_metadata: Vec<(SubtaskIndex, KeyGroupRange, Vec<u8>)>,
    pub(crate) model: Model,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    /// Every checkpoint that was ever committed.
    pub(crate) committed: BTreeMap<CheckpointId, Snapshot>,
    /// Those that the job must still have, oldest first.
    pub(crate) retained: Vec<CheckpointId>,
    /// A checkpoint that was under way at the crash, and how many were to be kept then.
    pub(crate) doubt: Option<(CheckpointId, Snapshot, usize)>,
}

impl History {
    /// `keep` is how many the attempt retains.
    pub(crate) fn commit(&mut self, id: CheckpointId, snapshot: Snapshot, keep: usize) {
        assert!(self.committed.insert(id, snapshot).is_none(), "{id} was given twice");
        self.retained.push(id);
        let drop = self.retained.len().saturating_sub(keep);
        self.retained.drain(..drop);
    }

    /// Whether the checkpoint in doubt was committed shows in the chain; after this the job has what it must.
    pub(crate) fn settle(&mut self, job: &Job) {
        let found = job.checkpoints();
        if let Some((id, snapshot, keep)) = self.doubt.take()
            && found.iter().any(|summary| summary.id == id)
        {
            self.commit(id, snapshot, keep);
        }
        let found: Vec<_> = found.iter().map(|summary| summary.id).collect();
        assert_eq!(found, self.retained, "the retained checkpoints");
    }
}
