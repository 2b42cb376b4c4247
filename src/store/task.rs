//! The background of one store: seals frozen deltas, uploads them, answers barriers with receipts, and
//! takes new bases. One task owns all of that state, so nothing in it is locked; slow work runs beside
//! it and reports back by an [`Event`].

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use tokio::sync::mpsc;

use crate::changelog::{Action, Flush, Receipt, ReceiptBase, ReceiptDelta, Retired, Tail};
use crate::delta::{self, DeltaHeader};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, DeltaSeq, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{BaseRef, CheckpointMode, Origin};
use crate::materialize::{
    self, Decision, History, Known, MaterializationReport, Settings, Share, Uploaded, Uploader, blocking,
};
use crate::messages::{Committer, FromStore, ToStore};
use crate::table::{self, Expiries, TableFiles};
use crate::uploads::{Arrival, Uploads};

use super::applier::{SnapshotOrder, Work};
use super::appliers::Applier;
use super::event::{Event, EventSender, Last, NativeUpload, Ticket};
use super::shared::{Attempt, Held, StoreShared};
use crate::budget::BudgetShare;

#[cfg(test)]
mod tests;

/// How often the task looks whether a new base is due or the attempt has failed.
const TICK: Duration = Duration::from_millis(100);
/// Pause after a first base could not be uploaded in spite of the retries below; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the task is made of.
pub(crate) struct TaskParts {
    pub(crate) mode: CheckpointMode,
    pub(crate) range: KeyGroupRange,
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) expiries: Arc<Expiries>,
    pub(crate) applier: Applier,
    pub(crate) uploader: Arc<Uploader>,
    pub(crate) known: Arc<Known>,
    pub(crate) tail: Tail<Box<Ticket>>,
    pub(crate) inline_limit: u64,
    pub(crate) policy: Settings,
    pub(crate) share: Share,
    pub(crate) opened: Duration,
    /// A snapshot of the table as it was opened, and the delta it stands at: to be the first base, because
    /// what the table was restored from is not the job's own.
    pub(crate) first_base: Option<(TableFiles, DeltaSeq)>,
    /// Whether the state was taken over from other subtasks and has no base of its own yet.
    pub(crate) rescaled: bool,
    pub(crate) committer: Committer,
    /// The process's uploader of deltas.
    pub(crate) uploads: Uploads,
}

/// Where a materialization stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Idle,
    /// Since this moment the applier or the uploader is at it.
    Under(Duration),
}

