//! The state of a running job: its health, its subtasks, the checkpoint under way.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::ids::{CheckpointId, Epoch, SubtaskIndex};
use crate::messages::{Operator, Standing};

use super::overdue::{self, Missing};

/// Failures in a row from which on a status is a warning.
const WORTH_A_WARNING: u64 = 3;

/// How a job is doing as of now ([`Job::status`](crate::Job::status)).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobStatus {
    /// The failure that ended the attempt or makes every further checkpoint impossible, as
    /// [`Job::health`](crate::Job::health) returns it.
    pub failure: Option<Error>,
    /// Work that cannot be done in the background of one of the stores at the moment, although
    /// writes still go through ([`StateStore::health`](crate::StateStore::health)).
    pub trouble: Option<Error>,
    /// Checkpoints that were given up since the last one that became durable.
    pub failed_in_a_row: u64,
    /// Time since the first of these failures.
    pub failing_for: Option<Duration>,
    /// The newest of these failures: the checkpoint, and why it was given up.
    pub last_failure: Option<(CheckpointId, Error)>,
    /// The checkpoint that is under way.
    pub under_way: Option<UnderWay>,
    /// Each subtask, in their order.
    pub subtasks: Vec<SubtaskStatus>,
}

/// A checkpoint that is under way.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnderWay {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Time since its trigger.
    pub age: Duration,
    /// When it will be given up, as time since its trigger.
    pub timeout: Duration,
}

/// One subtask of a job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubtaskStatus {
    /// The subtask.
    pub subtask: SubtaskIndex,
    /// The state of its store.
    pub store: StoreState,
    /// The last checkpoint that its store has cut for, and how long ago that was.
    pub last_cut: Option<(CheckpointId, Duration)>,
    /// Bytes of deltas that are not yet applied or not yet durable.
    pub held_bytes: u64,
    /// What it owes to the checkpoint that is under way.
    pub owes: Owes,
}

/// Whether a store is in an operator's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreState {
    /// An operator has it.
    InUse,
    /// [`StateStore::finish`](crate::StateStore::finish) was called: no checkpoint waits for a cut of it.
    Finished,
    /// It was dropped: no checkpoint can be complete any more.
    Dropped,
}

/// What a subtask owes to the checkpoint that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owes {
    /// Nothing. No checkpoint is under way, or the subtask's receipt is in.
    Nothing,
    /// Its cut.
    Cut,
    /// An upload. The store has cut, and its deltas or files are not durable yet.
    Upload,
}

/// The verdict of [`JobStatus::health`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Health {
    /// Nothing is wrong.
    Well,
    /// The job goes on, but needs attention. The text names the subtasks and since when.
    Warning(String),
    /// The attempt can commit nothing more.
    Failed(Error),
}

impl JobStatus {
    /// The verdict. It is a warning if the background of a store is in trouble, if three or more
    /// checkpoints in a row were given up, or if the checkpoint under way has used up half of its
    /// time.
    pub fn health(&self) -> Health {
        if let Some(error) = &self.failure {
            return Health::Failed(error.clone());
        }
        let mut warnings: Vec<String> = self.trouble.iter().map(ToString::to_string).collect();
        if self.failed_in_a_row >= WORTH_A_WARNING
            && let Some((id, error)) = &self.last_failure
        {
            let since = self.failing_for.unwrap_or_default();
            let count = self.failed_in_a_row;
            warnings.push(format!(
                "{count} checkpoints in a row were given up within {since:.1?}, the last {id}: {error}"
            ));
        }
        if let Some(under_way) = self.under_way.as_ref().filter(|run| run.age >= run.timeout / 2) {
            let waits = overdue::waits_for(self.subtasks.len(), &self.missing());
            warnings
                .push(format!("checkpoint {} was triggered {:.1?} ago{waits}", under_way.id, under_way.age));
        }
        if warnings.is_empty() { Health::Well } else { Health::Warning(warnings.join("; ")) }
    }

