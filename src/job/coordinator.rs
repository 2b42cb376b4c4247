//! The task that decides about checkpoints. It triggers them, gathers the receipts, commits, gives
//! up what takes too long, and has garbage collected after commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::channel::oneshot;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use crate::changelog::{Receipt, ReceiptBase, ReceiptDelta};
use crate::error::{Error, ErrorKind, Result};
use crate::gc::{Collection, Collector, Holder, Pin, savepoint};
use crate::ids::{CheckpointId, DeltaSeq, Nonce, StateId, SubtaskIndex, Version};
use crate::key_group::KeyGroupRange;
use crate::manifest::{
    Chain, CheckpointMode, CheckpointRecord, CommitDraft, Committed, DeltaRef, Inline, JoinedStates,
    RestoreFrom, Retained, StateInfo, States, SubtaskRecord, fenced_by, newest_attempt,
};
use crate::messages::{Committer, FromStore, ToStore};
use crate::remote::{ObjectName, Remote, SavepointName};
use crate::store::{Attempt, EventSender, StoreShared};

use super::background::Busy;
use super::early::Early;
use super::overdue::{self, Missing};
use super::packer::Packer;
use super::report::{CheckpointListener, CheckpointReport, CheckpointSummary};
use super::status::{self, Failures};
use super::triggers::Triggers;

/// Collect once this many manifests were dropped, or this much time has passed since the last time:
/// every collection lists the pins.
const GC_BATCH: usize = 16;
const GC_PAUSE: Duration = Duration::from_secs(10);

/// How often a checkpoint under way looks whether the attempt has failed.
const WATCH: Duration = Duration::from_millis(100);
/// How long closing a job may wait for the last deletions.
const LAST_COLLECTION: Duration = Duration::from_secs(10);

/// A message to the coordinator.
pub(crate) enum Command {
    Trigger(Trigger),
    /// What stores and the uploader say.
    Told(FromStore),
    Abort(CheckpointId),
    /// Metadata for scheduled checkpoints.
    Metadata(Vec<u8>),
    Close(oneshot::Sender<Result<()>>),
}

/// Brings what stores say into the coordinator's inbox.
pub(super) fn committer(commands: &mpsc::UnboundedSender<Command>) -> Committer {
    let commands = commands.clone();
    // Fails only when the job is going down.
    Committer::new(move |message| drop(commands.send(Command::Told(message))))
}

/// A checkpoint that was asked for.
pub(crate) struct Trigger {
    pub(crate) id: CheckpointId,
    pub(crate) metadata: Vec<u8>,
    pub(crate) start: Duration,
    /// Make a savepoint of it under this name.
    pub(crate) savepoint: Option<SavepointName>,
    pub(crate) reply: Option<oneshot::Sender<Result<CheckpointReport>>>,
}

/// State that other threads may read while the coordinator works.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) retained: VecDeque<CheckpointSummary>,
    /// Whether the job still needs objects of the job that it was started from.
    pub(crate) dependent: bool,
    pub(super) pending: Option<status::Pending>,
    pub(super) failures: Failures,
}

/// The schedule of checkpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) interval: Option<Duration>,
    pub(crate) min_pause: Duration,
    pub(crate) timeout: Duration,
}

pub(crate) struct Coordinator {
    pub(crate) chain: Chain,
    pub(crate) remote: Arc<Remote>,
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) progress: Arc<std::sync::Mutex<Progress>>,
    /// The job's subtasks: whose receipts make a checkpoint complete.
    pub(crate) subtasks: BTreeMap<SubtaskIndex, Subtask>,
    pub(crate) packer: Arc<Packer>,
    pub(crate) mode: CheckpointMode,
    pub(crate) keep: usize,
    pub(crate) schedule: Schedule,
    pub(crate) listener: Option<Arc<dyn CheckpointListener>>,
    /// Ends a commit that is under way, because the job is being closed.
    pub(crate) closing: Arc<Notify>,
    /// The pin of the savepoint, or of another job's checkpoint, from which the attempt continues.
    /// It is held until a commit of the attempt's own refers to the same state.
    pub(crate) origin: Option<Pin>,
    /// Whether garbage is being collected.
    pub(super) collecting: Busy,
    pub(crate) state: State,
}

