//! The packer between a store in memory and stores that answer as each test says.

use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::sync::mpsc;

use super::*;
use crate::budget::Budget;
use crate::env::Env;
use crate::fault_store::{Fault, FaultStore, Op};
use crate::ids::{DeltaSeq, Epoch, Nonce};
use crate::store::{Attempt, StoreShared};
use crate::uploads::{Arrival, Outlet, UploadsTask};

/// Objects that were retired.
#[derive(Default)]
struct Retired(Mutex<Vec<ObjectName>>);

impl Outlet for Retired {
    fn arrived(&self, _: SubtaskIndex, _: Arrival) {}

    fn retired(&self, objects: Vec<ObjectName>) {
        self.0.lock().unwrap().extend(objects);
    }

    fn took(&self, _: std::time::Duration) {}

    fn is_over(&self) -> bool {
        false
    }
}

/// A packer over one store that is played by the test.
struct Fixture {
    packer: Packer,
    remote: Arc<Remote>,
    faults: Arc<FaultStore>,
    store: mpsc::UnboundedReceiver<Event>,
    retired: Arc<Retired>,
}

const SUBTASK: SubtaskIndex = SubtaskIndex(3);

impl Fixture {
    fn new() -> Self {
        let faults = FaultStore::new(InMemory::new());
        let inner: Arc<dyn object_store::ObjectStore> = Arc::<FaultStore>::clone(&faults);
        let remote = Arc::new(Remote::new(inner, Path::from("jobs/a"), Env::default()));
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(1 << 20), DeltaSeq(0));
        let (sender, store) = mpsc::unbounded_channel();
        let names = Arc::new(NameSource::new(Epoch(1), PACK_OWNER, Nonce([9; 16])));
        let stores = [(SUBTASK, EventSender::new(sender, shared))].into();
        let (uploads, task) = UploadsTask::new(Arc::clone(&remote), Arc::clone(&names));
        let retired = Arc::new(Retired::default());
        tokio::spawn(task.run(Arc::<Retired>::clone(&retired)));
        let packer = Packer::new(Arc::clone(&remote), names, uploads, stores, u64::MAX);
        Self { packer, remote, faults, store, retired }
    }

    async fn delta(&self, seq: u64) -> DeltaRef {
        let object = ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce([1; 16]), DataKind::Delta, seq);
        let bytes = Bytes::from(format!("delta {seq}"));
        self.remote.put_data(&object, bytes.clone()).await.unwrap();
        DeltaRef {
            object,
            offset: 0,
            length: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
            first: DeltaSeq(seq),
            last: DeltaSeq(seq),
            entries: 1,
        }
    }

    /// A run over `deltas`, while `tail` is what the store refers to, and `kept` the bytes it has.
    async fn run(
        &mut self,
        deltas: Vec<DeltaRef>,
        tail: &mut Vec<DeltaRef>,
        kept: Option<Bytes>,
    ) -> Result<()> {
        let pack = deltas.into_iter().map(|delta| (SUBTASK, delta)).collect();
        let store = &mut self.store;
        let play = async {
            while let Some(event) = store.recv().await {
                match event {
                    Event::Durable { wanted, reply } => {
                        let is_wanted = |delta: &&DeltaRef| wanted.iter().any(|wanted| wanted.has(delta));
                        let there = tail.iter().filter(is_wanted);
                        drop(reply.send(there.map(|delta| (delta.clone(), kept.clone())).collect()));
                    }
                    Event::Told(ToStore::Packed(moved)) => {
                        tail.retain(|old| moved.deltas.iter().all(|new| new.last != old.last));
                        tail.extend(moved.deltas);
                    }
                    _ => panic!("an event that no packer sends"),
                }
            }
        };
        let result = tokio::select! {
            result = self.packer.run(vec![pack]) => result,
            () = play => Ok(()),
        };
        // What it has sent at last.
        while let Ok(Event::Told(ToStore::Packed(moved))) = self.store.try_recv() {
            tail.retain(|old| moved.deltas.iter().all(|new| new.last != old.last));
            tail.extend(moved.deltas);
        }
        result
    }

    async fn retired(&self) -> Vec<ObjectName> {
        while !self.packer.uploads.is_settled() {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut self.retired.0.lock().unwrap())
    }
}

