//! What a checkpoint says of one operator.

use super::subtask::SubtaskRecord;
use crate::error::{Error, Result};
use crate::ids::{OperatorId, SubtaskIndex};
use crate::key_group::MaxParallelism;

/// A named operator. The checkpoint's next `subtasks` subtasks are its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorRecord {
    pub id: OperatorId,
    pub max_parallelism: MaxParallelism,
    pub subtasks: u32,
}

/// One operator's part of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperatorPart<'a> {
    pub id: &'a OperatorId,
    pub max_parallelism: MaxParallelism,
    /// Ascending by subtask.
    pub subtasks: &'a [SubtaskRecord],
}

impl OperatorPart<'_> {
    /// The number of a subtask among those of its operator.
    pub(crate) fn number_of(&self, subtask: SubtaskIndex) -> u32 {
        // A job without named operators counts from 0, whichever of its subtasks a record has.
        let first = self.subtasks.first().filter(|_| self.id.is_named());
        subtask.0.saturating_sub(first.map_or(0, |first| first.subtask.0))
    }

    /// The rules within one operator.
    pub(super) fn validate(&self) -> Result<()> {
        for record in self.subtasks {
            record
                .validate(self.max_parallelism)
                .map_err(|error| error.object(format_args!("subtask {}", record.subtask)))?;
        }
        let mut ranges: Vec<_> = self.subtasks.iter().map(|record| record.range).collect();
        ranges.sort_by_key(|range| range.first);
        if !ranges.is_sorted_by(|a, b| a.last < b.first) {
            return Err(Error::corrupt("key group ranges of subtasks overlap"));
        }
        Ok(())
    }
}

/// Names of operators are unique, and together they have all `subtasks`.
pub(super) fn validate(operators: &[OperatorRecord], subtasks: usize) -> Result<()> {
    let mut ids: Vec<_> = operators.iter().map(|operator| &operator.id).collect();
    ids.sort_unstable();
    if !ids.is_sorted_by(|a, b| a < b) || ids.iter().any(|id| !id.is_named()) {
        return Err(Error::corrupt("two operators of a checkpoint have one name, or one has none"));
    }
    let all = operators.iter().map(|operator| u64::from(operator.subtasks)).sum::<u64>();
    let empty = operators.iter().any(|operator| operator.subtasks == 0);
    if empty || (!operators.is_empty() && all != subtasks as u64) {
        return Err(Error::corrupt(format!("operators have {all} subtasks, the checkpoint has {subtasks}")));
    }
    Ok(())
}
