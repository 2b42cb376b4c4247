//! The task that decides about checkpoints. It triggers them, gathers the receipts, commits, gives
//! up what takes too long, and has garbage collected after commits.

mod command;
mod commit;
mod copies;
mod garbage;
mod members;
mod outcome;
mod progress;
mod queue;
mod savepoint;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use crate::changelog::Receipt;
use crate::error::{Error, ErrorKind};
use crate::gc::Pin;
use crate::ids::{CheckpointId, DeltaSeq, Nonce, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{Chain, CheckpointMode, JoinedStates, OperatorRecord};
use crate::messages::{FromStore, ToMember, ToStore};
use crate::remote::{BaseTraffic, Remote};
use crate::store::Attempt;

use super::background::Packer;
use super::members::{MemberLink, Seat};
use super::report::CheckpointListener;
use super::status;
use super::timetable::{Timetable, after};
use super::tolerance::Tolerance;
use super::triggers::{Triggers, WhenBusy};

use savepoint::Saving;

pub(super) use command::{Command, Trigger, committer};
pub(super) use garbage::Garbage;
pub(super) use progress::Progress;

/// How often a checkpoint under way looks whether the attempt has failed. A caller that waits for the
/// checkpoint hears of the failure that much later.
const WATCH: Duration = Duration::from_millis(100);

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
    /// The job's operators, if they have names: each owns a run of `subtasks`.
    pub(crate) operators: Vec<OperatorRecord>,
    /// The job's subtasks. A checkpoint is complete with a receipt of each.
    pub(crate) subtasks: BTreeMap<SubtaskIndex, Subtask>,
    /// The processes that hold subtasks besides this one.
    pub(crate) members: Vec<MemberLink>,
    pub(crate) packer: Arc<Packer>,
    /// The uploads of bases, which give way to what a checkpoint waits for.
    pub(crate) bases: Arc<BaseTraffic>,
    pub(crate) mode: CheckpointMode,
    pub(crate) keep: usize,
    pub(crate) schedule: Schedule,
    pub(crate) listener: Option<Arc<dyn CheckpointListener>>,
    /// Ends a commit that is under way, because the job is being closed.
    pub(crate) closing: Arc<Notify>,
    /// The pin of the savepoint, or of another job's checkpoint, from which the attempt continues.
    /// It is held until a commit of the attempt's own refers to the same state.
    pub(crate) origin: Option<Pin>,
    pub(crate) state: State,
    pub(super) garbage: Garbage,
    pub(super) tolerance: Tolerance,
}

/// What the coordinator knows of a subtask.
pub(crate) struct Subtask {
    pub(crate) range: KeyGroupRange,
    /// None until the member that holds it was heard of.
    pub(crate) instance: Option<Nonce>,
    pub(crate) seat: Seat,
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
    /// Checkpoints that have an id and wait for the one under way, in the order of their ids.
    queued: VecDeque<Trigger>,
    timetable: Timetable,
    /// The job is being closed, so no checkpoint starts any more.
    closing: bool,
    /// The states of each operator's subtasks as of the last checkpoint.
    described: Vec<JoinedStates>,
    /// Whether anything was committed since a base was made.
    committed: bool,
    saving: Saving,
    /// Whether the listener knows that the attempt has failed.
    told_end: bool,
}

struct Pending {
    trigger: Trigger,
    deadline: Instant,
    receipts: BTreeMap<SubtaskIndex, Receipt>,
}

