//! What follows when a checkpoint was committed or given up: stores and callers are told, and after a
//! commit the background work that it makes possible starts.

use std::time::Duration;

use tokio::time::Instant;

use super::members::carried;
use super::{Coordinator, Pending};
use crate::error::Error;
use crate::ids::{CheckpointId, DeltaSeq};
use crate::job::members::Seat;
use crate::job::report::CheckpointReport;
use crate::job::status::Failures;
use crate::job::timetable::after;
use crate::job::triggers::Outcome;
use crate::manifest::{CheckpointRecord, Committed, Retained, SubtaskRecord};
use crate::messages::{ToMember, ToStore};
use crate::remote::ObjectName;

impl Coordinator {
    pub(super) fn succeed(&mut self, pending: Pending, committed: &Committed) {
        let Some(record) = committed.manifest.checkpoint() else { return };
        self.state.committed = true;
        self.tolerance.durable();
        // The stores hear of it first: the deltas in this manifest are durable, and writes may be waiting
        // for their memory.
        let carrier = ObjectName::manifest(committed.manifest.version);
        for subtask in &record.subtasks {
            let refs = carried(subtask, &carrier);
            self.tell(subtask.subtask, ToStore::Committed { id: record.id, refs });
        }
        self.tell_members_committed(record, &carrier);
        // The report counts what is new since the last commit, so it comes before the update of `committed`.
        let report = self.report(&pending, record, committed);
        for subtask in &record.subtasks {
            if let Some(own) = self.subtasks.get_mut(&subtask.subtask) {
                own.committed = subtask.seq;
            }
        }
        {
            let mut progress = self.progress();
            progress.completed += 1;
            progress.failures = Failures::default();
            progress.follow(&self.chain);
        }
        self.adopt(&committed.adopted);
        self.release_origin();
        tracing::debug!(
            checkpoint = %report.id, version = report.version, dropped = ?committed.dropped, "committed"
        );
        // Packing and collection begin before the commit is reported, because a caller that waits for
        // the commit, and then for the job to settle, must find them under way.
        // Each process packs what its own stores have in the changelog.
        let here = |subtask: &&SubtaskRecord| {
            let own = self.subtasks.get(&subtask.subtask);
            own.is_some_and(|own| matches!(own.seat, Seat::Here { .. }))
        };
        let deltas = record.subtasks.iter().filter(here).map(|subtask| (subtask.subtask, &subtask.deltas));
        let deltas: Vec<_> =
            deltas.flat_map(|(subtask, all)| all.iter().map(move |delta| (subtask, delta))).collect();
        self.packer.committed(&deltas);
        self.garbage.dropped(self.chain.take_dropped());
        self.collect_if_worth_it();
        self.finish(report.id, Outcome::Durable);
        if let Some(listener) = &self.listener {
            listener.completed(&report);
        }
        match pending.trigger.savepoint {
            Some(name) => {
                let checkpoint = Retained { version: committed.manifest.version, id: record.id };
                self.make_savepoint(name, checkpoint, report, pending.trigger.reply);
            }
            None => {
                if let Some(reply) = pending.trigger.reply {
                    // The caller may not be interested.
                    let _ = reply.send(Ok(report));
                }
            }
        }
    }

    /// Counts checkpoints that were given up without a verdict on their commits, and are durable after all.
    pub(super) fn adopt(&mut self, adopted: &[CheckpointId]) {
        if adopted.is_empty() {
            return;
        }
        self.tolerance.durable();
        {
            let mut progress = self.progress();
            progress.failures = Failures::default();
            for _ in adopted {
                progress.completed += 1;
                progress.failed = progress.failed.saturating_sub(1);
            }
            progress.follow(&self.chain);
        }
        if let Some(listener) = &self.listener {
            adopted.iter().for_each(|id| listener.adopted(*id));
        }
    }

    /// Releases the pin of the checkpoint that the attempt started from. A commit of the attempt's own
    /// refers to the same state now.
    fn release_origin(&mut self) {
        let Some(pin) = self.origin.take() else { return };
        tokio::spawn(async move {
            if let Err(error) = pin.release().await {
                tracing::warn!(%error, "the attempt's own pin stays behind until the next attempt");
            }
        });
        let mut progress = self.progress();
        let was_dependent = std::mem::take(&mut progress.dependent);
        drop(progress);
        if was_dependent && let Some(listener) = &self.listener {
            listener.independent();
        }
    }

