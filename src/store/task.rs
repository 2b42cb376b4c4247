//! The background of one store: seals frozen deltas, uploads them, answers barriers with receipts,
//! and takes new bases. One task owns all of that state, so nothing in it is locked; slow work runs
//! beside it and reports back by an [`Event`].

mod bases;
mod native;
mod sealing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;

use crate::changelog::{Action, Flush, Receipt, ReceiptBase, ReceiptDelta, Retired, Tail};
use crate::error::{Error, ErrorKind};
use crate::ids::{CheckpointId, DeltaSeq, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{CheckpointMode, Origin};
use crate::materialize::{History, Known, Settings, Share, Uploader};
use crate::messages::{Committer, FromStore, ToStore};
use crate::table::{Expiries, TableFiles};
use crate::uploads::{Arrival, Uploads};

use super::appliers::Applier;
use super::attempt::Attempt;
use super::event::{Event, EventSender, FinalCut, PendingCut};
use super::shared::StoreShared;
use bases::MaterializationState;
use native::NativeUploads;

/// How often the task looks whether a new base is due or the attempt has failed.
const TICK: Duration = Duration::from_millis(100);

/// Everything that a task is made from.
pub(crate) struct TaskParts {
    pub(crate) mode: CheckpointMode,
    pub(crate) range: KeyGroupRange,
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) expiries: Arc<Expiries>,
    pub(crate) applier: Applier,
    pub(crate) uploader: Arc<Uploader>,
    pub(crate) known: Arc<Known>,
    pub(crate) tail: Tail<Box<PendingCut>>,
    pub(crate) inline_limit: u64,
    pub(crate) policy: Settings,
    pub(crate) share: Share,
    pub(crate) opened: Duration,
    /// A snapshot of the table as it was opened, and the delta it stands at: to be the first base,
    /// because the objects that the table was restored from belong to another job.
    pub(crate) first_base: Option<(TableFiles, DeltaSeq)>,
    /// Whether the state was taken over from other subtasks and has no base of its own yet.
    pub(crate) rescaled: bool,
    pub(crate) committer: Committer,
    /// The process's uploader of deltas.
    pub(crate) uploads: Uploads,
}

pub(crate) struct StoreTask {
    parts: TaskParts,
    events: EventSender,
    materialization: MaterializationState,
    history: History,
    wanted: bool,
    /// A base was asked for ([`crate::Job::materialize`]) since the last run began.
    demanded: bool,
    flush: bool,
    snapshots: u64,
    /// The last delta that was frozen, and that the uploader was told to hurry with.
    frozen: DeltaSeq,
    hurried: DeltaSeq,
    /// Deltas that are being sealed, and the first and last of them that the uploader was told of.
    sealing: BTreeSet<DeltaSeq>,
    told_sealing: Option<(DeltaSeq, DeltaSeq)>,
    native: NativeUploads,
    /// The newest checkpoint that was given up. A cut for it may come later than the news.
    given_up: Option<CheckpointId>,
    /// Set once the store has finished.
    last: Option<Box<FinalCut>>,
}

/// The task's inbox and the task, which runs until the runtime ends.
pub(crate) fn start(parts: TaskParts, runtime: &tokio::runtime::Handle) -> EventSender {
    let (sender, inbox) = mpsc::unbounded_channel();
    let shared = Arc::clone(&parts.shared);
    let events = EventSender::new(sender, Arc::clone(&parts.shared));
    let first_base = parts.first_base.clone();
    let mut task = StoreTask::new(parts, events.clone());
    if let Some((files, seq)) = first_base {
        task.upload_first_base(files, seq, runtime);
    }
    let attempt = Arc::clone(&shared.attempt);
    runtime.spawn(guarded(attempt, task.run(inbox)));
    events
}