#[tokio::test]
async fn a_delta_that_cannot_be_read_does_not_keep_the_others() {
    let mut f = Fixture::new();
    let mut tail = Vec::new();
    for seq in 1..=4 {
        tail.push(f.delta(seq).await);
    }
    let (gone, damaged) = (tail[1].object.clone(), tail[2].object.clone());
    f.remote.delete(vec![gone.clone()]).await.unwrap();
    tail[2].crc32c ^= 1;
    f.run(tail.clone(), &mut tail, None).await.unwrap();
    let packed = |delta: &&DeltaRef| delta.object.instance() == Some(Nonce([9; 16]));
    let moved: Vec<_> = tail.iter().filter(packed).collect();
    assert_eq!(moved.iter().map(|delta| delta.last.0).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(f.remote.get(&moved[0].object).await.unwrap(), "delta 1delta 4");
    let unreadable: Vec<_> = f.packer.unreadable().iter().cloned().collect();
    assert_eq!(unreadable, [gone, damaged]);
}

#[tokio::test]
async fn what_is_in_memory_is_not_read_back_and_what_lies_side_by_side_is_read_at_once() {
    let mut f = Fixture::new();
    let mut tail = vec![f.delta(1).await];
    let kept = Some(Bytes::from("delta 1"));
    f.run(tail.clone(), &mut tail, kept).await.unwrap();
    assert_eq!(f.remote.counters().gets, 0);
    assert_eq!(tail[0].object.instance(), Some(Nonce([9; 16])));

    // Four in one object, of which the checkpoint names two as one, and a base has overtaken another.
    let all = Bytes::from_static(b"aabbccdd");
    let object = ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce([1; 16]), DataKind::Pack, 100);
    f.remote.put_data(&object, all.clone()).await.unwrap();
    let delta = |seq: u64| {
        let offset = (seq - 1) * 2;
        let crc32c = crc32c::crc32c(&all[offset as usize..offset as usize + 2]);
        let (first, last) = (DeltaSeq(seq), DeltaSeq(seq));
        DeltaRef { object: object.clone(), offset, length: 2, crc32c, first, last, entries: 1 }
    };
    let mut tail: Vec<_> = (2..=4).map(delta).collect();
    let run = DeltaRef { last: DeltaSeq(3), length: 4, ..delta(2) };
    f.run(vec![delta(1), run], &mut tail, None).await.unwrap();
    assert_eq!(f.remote.counters().gets, 1);
    tail.sort_by_key(|delta| delta.first);
    let moved: Vec<_> = tail.iter().map(|delta| delta.object != object).collect();
    assert_eq!(moved, [true, true, false]);
    assert_eq!(f.remote.get(&tail[0].object).await.unwrap(), "bbcc");
}

#[tokio::test]
async fn i3_a_pack_is_retired_only_when_its_stores_have_let_go_of_it() {
    let mut f = Fixture::new();
    let mut tail = vec![f.delta(1).await, f.delta(2).await];
    f.run(tail.clone(), &mut tail, None).await.unwrap();
    let pack = tail[0].object.clone();
    assert_eq!(f.retired().await, []);
    f.packer.uploads.release(SubtaskIndex(0), vec![pack.clone()]);
    assert_eq!(f.retired().await, [], "it has nothing in it");
    f.packer.uploads.release(SUBTASK, vec![pack.clone()]);
    assert_eq!(f.retired().await, [pack]);
}

#[tokio::test]
async fn i3_a_pack_that_may_be_there_is_retired() {
    let mut f = Fixture::new();
    let mut tail = vec![f.delta(1).await, f.delta(2).await];
    f.faults.plan(Op::Put, Fault::Denied);
    f.run(tail.clone(), &mut tail, None).await.unwrap_err();
    let [pack] = &f.retired().await[..] else { panic!("one pack") };
    assert_eq!(pack.instance(), Some(Nonce([9; 16])));
    assert!(tail.iter().all(|delta| delta.object != *pack));
}
