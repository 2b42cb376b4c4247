//! What opening a job returns.

use super::Job;
use crate::ids::SubtaskIndex;
use crate::key_group::KeyGroupRange;
use crate::restore::RestoreReport;
use crate::store::StateStore;

/// A job that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The job.
    pub job: Job,
    /// One store for each subtask, in their order: to be handed to the operators' threads.
    pub stores: Vec<StateStore>,
    /// What was restored, and what it took.
    pub restored: RestoreReport,
    /// What was given to [`Job::trigger`] at the checkpoint that was restored.
    pub metadata: Option<Vec<u8>>,
    /// What each subtask of the restored checkpoint gave to its [`StateStore::cut`], with the key groups
    /// that it owned; empty after a fresh start.
    ///
    /// At an unchanged number of subtasks each entry is what [`StateStore::restored_metadata`]
    /// returns. After a rescale this is the only source of offsets: they follow the partitions of a
    /// source and not key groups. Read those of *all* old subtasks, and assign each partition to
    /// the subtask that reads it from now on.
    pub subtask_metadata: Vec<(SubtaskIndex, KeyGroupRange, Vec<u8>)>,
}
