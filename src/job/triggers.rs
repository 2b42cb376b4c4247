//! Starts checkpoints: one at a time, no id twice, and none after the last one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, Epoch};
use crate::store::Attempt;

/// So many checkpoints may wait for the one under way. A caller that queues more does not wait for
/// any of them.
const MAX_QUEUED: u64 = 16;

#[derive(Debug)]
pub(crate) struct Triggers {
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last number that was given out.
    last: u64,
    pending: Option<CheckpointId>,
    /// Checkpoints that have an id and wait for the one under way. The coordinator holds them.
    queued: u64,
    /// The checkpoint after which no other starts. If it fails, others may start again.
    stopping: Option<CheckpointId>,
}

/// What to do while another checkpoint is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenBusy {
    Refuse,
    Queue,
    /// Like `Queue`, and no checkpoint starts after this one.
    QueueAsLast,
}

impl Triggers {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, state: Mutex::default() }
    }

    /// Gives the next id to a checkpoint. If none is under way it starts now. First `announce`
    /// tells the coordinator, then the operators see the checkpoint as due. Both happen under the
    /// lock, so that no receipt comes before its checkpoint, and no barrier outlives it.
    ///
    /// Otherwise the checkpoint is refused, or announced as one that waits: the coordinator calls
    /// [`Triggers::start_queued`] for it.
    pub(super) fn start(
        &self,
        attempt: &Attempt,
        when_busy: WhenBusy,
        announce: impl FnOnce(CheckpointId, Start) -> Result<()>,
    ) -> Result<CheckpointId> {
        let mut state = self.lock();
        state.check(when_busy)?;
        let id = CheckpointId { epoch: self.epoch, number: state.last + 1 };
        let start = if state.is_busy() { Start::Queued } else { Start::Now };
        announce(id, start)?;
        state.last = id.number;
        match start {
            Start::Queued => state.queued += 1,
            Start::Now => {
                state.pending = Some(id);
                attempt.start(id.number);
            }
        }
        if when_busy == WhenBusy::QueueAsLast {
            state.stopping = Some(id);
        }
        Ok(id)
    }

    /// The checkpoint `id`, which was queued, starts: the one before it has ended.
    pub(super) fn start_queued(&self, attempt: &Attempt, id: CheckpointId) {
        let mut state = self.lock();
        debug_assert!(state.pending.is_none() && state.queued > 0, "{state:?}");
        state.queued = state.queued.saturating_sub(1);
        state.pending = Some(id);
        attempt.start(id.number);
    }

    /// A checkpoint that was queued will not start.
    pub(super) fn drop_queued(&self, id: CheckpointId) {
        let mut state = self.lock();
        state.queued = state.queued.saturating_sub(1);
        state.resume_after(id);
    }

    /// Returns when no start is under way on another thread. The checkpoint that it has announced is due then.
    pub(crate) fn started(&self) {
        drop(self.lock());
    }

    /// Ends the checkpoint `id`, if it is the one under way.
    pub(super) fn done(&self, attempt: &Attempt, id: CheckpointId, outcome: Outcome) {
        let mut state = self.lock();
        if state.pending == Some(id) {
            state.pending = None;
            attempt.end();
        }
        if outcome == Outcome::Failed {
            state.resume_after(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a checkpoint starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    Queued,
}

/// How a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Durable,
    Failed,
}

impl State {
    /// Whether a checkpoint that starts now would overtake another one.
    fn is_busy(&self) -> bool {
        self.pending.is_some() || self.queued > 0
    }

    fn check(&self, when_busy: WhenBusy) -> Result<()> {
        if let Some(last) = self.stopping {
            return Err(Error::new(ErrorKind::Closed, "the job takes no checkpoint after its last one")
                .object(format!("checkpoint {last}"))
                .advise("wait for it, and close the job; if it fails, checkpoints start again"));
        }
        let blocked = match when_busy {
            WhenBusy::Refuse => self.is_busy(),
            WhenBusy::Queue | WhenBusy::QueueAsLast => self.queued >= MAX_QUEUED,
        };
        if !blocked {
            return Ok(());
        }
        let (message, advice) = match when_busy {
            WhenBusy::Refuse => {
                ("a checkpoint is still under way", "wait for it, abort it, or queue this one behind it")
            }
            WhenBusy::Queue | WhenBusy::QueueAsLast => {
                ("too many checkpoints are queued already", "wait for one of them")
            }
        };
        let object = self.pending.map_or_else(String::new, |pending| format!("checkpoint {pending}"));
        Err(Error::new(ErrorKind::WouldBlock, message).object(object).advise(advice))
    }

    fn resume_after(&mut self, failed: CheckpointId) {
        if self.stopping == Some(failed) {
            self.stopping = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        triggers: Triggers,
        attempt: std::sync::Arc<Attempt>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { triggers: Triggers::new(Epoch(4)), attempt: Attempt::new(Epoch(4)) }
        }

        fn start(&self, when_busy: WhenBusy) -> Result<(CheckpointId, Start)> {
            let mut start = None;
            let id = self.triggers.start(&self.attempt, when_busy, |_, at| {
                start = Some(at);
                Ok(())
            })?;
            Ok((id, start.unwrap()))
        }

        fn done(&self, id: CheckpointId, outcome: Outcome) {
            self.triggers.done(&self.attempt, id, outcome);
        }
    }

    #[test]
    fn one_at_a_time_and_no_id_twice() {
        let own = Fixture::new();
        let (first, start) = own.start(WhenBusy::Refuse).unwrap();
        assert_eq!((first.to_string().as_str(), start), ("4-1", Start::Now));
        assert_eq!(own.attempt.barrier(), 1);
        assert_eq!(own.start(WhenBusy::Refuse).unwrap_err().kind(), ErrorKind::WouldBlock);
        own.done(first, Outcome::Durable);
        assert_eq!(own.attempt.barrier(), 0);
        let (second, _) = own.start(WhenBusy::Refuse).unwrap();
        assert!(second > first);
        own.done(first, Outcome::Durable);
        assert!(own.start(WhenBusy::Refuse).is_err(), "an old checkpoint's end does not end the newer one");
        assert_eq!(own.attempt.barrier(), 2);
    }

    #[test]
    fn queued_checkpoints_start_in_the_order_of_their_ids_and_none_overtakes_them() {
        let own = Fixture::new();
        let (first, start) = own.start(WhenBusy::Queue).unwrap();
        assert_eq!(start, Start::Now, "nothing is under way");
        let (second, start) = own.start(WhenBusy::Queue).unwrap();
        assert_eq!(start, Start::Queued);
        let (third, _) = own.start(WhenBusy::Queue).unwrap();
        assert!(first < second && second < third);
        assert_eq!(own.attempt.barrier(), first.number, "a queued checkpoint is not due");

        own.done(first, Outcome::Failed);
        let refused = own.start(WhenBusy::Refuse).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock, "it would overtake two that wait");
        own.triggers.start_queued(&own.attempt, second);
        assert_eq!(own.attempt.barrier(), second.number);
        own.done(second, Outcome::Durable);
        own.triggers.drop_queued(third);
        let (fourth, start) = own.start(WhenBusy::Refuse).unwrap();
        assert!(
            fourth > third && start == Start::Now,
            "the id of a checkpoint that never started is not used again"
        );
    }

    #[test]
    fn the_queue_is_short() {
        let own = Fixture::new();
        for _ in 0..=MAX_QUEUED {
            own.start(WhenBusy::Queue).unwrap();
        }
        assert_eq!(own.start(WhenBusy::Queue).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn nothing_starts_after_the_last_checkpoint_unless_it_fails() {
        let own = Fixture::new();
        let (before, _) = own.start(WhenBusy::Refuse).unwrap();
        let (last, _) = own.start(WhenBusy::QueueAsLast).unwrap();
        let closed = |when_busy| own.start(when_busy).unwrap_err().kind() == ErrorKind::Closed;
        assert!(closed(WhenBusy::Refuse) && closed(WhenBusy::Queue) && closed(WhenBusy::QueueAsLast));
        own.done(before, Outcome::Failed);
        assert!(closed(WhenBusy::Queue), "an earlier one has failed, not the last one");
        own.triggers.start_queued(&own.attempt, last);
        own.done(last, Outcome::Failed);
        let (last, start) = own.start(WhenBusy::QueueAsLast).unwrap();
        assert_eq!(start, Start::Now);
        own.done(last, Outcome::Durable);
        assert!(closed(WhenBusy::Refuse) && closed(WhenBusy::Queue));
    }

    #[test]
    fn a_checkpoint_that_could_not_be_announced_leaves_no_trace() {
        let own = Fixture::new();
        let gone = |_, _| Err(Error::new(ErrorKind::Closed, "gone"));
        assert!(own.triggers.start(&own.attempt, WhenBusy::QueueAsLast, gone).is_err());
        assert_eq!(own.start(WhenBusy::Refuse).unwrap().0.number, 1);
    }
}
