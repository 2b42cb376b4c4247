//! What opening a job returns.

use super::{Assignment, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperatorId, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::OperatorPart;
use crate::restore::RestoreReport;
use crate::store::StateStore;

/// A job that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The job.
    pub job: Job,
    /// One store for each subtask that this process holds, in their order: to be handed to the
    /// operators' threads. With several operators: those of the first, then those of the second, and
    /// so on.
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
    ///
    /// With several operators: [`Opened::metadata_of`].
    pub subtask_metadata: Vec<(SubtaskIndex, KeyGroupRange, Vec<u8>)>,
    /// What each [member](crate::JobOptions::members) opens its part of the job with, in their order.
    pub assignments: Vec<Assignment>,
    pub(super) restored_operators: Vec<RestoredOperator>,
}

/// An operator of the restored checkpoint.
#[derive(Debug)]
pub(super) struct RestoredOperator {
    id: OperatorId,
    subtasks: Vec<SubtaskIndex>,
}

impl RestoredOperator {
    pub(super) fn of(part: &OperatorPart<'_>) -> Self {
        Self { id: part.id.clone(), subtasks: part.subtasks.iter().map(|record| record.subtask).collect() }
    }
}

impl Opened {
    /// Takes the stores of one operator out of [`stores`](Self::stores), in the order of its
    /// subtasks: the store at place `i` owns the keys that
    /// [`MaxParallelism::subtask_of`](crate::MaxParallelism::subtask_of) gives to subtask `i` of as
    /// many as there are.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there are none, because the job has no such operator or
    /// they were taken before; it names those that are left.
    pub fn take_operator(&mut self, id: &str) -> Result<Vec<StateStore>> {
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stores).into_iter().partition(|store| store.operator() == Some(id));
        self.stores = others;
        if own.is_empty() {
            let mut left: Vec<_> = self.stores.iter().filter_map(StateStore::operator).collect();
            left.dedup();
            return Err(Error::new(ErrorKind::NotFound, "there are no stores of this operator")
                .object(format!("operator {id:?}"))
                .advise(format!("choose one of [{}]", left.join(", "))));
        }
        Ok(own)
    }

    /// As [`subtask_metadata`](Self::subtask_metadata), of one operator of the restored checkpoint,
    /// under the id that it had there. Nothing if there was no such operator.
    pub fn metadata_of(&self, operator: &str) -> impl Iterator<Item = (SubtaskIndex, KeyGroupRange, &[u8])> {
        let of = self.restored_operators.iter().find(|restored| restored.id.as_str() == operator);
        let subtasks = of.map_or(&[][..], |restored| &restored.subtasks);
        let all = self.subtask_metadata.iter().filter(|(subtask, ..)| subtasks.contains(subtask));
        all.map(|(subtask, range, metadata)| (*subtask, *range, metadata.as_slice()))
    }
}
