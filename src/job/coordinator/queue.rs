//! Checkpoints that wait for the one under way, and what is done ahead of triggers that are known.

use std::time::Duration;

use tokio::time::Instant;

use super::{Coordinator, after};
use crate::error::{Error, ErrorKind};
use crate::ids::CheckpointId;
use crate::job::early_cuts::EarlyCuts;

impl Coordinator {
    /// Starts the next checkpoint that waits, if none is under way.
    pub(super) fn begin_queued(&mut self) {
        if self.state.pending.is_some() || self.state.closing {
            return;
        }
        let Some(mut trigger) = self.state.queued.pop_front() else { return };
        let id = trigger.id;
        // Its duration does not count the time in the queue.
        trigger.start = self.monotonic();
        self.begin(trigger);
        self.triggers.start_queued(&self.attempt, id);
        self.tell_triggered(id);
    }

    /// Ends the checkpoint `id` if it is under way or waits; its caller has asked for it.
    pub(super) fn abort(&mut self, id: CheckpointId) {
        let error = Error::new(ErrorKind::Aborted, "the checkpoint was aborted by the caller");
        if self.pending_id() == Some(id) {
            self.give_up(&error);
        } else if let Some(at) = self.state.queued.iter().position(|trigger| trigger.id == id) {
            // It never started, so neither stores nor the listener know of it.
            let reply = self.state.queued.remove(at).and_then(|trigger| trigger.reply);
            self.triggers.drop_queued(id);
            if let Some(reply) = reply {
                // The caller may not be interested.
                let _ = reply.send(Err(error.object(format!("checkpoint {id}"))));
            }
        }
    }

    /// A call will trigger a checkpoint in about `in_about`.
    pub(super) fn expect_trigger(&mut self, in_about: Duration) {
        if !self.mode.logs_changes() {
            return;
        }
        let mut early = EarlyCuts::new(in_about);
        early.triggered(self.state.slowest_upload.max(self.state.known_upload));
        self.state.expected_trigger = Some((after(in_about), early));
    }

    /// When operators should be asked for an early cut, ahead of the schedule's next trigger or of the
    /// announced one.
    pub(super) fn next_early_cut(&self) -> Option<Instant> {
        let scheduled = self.state.early_cuts.zip(self.state.next_trigger);
        let scheduled = scheduled.and_then(|(early, trigger)| early.next(trigger));
        let expected = self.state.expected_trigger.and_then(|(trigger, early)| early.next(trigger));
        scheduled.into_iter().chain(expected).min()
    }

    pub(super) fn ask_for_early_cut(&mut self) {
        let now = Instant::now();
        if let Some((early, trigger)) = self.state.early_cuts.as_mut().zip(self.state.next_trigger) {
            early.call(trigger, now);
        }
        if let Some((trigger, early)) = &mut self.state.expected_trigger {
            early.call(*trigger, now);
        }
        self.attempt.ask_for_early_cut();
    }
}
