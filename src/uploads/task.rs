//! The uploader's task: it sends the objects that [`Gather`] decides on, for as long as that takes,
//! and tells the stores where their deltas lie.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::changelog::{Moved, Portion, Upload, join, lay_out};
use crate::error::ErrorKind;
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::materialize::NameSource;
use crate::remote::{DataKind, ObjectName, Remote};

use super::gather::{Gather, PARALLEL_DELTAS};
use super::owned::Owned;

/// Pause after an upload has failed in spite of the retries below it; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Receives the results of uploads.
pub(crate) trait Outlet: Send + Sync + 'static {
    /// Deltas of a subtask are durable.
    fn arrived(&self, subtask: SubtaskIndex, arrival: Arrival);
    /// Nothing that the process holds refers to these objects any more. A checkpoint that is being
    /// committed, or a retained one, may still do.
    fn retired(&self, objects: Vec<ObjectName>);
    /// An object took this long to become durable.
    fn took(&self, time: Duration);
    /// Whether the attempt has ended, so that nothing is to be tried again.
    fn is_over(&self) -> bool;
}

/// A subtask's part of an object that is durable now.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) moved: Moved,
    /// Bytes of the subtask's own deltas.
    pub(crate) bytes: u64,
    /// Bytes of the whole object.
    pub(crate) object: u64,
    /// Whether the request counts as this subtask's. It counts for one of the subtasks that share
    /// it.
    pub(crate) counts: bool,
}

enum Message {
    Offer(SubtaskIndex, Vec<Upload>),
    Hurry(SubtaskIndex, DeltaSeq),
    Barrier(SubtaskIndex, DeltaSeq),
    Sealing(SubtaskIndex, Option<(DeltaSeq, DeltaSeq)>),
    Release(SubtaskIndex, Vec<ObjectName>),
    Own(ObjectName, BTreeSet<SubtaskIndex>),
}

/// The work that is left, for observers.
#[derive(Debug)]
struct Load {
    inbox: AtomicU64,
    idle: AtomicBool,
}

/// A handle to the uploader. Cheap to clone; no call waits.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    inbox: mpsc::UnboundedSender<Message>,
    load: Arc<Load>,
}

impl Uploads {
    /// Has a store's sealed deltas uploaded; they come in order.
    pub(crate) fn offer(&self, subtask: SubtaskIndex, deltas: Vec<Upload>) {
        self.send(Message::Offer(subtask, deltas));
    }

    /// All deltas of the store up to `through`, offered or to come, are hurried.
    pub(crate) fn hurry(&self, subtask: SubtaskIndex, through: DeltaSeq) {
        self.send(Message::Hurry(subtask, through));
    }

    /// As [`Uploads::hurry`], because a barrier waits for them.
    pub(crate) fn barrier(&self, subtask: SubtaskIndex, through: DeltaSeq) {
        self.send(Message::Barrier(subtask, through));
    }

    /// The store has the deltas from the first to the last of `under_way` to seal, and has offered
    /// what it will offer of those before.
    pub(crate) fn sealing(&self, subtask: SubtaskIndex, under_way: Option<(DeltaSeq, DeltaSeq)>) {
        self.send(Message::Sealing(subtask, under_way));
    }

    /// A store refers to these objects no more.
    pub(crate) fn release(&self, subtask: SubtaskIndex, objects: Vec<ObjectName>) {
        self.send(Message::Release(subtask, objects));
    }

    /// Another part of the process has written an object for `subtasks`, which hear of it after
    /// this call. The object is retired once all of them have released it; without any, at once.
    pub(crate) fn own(&self, object: ObjectName, subtasks: BTreeSet<SubtaskIndex>) {
        self.send(Message::Own(object, subtasks));
    }

    /// Whether all messages are dealt with, and nothing waits or is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        self.load.inbox.load(Ordering::Acquire) == 0 && self.load.idle.load(Ordering::Acquire)
    }

    fn send(&self, message: Message) {
        self.load.inbox.fetch_add(1, Ordering::AcqRel);
        // Fails only when the job is shutting down; then the effect is not needed.
        let _ = self.inbox.send(message);
    }
}

/// The uploader of a process.
pub(crate) struct UploadsTask {
    inbox: mpsc::UnboundedReceiver<Message>,
    load: Arc<Load>,
    remote: Arc<Remote>,
    names: Arc<NameSource>,
    gather: Gather,
    owned: Owned,
    sending: JoinSet<Option<Sent>>,
}

/// An object that is there.
struct Sent {
    object: ObjectName,
    portions: Vec<Portion>,
    took: Duration,
}

