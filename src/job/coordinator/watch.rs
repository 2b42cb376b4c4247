//! Notices a checkpoint that cannot complete, and a later attempt that has taken over.

use std::sync::Arc;

use super::{Coordinator, Subtask};
use crate::ids::SubtaskIndex;
use crate::job::overdue::{self, Missing};
use crate::manifest::{fenced_by, newest_attempt};
use crate::messages::Standing;

impl Coordinator {
    /// Ends a checkpoint that cannot complete, because the attempt has failed or a store is gone that has
    /// not cut. This is polled rather than signalled, because stores that are dropped together with the
    /// job must cause no report.
    pub(super) fn give_up_hopeless(&mut self) {
        let Some(pending) = &self.state.pending else { return };
        let number = pending.trigger.id.number;
        let gone = self.standings().iter().any(|(_, standing)| standing.fails(number));
        let outcome = if gone { self.attempt.check_complete() } else { self.attempt.health() };
        if let Err(error) = outcome {
            self.give_up(&error);
        }
    }

    fn standings(&self) -> Vec<(SubtaskIndex, Standing)> {
        let now = self.monotonic();
        let progress = self.progress();
        let standing = |(subtask, own): (&SubtaskIndex, &Subtask)| {
            (*subtask, own.seat.standing(*subtask, &progress.heard, now))
        };
        self.subtasks.iter().map(standing).collect()
    }

    /// Ends a checkpoint at its deadline. The error names the subtasks that it waited for.
    pub(super) fn give_up_overdue(&mut self) {
        let Some(pending) = &self.state.pending else { return };
        let standings = self.standings().into_iter();
        let missing = standings.filter(|(subtask, _)| !pending.receipts.contains_key(subtask));
        let missing: Vec<_> = missing
            .map(|(subtask, standing)| (subtask, Missing::of(&standing, pending.trigger.id)))
            .collect();
        self.fail(&overdue::error(self.schedule.timeout, self.subtasks.len(), &missing));
    }

    /// An attempt that commits nothing would never find out that it is fenced, and would upload one
    /// base after the other for nothing. So it looks for a later attempt when a base was made and
    /// nothing was committed since the previous base.
    pub(super) fn look_for_successor(&mut self) {
        if std::mem::take(&mut self.state.committed) {
            return;
        }
        self.look_at_chain();
    }

    pub(super) fn look_at_chain(&self) {
        let (remote, attempt) = (Arc::clone(&self.remote), Arc::clone(&self.attempt));
        let known = (self.chain.version(), self.chain.epoch());
        tokio::spawn(async move {
            match newest_attempt(&remote, known).await {
                Ok((_, epoch)) if epoch > known.1 => {
                    attempt.fail(fenced_by(epoch));
                }
                Ok(_) => {}
                // The next base asks again, and the next commit finds out in any case.
                Err(error) => tracing::debug!(%error, "whether a later attempt has begun is not known"),
            }
        });
    }
}