impl StoreTask {
    fn new(parts: TaskParts, events: EventSender) -> Self {
        let history = History { opened: parts.opened, rescaled: parts.rescaled, ..History::default() };
        Self {
            parts,
            events,
            materialization: MaterializationState::Idle,
            history,
            wanted: false,
            demanded: false,
            flush: false,
            snapshots: 0,
            frozen: DeltaSeq(0),
            hurried: DeltaSeq(0),
            sealing: BTreeSet::new(),
            told_sealing: None,
            native: NativeUploads::default(),
            given_up: None,
            last: None,
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = inbox.recv() => {
                    let Some(event) = event else { return };
                    self.handle(event);
                    self.advance();
                    self.parts.shared.message_done(self.is_idle());
                }
                _ = tick.tick() => {
                    self.tick();
                    // Memory may have filled up since the last event.
                    self.advance();
                    self.parts.shared.set_idle(self.is_idle());
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        let running =
            self.materialization != MaterializationState::Idle || self.wanted || self.native.is_running();
        !running && self.parts.tail.is_idle()
    }

    fn now(&self) -> Duration {
        self.parts.uploader.remote.env().clock.monotonic()
    }

    fn handle(&mut self, event: Event) {
        let tail = &mut self.parts.tail;
        match event {
            Event::Told(message) => self.told(message),
            Event::Frozen { held, sealed_share } => self.frozen(held, sealed_share),
            Event::Sealed { seq, sealed, share } => self.sealed(seq, sealed, share),
            Event::Stored(Arrival { moved, bytes, object, counts }) => {
                if let Some(pending) = tail.waiting_for(&moved.deltas) {
                    pending.cost.late_bytes += bytes;
                    pending.cost.largest_object = pending.cost.largest_object.max(object);
                    pending.cost.puts += u64::from(counts);
                }
                tail.moved(moved);
            }
            Event::Barrier { seq, pending } => self.barrier(seq, pending),
            Event::Hurry => {
                self.parts.tail.hurry(self.frozen);
                self.hurry(self.frozen);
            }
            Event::NativeCut { seq, files, pending } => self.upload_native(seq, files, pending),
            Event::Finished(last) => {
                let (subtask, cut) = (self.parts.uploader.names.subtask(), last.cut);
                self.last = Some(last);
                self.parts.committer.tell(FromStore::Finished { subtask, last_cut: cut });
            }
            Event::FinishedSnapshot { dir, pending, result } => self.finished_snapshot(dir, pending, result),
            Event::NativeUploaded { seq, pending, result } => self.native_uploaded(seq, *pending, result),
            Event::Snapshot { dir, result } => self.upload_base(dir, result),
            Event::Materialized { seq, result } => self.materialized(seq, result),
            Event::Durable { wanted, reply } => {
                // The asker may be gone: the job is going down.
                let _ = reply.send(tail.durable_of(&wanted));
            }
        }
    }

    fn told(&mut self, message: ToStore) {
        match message {
            ToStore::CutFinished(id) => self.cut_finished(id),
            ToStore::Committed { id, refs } => self.parts.tail.committed(id, refs),
            ToStore::Packed(packed) => self.parts.tail.moved(packed),
            ToStore::Aborted(id) => {
                // Deltas that waited for the checkpoint wait no longer: the tail is uploaded.
                self.flush = true;
                // A cut for it may still be on its way here.
                self.given_up = self.given_up.max(Some(id));
                if let Some(pending) = self.parts.tail.aborted(id, |pending| pending.id) {
                    self.refuse(*pending, given_up(id));
                }
                self.give_up_native(id);
            }
            ToStore::Materialize => {
                // A native checkpoint is a base.
                self.wanted = self.parts.mode.logs_changes();
                self.demanded = self.wanted;
            }
            ToStore::Flush => self.flush = true,
        }
    }

    fn advance(&mut self) {
        let full = self.parts.shared.budget.is_full();
        // With full memory nothing may wait for a checkpoint: its barrier may be behind the blocked
        // write.
        let flush = if self.flush || full { Flush::All } else { Flush::AboveLimit };
        while let Some(action) = self.parts.tail.advance(flush, |pending| pending.id) {
            match action {
                // Not hurried where memory is full: many small requests beside each other would
                // free no more of it than a few large ones, and on a slow link each would seem to
                // hang.
                Action::Upload(uploads) => self.parts.uploads.offer(self.subtask(), uploads),
                Action::Ready { context, seq, origins, base, deltas } => {
                    self.answer(*context, seq, origins, base.map(ReceiptBase::Stored), deltas);
                }
            }
        }
        // Told only after all sealed deltas were offered.
        let under_way = self.sealing.first().copied().zip(self.sealing.last().copied());
        if std::mem::replace(&mut self.told_sealing, under_way) != under_way {
            self.parts.uploads.sealing(self.subtask(), under_way);
        }
        // A flush holds until all deltas that it could mean are on their way.
        self.flush &= !self.parts.tail.is_flushed();
        let Retired { own, shared } = self.parts.tail.take_retired(self.parts.uploader.names.instance());
        if !own.is_empty() {
            self.parts.committer.tell(FromStore::Retired(own));
        }
        if !shared.is_empty() {
            self.parts.uploads.release(self.subtask(), shared);
        }
        self.start_materialization();
    }

    fn subtask(&self) -> SubtaskIndex {
        self.parts.uploader.names.subtask()
    }

    /// A barrier or a caller waits for the deltas up to this one.
    fn hurry(&mut self, through: DeltaSeq) {
        if through > self.hurried {
            self.hurried = through;
            self.parts.uploads.hurry(self.subtask(), through);
        }
    }

    fn tick(&mut self) {
        if let Err(error) = self.parts.shared.attempt.health() {
            let pending: Vec<_> = self.parts.tail.give_up().collect();
            for pending in pending {
                self.refuse(*pending, error.clone());
            }
            return;
        }
        self.decide();
    }

    /// A cut in changelog mode.
    fn barrier(&mut self, seq: DeltaSeq, pending: Box<PendingCut>) {
        self.parts.tail.barrier(seq, pending);
        self.hurried = self.hurried.max(seq);
        self.parts.uploads.barrier(self.subtask(), seq);
    }

    fn answer(
        &self,
        pending: PendingCut,
        seq: DeltaSeq,
        origins: Vec<Origin>,
        base: Option<ReceiptBase>,
        deltas: Vec<ReceiptDelta>,
    ) {
        let names = &self.parts.uploader.names;
        debug_assert!(
            self.parts.mode.logs_changes() || (base.is_some() && deltas.is_empty()),
            "a native checkpoint is a base without deltas"
        );
        let receipt = Receipt {
            checkpoint: pending.id,
            subtask: names.subtask(),
            range: self.parts.range,
            instance: names.instance(),
            seq,
            origins,
            base,
            deltas,
            metadata: pending.metadata,
            elements: pending.elements,
            states: pending.states,
            cost: pending.cost,
        };
        // The caller of `cut` may have dropped its receiver.
        self.parts.committer.tell(FromStore::Receipt(Box::new(receipt.clone())));
        let _ = pending.reply.send(Ok(receipt));
    }

    fn refuse(&self, pending: PendingCut, error: Error) {
        self.parts.committer.tell(FromStore::Refused { checkpoint: pending.id, error: error.clone() });
        let _ = pending.reply.send(Err(error));
    }
}

fn given_up(id: CheckpointId) -> Error {
    Error::new(ErrorKind::Aborted, "the checkpoint was given up").object(format!("checkpoint {id}"))
}

/// Turns a panic of a background task into a failure that callers see.
pub(crate) async fn guarded(attempt: Arc<Attempt>, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        attempt.fail(Error::internal("a background task of the job panicked"));
    }
}
