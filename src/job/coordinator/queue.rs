//! Checkpoints that wait for the one under way, and what is done ahead of triggers that are known.

use std::time::Duration;

use tokio::time::Instant;

use super::Coordinator;
use crate::error::{Error, ErrorKind};
use crate::ids::CheckpointId;
use crate::messages::ToMember;

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

    pub(super) fn ask_for_early_cut(&mut self) {
        let trigger = self.state.timetable.ask(Instant::now());
        let way = trigger.map(|trigger| self.make_way(trigger)).unwrap_or_default();
        self.attempt.ask_for_early_cut();
        self.tell_members(&ToMember::CutEarly { way });
    }

    /// Has bases give way to the checkpoint of this `trigger`, and returns for how long from now at
    /// most. Not to the first checkpoint of a job that was started from another one's, because that
    /// waits for its own first base.
    pub(super) fn make_way(&self, trigger: Instant) -> Duration {
        if self.origin.is_some() {
            return Duration::ZERO;
        }
        let until = trigger + self.state.timetable.grace();
        self.bases.give_way(until);
        until.saturating_duration_since(Instant::now())
    }
}
