//! The task's own rules, with the events handed to it one by one.

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;

use super::*;
use crate::changelog::ReceiptCost;
use crate::delta::{ActiveDelta, TableKind};
use crate::env::Env;
use crate::ids::{Epoch, Nonce, SubtaskIndex};
use crate::key_group::KeyGroup;
use crate::materialize::NameSource;
use crate::remote::faulty::{Fault, Faulty, Op};
use crate::remote::{ObjectName, Remote};
use crate::store::Budget;
use crate::store::shared::Layer;

const SOON: Duration = Duration::from_secs(20);

struct Fixture {
    task: StoreTask,
    inbox: mpsc::UnboundedReceiver<Event>,
    commands: mpsc::UnboundedReceiver<Command>,
    store: Arc<Faulty>,
    dir: TempDir,
    _applier: std::sync::mpsc::Receiver<Work>,
}

type Answer = oneshot::Receiver<Result<Receipt>>;

fn id(number: u64) -> CheckpointId {
    CheckpointId { epoch: Epoch(1), number }
}

impl Fixture {
    fn new(mode: CheckpointMode) -> Self {
        let store = Faulty::new(InMemory::new());
        let inner: Arc<dyn object_store::ObjectStore> = Arc::<Faulty>::clone(&store);
        let remote = Arc::new(Remote::new(inner, Path::from("jobs/a"), Env::default()));
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(1 << 20), DeltaSeq(0));
        let (sender, inbox) = mpsc::unbounded_channel();
        let events = EventSender::new(sender, Arc::clone(&shared));
        let (coordinator, commands) = mpsc::unbounded_channel();
        let (applier, work) = std::sync::mpsc::channel();
        let dir = tempfile::tempdir().unwrap();
        let names = Arc::new(NameSource::new(Epoch(1), SubtaskIndex(0), Nonce([7; 16])));
        let parts = TaskParts {
            mode,
            range: KeyGroupRange { first: KeyGroup(0), last: KeyGroup(127) },
            dir: dir.path().to_owned(),
            shared,
            expiries: Expiries::new(Env::default().clock),
            applier,
            uploader: Arc::new(Uploader {
                remote,
                names,
                limiter: None,
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
            base_seq: DeltaSeq(0),
            rescaled: false,
            first_base: None,
            coordinator,
            uploads: Arc::new(Semaphore::new(PARALLEL_DELTAS as usize)),
        };
        let task = StoreTask::new(parts, events);
        Self { task, inbox, commands, store, dir, _applier: work }
    }

    /// A cut in native mode, whose snapshot holds one file of this content.
    fn native_cut(&mut self, number: u64, content: &'static [u8]) -> Answer {
        let dir = self.dir.path().join(format!("cut-{number}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(format!("{number:06}.sst")), content).unwrap();
        let (reply, answer) = oneshot::channel();
        let ticket = Box::new(Ticket {
            id: id(number),
            metadata: Vec::new(),
            states: Arc::from([]),
            cost: ReceiptCost::default(),
            reply,
        });
        self.task.handle(Event::NativeCut { seq: DeltaSeq(number), files: TableFiles::of_dir(&dir), ticket });
        answer
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
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Retired(objects) = command {
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
    let held = Held { layer, _share: Arc::new(budget.take(1000)) };
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
    f.task.handle(Event::Aborted(id(2)));
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
    // Whether that one was committed is not for the store to know: the collector keeps what is reachable.
    let mut answer = f.native_cut(2, b"two");
    let second = f.wait(&mut answer).await.unwrap();
    assert_eq!(f.retired(), files(&first));
    assert_eq!((files(&second).len(), f.retired().len()), (1, 0));
}

#[tokio::test]
async fn i6_a_store_without_room_stands_in_the_queue_and_uploads_what_has_gathered() {
    let mut f = Fixture::new(CheckpointMode::Changelog);
    let all = Arc::clone(&f.task.parts.uploads).try_acquire_many_owned(PARALLEL_DELTAS).unwrap();
    for seq in 1..=3 {
        f.task.parts.tail.frozen(DeltaSeq(seq));
        let sealed = delta::Sealed { bytes: Bytes::from(vec![0; 200]), crc32c: 0, entries: 1 };
        let share = f.task.parts.shared.budget.take(200);
        f.task.handle(Event::Sealed { seq: DeltaSeq(seq), sealed, share });
        f.task.advance();
        assert!(!f.task.is_idle(), "it waits for room");
    }
    drop(all);
    let mut stored = Vec::new();
    while !f.task.is_idle() {
        let event = tokio::time::timeout(SOON, f.inbox.recv()).await.unwrap().unwrap();
        if let Event::Stored { refs, .. } = &event {
            stored.push(refs.len());
        }
        f.task.handle(event);
        f.task.advance();
    }
    assert_eq!(stored, [3], "one object");
    assert_eq!(f.task.parts.uploads.available_permits(), PARALLEL_DELTAS as usize);
}