impl Coordinator {
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        self.state.timetable =
            Timetable::new(self.schedule.interval, self.mode.logs_changes(), Instant::now());
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.tell_end();
            // Whatever has ended the checkpoint before, the next one in the queue starts here.
            self.begin_queued();
            let deadline = self.state.pending.as_ref().map(|pending| pending.deadline);
            let idle = self.state.pending.is_none();
            // One checkpoint at a time. Triggers that fall due meanwhile become one, after the minimum pause.
            let due = self.state.timetable.next_trigger().filter(|_| idle);
            let early = self.state.timetable.next_early_cut().filter(|_| idle);
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Close(reply)) => {
                        self.give_up(&Error::new(ErrorKind::Closed, "the job was closed"));
                        let collected = self.collect_all().await;
                        for member in &self.members {
                            member.close().await;
                        }
                        // If the caller was cancelled, there is no receiver for the answer.
                        let _ = reply.send(collected);
                        return;
                    }
                    Some(command) => self.handle(command).await,
                    None => return,
                },
                () = sleep_until(deadline) => self.give_up_overdue(),
                () = sleep_until(due) => self.trigger_by_schedule(),
                () = sleep_until(early) => self.ask_for_early_cut(),
                // An operator that has seen the failure never cuts, so the wait must be ended here.
                _ = watch.tick(), if self.state.pending.is_some() => self.give_up_hopeless(),
            }
        }
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Trigger(trigger) => {
                let id = trigger.id;
                self.state.timetable.called();
                // Operators may have cut already: they saw the checkpoint as due when this message was
                // sent. Their receipts come later in the same inbox.
                self.begin(trigger);
                self.triggers.started();
                self.tell_triggered(id);
            }
            Command::Queue(trigger) => self.state.queued.push_back(trigger),
            Command::Expect(in_about) => self.state.timetable.expect(in_about, Instant::now()),
            Command::Told(message) => self.told(message).await,
            Command::Joined { member, session } => self.joined(member, session),
            Command::Member { member, message } => self.told_by(member, *message).await,
            Command::LookForSuccessor => self.look_at_chain(),
            Command::Abort(id) => self.abort(id),
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
                    self.fail(&error);
                }
            }
            FromStore::Retired(objects) => self.garbage.retire(objects),
            FromStore::Materialized(report) => {
                self.look_for_successor();
                if let Some(listener) = &self.listener {
                    listener.materialized(&report);
                }
            }
            FromStore::Uploaded { took } => self.state.timetable.uploaded(took),
            // No later checkpoint can do without this store.
            FromStore::Failed(error) => {
                self.attempt.fail(error.clone());
                self.give_up(&error);
            }
        }
    }

    fn pending_id(&self) -> Option<CheckpointId> {
        self.state.pending.as_ref().map(|pending| pending.trigger.id)
    }

    fn trigger_by_schedule(&mut self) {
        self.state.timetable.advance(Instant::now());
        if self.attempt.health().is_err() {
            return;
        }
        // Left out if a caller's own trigger is in the inbox already, or the last checkpoint was taken.
        let (triggers, attempt) = (Arc::clone(&self.triggers), Arc::clone(&self.attempt));
        let (start, metadata) = (self.monotonic(), self.state.metadata.clone());
        let started = triggers.start(&attempt, WhenBusy::Refuse, |id, _| {
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

    /// The operator makes no more cuts. From now on the subtask's task cuts for its store, beginning with
    /// the checkpoint under way.
    fn finished(&mut self, subtask: SubtaskIndex, cut: u64) {
        let Some(own) = self.subtasks.get_mut(&subtask) else { return };
        own.finished = true;
        if let Some(id) = self.pending_id().filter(|id| id.number > cut) {
            self.tell(subtask, ToStore::CutFinished(id));
        }
    }

    fn begin(&mut self, trigger: Trigger) {
        let deadline = after(Instant::now(), self.schedule.timeout);
        self.state.timetable.begin();
        let way = self.make_way(Instant::now());
        for (subtask, _) in self.subtasks.iter().filter(|(_, subtask)| subtask.finished) {
            self.tell(*subtask, ToStore::CutFinished(trigger.id));
        }
        self.tell_members(&ToMember::Triggered { id: trigger.id, way });
        let (id, start) = (trigger.id, trigger.start);
        self.progress().pending = Some(status::Pending { id, start, receipts: BTreeSet::new() });
        self.state.pending = Some(Pending { trigger, deadline, receipts: BTreeMap::new() });
    }

    async fn receive(&mut self, receipt: Receipt) {
        let (id, subtask) = (receipt.checkpoint, receipt.subtask);
        if id.epoch != self.chain.epoch() {
            // Its store belongs to another attempt, and the store of this number here is not concerned.
            tracing::warn!(%subtask, checkpoint = %id, "a receipt of another attempt was ignored");
            return;
        }
        match &mut self.state.pending {
            Some(pending) if pending.trigger.id == id => {
                // A receipt of another instance, or another job, would commit a state that never was (I1).
                let own = self.subtasks.get(&subtask);
                if !own
                    .is_some_and(|own| own.range == receipt.range && own.instance == Some(receipt.instance))
                {
                    tracing::warn!(%subtask, checkpoint = %id, "a receipt of another store was ignored");
                    return;
                }
                // A host that is not sure may submit a receipt twice.
                pending.receipts.entry(subtask).or_insert(receipt);
                let complete = pending.receipts.len() == self.subtasks.len();
                self.progress().pending.iter_mut().for_each(|pending| _ = pending.receipts.insert(subtask));
                if complete {
                    self.commit().await;
                }
            }
            // Too late for this checkpoint. The store must make what it holds durable by itself.
            _ => self.tell_late(subtask, id),
        }
    }

    /// Tells a store of this process. What members are told comes by [`Coordinator::tell_members`].
    fn tell(&self, subtask: SubtaskIndex, message: ToStore) {
        if let Some(Subtask { seat: Seat::Here { events, .. }, .. }) = self.subtasks.get(&subtask) {
            events.tell(message);
        }
    }

    fn tell_late(&self, subtask: SubtaskIndex, id: CheckpointId) {
        match self.subtasks.get(&subtask).map(|own| &own.seat) {
            Some(Seat::Member(member)) => {
                let member = self.members.get(*member);
                member.into_iter().for_each(|member| member.tell(ToMember::Late(subtask, id)));
            }
            Some(Seat::Here { .. }) => self.tell(subtask, ToStore::Aborted(id)),
            None => {}
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic(&self) -> Duration {
        self.remote.env().clock.monotonic()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
