//! What the job knows of the operator that holds a store: when the store last cut, and whether it
//! is still in use.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::env::Clock;
use crate::error::{Error, ErrorKind};
use crate::ids::{CheckpointId, SubtaskIndex};
use crate::messages::Operator;

use super::shared::StoreShared;

/// Written by the operator's thread, read by other threads, without a lock. Each number is
/// independent: no decision needs two of them from the same moment.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    operator: AtomicU8,
    /// Number of the last checkpoint that the store has cut for; 0 before the first.
    last_cut: AtomicU64,
    /// When that was, in microseconds of the job's clock.
    cut_at: AtomicU64,
}

impl Presence {
    pub(crate) fn has_cut(&self, number: u64, now: Duration) {
        self.cut_at.store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.last_cut.store(number, Ordering::Release);
    }

    /// Number of the last checkpoint that the store has cut for, and when that was.
    pub(crate) fn last_cut(&self) -> Option<(u64, Duration)> {
        let number = self.last_cut.load(Ordering::Acquire);
        (number > 0).then(|| (number, Duration::from_micros(self.cut_at.load(Ordering::Relaxed))))
    }

    pub(crate) fn operator(&self) -> Operator {
        match self.operator.load(Ordering::Acquire) {
            0 => Operator::Present,
            1 => Operator::Finished,
            _ => Operator::Gone,
        }
    }

    pub(crate) fn finish(&self) {
        self.operator.store(1, Ordering::Release);
    }

    pub(crate) fn leave(&self) {
        self.operator.store(2, Ordering::Release);
    }
}

/// Held by the store: tells when it is dropped without having finished.
pub(super) struct Watch {
    pub(super) subtask: SubtaskIndex,
    pub(super) shared: Arc<StoreShared>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (presence, attempt) = (&self.shared.presence, &self.shared.attempt);
        if presence.operator() == Operator::Finished {
            return;
        }
        presence.leave();
        let id = |number| CheckpointId { epoch: attempt.epoch, number };
        let now = self.clock.monotonic();
        let last = presence.last_cut().map(|(number, at)| (id(number), now.saturating_sub(at)));
        // Nothing is logged, because the whole job may be in the course of being dropped.
        attempt.abandon(gone(self.subtask, std::thread::panicking(), last));
    }
}

fn gone(subtask: SubtaskIndex, panicking: bool, last: Option<(CheckpointId, Duration)>) -> Error {
    let mut message = format!("the store of subtask {subtask} was dropped");
    if panicking {
        message.push_str(" by a panic of its operator");
    }
    // Writing to a string does not fail.
    let _ = match last {
        Some((id, ago)) => write!(message, ", {ago:.1?} after its last cut (for checkpoint {id})"),
        None => write!(message, " before it cut for any checkpoint"),
    };
    message.push_str("; no later checkpoint can be complete without it");
    Error::new(ErrorKind::Closed, message)
        .object(format!("subtask {subtask}"))
        .advise("open the job again; a subtask whose input has ended says so by StateStore::finish")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    #[test]
    fn what_the_operator_did_is_seen() {
        let presence = Presence::default();
        assert_eq!((presence.last_cut(), presence.operator()), (None, Operator::Present));
        presence.has_cut(3, Duration::from_secs(7));
        assert_eq!(presence.last_cut(), Some((3, Duration::from_secs(7))));
        presence.leave();
        assert_eq!(presence.operator(), Operator::Gone);
        presence.finish();
        assert_eq!(presence.operator(), Operator::Finished);
    }

    #[test]
    fn the_error_names_the_subtask_and_since_when() {
        let id = CheckpointId { epoch: Epoch(4), number: 7 };
        let text = gone(SubtaskIndex(3), true, Some((id, Duration::from_millis(12_340)))).to_string();
        for words in ["subtask 3", "panic", "12.3s after its last cut", "4-7", "finish"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = gone(SubtaskIndex(0), false, None).to_string();
        assert!(text.contains("before it cut for any checkpoint") && !text.contains("panic"), "{text}");
    }
}