    fn report(
        &self,
        pending: &Pending,
        record: &CheckpointRecord,
        committed: &Committed,
    ) -> CheckpointReport {
        let costs = || pending.receipts.values().map(|receipt| receipt.cost);
        let since = |subtask: &SubtaskRecord| {
            self.subtasks.get(&subtask.subtask).map_or(DeltaSeq(0), |own| own.committed)
        };
        let new_deltas = record.subtasks.iter().flat_map(|subtask| {
            let since = since(subtask);
            subtask.deltas.iter().filter(move |delta| delta.last > since)
        });
        let carrier = ObjectName::manifest(committed.manifest.version);
        let (mut delta_bytes, mut inline_bytes) = (0, 0);
        for delta in new_deltas {
            delta_bytes += delta.length;
            inline_bytes += if delta.object == carrier { delta.length } else { 0 };
        }
        let sst_bytes = costs().map(|cost| cost.sst_bytes).sum();
        CheckpointReport {
            id: record.id,
            version: committed.manifest.version.0,
            start_ms: millis(pending.trigger.start),
            duration_ms: millis(self.monotonic().saturating_sub(pending.trigger.start)),
            cut_ms: costs().map(|cost| cost.cut_micros).max().unwrap_or(0) as f64 / 1e3,
            bytes: delta_bytes - inline_bytes + sst_bytes + committed.bytes,
            delta_bytes,
            sst_bytes,
            manifest_bytes: committed.bytes,
            puts: costs().map(|cost| cost.puts).sum::<u64>() + 1,
            bytes_after_trigger: costs().map(|cost| cost.late_bytes).sum::<u64>() + committed.bytes,
            largest_object: costs().map(|cost| cost.largest_object).max().unwrap_or(0).max(committed.bytes),
            full_bytes: record.full_bytes(),
        }
    }

    /// Ends the checkpoint under way, which has failed, and the attempt if these are more failures than are tolerated.
    pub(super) fn fail(&mut self, error: &Error) {
        let now = self.monotonic();
        // What is cut short by the end of the attempt, or by a close, is no failure beside that.
        if self.attempt.health().is_ok()
            && !self.state.closing
            && let Some(end) = self.tolerance.failed(now, error)
        {
            self.attempt.fail(end);
        }
        self.give_up(error);
    }

    /// Tells the listener that the attempt has failed, once.
    pub(super) fn tell_end(&mut self) {
        if self.state.told_end {
            return;
        }
        let Some(error) = self.attempt.failure() else { return };
        self.state.told_end = true;
        if let Some(listener) = &self.listener {
            listener.ended(error);
        }
    }

    /// Ends the checkpoint under way without a result. Its cuts stay in the tails of their subtasks, and
    /// the next checkpoint refers to them.
    pub(super) fn give_up(&mut self, error: &Error) {
        let Some(pending) = self.state.pending.take() else { return };
        let id = pending.trigger.id;
        let error = error.clone().object(format!("checkpoint {id}"));
        tracing::warn!(%error, "a checkpoint was given up");
        self.subtasks.keys().for_each(|subtask| self.tell(*subtask, ToStore::Aborted(id)));
        self.tell_members(&ToMember::Aborted(id));
        {
            let now = self.monotonic();
            let mut progress = self.progress();
            progress.failed += 1;
            progress.failures.add(now, id, &error);
        }
        self.finish(id, Outcome::Failed);
        if let Some(listener) = &self.listener {
            listener.failed(id, &error);
        }
        if let Some(reply) = pending.trigger.reply {
            // The caller may not be interested.
            let _ = reply.send(Err(error));
        }
    }

    /// The next checkpoint may start, by the schedule only after the minimum pause.
    fn finish(&mut self, id: CheckpointId, outcome: Outcome) {
        self.progress().pending = None;
        // A new checkpoint may start from here on, on any thread.
        self.triggers.done(&self.attempt, id, outcome);
        self.state.timetable.rest_until(after(Instant::now(), self.schedule.min_pause));
        self.bases.go_on(self.state.timetable.next_checkpoint());
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
