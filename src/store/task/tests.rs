//! The task's own rules, with the events handed to it one by one.

use bytes::Bytes;
use futures::channel::oneshot;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;

use super::*;
use crate::budget::Budget;
use crate::changelog::{ReceiptCost, Upload};
use crate::delta::{self, ActiveDelta, TableKind};
use crate::env::Env;
use crate::error::Result;
use crate::fault_store::{Fault, FaultStore, Op};
use crate::ids::{Epoch, Nonce};
use crate::key_group::KeyGroup;
use crate::manifest::BaseRef;
use crate::materialize::NameSource;
use crate::remote::{ObjectName, Remote};
use crate::store::layer::{ChargedLayer, Layer};
use crate::uploads::{Outlet, UploadsTask};

const SOON: Duration = Duration::from_secs(20);

struct Fixture {
    task: StoreTask,
    inbox: mpsc::UnboundedReceiver<Event>,
    messages: mpsc::UnboundedReceiver<FromStore>,
    store: Arc<FaultStore>,
    told: Arc<Told>,
    /// The uploader, until it is started.
    uploading: Option<UploadsTask>,
    dir: TempDir,
}

/// Hands what the uploader reports to the store, and keeps what it retires.
struct Told {
    events: EventSender,
    retired: std::sync::Mutex<Vec<ObjectName>>,
}

impl Outlet for Told {
    fn arrived(&self, _: SubtaskIndex, arrival: Arrival) {
        self.events.send(Event::Stored(arrival));
    }

    fn retired(&self, objects: Vec<ObjectName>) {
        self.retired.lock().unwrap().extend(objects);
    }

    fn took(&self, _: Duration) {}

    fn is_over(&self) -> bool {
        false
    }
}

type Answer = oneshot::Receiver<Result<Receipt>>;

fn id(number: u64) -> CheckpointId {
    CheckpointId { epoch: Epoch(1), number }
}

fn pending_cut(number: u64) -> (Box<PendingCut>, Answer) {
    let (reply, answer) = oneshot::channel();
    let (metadata, states, cost) = (Vec::new(), Arc::from([]), ReceiptCost::default());
    (Box::new(PendingCut { id: id(number), metadata, elements: Arc::from([]), states, cost, reply }), answer)
}