    fn missing(&self) -> Vec<(SubtaskIndex, Missing)> {
        let missing = self.subtasks.iter().filter_map(|subtask| {
            let missing = match subtask.owes {
                Owes::Nothing => return None,
                Owes::Cut => Missing::Cut { last: subtask.last_cut },
                Owes::Upload => Missing::Upload { held: subtask.held_bytes },
            };
            Some((subtask.subtask, missing))
        });
        missing.collect()
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("well"),
            Self::Warning(text) => write!(f, "warning: {text}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// The part of the checkpoint under way that other threads may read.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) id: CheckpointId,
    pub(super) start: Duration,
    /// Subtasks whose receipts are in.
    pub(super) receipts: BTreeSet<SubtaskIndex>,
}

/// Checkpoints that were given up since the last one that became durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    pub(super) count: u64,
    pub(super) since: Duration,
    pub(super) last: Option<(CheckpointId, Error)>,
}

impl Failures {
    pub(super) fn add(&mut self, now: Duration, id: CheckpointId, error: &Error) {
        if self.count == 0 {
            self.since = now;
        }
        self.count += 1;
        self.last = Some((id, error.clone()));
    }
}

pub(super) fn of_subtask(
    subtask: SubtaskIndex,
    standing: &Standing,
    pending: Option<&Pending>,
    epoch: Epoch,
) -> SubtaskStatus {
    let waited_for = pending.filter(|pending| !pending.receipts.contains(&subtask));
    let owes = waited_for.map(|pending| Missing::of(standing, pending.id));
    SubtaskStatus {
        subtask,
        store: match standing.operator {
            Operator::Present => StoreState::InUse,
            Operator::Finished => StoreState::Finished,
            Operator::Gone => StoreState::Dropped,
        },
        last_cut: standing.last_cut.map(|(number, ago)| (CheckpointId { epoch, number }, ago)),
        held_bytes: standing.held,
        owes: match owes {
            None => Owes::Nothing,
            Some(Missing::Cut { .. }) => Owes::Cut,
            Some(Missing::Upload { .. }) => Owes::Upload,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn id(number: u64) -> CheckpointId {
        CheckpointId { epoch: Epoch(1), number }
    }

    fn well() -> JobStatus {
        let subtask = |n| SubtaskStatus {
            subtask: SubtaskIndex(n),
            store: StoreState::InUse,
            last_cut: Some((id(4), Duration::from_secs(40))),
            held_bytes: 0,
            owes: Owes::Nothing,
        };
        JobStatus {
            failure: None,
            trouble: None,
            failed_in_a_row: 0,
            failing_for: None,
            last_failure: None,
            under_way: None,
            subtasks: (0..3).map(subtask).collect(),
        }
    }

    fn failing(times: u64) -> JobStatus {
        let mut failures = Failures::default();
        for number in 1..=times {
            let error = Error::new(ErrorKind::Aborted, "the store is away").object(format!("{number}"));
            failures.add(Duration::from_secs(number), id(number), &error);
        }
        let failing_for = Some(Duration::from_secs(61) - failures.since);
        JobStatus { failed_in_a_row: failures.count, failing_for, last_failure: failures.last, ..well() }
    }

    #[test]
    fn failures_in_a_row_are_a_warning_with_the_last_of_them_and_since_when() {
        assert!(matches!(well().health(), Health::Well));
        assert!(matches!(failing(2).health(), Health::Well));
        let text = failing(5).health().to_string();
        for words in
            ["warning", "5 checkpoints in a row", "within 60.0s", "the last 1-5", "the store is away"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn a_checkpoint_that_has_used_up_half_its_time_names_who_it_waits_for() {
        let mut status = well();
        let [age, timeout] = [29, 60].map(Duration::from_secs);
        status.under_way = Some(UnderWay { id: id(5), age, timeout });
        status.subtasks[2].owes = Owes::Cut;
        assert!(matches!(status.health(), Health::Well));
        status.under_way = Some(UnderWay { id: id(5), age: timeout / 2, timeout });
        let text = status.health().to_string();
        for words in
            ["checkpoint 1-5", "30.0s ago", "1 of 3 subtasks have not cut: 2 (last for 1-4, 40.0s ago)"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn trouble_that_may_pass_is_a_warning() {
        let trouble = Some(Error::new(ErrorKind::Disk, "no space left"));
        let text = JobStatus { trouble, ..well() }.health().to_string();
        assert!(text.starts_with("warning") && text.contains("no space left"), "{text}");
    }

    #[test]
    fn a_failure_is_no_warning() {
        let status = JobStatus { failure: Some(Error::new(ErrorKind::Fenced, "fenced")), ..failing(9) };
        assert!(matches!(status.health(), Health::Failed(error) if error.kind() == ErrorKind::Fenced));
    }
}