/// What the coordinator knows of a subtask.
pub(crate) struct Subtask {
    pub(crate) range: KeyGroupRange,
    pub(crate) instance: Nonce,
    pub(crate) events: EventSender,
    pub(crate) shared: Arc<StoreShared>,
    /// The last delta in the newest checkpoint.
    pub(crate) committed: DeltaSeq,
    /// Its store has said that its state stays as it is.
    pub(crate) finished: bool,
}

/// What changes while the coordinator runs.
#[derive(Default)]
pub(crate) struct State {
    pending: Option<Pending>,
    metadata: Vec<u8>,
    next_trigger: Option<Instant>,
    /// In changelog mode, with a schedule.
    early: Option<Early>,
    /// How long the slowest upload of deltas took since the last barrier.
    slowest_upload: Option<Duration>,
    retired: Vec<ObjectName>,
    /// The states of all subtasks as of the last checkpoint.
    described: JoinedStates,
    /// Dropped by commits and not yet collected.
    dropped: Vec<Retained>,
    collected: Option<Instant>,
    collector: Arc<Mutex<Collector>>,
    /// Whether anything was committed since a base was made.
    committed: bool,
    /// Versions that are being made savepoints of, for as long as that takes.
    saving: Vec<Weak<Version>>,
}

struct Pending {
    trigger: Trigger,
    deadline: Instant,
    receipts: BTreeMap<SubtaskIndex, Receipt>,
}

