//! Explains why a checkpoint was not durable in time: which subtasks it waited for, and for what.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::ids::{CheckpointId, SubtaskIndex};
use crate::messages::{Operator, Standing};

/// Of many subtasks that wait for the same only so many are named.
const NAMED: usize = 8;

/// What a subtask still owes to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Its store has not cut. The last cut before, and how long ago that was.
    Cut { last: Option<(CheckpointId, Duration)> },
    /// It has cut, and what belongs to the cut is on its way: so many bytes are held in memory.
    Upload { held: u64 },
}

impl Missing {
    pub(super) fn of(standing: &Standing, checkpoint: CheckpointId) -> Self {
        if standing.has_cut(checkpoint.number) || standing.operator == Operator::Finished {
            return Self::Upload { held: standing.held };
        }
        let id = |number| CheckpointId { number, ..checkpoint };
        Self::Cut { last: standing.last_cut.map(|(number, ago)| (id(number), ago)) }
    }
}

/// The error of a checkpoint that was given up after `timeout`, for want of `missing` receipts of `all`.
pub(super) fn error(timeout: Duration, all: usize, missing: &[(SubtaskIndex, Missing)]) -> Error {
    let message = format!("not durable within {timeout:?}{}", waits_for(all, missing));
    let late = missing.iter().any(|(_, missing)| matches!(missing, Missing::Cut { .. }));
    let advice = if !late {
        "the next checkpoint carries on with what is uploaded by then; look at the object store, or give checkpoints more time"
    } else {
        "every store has to cut when StateStore::due says so; one whose input has ended says so by StateStore::finish"
    };
    Error::new(ErrorKind::Aborted, message).advise(advice)
}

/// The subtasks, of `all`, that a checkpoint waits for, as the end of a sentence.
pub(super) fn waits_for(all: usize, missing: &[(SubtaskIndex, Missing)]) -> String {
    let (late, uploading): (Vec<_>, Vec<_>) =
        missing.iter().partition(|(_, missing)| matches!(missing, Missing::Cut { .. }));
    let part = |what: &str, subtasks: &[&(SubtaskIndex, Missing)]| match subtasks.len() {
        0 => String::new(),
        count => format!("; {count} of {all} subtasks {what}: {}", List(subtasks)),
    };
    part("have not cut", &late) + &part("are still uploading", &uploading)
}

struct List<'a>(&'a [&'a (SubtaskIndex, Missing)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (subtask, missing)) in self.0.iter().take(NAMED).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{subtask} ({missing})")?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { last: None } => f.write_str("it never has"),
            Self::Cut { last: Some((id, ago)) } => write!(f, "last for {id}, {ago:.1?} ago"),
            Self::Upload { held } => write!(f, "{held} bytes held"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::ids::{DeltaSeq, Epoch};
    use crate::store::{Attempt, StoreShared};

    const TIMEOUT: Duration = Duration::from_secs(3);

    fn id(number: u64) -> CheckpointId {
        CheckpointId { epoch: Epoch(1), number }
    }

    #[test]
    fn it_says_who_never_cut_and_who_is_uploading() {
        let missing = [
            (SubtaskIndex(1), Missing::Cut { last: Some((id(7), Duration::from_millis(12_300))) }),
            (SubtaskIndex(2), Missing::Upload { held: 4096 }),
            (SubtaskIndex(3), Missing::Cut { last: None }),
        ];
        let text = error(TIMEOUT, 4, &missing).to_string();
        assert!(text.contains("not durable within 3s; 2 of 4 subtasks have not cut: "), "{text}");
        assert!(text.contains("1 (last for 1-7, 12.3s ago), 3 (it never has)"), "{text}");
        assert!(text.contains("1 of 4 subtasks are still uploading: 2 (4096 bytes held)"), "{text}");
        assert!(text.contains("StateStore::due") && text.contains("StateStore::finish"), "{text}");
    }

    #[test]
    fn it_blames_no_operator_for_a_slow_store() {
        let text = error(TIMEOUT, 2, &[(SubtaskIndex(0), Missing::Upload { held: 1 })]).to_string();
        assert!(!text.contains("cut") && text.contains("object store"), "{text}");
        // The commit itself may be what takes long.
        assert!(error(TIMEOUT, 2, &[]).to_string().contains("not durable within 3s"));
    }

    #[test]
    fn many_subtasks_are_counted_and_some_of_them_named() {
        let missing: Vec<_> = (0..200).map(|n| (SubtaskIndex(n), Missing::Cut { last: None })).collect();
        let text = error(TIMEOUT, 256, &missing).to_string();
        assert!(
            text.contains("200 of 256 subtasks") && text.contains("7 (it never has) and 192 more"),
            "{text}"
        );
        assert!(text.len() < 600, "{text}");
    }

    #[test]
    fn what_is_missing_is_told_from_the_store() {
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(100), DeltaSeq(0));
        let now = Duration::from_secs(9);
        let missing = |checkpoint| Missing::of(&shared.standing(now), checkpoint);
        assert_eq!(missing(id(2)), Missing::Cut { last: None });
        shared.presence.has_cut(1, Duration::from_secs(4));
        let last = Some((id(1), Duration::from_secs(5)));
        assert_eq!(missing(id(2)), Missing::Cut { last });
        let _held = shared.budget.take(70);
        assert_eq!(missing(id(1)), Missing::Upload { held: 70 });
        shared.presence.finish();
        assert_eq!(missing(id(2)), Missing::Upload { held: 70 });
    }
}
