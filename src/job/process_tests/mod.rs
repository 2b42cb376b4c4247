//! The background of a whole process without its operators: stores without tables, the uploader, the
//! packer and the coordinator, over a store of 30 ms, on a clock that the test moves.

mod lossy;
mod many;
mod members;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::oneshot;
use futures::poll;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::budget::Budget;
use crate::changelog::{ReceiptCost, Tail};
use crate::delta::{ActiveDelta, TableKind};
use crate::env::{Env, splitmix64};
use crate::error::Result;
use crate::ids::{CheckpointId, DeltaSeq, Nonce, SubtaskIndex};
use crate::job::CheckpointReport;
use crate::job::background::{JobOutlet, PACK_OWNER, Packer};
use crate::job::busy::Busy;
use crate::job::coordinator::{
    Command, Coordinator, Garbage, Progress, Schedule, State, Subtask, Trigger, committer,
};
use crate::job::members::{Heard, MemberLink, Seat};
use crate::job::tolerance::Tolerance;
use crate::job::triggers::{Triggers, WhenBusy};
use crate::key;
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::manifest::{Chain, CheckpointMode, DeltaRef, Manifest, OpenMode, read_newest};
use crate::materialize::{Known, NameSource, Settings, Share, Uploader};
use crate::messages::{Committer, FromStore};
use crate::remote::{BaseTraffic, ObjectName, Remote, RemoteCounters};
use crate::store::{
    Applier, Attempt, ChargedLayer, Event, EventSender, Layer, PendingCut, StoreShared, TaskParts, guarded,
    start_task,
};
use crate::store_model::{SteppedTime, StoreModel};
use crate::table::Expiries;
use crate::uploads::{MAX_OBJECT, PARALLEL_DELTAS, Uploads, UploadsTask};

const LATENCY: Duration = Duration::from_millis(30);
const INLINE: u64 = 16 << 10;
const PACKING: u64 = 16 << 20;
/// Turns of all tasks after which nobody has anything to do but to wait.
const QUIET: usize = 60;

/// A store without a table: its deltas are sealed, uploaded and committed as any.
pub(crate) struct Store {
    pub(crate) subtask: SubtaskIndex,
    range: KeyGroupRange,
    pub(crate) events: EventSender,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) seq: DeltaSeq,
}

/// What a store is started with.
pub(crate) struct StoreParts<'a> {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) of: u32,
    pub(crate) range: KeyGroupRange,
    pub(crate) instance: Nonce,
    pub(crate) remote: &'a Arc<Remote>,
    pub(crate) attempt: &'a Arc<Attempt>,
    pub(crate) packing: &'a Arc<Budget>,
    pub(crate) uploads: &'a Uploads,
    pub(crate) committer: Committer,
    /// The deltas that it goes on from.
    pub(crate) restored: Vec<DeltaRef>,
}

impl StoreParts<'_> {
    /// Starts it on the current runtime.
    pub(crate) fn start(self) -> Store {
        let Self { subtask, range, attempt, remote, .. } = self;
        let seq = self.restored.last().map(|delta| delta.last).unwrap_or_default();
        let shared = StoreShared::new(Arc::clone(attempt), Budget::new(64 << 20), seq);
        let uploader = Uploader {
            remote: Arc::clone(remote),
            names: Arc::new(NameSource::new(attempt.epoch, subtask, self.instance)),
            traffic: None,
            parallel: 1,
            parts: 1,
            sharers: 1,
            copies: None,
        };
        let tail = Tail::new(INLINE, Vec::new(), None, self.restored).keeping(Arc::clone(self.packing));
        let parts = TaskParts {
            mode: CheckpointMode::Changelog,
            range,
            dir: std::env::temp_dir(),
            shared: Arc::clone(&shared),
            expiries: Expiries::new(Env::default().clock),
            applier: Applier::idle(),
            uploader: Arc::new(uploader),
            known: Arc::new(Known::default()),
            tail,
            inline_limit: INLINE,
            policy: by_hand(),
            share: Share { index: subtask.0, of: self.of },
            opened: Duration::ZERO,
            first_base: None,
            rescaled: false,
            committer: self.committer,
            uploads: self.uploads.clone(),
        };
        let events = start_task(parts, &Handle::current());
        Store { subtask, range, events, shared, seq }
    }
}

/// The messages between stores and coordinator, in the hands of a test.
struct Post {
    up: mpsc::UnboundedReceiver<FromStore>,
    /// For each store, what coordinator and packer send it.
    down: Vec<mpsc::UnboundedReceiver<Event>>,
}

struct Process {
    time: SteppedTime,
    stores: Vec<Store>,
    remote: Arc<Remote>,
    /// The same objects without the model.
    beside: Remote,
    attempt: Arc<Attempt>,
    triggers: Arc<Triggers>,
    uploads: Uploads,
    packer: Arc<Packer>,
    bases: Arc<BaseTraffic>,
    commands: mpsc::UnboundedSender<Command>,
    collecting: Busy,
}