impl UploadsTask {
    /// A task that gives its objects `names`, and the way to it. Messages wait until it runs.
    pub(crate) fn new(remote: Arc<Remote>, names: Arc<NameSource>) -> (Uploads, Self) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let load = Arc::new(Load { inbox: AtomicU64::new(0), idle: AtomicBool::new(true) });
        let uploads = Uploads { inbox: sender, load: Arc::clone(&load) };
        let (gather, owned, sending) = (Gather::default(), Owned::default(), JoinSet::new());
        (uploads, Self { inbox, load, remote, names, gather, owned, sending })
    }

    /// Runs until all senders are gone, or the runtime ends.
    pub(crate) async fn run(mut self, outlet: Arc<dyn Outlet>) {
        loop {
            let mut handled = 0;
            tokio::select! {
                message = self.inbox.recv() => {
                    let Some(message) = message else { return };
                    self.handle(message, &*outlet);
                    handled += 1;
                    // Messages that are ready come first, because the deltas they offer go with
                    // this object.
                    tokio::task::yield_now().await;
                }
                Some(sent) = self.sending.join_next(), if !self.sending.is_empty() => {
                    self.sent(sent, &*outlet);
                }
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.handle(message, &*outlet);
                handled += 1;
            }
            while let Some(portions) = self.gather.next() {
                let (remote, names) = (Arc::clone(&self.remote), Arc::clone(&self.names));
                self.sending.spawn(send(remote, names, portions, Arc::clone(&outlet)));
            }
            // `idle` before the count: an observer that finds the inbox empty must see what its messages
            // have started.
            self.load.idle.store(self.gather.is_idle(), Ordering::Release);
            self.load.inbox.fetch_sub(handled, Ordering::AcqRel);
        }
    }

    fn handle(&mut self, message: Message, outlet: &dyn Outlet) {
        let retired = match message {
            Message::Offer(subtask, deltas) => return self.gather.offer(subtask, deltas),
            Message::Hurry(subtask, through) => return self.gather.hurry(subtask, through),
            Message::Barrier(subtask, through) => return self.gather.barrier(subtask, through),
            Message::Sealing(subtask, under_way) => return self.gather.sealing(subtask, under_way),
            Message::Release(subtask, objects) => self.owned.release(subtask, objects),
            Message::Own(object, subtasks) => self.owned.add(object, subtasks),
        };
        if !retired.is_empty() {
            outlet.retired(retired);
        }
    }

    fn sent(&mut self, sent: Result<Option<Sent>, JoinError>, outlet: &dyn Outlet) {
        self.gather.sent();
        let Sent { object, portions, took } = match sent {
            Ok(Some(sent)) => sent,
            // The attempt is over.
            Ok(None) => return,
            Err(error) => match error.try_into_panic() {
                // The guard of this task reports it.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        outlet.took(took);
        let subtasks = portions.iter().map(|portion| portion.subtask).collect();
        // Before any subtask hears of it, and can release it.
        let unowned = self.owned.add(object.clone(), subtasks);
        debug_assert!(unowned.is_empty(), "an object was sent for no subtask");
        for (subtask, arrival) in self.arrivals(&object, &portions) {
            outlet.arrived(subtask, arrival);
        }
    }

    fn arrivals(&self, object: &ObjectName, portions: &[Portion]) -> Vec<(SubtaskIndex, Arrival)> {
        let placed = lay_out(portions, object);
        let bytes_of = |moved: &Moved| moved.deltas.iter().map(|delta| delta.length).sum();
        let all: u64 = placed.iter().map(|(_, moved)| bytes_of(moved)).sum();
        // A checkpoint sums up the requests of its subtasks, so one of the waiting subtasks counts
        // this one.
        let waits = |(subtask, moved): &(SubtaskIndex, Moved)| {
            moved.deltas.first().is_some_and(|delta| self.gather.barrier_waits(*subtask, delta.first))
        };
        let counts = placed.iter().position(waits).unwrap_or(0);
        let arrival = |(at, (subtask, moved)): (usize, (SubtaskIndex, Moved))| {
            let bytes = bytes_of(&moved);
            (subtask, Arrival { moved, bytes, object: all, counts: at == counts })
        };
        placed.into_iter().enumerate().map(arrival).collect()
    }
}

/// Uploads deltas as one object, and keeps trying: an outage of the store costs latency, never data
/// (I6). None once the attempt has ended.
async fn send(
    remote: Arc<Remote>,
    names: Arc<NameSource>,
    portions: Vec<Portion>,
    outlet: Arc<dyn Outlet>,
) -> Option<Sent> {
    // On the clock that the calls ahead of a barrier are made by.
    let start = tokio::time::Instant::now();
    let kind = match &portions[..] {
        [only] if only.deltas.len() == 1 => DataKind::Delta,
        _ => DataKind::Pack,
    };
    let mut object = names.next(kind);
    let payload = join(&portions);
    let mut pause = FIRST_PAUSE;
    while let Err(error) = remote.put_data_shared(&object, payload.clone(), PARALLEL_DELTAS).await {
        if outlet.is_over() {
            return None;
        }
        tracing::warn!(%error, "deltas could not be uploaded; trying again");
        if error.kind() == ErrorKind::Corrupt {
            // Something else stands under this name, and will go on standing there.
            object = names.next(kind);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Some(Sent { object, portions, took: start.elapsed() })
}
