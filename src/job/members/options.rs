//! Which subtasks other processes hold: checks and pure questions.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ids::SubtaskIndex;

/// Whether each of the `members` holds subtasks, of `all` that the job has, and none is held twice.
///
/// # Errors
/// `InvalidArgument` otherwise.
pub(crate) fn validate(members: &[Range<u32>], all: u32) -> Result<()> {
    for (at, range) in members.iter().enumerate() {
        let wrong = |what: &str| {
            let Range { start, end } = range;
            Err(Error::invalid(format!("member {at} holds subtasks {start}..{end}: {what}")))
        };
        if range.is_empty() {
            return wrong("a member holds at least one");
        }
        if range.end > all {
            return wrong(&format!("the job has {all}"));
        }
        let overlaps = |other: &Range<u32>| other.start < range.end && range.start < other.end;
        if members.iter().take(at).any(overlaps) {
            return wrong("another member holds some of them");
        }
    }
    Ok(())
}

/// Whether one of the `members` holds a subtask.
pub(crate) fn elsewhere(members: &[Range<u32>], subtask: SubtaskIndex) -> bool {
    members.iter().any(|range| range.contains(&subtask.0))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a job may have one member")]
mod tests {
    use super::*;

    #[test]
    fn each_subtask_is_held_once() {
        validate(&[], 1).unwrap();
        validate(&[2..4, 4..6], 6).unwrap();
        validate(&[0..2], 2).unwrap();
        for (members, words) in [
            (vec![2..2], "at least one"),
            (vec![5..7], "the job has 6"),
            (vec![0..3, 2..4], "member 1"),
            (vec![0..3, 0..3], "another member"),
        ] {
            let error = validate(&members, 6).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let held = |subtask| !elsewhere(&[2..4], SubtaskIndex(subtask));
        assert_eq!([0, 1, 2, 3, 4].map(held), [true, true, false, false, true]);
    }
}