/// What a checkpoint took.
struct Taken {
    report: CheckpointReport,
    round_trips: u32,
    requests: RemoteCounters,
}

/// Runs `future`, and moves time on when nobody has anything to do and `ready` says that nothing is being
/// computed beside the tasks.
async fn drive<T>(time: &SteppedTime, ready: impl Fn() -> bool, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        for _ in 0..QUIET {
            if let std::task::Poll::Ready(done) = poll!(future.as_mut()) {
                return done;
            }
            tokio::task::yield_now().await;
        }
        if !ready() || !time.step() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

fn by_hand() -> Settings {
    Settings { interval: None, changelog_bytes: None, replay: None }
}

/// A coordinator without anything around it. `packer` and `subtasks` are those of its own process.
pub(crate) struct CoordinatorParts {
    pub(crate) chain: Chain,
    pub(crate) remote: Arc<Remote>,
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) subtasks: BTreeMap<SubtaskIndex, Subtask>,
    pub(crate) members: Vec<MemberLink>,
    pub(crate) packer: Arc<Packer>,
    pub(crate) bases: Arc<BaseTraffic>,
    pub(crate) collecting: Busy,
}

impl CoordinatorParts {
    pub(crate) fn build(self) -> Coordinator {
        let heard = vec![Heard::default(); self.members.len()];
        Coordinator {
            chain: self.chain,
            remote: self.remote,
            attempt: self.attempt,
            triggers: self.triggers,
            progress: Arc::new(Mutex::new(Progress { heard, ..Progress::default() })),
            operators: Vec::new(),
            subtasks: self.subtasks,
            members: self.members,
            packer: self.packer,
            bases: self.bases,
            mode: CheckpointMode::Changelog,
            keep: 1,
            schedule: Schedule {
                interval: None,
                min_pause: Duration::ZERO,
                timeout: Duration::from_secs(3600),
            },
            listener: None,
            closing: Arc::new(Notify::new()),
            origin: None,
            garbage: Garbage::new(self.collecting),
            tolerance: Tolerance::default(),
            state: State::default(),
        }
    }
}

impl Process {
    async fn open(subtasks: u32) -> Self {
        Self::start(subtasks, None).await
    }

    /// A process whose messages the test carries.
    async fn with_post(subtasks: u32) -> (Self, Post) {
        let (sender, up) = mpsc::unbounded_channel();
        let mut down = Vec::new();
        // Fails only when the test is over.
        let stores = Committer::new(move |message| drop(sender.send(message)));
        let process = Self::start(subtasks, Some((stores, &mut down))).await;
        (process, Post { up, down })
    }

    async fn start(
        subtasks: u32,
        mut post: Option<(Committer, &mut Vec<mpsc::UnboundedReceiver<Event>>)>,
    ) -> Self {
        let time = SteppedTime::default();
        let inner: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
        let model =
            StoreModel::stepped(Arc::clone(&inner), "30ms,unlimited,unlimited".parse().unwrap(), &time);
        let prefix = Path::from("jobs/a");
        let remote = Arc::new(Remote::new(Arc::new(model), prefix.clone(), Env::default()));
        let beside = Remote::new(inner, prefix, Env::default());
        let max = MaxParallelism::new(256).unwrap();
        let opening = Chain::open(Arc::clone(&remote), OpenMode::Create, Some(max));
        let chain = drive(&time, || true, opening).await.unwrap().chain;
        let attempt = Attempt::new(chain.epoch());
        let triggers = Arc::new(Triggers::new(chain.epoch()));
        let (commands, inbox) = mpsc::unbounded_channel();
        let names = Arc::new(NameSource::new(chain.epoch(), PACK_OWNER, Nonce([200; 16])));
        let (uploads, uploading) = UploadsTask::new(Arc::clone(&remote), Arc::clone(&names));
        let packing = Budget::new(PACKING);
        let (mut stores, mut owners) = (Vec::new(), BTreeMap::new());
        for subtask in (0..subtasks).map(SubtaskIndex) {
            let mut instance = [0; 16];
            instance[..4].copy_from_slice(&subtask.0.to_le_bytes());
            let instance = Nonce(instance);
            let range = max.range_of(subtask, subtasks).unwrap();
            let started = StoreParts {
                subtask,
                of: subtasks,
                range,
                instance,
                remote: &remote,
                attempt: &attempt,
                packing: &packing,
                uploads: &uploads,
                committer: post.as_ref().map_or_else(|| committer(&commands), |(up, _)| up.clone()),
                restored: Vec::new(),
            };
            let store = started.start();
            let (events, shared) = (store.events.clone(), Arc::clone(&store.shared));
            let way = match &mut post {
                None => events.clone(),
                Some((_, down)) => {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    down.push(receiver);
                    EventSender::new(sender, Arc::clone(&shared))
                }
            };
            let owner = Subtask {
                range,
                instance: Some(instance),
                seat: Seat::Here { events: way, shared: Arc::clone(&shared) },
                committed: DeltaSeq(0),
                finished: false,
            };
            owners.insert(subtask, owner);
            stores.push(store);
        }
        let ways: BTreeMap<_, _> = owners
            .iter()
            .map(|(subtask, owner): (_, &Subtask)| match &owner.seat {
                Seat::Here { events, .. } => (*subtask, events.clone()),
                Seat::Member(_) => unreachable!("all stores are here"),
            })
            .collect();
        let outlet = JobOutlet {
            attempt: Arc::clone(&attempt),
            // The uploader is in the stores' process.
            stores: stores.iter().map(|store: &Store| (store.subtask, store.events.clone())).collect(),
            committer: committer(&commands),
        };
        tokio::spawn(guarded(Arc::clone(&attempt), uploading.run(Arc::new(outlet))));
        let packer = Arc::new(Packer::new(Arc::clone(&remote), names, uploads.clone(), ways, PACKING / 2));
        let (collecting, bases) = (Busy::default(), Arc::new(BaseTraffic::new(None)));
        let coordinator = CoordinatorParts {
            chain,
            remote: Arc::clone(&remote),
            attempt: Arc::clone(&attempt),
            triggers: Arc::clone(&triggers),
            subtasks: owners,
            members: Vec::new(),
            packer: Arc::clone(&packer),
            bases: Arc::clone(&bases),
            collecting: collecting.clone(),
        };
        tokio::spawn(coordinator.build().run(inbox));
        Self { time, stores, remote, beside, attempt, triggers, uploads, packer, bases, commands, collecting }
    }