pub(crate) struct StoreTask {
    parts: TaskParts,
    events: EventSender,
    run: Run,
    history: History,
    wanted: bool,
    /// A base was asked for ([`crate::Job::materialize`]) since the last run began.
    demanded: bool,
    flush: bool,
    snapshots: u64,
    /// The last delta that was frozen, and that the uploader was told to hurry with.
    frozen: DeltaSeq,
    hurried: DeltaSeq,
    /// Deltas that are being sealed, and whether the uploader was told of any.
    sealing: usize,
    told_sealing: bool,
    /// The native upload under way, and how to stop it: by a word, or by dropping this.
    native: Option<(CheckpointId, oneshot::Sender<()>)>,
    /// The newest checkpoint that was given up. A cut for it may come later than the news.
    given_up: Option<CheckpointId>,
    /// Of a store that has finished.
    last: Option<Box<Last>>,
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
            run: Run::Idle,
            history,
            wanted: false,
            demanded: false,
            flush: false,
            snapshots: 0,
            frozen: DeltaSeq(0),
            hurried: DeltaSeq(0),
            sealing: 0,
            told_sealing: false,
            native: None,
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
        let running = self.run != Run::Idle || self.wanted || self.native.is_some();
        !running && self.parts.tail.is_idle()
    }

    fn now(&self) -> Duration {
        self.parts.uploader.remote.env().clock.monotonic()
    }

    fn handle(&mut self, event: Event) {
        let tail = &mut self.parts.tail;
        match event {
            Event::Told(message) => self.told(message),
            Event::Frozen { held, sealed_share } => {
                tail.frozen(held.layer.seq);
                self.frozen = held.layer.seq;
                self.sealing += 1;
                self.seal(held, sealed_share);
            }
            Event::Sealed { seq, sealed, share } => {
                let shared = &self.parts.shared;
                let bytes = sealed.bytes.len() as u64;
                shared.deltas_sealed.fetch_add(1, Ordering::Relaxed);
                shared.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
                let exact = shared.budget.take(bytes);
                drop(share);
                self.sealing = self.sealing.saturating_sub(1);
                tail.sealed(seq, sealed, Arc::new(exact));
            }
            Event::Stored(Arrival { moved, bytes, object, counts }) => {
                if let Some(ticket) = tail.waiting_for(&moved.deltas) {
                    ticket.cost.late_bytes += bytes;
                    ticket.cost.largest_object = ticket.cost.largest_object.max(object);
                    ticket.cost.puts += u64::from(counts);
                }
                tail.moved(moved);
            }
            Event::Barrier { seq, ticket } => self.barrier(seq, ticket),
            Event::Hurry => self.hurry(self.frozen),
            Event::NativeCut { seq, files, ticket } => self.upload_native(seq, files, ticket),
            Event::Finished(last) => {
                let (subtask, cut) = (self.parts.uploader.names.subtask(), last.cut);
                self.last = Some(last);
                self.parts.committer.tell(FromStore::Finished { subtask, last_cut: cut });
            }
            Event::FinishedSnapshot { dir, ticket, result } => match result {
                Ok((seq, files)) => self.upload_native(seq, files, ticket),
                Err(error) => {
                    tokio::spawn(remove_snapshot(dir));
                    self.note_base(Some(&error));
                    self.refuse(*ticket, error);
                }
            },
            Event::NativeUploaded { seq, mut ticket, result } => {
                self.native.take_if(|(native, _)| *native == ticket.id);
                self.retire_strays();
                // It is not tried again by itself: health tells of it until the next checkpoint.
                self.note_base(result.as_ref().err());
                match result {
                    Ok(sent) => {
                        ticket.cost.sst_bytes = sent.bytes;
                        ticket.cost.late_bytes += sent.bytes;
                        ticket.cost.largest_object = sent.largest;
                        ticket.cost.puts += sent.objects;
                        self.answer(*ticket, seq, Vec::new(), Some(sent.base), Vec::new());
                    }
                    Err(error) => {
                        self.stop_if_damaged();
                        self.refuse(*ticket, error);
                    }
                }
            }
            Event::Snapshot { dir, result } => self.upload_base(dir, result),
            Event::Materialized { seq, result } => self.materialized(seq, result),
            Event::Durable { objects, reply } => {
                let durable = tail.durable().filter(|(delta, _)| objects.contains(&delta.object));
                let durable = durable.map(|(delta, bytes)| (delta.clone(), bytes.cloned()));
                // The asker may be gone: the job is going down.
                let _ = reply.send(durable.collect());
            }
        }
    }

    fn told(&mut self, message: ToStore) {
        match message {
            ToStore::CutFinished(id) => self.cut_finished(id),
            ToStore::Committed { refs } => self.parts.tail.committed(refs),
            ToStore::Packed(packed) => self.parts.tail.moved(packed),
            ToStore::Aborted(id) => {
                // What was held for it must not be held on: an aborted tail is uploaded.
                self.flush = true;
                self.given_up = self.given_up.max(Some(id));
                if let Some(ticket) = self.parts.tail.aborted(id, |ticket| ticket.id) {
                    self.refuse(*ticket, given_up(id));
                }
                if let Some((_, stop)) = self.native.take_if(|(native, _)| *native == id) {
                    // It may have ended by itself.
                    let _ = stop.send(());
                }
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
        let flush = if self.flush || full { Flush::All } else { Flush::AboveLimit };
        while let Some(action) = self.parts.tail.advance(flush, |ticket| ticket.id) {
            match action {
                // Not hurried where memory is full: many small requests beside each other would free no more
                // of it than a few large ones, and on a slow link each would seem to hang.
                Action::Upload(uploads) => self.parts.uploads.offer(self.subtask(), uploads),
                Action::Ready { context, seq, origins, base, deltas } => {
                    self.answer(*context, seq, origins, base.map(ReceiptBase::Stored), deltas);
                }
            }
        }
        // Only now, with all that is offered of what was sealed.
        let sealing = self.sealing > 0;
        if std::mem::replace(&mut self.told_sealing, sealing) != sealing {
            self.parts.uploads.sealing(self.subtask(), sealing);
        }
        // A flush holds until nothing is left that it could have meant.
        self.flush &= !self.parts.tail.is_flushed();
        let Retired { own, shared } = self.parts.tail.take_retired(self.parts.uploader.names.instance());
        if !own.is_empty() {
            self.parts.committer.tell(FromStore::Retired(own));
        }
        if !shared.is_empty() {
            self.parts.uploads.release(self.subtask(), shared);
        }
        self.start_run();
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
            let tickets: Vec<_> = self.parts.tail.give_up().collect();
            for ticket in tickets {
                self.refuse(*ticket, error.clone());
            }
            return;
        }
        // A run under way is the answer to what the policy says now.
        if self.run != Run::Idle || !self.parts.mode.logs_changes() {
            return;
        }
        let decision = materialize::decide(
            self.now(),
            &self.parts.policy,
            self.parts.share,
            &self.history,
            self.parts.tail.bytes_since_base(),
        );
        if matches!(decision, Decision::Run(_)) {
            self.wanted = true;
            self.start_run();
        }
    }

    /// Encodes a frozen delta beside the task.
    fn seal(&self, held: Held, share: BudgetShare) {
        let names = &self.parts.uploader.names;
        let header = DeltaHeader {
            epoch: names.epoch(),
            subtask: names.subtask(),
            range: self.parts.range,
            first: held.layer.seq,
            last: held.layer.seq,
        };
        let (events, shared) = (self.events.clone(), Arc::clone(&self.parts.shared));
        let expiries = Arc::clone(&self.parts.expiries);
        let seal = move |held: &Held| {
            let mut now = expiries.now();
            delta::seal(&held.layer.delta, &header, |key, entry| now.live(key, entry))
        };
        tokio::spawn(async move {
            // The whole of it goes there and back: a closure that names `layer` alone would capture
            // that alone, and the delta would count no longer while it is still being encoded.
            let encode = move || Ok((seal(&held), held));
            match blocking(encode).await {
                Ok((sealed, held)) => {
                    events.send(Event::Sealed { seq: held.layer.seq, sealed, share });
                }
                Err(error) => shared.fail(error),
            }
        });
    }

    /// A cut in changelog mode.
    fn barrier(&mut self, seq: DeltaSeq, ticket: Box<Ticket>) {
        self.parts.tail.barrier(seq, ticket);
        self.hurried = self.hurried.max(seq);
        self.parts.uploads.barrier(self.subtask(), seq);
    }

    /// The cut of a store that has finished. Its table stands still, so a native checkpoint of it is one of
    /// whatever files the table has by now.
    fn cut_finished(&mut self, id: CheckpointId) {
        let Some(last) = &self.last else { return };
        let (seq, ticket) = (last.seq, last.ticket(id));
        if self.parts.mode.logs_changes() {
            return self.barrier(seq, ticket);
        }
        let dir = self.parts.dir.join(format!("cut-{}", id.number));
        let events = self.events.clone();
        let order = SnapshotOrder {
            dir: dir.clone(),
            done: Box::new(move |result| events.send(Event::FinishedSnapshot { dir, ticket, result })),
        };
        // Otherwise the applier has panicked; the failure is recorded there, and ends the checkpoint.
        let _ = self.parts.applier.send(Work::Snapshot(order));
    }

    fn upload_native(&mut self, seq: DeltaSeq, files: TableFiles, ticket: Box<Ticket>) {
        // One run at a time, and the checkpoint's end may have been told before its cut came.
        if self.given_up.is_some_and(|last| ticket.id <= last) {
            tokio::spawn(remove_snapshot(files.dir));
            let error = given_up(ticket.id);
            return self.refuse(*ticket, error);
        }
        let parts = &self.parts;
        let (uploader, known) = (Arc::clone(&parts.uploader), Arc::clone(&parts.known));
        let (range, inline_limit, events) = (parts.range, parts.inline_limit, self.events.clone());
        let (stop, stopped) = oneshot::channel();
        self.native = Some((ticket.id, stop));
        tokio::spawn(async move {
            let upload = async {
                let uploaded = uploader.upload(&files, range, seq, table::OPERATOR_NAME, &known).await?;
                let (bytes, objects) = (uploaded.new_bytes, uploaded.new_files as u64);
                let largest = uploaded.largest;
                let index = uploaded.encoded.len() as u64;
                if index > inline_limit {
                    known.begun(uploaded.object.clone());
                    let base = ReceiptBase::Stored(uploader.publish(&uploaded).await?);
                    let (bytes, objects, largest) = (bytes + index, objects + 1, largest.max(index));
                    return Ok(NativeUpload { base, bytes, objects, largest });
                }
                let index = uploaded.encoded.clone();
                // Where the index lies is known once the manifest has a version.
                let nowhere = uploaded.object.clone();
                let reference = uploaded.index.reference(nowhere, 0, &index);
                Ok(NativeUpload { base: ReceiptBase::Inline { index, reference }, bytes, objects, largest })
            };
            // What was sent is known and not sent again. A run that was replaced by the next one's ends
            // as well: only one at a time.
            let result = tokio::select! {
                result = upload => result,
                _ = stopped => Err(given_up(ticket.id)),
            };
            remove_snapshot(files.dir).await;
            events.send(Event::NativeUploaded { seq, ticket, result });
        });
    }

    /// Starts a materialization if one is wanted and none is under way.
    fn start_run(&mut self) {
        if !self.wanted || self.run != Run::Idle || !self.parts.mode.logs_changes() {
            return;
        }
        self.wanted = false;
        self.history.on_demand |= std::mem::take(&mut self.demanded);
        self.run = Run::Under(self.now());
        self.snapshots += 1;
        let dir = self.parts.dir.join(format!("base-{}", self.snapshots));
        let events = self.events.clone();
        let work = Work::Snapshot(SnapshotOrder {
            dir: dir.clone(),
            done: Box::new(move |result| events.send(Event::Snapshot { dir, result })),
        });
        if self.parts.applier.send(work).is_err() {
            // The job is going down.
            self.run = Run::Idle;
        }
    }

    fn upload_base(&mut self, dir: PathBuf, snapshot: Result<(DeltaSeq, TableFiles)>) {
        let (seq, files) = match snapshot {
            Ok((seq, files)) if materialize::is_news(seq, self.parts.tail.base_seq(), &self.history) => {
                (seq, files)
            }
            Ok(_) => {
                // A base would say nothing that the last one does not.
                self.run = Run::Idle;
                self.history.last_run = Some(self.now());
                self.history.on_demand = false;
                tokio::spawn(remove_snapshot(dir));
                return;
            }
            Err(error) => {
                tokio::spawn(remove_snapshot(dir));
                return self.materialized(DeltaSeq(0), Err(error));
            }
        };
        let (uploader, known) = (Arc::clone(&self.parts.uploader), Arc::clone(&self.parts.known));
        let (range, events) = (self.parts.range, self.events.clone());
        tokio::spawn(async move {
            let upload = async {
                let uploaded = uploader.upload(&files, range, seq, table::OPERATOR_NAME, &known).await?;
                known.begun(uploaded.object.clone());
                Ok((uploader.publish(&uploaded).await?, uploaded))
            };
            let result = upload.await;
            remove_snapshot(dir).await;
            events.send(Event::Materialized { seq, result });
        });
    }

    /// Uploads the base that the first checkpoint waits for, for as long as it takes (I6): a later snapshot
    /// would not do, because it may stand after the checkpoint's cut.
    fn upload_first_base(&mut self, files: TableFiles, seq: DeltaSeq, runtime: &tokio::runtime::Handle) {
        self.run = Run::Under(self.now());
        let (uploader, known) = (Arc::clone(&self.parts.uploader), Arc::clone(&self.parts.known));
        let (range, events) = (self.parts.range, self.events.clone());
        let (shared, committer) = (Arc::clone(&self.parts.shared), self.parts.committer.clone());
        let clock = Arc::clone(&uploader.remote.env().clock);
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let upload = async {
                    let uploaded = uploader.upload(&files, range, seq, table::OPERATOR_NAME, &known).await?;
                    known.begun(uploaded.object.clone());
                    Ok::<_, Error>((uploader.publish(&uploaded).await?, uploaded))
                };
                match upload.await {
                    Ok(done) => {
                        remove_snapshot(files.dir).await;
                        return events.send(Event::Materialized { seq, result: Ok(done) });
                    }
                    Err(error) => {
                        if let Some(damage) = known.damage() {
                            shared.fail(damage.clone());
                            committer.tell(FromStore::Failed(damage));
                        }
                        if shared.attempt.health().is_err() {
                            return;
                        }
                        shared.bases.failed(&error, clock.monotonic());
                        tracing::warn!(%error, "the first base could not be uploaded; trying again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        });
    }

    fn materialized(&mut self, seq: DeltaSeq, result: Result<(BaseRef, Uploaded)>) {
        let Run::Under(start) = std::mem::replace(&mut self.run, Run::Idle) else { return };
        self.retire_strays();
        self.note_base(result.as_ref().err());
        match result {
            Ok((base, uploaded)) => {
                // From now on its objects are the tail's to retire.
                self.parts.known.published(&uploaded.index, &base.object);
                self.history =
                    History { opened: self.history.opened, last_run: Some(start), ..History::default() };
                self.parts.tail.materialized(base);
                let report = MaterializationReport {
                    subtask: self.parts.uploader.names.subtask(),
                    start_ms: start.as_secs_f64() * 1e3,
                    duration_ms: self.now().saturating_sub(start).as_secs_f64() * 1e3,
                    seq,
                    new_bytes: uploaded.new_bytes,
                    new_files: uploaded.new_files as u64,
                    reused_bytes: uploaded.reused_bytes,
                    reused_files: uploaded.reused_files as u64,
                };
                self.parts.committer.tell(FromStore::Materialized(report));
            }
            Err(error) => {
                self.stop_if_damaged();
                // The changelog goes on without it; what was uploaded is not sent again.
                tracing::warn!(%error, "a materialization failed and will be tried again");
                self.history.failures += 1;
                self.history.last_failure = self.now();
            }
        }
    }

    /// A base has come about, or failed.
    fn note_base(&self, error: Option<&Error>) {
        let bases = &self.parts.shared.bases;
        match error {
            None => bases.succeeded(),
            Some(error) => bases.failed(error, self.now()),
        }
    }

    /// Ends the attempt if the local files were found to be damaged. No base can come from them, and reads may fail at
    /// any time; what the store has is intact, and a restart begins from there.
    fn stop_if_damaged(&self) {
        if let Some(damage) = self.parts.known.damage() {
            self.parts.shared.fail(damage.clone());
            self.parts.committer.tell(FromStore::Failed(damage));
        }
    }

    /// Hands in what was uploaded for bases that came to nothing, and that the next one does without.
    fn retire_strays(&self) {
        let strays = self.parts.known.take_strays();
        if !strays.is_empty() {
            self.parts.committer.tell(FromStore::Retired(strays));
        }
    }

    fn answer(
        &self,
        ticket: Ticket,
        seq: DeltaSeq,
        origins: Vec<Origin>,
        base: Option<ReceiptBase>,
        deltas: Vec<ReceiptDelta>,
    ) {
        let names = &self.parts.uploader.names;
        let receipt = Receipt {
            checkpoint: ticket.id,
            subtask: names.subtask(),
            range: self.parts.range,
            instance: names.instance(),
            seq,
            origins,
            base,
            deltas,
            metadata: ticket.metadata,
            states: ticket.states,
            cost: ticket.cost,
        };
        // Who has cut may not be listening any more.
        self.parts.committer.tell(FromStore::Receipt(Box::new(receipt.clone())));
        let _ = ticket.reply.send(Ok(receipt));
    }

    fn refuse(&self, ticket: Ticket, error: Error) {
        self.parts.committer.tell(FromStore::Refused { checkpoint: ticket.id, error: error.clone() });
        let _ = ticket.reply.send(Err(error));
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

/// Snapshots are hard links; one that stays behind pins files that RocksDB has deleted.
async fn remove_snapshot(dir: PathBuf) {
    let removed = blocking(move || match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::disk("remove a snapshot", &dir, error))
        }
        _ => Ok(()),
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "a snapshot's directory stays behind until the next start");
    }
}