impl Fixture {
    fn new(mode: CheckpointMode) -> Self {
        let store = FaultStore::new(InMemory::new());
        let inner: Arc<dyn object_store::ObjectStore> = Arc::<FaultStore>::clone(&store);
        let remote = Arc::new(Remote::new(inner, Path::from("jobs/a"), Env::default()));
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(1 << 20), DeltaSeq(0));
        let (sender, inbox) = mpsc::unbounded_channel();
        let events = EventSender::new(sender, Arc::clone(&shared));
        let (sender, messages) = mpsc::unbounded_channel();
        let dir = tempfile::tempdir().unwrap();
        let range = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(127) };
        let applier = Applier::idle();
        let names = Arc::new(NameSource::new(Epoch(1), SubtaskIndex(0), Nonce([7; 16])));
        let shared_names = Arc::new(NameSource::new(Epoch(1), SubtaskIndex(0), Nonce([8; 16])));
        let (uploads, uploading) = UploadsTask::new(Arc::clone(&remote), shared_names);
        let told = Arc::new(Told { events: events.clone(), retired: Default::default() });
        let parts = TaskParts {
            mode,
            range,
            dir: dir.path().to_owned(),
            shared,
            expiries: Expiries::new(Env::default().clock),
            applier,
            uploader: Arc::new(Uploader {
                remote,
                names,
                traffic: None,
                parallel: 4,
                parts: 1,
                sharers: 1,
                copies: None,
            }),
            known: Arc::new(Known::default()),
            tail: Tail::new(100, Vec::new(), None, Vec::new()),
            inline_limit: 1 << 20,
            policy: Settings { interval: None, changelog_bytes: None, replay: None },
            share: Share { index: 0, of: 1 },
            opened: Duration::ZERO,
            rescaled: false,
            first_base: None,
            committer: Committer::new(move |message| drop(sender.send(message))),
            uploads,
        };
        let task = StoreTask::new(parts, events);
        let uploading = Some(uploading);
        Self { task, inbox, messages, store, told, uploading, dir }
    }

    fn start_uploads(&mut self) {
        let task = self.uploading.take().expect("it is started once");
        tokio::spawn(task.run(Arc::<Told>::clone(&self.told)));
    }

    /// A delta was cut and is being sealed.
    fn frozen(&mut self, seq: u64) {
        let budget = &self.task.parts.shared.budget;
        let mut active = ActiveDelta::new();
        active.put(TableKind::Hash, b"key", b"value");
        let layer = Layer::new(DeltaSeq(seq), active.cut());
        let held = ChargedLayer { layer, _share: Arc::new(budget.take(1)) };
        let sealed_share = budget.take(1);
        self.task.handle(Event::Frozen { held, sealed_share });
        self.task.advance();
    }

    /// A delta that was cut and is sealed now.
    fn sealed(&mut self, seq: u64, bytes: usize) {
        let seq = DeltaSeq(seq);
        self.task.parts.tail.frozen(seq);
        let sealed = delta::Sealed { bytes: Bytes::from(vec![0; bytes]), crc32c: 0, entries: 1 };
        let share = self.task.parts.shared.budget.take(bytes as u64);
        self.task.handle(Event::Sealed { seq, sealed, share });
        self.task.advance();
    }

    fn barrier(&mut self, number: u64, seq: u64) -> Answer {
        let (pending, answer) = pending_cut(number);
        self.task.handle(Event::Barrier { seq: DeltaSeq(seq), pending });
        self.task.advance();
        answer
    }

    /// A cut in native mode, whose snapshot holds one file of this content.
    fn native_cut(&mut self, number: u64, content: &'static [u8]) -> Answer {
        let files = self.snapshot(number, content);
        let (pending, answer) = pending_cut(number);
        self.task.handle(Event::NativeCut { seq: DeltaSeq(number), files, pending });
        answer
    }

    fn snapshot(&self, number: u64, content: &'static [u8]) -> TableFiles {
        let dir = self.dir.path().join(format!("cut-{number}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(format!("{number:06}.sst")), content).unwrap();
        TableFiles::of_dir(&dir)
    }

    /// Waits until the attempt has failed.
    async fn failure(&self) -> Error {
        let attempt = &self.task.parts.shared.attempt;
        let failed = async {
            while attempt.health().is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, failed).await.expect("the attempt has failed");
        attempt.health().unwrap_err()
    }

    /// Handles what the background reports, until there is an answer.
    async fn wait(&mut self, answer: &mut Answer) -> Result<Receipt> {
        tokio::time::timeout(SOON, async {
            loop {
                if let Some(answer) = answer.try_recv().unwrap() {
                    return answer;
                }
                let event = self.inbox.recv().await.unwrap();
                self.task.handle(event);
                self.task.advance();
            }
        })
        .await
        .expect("an answer")
    }

    fn retired(&mut self) -> Vec<ObjectName> {
        let mut retired = Vec::new();
        while let Ok(message) = self.messages.try_recv() {
            if let FromStore::Retired(objects) = message {
                retired.extend(objects);
            }
        }
        retired
    }
}

#[tokio::test]
async fn i6_a_delta_counts_until_it_is_encoded() {
    let mut f = Fixture::new(CheckpointMode::Changelog);
    let budget = Arc::clone(&f.task.parts.shared.budget);
    let mut active = ActiveDelta::new();
    active.put(TableKind::Hash, b"key", b"value");
    let layer = Layer::new(DeltaSeq(1), active.cut());
    let held = ChargedLayer { layer, _share: Arc::new(budget.take(1000)) };
    let sealed_share = budget.take(1000);
    f.task.seal(held, sealed_share);
    // On this thread nothing has run beside the test yet.
    assert_eq!(budget.held(), 2000);
    let sealed = tokio::time::timeout(SOON, f.inbox.recv()).await.unwrap();
    assert!(matches!(sealed, Some(Event::Sealed { .. })));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(budget.held(), 1000, "what was encoded counts by its own share");
    drop(sealed);
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn a_native_upload_is_work_until_it_has_ended() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    let mut answer = f.native_cut(1, b"one");
    assert!(!f.task.is_idle(), "an upload is under way");
    f.wait(&mut answer).await.unwrap();
    assert!(f.task.is_idle());
}

#[tokio::test]
async fn a_native_cut_for_a_checkpoint_that_was_given_up_is_refused() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    f.task.handle(Event::Told(ToStore::Aborted(id(2))));
    for number in [1, 2] {
        let mut answer = f.native_cut(number, b"late");
        assert!(f.task.is_idle(), "nothing was begun");
        assert_eq!(f.wait(&mut answer).await.unwrap_err().kind(), ErrorKind::Aborted);
    }
    let mut answer = f.native_cut(3, b"in time");
    f.wait(&mut answer).await.unwrap();
}