    /// Every subtask writes `bytes` that do not compress, and cuts.
    fn cut_all(&mut self, id: CheckpointId, bytes: usize) {
        for store in &mut self.stores {
            store.write(bytes);
            store.cut(id);
        }
    }

    fn trigger(&self) -> (CheckpointId, oneshot::Receiver<Result<CheckpointReport>>) {
        let (reply, report) = oneshot::channel();
        let commands = self.commands.clone();
        let announce = |id, _| {
            let (start, metadata) = (Duration::ZERO, Vec::new());
            let trigger = Trigger { id, metadata, start, savepoint: None, reply: Some(reply) };
            drop(commands.send(Command::Trigger(trigger)));
            Ok(())
        };
        (self.triggers.start(&self.attempt, WhenBusy::Refuse, announce).unwrap(), report)
    }

    async fn checkpoint(&mut self, bytes: usize) -> Taken {
        let (start, before) = (self.time.elapsed(), self.remote.counters());
        let (id, report) = self.trigger();
        self.cut_all(id, bytes);
        let sealed = || self.stores.iter().all(Store::is_sealed);
        let report = drive(&self.time, sealed, report).await.unwrap().unwrap();
        let trips = (self.time.elapsed() - start).as_secs_f64() / LATENCY.as_secs_f64();
        let requests = self.remote.counters() - before;
        Taken { report, round_trips: trips.round() as u32, requests }
    }

    /// Waits until nothing is on its way and nothing is being packed.
    async fn settle(&self) {
        let settled = async {
            while self.packer.is_running() || self.collecting.is_busy() || !self.uploads.is_settled() {
                tokio::task::yield_now().await;
            }
        };
        drive(&self.time, || true, settled).await;
    }

    async fn newest(&self) -> Manifest {
        read_newest(&self.beside).await.unwrap().unwrap()
    }
}

impl Store {
    /// Writes so many bytes that do not compress, as one delta.
    pub(crate) fn write(&mut self, bytes: usize) {
        self.seq = self.seq.next();
        let group = self.range.first;
        let mut active = ActiveDelta::new();
        let (mut at, mut key, mut value) = (self.seq.0 << 20, Vec::new(), Vec::new());
        while value.len() < bytes {
            at += 1;
            value.extend_from_slice(&splitmix64(at ^ u64::from(self.subtask.0) << 40).to_le_bytes());
        }
        for (n, piece) in value.chunks(4000).enumerate() {
            key.clear();
            let state = crate::ids::StateId::of("state");
            key::encode_into(&mut key, group, state, &(n as u64).to_be_bytes());
            active.put(TableKind::Hash, &key, piece);
        }
        let held = ChargedLayer {
            layer: Layer::new(self.seq, active.cut()),
            _share: Arc::new(self.shared.budget.take(1)),
        };
        let sealed_share = self.shared.budget.take(1);
        self.events.send(Event::Frozen { held, sealed_share });
    }

    /// Cuts after what was written. The test does not wait for the answer, but for the report.
    pub(crate) fn cut(&self, id: CheckpointId) {
        let (reply, _) = oneshot::channel();
        let cost = ReceiptCost::default();
        let pending = PendingCut {
            id,
            metadata: Vec::new(),
            elements: Arc::from([]),
            states: Arc::from([]),
            cost,
            reply,
        };
        self.events.send(Event::Barrier { seq: self.seq, pending: Box::new(pending) });
    }

    fn is_sealed(&self) -> bool {
        self.shared.deltas_sealed.load(Ordering::Relaxed) == self.seq.0
    }
}