impl Coordinator {
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        self.state.next_trigger = self.schedule.interval.map(after);
        let early = self.schedule.interval.map(Early::new);
        self.state.early = early.filter(|_| self.mode.logs_changes());
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.state.pending.as_ref().map(|pending| pending.deadline);
            let due = self.state.next_trigger.filter(|_| self.state.pending.is_none());
            let early = self.state.early.zip(due).and_then(|(early, due)| early.next(due));
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Close(reply)) => {
                        self.give_up(&Error::new(ErrorKind::Closed, "the job was closed"));
                        // If the caller was cancelled, there is no receiver for the answer.
                        let _ = reply.send(self.collect_all().await);
                        return;
                    }
                    Some(command) => self.handle(command).await,
                    None => return,
                },
                () = sleep_until(deadline) => self.give_up_late(),
                () = sleep_until(due) => self.trigger_by_schedule(),
                () = sleep_until(early) => {
                    self.state.early.as_mut().into_iter().for_each(Early::made);
                    self.attempt.call_early();
                }
                // An operator that has seen the failure never cuts, so the wait must be ended here.
                _ = watch.tick(), if self.state.pending.is_some() => self.look(),
            }
        }
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Trigger(trigger) => {
                let id = trigger.id;
                self.begin(trigger);
                self.triggers.started();
                self.tell_triggered(id);
            }
            Command::Told(message) => self.told(message).await,
            Command::Abort(id) => {
                if self.pending_id() == Some(id) {
                    self.give_up(&Error::new(ErrorKind::Aborted, "the checkpoint was aborted by the caller"));
                }
            }
            Command::Metadata(metadata) => self.state.metadata = metadata,
            // Handled where the inbox is read.
            Command::Close(_) => {}
        }
    }

    async fn told(&mut self, message: FromStore) {
        match message {
            FromStore::Receipt(receipt) => self.receive(*receipt).await,
            FromStore::Finished { subtask, last_cut } => self.finished(subtask, last_cut),
            FromStore::Refused { checkpoint, error } => {
                if self.pending_id() == Some(checkpoint) {
                    self.give_up(&error);
                }
            }
            FromStore::Retired(objects) => self.state.retired.extend(objects),
            FromStore::Materialized(report) => {
                self.look_for_successor();
                if let Some(listener) = &self.listener {
                    listener.materialized(&report);
                }
            }
            FromStore::Uploaded { took } => {
                self.state.slowest_upload = self.state.slowest_upload.max(Some(took));
            }
            FromStore::Failed(error) => {
                self.attempt.fail(error.clone());
                self.give_up(&error);
            }
        }
    }

    /// An attempt that commits nothing would never find out that it is fenced, and would upload one
    /// base after the other for nothing. So it looks for a later attempt when a base was made and
    /// nothing was committed since the previous base.
    fn look_for_successor(&mut self) {
        if std::mem::take(&mut self.state.committed) {
            return;
        }
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

    fn pending_id(&self) -> Option<CheckpointId> {
        self.state.pending.as_ref().map(|pending| pending.trigger.id)
    }

    fn trigger_by_schedule(&mut self) {
        let interval = self.schedule.interval.unwrap_or_default();
        self.state.next_trigger = Some(after(interval));
        if let Some(early) = &mut self.state.early {
            early.triggered(self.state.slowest_upload.take());
        }
        if self.attempt.health().is_err() {
            return;
        }
        // A caller's own trigger may be in the inbox already; then this one is left out.
        let (triggers, attempt) = (Arc::clone(&self.triggers), Arc::clone(&self.attempt));
        let (start, metadata) = (self.monotonic(), self.state.metadata.clone());
        let started = triggers.start(&attempt, |id| {
            self.begin(Trigger { id, metadata, start, savepoint: None, reply: None });
            Ok(())
        });
        if let Ok(id) = started {
            self.tell_triggered(id);
        }
    }

    /// Called once the checkpoint is due: a source that is woken asks [`Job::due`](crate::Job::due) at once.
    fn tell_triggered(&self, id: CheckpointId) {
        if let Some(listener) = &self.listener {
            listener.triggered(id);
        }
    }

    /// Ends a checkpoint that cannot complete. This is polled rather than signalled, because stores
    /// that are dropped together with the job must cause no report.
    fn look(&mut self) {
        let Some(pending) = &self.state.pending else { return };
        let number = pending.trigger.id.number;
        let gone = self.subtasks.values().any(|subtask| subtask.shared.presence.fails(number));
        let outcome = if gone { self.attempt.check_complete() } else { self.attempt.health() };
        if let Err(error) = outcome {
            self.give_up(&error);
        }
    }

    /// Time is up.
    fn give_up_late(&mut self) {
        let Some(pending) = &self.state.pending else { return };
        let now = self.monotonic();
        let missing = self.subtasks.iter().filter(|(subtask, _)| !pending.receipts.contains_key(subtask));
        let missing: Vec<_> = missing
            .map(|(subtask, own)| (*subtask, Missing::of(&own.shared, pending.trigger.id, now)))
            .collect();
        self.give_up(&overdue::error(self.schedule.timeout, self.subtasks.len(), &missing));
    }

    /// From now on the subtask's task cuts for its store, beginning with what is under way.
    fn finished(&mut self, subtask: SubtaskIndex, cut: u64) {
        let Some(own) = self.subtasks.get_mut(&subtask) else { return };
        own.finished = true;
        if let Some(id) = self.pending_id().filter(|id| id.number > cut) {
            self.tell(subtask, ToStore::CutFinished(id));
        }
    }

    fn begin(&mut self, trigger: Trigger) {
        let deadline = after(self.schedule.timeout);
        for subtask in self.subtasks.values().filter(|subtask| subtask.finished) {
            subtask.events.tell(ToStore::CutFinished(trigger.id));
        }
        let (id, start) = (trigger.id, trigger.start);
        self.progress().pending = Some(status::Pending { id, start, receipts: BTreeSet::new() });
        self.state.pending = Some(Pending { trigger, deadline, receipts: BTreeMap::new() });
    }

    async fn receive(&mut self, receipt: Receipt) {
        let (id, subtask) = (receipt.checkpoint, receipt.subtask);
        match &mut self.state.pending {
            Some(pending) if pending.trigger.id == id => {
                // One from another instance, or another job, would commit a state that never was (I1).
                let own = self.subtasks.get(&subtask);
                if !own.is_some_and(|own| own.range == receipt.range && own.instance == receipt.instance) {
                    tracing::warn!(%subtask, checkpoint = %id, "a receipt of another store was ignored");
                    return;
                }
                pending.receipts.entry(subtask).or_insert(receipt);
                let complete = pending.receipts.len() == self.subtasks.len();
                self.progress().pending.iter_mut().for_each(|pending| _ = pending.receipts.insert(subtask));
                if complete {
                    self.commit().await;
                }
            }
            // Too late: what it holds must become durable by itself.
            _ => self.tell(subtask, ToStore::Aborted(id)),
        }
    }

    async fn commit(&mut self) {
        let Some(mut pending) = self.state.pending.take() else { return };
        let aborted = |message: String| {
            Err(Error::new(ErrorKind::Aborted, message)
                .advise("whether it counts is found out by the next commit"))
        };
        let draft = self.draft(&mut pending).inspect_err(|error| {
            // It would be the same at every checkpoint to come.
            self.attempt.fail(error.clone());
        });
        let result = match draft {
            Ok(draft) => tokio::select! {
                result = tokio::time::timeout_at(pending.deadline, self.chain.commit(draft)) => {
                    let timeout = self.schedule.timeout;
                    result.unwrap_or_else(|_| aborted(format!("no verdict on the commit within {timeout:?}")))
                }
                () = self.closing.notified() => aborted("the job was closed during the commit".into()),
            },
            Err(error) => {
                // Subtasks that differ about a state go on to differ: no later checkpoint could be committed either.
                self.attempt.fail(error.clone());
                Err(error)
            }
        };
        match result {
            Ok(committed) => self.succeed(pending, &committed),
            Err(error) => {
                let adopted = self.chain.take_adopted();
                self.adopt(&adopted);
                self.state.pending = Some(pending);
                if self.chain.stopped().is_some() {
                    self.attempt.fail(error.clone());
                }
                self.give_up(&error);
            }
        }
    }

    /// The checkpoint's record. Inlined bytes go into the manifest, the references to them into the
    /// record.
    fn draft(&mut self, pending: &mut Pending) -> Result<CommitDraft> {
        let carrier = ObjectName::manifest(self.chain.next_version());
        let mut inline = Inline::new();
        let parts = pending.receipts.values().map(|receipt| &receipt.states);
        let states = self.state.described.of_all(parts).map_err(|error| clash(&pending.receipts, error))?;
        let mut subtasks = Vec::with_capacity(pending.receipts.len());
        for receipt in pending.receipts.values() {
            let deltas = receipt.deltas.iter().map(|delta| match delta {
                ReceiptDelta::Stored(delta) => delta.clone(),
                ReceiptDelta::Inline { seq, entries, crc32c, bytes } => DeltaRef {
                    object: carrier.clone(),
                    offset: inline.push(bytes.clone()),
                    length: bytes.len() as u64,
                    crc32c: *crc32c,
                    first: *seq,
                    last: *seq,
                    entries: *entries,
                },
            });
            let deltas = deltas.collect();
            let base = receipt.base.clone().map(|base| match base {
                ReceiptBase::Stored(base) => base,
                ReceiptBase::Inline { index, mut reference } => {
                    reference.object = carrier.clone();
                    reference.offset = inline.push(index);
                    reference
                }
            });
            subtasks.push(SubtaskRecord {
                subtask: receipt.subtask,
                range: receipt.range,
                origins: receipt.origins.clone(),
                base,
                deltas,
                seq: receipt.seq,
                metadata: receipt.metadata.clone(),
                instance: receipt.instance,
            });
        }
        let record = CheckpointRecord {
            id: pending.trigger.id,
            mode: self.mode,
            unix_millis: self.remote.env().clock.unix_millis(),
            metadata: std::mem::take(&mut pending.trigger.metadata),
            subtasks,
            states: States::new(states),
        };
        Ok(CommitDraft { record, inline, keep: self.keep() })
    }

    /// How many checkpoints the next commit retains: one that a savepoint is being made of must not go
    /// before the savepoint is there.
    fn keep(&self) -> usize {
        let oldest = self.state.saving.iter().filter_map(|version| Weak::upgrade(version).map(|v| *v)).min();
        oldest.map_or(self.keep, |oldest| self.keep.max(self.chain.retained_since(oldest) + 1))
    }

    fn succeed(&mut self, pending: Pending, committed: &Committed) {
        let Some(record) = committed.manifest.checkpoint() else { return };
        self.state.committed = true;
        let carrier = ObjectName::manifest(committed.manifest.version);
        for subtask in &record.subtasks {
            let inlined = subtask.deltas.iter().filter(|delta| delta.object == carrier);
            self.tell(subtask.subtask, ToStore::Committed { refs: inlined.cloned().collect() });
        }
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
            follow(&mut progress.retained, &self.chain);
        }
        self.adopt(&committed.adopted);
        self.let_go();
        tracing::debug!(
            checkpoint = %report.id, version = report.version, dropped = ?committed.dropped, "committed"
        );
        // Begun before the commit is reported: a caller that waits for the commit and then for the
        // job to settle must find this under way.
        let deltas = record.subtasks.iter().map(|subtask| (subtask.subtask, &subtask.deltas));
        let deltas: Vec<_> =
            deltas.flat_map(|(subtask, all)| all.iter().map(move |delta| (subtask, delta))).collect();
        self.packer.committed(&deltas);
        let rested = self.state.collected.is_none_or(|at| at.elapsed() >= GC_PAUSE);
        self.state.dropped.extend(self.chain.take_dropped());
        if self.state.dropped.len() >= GC_BATCH || rested {
            self.collect();
        }
        self.finish(report.id);
        if let Some(listener) = &self.listener {
            listener.completed(&report);
        }
        match pending.trigger.savepoint {
            Some(name) => {
                let checkpoint = Retained { version: committed.manifest.version, id: record.id };
                self.save(name, checkpoint, report, pending.trigger.reply);
            }
            None => {
                if let Some(reply) = pending.trigger.reply {
                    // The caller may not be interested.
                    let _ = reply.send(Ok(report));
                }
            }
        }
    }

    /// Checkpoints that were given up without a verdict on their commits, and count after all.
    fn adopt(&self, adopted: &[CheckpointId]) {
        if adopted.is_empty() {
            return;
        }
        {
            let mut progress = self.progress();
            progress.failures = Failures::default();
            for _ in adopted {
                progress.completed += 1;
                progress.failed = progress.failed.saturating_sub(1);
            }
            follow(&mut progress.retained, &self.chain);
        }
        if let Some(listener) = &self.listener {
            adopted.iter().for_each(|id| listener.adopted(*id));
        }
    }

    /// After a commit: what the attempt went on from may go.
    fn let_go(&mut self) {
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

    /// Makes a savepoint of a checkpoint that was just committed, beside the coordinator: it takes some
    /// round trips, and the next checkpoint need not wait for them.
    fn save(
        &mut self,
        name: SavepointName,
        checkpoint: Retained,
        report: CheckpointReport,
        reply: Option<oneshot::Sender<Result<CheckpointReport>>>,
    ) {
        let saving = Arc::new(checkpoint.version);
        self.state.saving.retain(|version| version.strong_count() > 0);
        self.state.saving.push(Arc::downgrade(&saving));
        // Not an ordinary pin of this attempt. That would count for nothing once a later attempt
        // has opened, and the savepoint may be created after that; it must be good from its first
        // moment (I3).
        let (remote, holder) = (Arc::clone(&self.remote), Holder::Saving(self.chain.epoch(), name.clone()));
        tokio::spawn(async move {
            let from = RestoreFrom::Checkpoint(checkpoint.id);
            let saved = savepoint::create(&remote, &name, &from, holder).await;
            drop(saving);
            if let Err(error) = &saved {
                tracing::warn!(%error, savepoint = %name, "a savepoint was not made");
            }
            if let Some(reply) = reply {
                // The caller may not be interested.
                let _ = reply.send(saved.map(|_| report));
            }
        });
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

    /// Ends the checkpoint under way without a result. What was cut for it belongs to the next one.
    fn give_up(&mut self, error: &Error) {
        let Some(pending) = self.state.pending.take() else { return };
        let id = pending.trigger.id;
        let error = error.clone().object(format!("checkpoint {id}"));
        tracing::warn!(%error, "a checkpoint was given up");
        for subtask in self.subtasks.values() {
            subtask.events.tell(ToStore::Aborted(id));
        }
        {
            let now = self.monotonic();
            let mut progress = self.progress();
            progress.failed += 1;
            progress.failures.add(now, id, &error);
        }
        self.finish(id);
        if let Some(listener) = &self.listener {
            listener.failed(id, &error);
        }
        if let Some(reply) = pending.trigger.reply {
            let _ = reply.send(Err(error));
        }
    }

    fn finish(&mut self, id: CheckpointId) {
        self.progress().pending = None;
        self.triggers.done(&self.attempt, id);
        let earliest = after(self.schedule.min_pause);
        self.state.next_trigger = self.state.next_trigger.map(|next| next.max(earliest));
    }

    fn tell(&self, subtask: SubtaskIndex, message: ToStore) {
        if let Some(subtask) = self.subtasks.get(&subtask) {
            subtask.events.tell(message);
        }
    }

    /// Deletes beside the coordinator what is no longer reachable.
    fn collect(&mut self) {
        let Some(run) = self.collecting.begin() else { return };
        let Ok(mut collector) = Arc::clone(&self.state.collector).try_lock_owned() else { return };
        self.state.collected = Some(Instant::now());
        let dropped = std::mem::take(&mut self.state.dropped);
        let (remote, roots) = (Arc::clone(&self.remote), self.chain.roots());
        let attempt = Arc::clone(&self.attempt);
        // Only now, after a commit: one that was in doubt until then could still have named them.
        collector.retire(std::mem::take(&mut self.state.retired));
        tokio::spawn(async move {
            match collector.run(&remote, &roots, dropped).await {
                Ok(Collection::Done(_)) => {}
                Ok(Collection::Overtaken(by)) => attempt.fail(fenced_by(by)),
                Err(error) => {
                    tracing::warn!(%error, "garbage collection failed; it goes on after a later checkpoint");
                }
            }
            drop((collector, run));
        });
    }

    async fn collect_all(&mut self) -> Result<()> {
        if self.chain.stopped().is_some() {
            // Fenced: what is garbage is now for the later attempt to say.
            return Ok(());
        }
        let mut dropped = std::mem::take(&mut self.state.dropped);
        dropped.extend(self.chain.take_dropped());
        let collect = async {
            let mut collector = self.state.collector.lock().await;
            collector.finish(&self.remote, &self.chain.roots(), dropped).await
        };
        match tokio::time::timeout(LAST_COLLECTION, collect).await {
            Ok(result) => result.map(|_| ()),
            // The next attempt looks for what stays behind.
            Err(_) => Ok(()),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic(&self) -> Duration {
        self.remote.env().clock.monotonic()
    }
}

/// Two subtasks have registered one state differently, so no checkpoint can hold both. Names the
/// two.
fn clash(receipts: &BTreeMap<SubtaskIndex, Receipt>, cause: Error) -> Error {
    let mut known = BTreeMap::<StateId, (SubtaskIndex, StateInfo)>::new();
    let all = receipts
        .iter()
        .flat_map(|(subtask, receipt)| receipt.states.iter().map(move |state| (*subtask, state)));
    for (subtask, state) in all {
        let (first, joined) = known.entry(state.id).or_insert_with(|| (subtask, state.clone()));
        if let Err(cause) = joined.join(state) {
            let message =
                format!("subtasks {first} and {subtask} use a state in ways that do not go together");
            return Error::new(cause.kind(), message)
                .object(format!("state {:?}", state.name))
                .source(cause)
                .advise(
                    "no checkpoint of this attempt can be complete: mend the program, and open the job again",
                );
        }
    }
    cause
}

/// Brings `retained`, checkpoints oldest first, to what `chain` retains by now, as far as it is known.
pub(crate) fn follow(retained: &mut VecDeque<CheckpointSummary>, chain: &Chain) {
    let entries = chain.entries();
    let oldest = entries.front().map_or(u64::MAX, |entry| entry.version().0);
    while retained.front().is_some_and(|summary| summary.version < oldest) {
        retained.pop_front();
    }
    let newest = retained.back().map_or(0, |summary| summary.version);
    let new = entries.partition_point(|entry| entry.version().0 <= newest);
    retained.extend(entries.range(new..).filter_map(|entry| {
        let (checkpoint, facts) = (entry.checkpoint, entry.facts?);
        let (id, version) = (checkpoint.id, checkpoint.version.0);
        Some(CheckpointSummary { id, version, unix_millis: facts.unix_millis, full_bytes: facts.full_bytes })
    }));
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A moment on the runtime's clock, which its timers follow (and a test may pause). "For ever" is
/// taken for a year.
fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(Duration::from_secs(365 * 24 * 3600))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