#[tokio::test]
async fn a_native_upload_ends_when_the_next_takes_its_place() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    f.store.plan(Op::Put, Fault::Hang);
    let mut first = f.native_cut(1, b"one");
    tokio::time::timeout(SOON, async {
        while f.store.planned() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    let mut second = f.native_cut(2, b"two");
    assert_eq!(f.wait(&mut first).await.unwrap_err().kind(), ErrorKind::Aborted);
    f.wait(&mut second).await.unwrap();
    assert!(f.task.is_idle());
}

/// The end of an upload decides which files the next may refer to. If the next had begun already,
/// it would fail.
#[tokio::test]
async fn a_native_upload_begins_when_the_one_before_has_ended() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    let mut first = f.native_cut(1, b"one");
    f.task.handle(Event::Told(ToStore::Aborted(id(1))));
    let mut second = f.native_cut(2, b"two");
    // The first upload comes to its end, and the task has not heard of it.
    let ended = tokio::time::timeout(SOON, f.inbox.recv()).await.unwrap().unwrap();
    assert!(matches!(&ended, Event::NativeUploaded { pending, .. } if pending.id == id(1)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(f.store.calls().iter().all(|call| !call.writes()), "the second has begun");
    f.task.handle(ended);
    assert_eq!(f.wait(&mut first).await.unwrap_err().kind(), ErrorKind::Aborted);
    f.wait(&mut second).await.unwrap();
    assert!(f.task.is_idle());
}

/// Such a cut has no upload, and says nothing of the one that is under way.
#[tokio::test]
async fn a_native_cut_that_fails_at_once_ends_no_other_upload() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    let mut first = f.native_cut(1, b"one");
    f.task.handle(Event::Told(ToStore::Aborted(id(1))));
    let (pending, mut second) = pending_cut(2);
    let result = Err(Error::internal("the disk is full"));
    f.task.handle(Event::NativeUploaded { seq: DeltaSeq(2), pending, result });
    assert_eq!(second.try_recv().unwrap().unwrap().unwrap_err().kind(), ErrorKind::Internal);
    assert!(!f.task.is_idle(), "the first is still under way");
    let mut third = f.native_cut(3, b"three");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(f.store.calls().iter().all(|call| !call.writes()), "the third has begun");
    assert_eq!(f.wait(&mut first).await.unwrap_err().kind(), ErrorKind::Aborted);
    f.wait(&mut third).await.unwrap();
    assert!(f.task.is_idle());
}

/// Otherwise later checkpoints would wait for it for ever.
#[tokio::test]
async fn a_native_upload_that_panics_ends_the_attempt() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    f.store.rule(|_| panic!("in the store's client"));
    let answer = f.native_cut(1, b"one");
    assert_eq!(f.failure().await.kind(), ErrorKind::Internal);
    assert!(answer.await.is_err(), "nobody answers any more");
}

