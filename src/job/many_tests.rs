//! Many subtasks of one process over a store of 30 ms, on a clock that the test moves: what a checkpoint
//! takes is counted in round trips and requests.

use std::collections::BTreeSet;
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

use super::CheckpointReport;
use super::busy::Busy;
use super::coordinator::{
    Command, Coordinator, Garbage, Progress, Schedule, State, Subtask, Trigger, committer,
};
use super::outlet::JobOutlet;
use super::packer::{PACK_OWNER, Packer};
use super::triggers::{Triggers, WhenBusy};
use crate::budget::Budget;
use crate::changelog::{ReceiptCost, Tail};
use crate::delta::{ActiveDelta, TableKind};
use crate::env::{Env, splitmix64};
use crate::ids::{CheckpointId, DeltaSeq, Nonce, SubtaskIndex};
use crate::key;
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::manifest::{Chain, CheckpointMode, Manifest, OpenMode, read_newest};
use crate::materialize::{Known, NameSource, Settings, Share, Uploader};
use crate::remote::{ObjectName, Remote, RemoteCounters};
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
struct Store {
    subtask: SubtaskIndex,
    range: KeyGroupRange,
    events: EventSender,
    shared: Arc<StoreShared>,
    seq: DeltaSeq,
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

impl Process {
    async fn open(subtasks: u32) -> Self {
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
        let clock = Env::default().clock;
        let (mut stores, mut owners) = (Vec::new(), std::collections::BTreeMap::new());
        for subtask in (0..subtasks).map(SubtaskIndex) {
            let mut instance = [0; 16];
            instance[..4].copy_from_slice(&subtask.0.to_le_bytes());
            let instance = Nonce(instance);
            let range = max.range_of(subtask, subtasks).unwrap();
            let shared = StoreShared::new(Arc::clone(&attempt), Budget::new(64 << 20), DeltaSeq(0));
            let applier = Applier::idle();
            let uploader = Uploader {
                remote: Arc::clone(&remote),
                names: Arc::new(NameSource::new(chain.epoch(), subtask, instance)),
                limiter: None,
                parallel: 1,
                parts: 1,
                sharers: 1,
                copies: None,
            };
            let tail = Tail::new(INLINE, Vec::new(), None, Vec::new()).keeping(Arc::clone(&packing));
            let parts = TaskParts {
                mode: CheckpointMode::Changelog,
                range,
                dir: std::env::temp_dir(),
                shared: Arc::clone(&shared),
                expiries: Expiries::new(Arc::clone(&clock)),
                applier,
                uploader: Arc::new(uploader),
                known: Arc::new(Known::default()),
                tail,
                inline_limit: INLINE,
                policy: by_hand(),
                share: Share { index: subtask.0, of: subtasks },
                opened: Duration::ZERO,
                first_base: None,
                rescaled: false,
                committer: committer(&commands),
                uploads: uploads.clone(),
            };
            let events = start_task(parts, &Handle::current());
            let owner = Subtask {
                range,
                instance,
                events: events.clone(),
                shared: Arc::clone(&shared),
                committed: DeltaSeq(0),
                finished: false,
            };
            owners.insert(subtask, owner);
            stores.push(Store { subtask, range, events, shared, seq: DeltaSeq(0) });
        }
        let ways: std::collections::BTreeMap<_, _> =
            stores.iter().map(|store| (store.subtask, store.events.clone())).collect();
        let outlet = JobOutlet {
            attempt: Arc::clone(&attempt),
            stores: ways.clone(),
            committer: committer(&commands),
        };
        tokio::spawn(guarded(Arc::clone(&attempt), uploading.run(Arc::new(outlet))));
        let packer = Arc::new(Packer::new(Arc::clone(&remote), names, uploads.clone(), ways, PACKING / 2));
        let collecting = Busy::default();
        let coordinator = Coordinator {
            chain,
            remote: Arc::clone(&remote),
            attempt: Arc::clone(&attempt),
            triggers: Arc::clone(&triggers),
            progress: Arc::new(Mutex::new(Progress::default())),
            subtasks: owners,
            packer: Arc::clone(&packer),
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
            garbage: Garbage::new(collecting.clone()),
            state: State::default(),
        };
        tokio::spawn(coordinator.run(inbox));
        Self { time, stores, remote, beside, attempt, triggers, uploads, packer, commands, collecting }
    }