/// Otherwise no later base would be taken, and the changelog would grow for ever.
#[tokio::test]
async fn a_base_whose_upload_panics_ends_the_attempt() {
    let mut f = Fixture::new(CheckpointMode::Changelog);
    f.store.rule(|_| panic!("in the store's client"));
    let files = f.snapshot(1, b"one");
    f.task.handle(Event::Snapshot { dir: files.dir.clone(), result: Ok((DeltaSeq(1), files)) });
    assert_eq!(f.failure().await.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn of_native_cuts_that_wait_for_an_upload_the_newest_counts() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    let answers =
        [(1, b"one"), (2, b"two"), (3, b"six")].map(|(number, content)| f.native_cut(number, content));
    let [mut first, mut second, mut third] = answers;
    for given_up in [&mut first, &mut second] {
        assert_eq!(f.wait(given_up).await.unwrap_err().kind(), ErrorKind::Aborted);
    }
    f.wait(&mut third).await.unwrap();
    let mut fourth = f.native_cut(4, b"four");
    let mut fifth = f.native_cut(5, b"five");
    f.task.handle(Event::Told(ToStore::Aborted(id(5))));
    for given_up in [&mut fourth, &mut fifth] {
        assert_eq!(f.wait(given_up).await.unwrap_err().kind(), ErrorKind::Aborted);
    }
    assert!(f.task.is_idle(), "nothing waits any more");
    let removed = async {
        while std::fs::read_dir(f.dir.path()).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, removed).await.expect("all snapshots are removed");
}

#[tokio::test]
async fn i3_files_of_a_native_checkpoint_are_retired_once_the_next_does_without_them() {
    let mut f = Fixture::new(CheckpointMode::NativeIncremental);
    let mut answer = f.native_cut(1, b"one");
    let first = f.wait(&mut answer).await.unwrap();
    let files = |receipt: &Receipt| match &receipt.base {
        Some(ReceiptBase::Inline { reference, .. }) => reference.files.clone(),
        _ => Vec::new(),
    };
    assert_eq!(f.retired(), []);
    // Whether that one was committed is not for the store to know: the collector keeps what is
    // reachable.
    let mut answer = f.native_cut(2, b"two");
    let second = f.wait(&mut answer).await.unwrap();
    assert_eq!(f.retired(), files(&first));
    assert_eq!((files(&second).len(), f.retired().len()), (1, 0));
}

#[tokio::test]
async fn what_gathers_until_the_uploader_gets_to_it_is_one_object_and_counts_for_its_barrier() {
    let mut f = Fixture::new(CheckpointMode::Changelog);
    for seq in 1..=3 {
        f.sealed(seq, 200);
        assert!(!f.task.is_idle(), "it is on its way");
    }
    let mut answer = f.barrier(1, 3);
    f.start_uploads();
    let receipt = f.wait(&mut answer).await.unwrap();
    let ReceiptCost { late_bytes, largest_object, puts, .. } = receipt.cost;
    assert_eq!((late_bytes, largest_object, puts), (600, 600, 1));
    let [ReceiptDelta::Stored(run)] = &receipt.deltas[..] else { panic!("one reference for all three") };
    assert_eq!((run.first.0, run.last.0, run.length), (1, 3, 600));
    assert!(f.task.is_idle());
    assert_eq!(f.task.parts.shared.budget.held(), 0);
}

/// What other stores' barriers wait for is held for what is being sealed, but not for later deltas.
#[tokio::test]
async fn a_store_that_never_stops_sealing_holds_up_no_barrier() {
    let mut f = Fixture::new(CheckpointMode::Changelog);
    f.start_uploads();
    f.frozen(1);
    let (other, first) = (SubtaskIndex(9), DeltaSeq(1));
    let uploads = f.task.parts.uploads.clone();
    uploads.barrier(other, first);
    let bytes = Bytes::from_static(b"delta");
    let delta = Upload { first, last: first, bytes, crc32c: 0, entries: 1, _hold: None };
    uploads.offer(other, vec![delta]);
    f.frozen(2);
    let arrived = async {
        loop {
            match f.inbox.recv().await.unwrap() {
                // For as long as it takes.
                Event::Sealed { seq, .. } if seq > first => {}
                Event::Stored(_) => return,
                event => {
                    f.task.handle(event);
                    f.task.advance();
                }
            }
        }
    };
    tokio::time::timeout(SOON, arrived).await.expect("the other store's delta is there");
}

#[tokio::test]
async fn i3_an_object_that_no_delta_is_left_of_is_let_go() {
    let mut f = Fixture::new(CheckpointMode::Changelog);
    f.start_uploads();
    f.sealed(1, 200);
    let mut answer = f.barrier(1, 1);
    f.wait(&mut answer).await.unwrap();
    let object = f.task.parts.tail.durable().next().unwrap().0.object.clone();
    assert_eq!(object.instance(), Some(Nonce([8; 16])), "the uploader's own");
    let base = BaseRef {
        object: f.task.parts.uploader.names.next(crate::remote::DataKind::Base),
        offset: 0,
        length: 1,
        crc32c: 0,
        seq: DeltaSeq(1),
        state_bytes: 1,
        files: Vec::new(),
    };
    f.task.parts.tail.materialized(base);
    f.task.advance();
    let uploads = f.task.parts.uploads.clone();
    while !uploads.is_settled() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*f.told.retired.lock().unwrap(), [object]);
    assert_eq!(f.retired(), []);
}