    /// Every subtask writes `bytes` that do not compress, and cuts.
    fn cut_all(&mut self, id: CheckpointId, bytes: usize) {
        for store in &mut self.stores {
            store.seq = store.seq.next();
            let group = store.range.first;
            let mut active = ActiveDelta::new();
            let (mut at, mut key, mut value) = (store.seq.0 << 20, Vec::new(), Vec::new());
            while value.len() < bytes {
                at += 1;
                value.extend_from_slice(&splitmix64(at ^ u64::from(store.subtask.0) << 40).to_le_bytes());
            }
            for (n, piece) in value.chunks(4000).enumerate() {
                key.clear();
                let state = crate::ids::StateId::of("state");
                key::encode_into(&mut key, group, state, &(n as u64).to_be_bytes());
                active.put(TableKind::Hash, &key, piece);
            }
            let held = ChargedLayer {
                layer: Layer::new(store.seq, active.cut()),
                _share: Arc::new(store.shared.budget.take(1)),
            };
            let sealed_share = store.shared.budget.take(1);
            store.events.send(Event::Frozen { held, sealed_share });
            // The test does not wait for the answer, but for the report.
            let (reply, _) = oneshot::channel();
            let cost = ReceiptCost::default();
            let pending = PendingCut { id, metadata: Vec::new(), states: Arc::from([]), cost, reply };
            store.events.send(Event::Barrier { seq: store.seq, pending: Box::new(pending) });
        }
    }

    async fn checkpoint(&mut self, bytes: usize) -> Taken {
        let (start, before) = (self.time.elapsed(), self.remote.counters());
        let (reply, report) = oneshot::channel();
        let commands = self.commands.clone();
        let announce = |id, _| {
            let (start, metadata) = (Duration::ZERO, Vec::new());
            let trigger = Trigger { id, metadata, start, savepoint: None, reply: Some(reply) };
            drop(commands.send(Command::Trigger(trigger)));
            Ok(())
        };
        let id = self.triggers.start(&self.attempt, WhenBusy::Refuse, announce).unwrap();
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
    fn is_sealed(&self) -> bool {
        self.shared.deltas_sealed.load(Ordering::Relaxed) == self.seq.0
    }
}

/// The objects that hold the deltas of a checkpoint, and how many references it has to them.
fn named(manifest: &Manifest) -> (BTreeSet<ObjectName>, usize) {
    let deltas = || manifest.checkpoint().unwrap().subtasks.iter().flat_map(|subtask| &subtask.deltas);
    (deltas().map(|delta| delta.object.clone()).collect(), deltas().count())
}

#[tokio::test]
async fn i5_a_checkpoint_takes_as_many_requests_whatever_the_number_of_subtasks() {
    for (subtasks, bytes) in [(2, 20 << 10), (64, 20 << 10), (256, 20 << 10), (256, 100 << 10)] {
        let mut process = Process::open(subtasks).await;
        for round in 0..3 {
            let Taken { report, round_trips, requests } = process.checkpoint(bytes).await;
            let what = format!("{subtasks} × {bytes}, round {round}: {round_trips}, {requests:?}");
            assert!(round_trips <= 3, "{what}");
            // Deltas that are sealed one after the other may go in as many objects as there are requests at a time,
            // before the others gather. How fast they are sealed says nothing.
            let sent = u64::from(subtasks) * bytes as u64;
            let most = u64::from(PARALLEL_DELTAS) + sent.div_ceil(MAX_OBJECT) + 1;
            assert!(requests.puts <= most, "{what}");
            assert_eq!(report.puts, requests.puts, "a shared request counts once: {what}");
            assert_eq!(requests.gets, 0, "{what}");
            assert!(report.bytes_after_trigger >= sent, "{what}");
            assert_eq!(report.bytes_after_trigger, requests.put_bytes, "{what}");
            process.settle().await;
        }
    }
}

#[tokio::test]
async fn i8_objects_of_many_subtasks_do_not_add_up_and_nothing_is_read_back() {
    let mut process = Process::open(64).await;
    let (mut most_objects, mut most_bytes) = (0, 0);
    for _ in 0..100 {
        // Less than travels inline, and more, in turns.
        process.checkpoint(2 << 10).await;
        let Taken { report, .. } = process.checkpoint(17 << 10).await;
        process.settle().await;
        let (objects, _) = named(&process.newest().await);
        most_objects = most_objects.max(objects.len());
        most_bytes = most_bytes.max(report.manifest_bytes);
    }
    // 122 MB: some 4 MiB and more in each, and a few small ones.
    assert!(most_objects < 50, "{most_objects} objects");
    assert!(most_bytes < 100_000, "a manifest of {most_bytes} bytes, without deltas in it");
    // Of 200 objects and manifests; so they were packed, and from memory.
    assert_eq!(process.packer.reads.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn i5_references_to_large_objects_of_many_subtasks_do_not_add_up() {
    let mut process = Process::open(32).await;
    let mut most = 0;
    for _ in 0..80 {
        process.checkpoint(70 << 10).await;
        process.settle().await;
        most = most.max(named(&process.newest().await).1);
    }
    assert!(most < 32 * 40, "{most} references of 32 subtasks");
    let (_, left) = named(&process.newest().await);
    assert!(left < 32 * 24, "{left} references after 80 deltas of each");
}
