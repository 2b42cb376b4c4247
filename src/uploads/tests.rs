//! The uploader's task against a store that fails.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::changelog::Upload;
use crate::env::Env;
use crate::fault_store::{Answer, Fault, FaultStore, Op};
use crate::ids::{DeltaSeq, Epoch, Nonce, SubtaskIndex};
use crate::materialize::NameSource;
use crate::remote::{DataKind, ObjectName, Remote};

/// What was told.
#[derive(Default)]
struct Told {
    arrived: Mutex<BTreeMap<SubtaskIndex, Vec<Arrival>>>,
    retired: Mutex<Vec<ObjectName>>,
    over: AtomicBool,
}

impl Outlet for Told {
    fn arrived(&self, subtask: SubtaskIndex, arrival: Arrival) {
        self.arrived.lock().unwrap().entry(subtask).or_default().push(arrival);
    }

    fn retired(&self, objects: Vec<ObjectName>) {
        self.retired.lock().unwrap().extend(objects);
    }

    fn took(&self, _: Duration) {}

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

struct Fixture {
    uploads: Uploads,
    store: Arc<FaultStore>,
    remote: Arc<Remote>,
    names: Arc<NameSource>,
    told: Arc<Told>,
}

fn subtask(n: u32) -> SubtaskIndex {
    SubtaskIndex(n)
}

impl Fixture {
    fn new() -> Self {
        let store = FaultStore::new(InMemory::new());
        let inner: Arc<dyn object_store::ObjectStore> = Arc::<FaultStore>::clone(&store);
        let remote = Arc::new(Remote::new(inner, Path::from("jobs/a"), Env::default()));
        let names = Arc::new(NameSource::new(Epoch(1), subtask(0), Nonce([5; 16])));
        let (uploads, task) = UploadsTask::new(Arc::clone(&remote), Arc::clone(&names));
        let told = Arc::new(Told::default());
        tokio::spawn(task.run(Arc::<Told>::clone(&told)));
        Self { uploads, store, remote, names, told }
    }

    fn offer(&self, n: u32, seq: u64, text: &'static str) {
        self.offer_held(n, seq, text, Arc::new(()));
    }

    fn offer_held(&self, n: u32, seq: u64, text: &'static str, hold: Arc<dyn Any + Send + Sync>) {
        let (bytes, seq) = (Bytes::from_static(text.as_bytes()), DeltaSeq(seq));
        let crc32c = crc32c::crc32c(&bytes);
        let upload = Upload { first: seq, last: seq, bytes, crc32c, entries: 1, _hold: Some(hold) };
        self.uploads.offer(subtask(n), vec![upload]);
    }

    async fn settled(&self) {
        while !self.uploads.is_settled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn arrived(&self, n: u32) -> Vec<Arrival> {
        self.told.arrived.lock().unwrap().remove(&subtask(n)).unwrap_or_default()
    }
}

#[tokio::test]
async fn what_is_offered_at_the_same_time_lies_in_one_object() {
    let f = Fixture::new();
    for n in [2, 0, 1] {
        f.offer(n, 7, "some bytes");
    }
    f.settled().await;
    assert_eq!(f.remote.counters().puts, 1);
    for n in 0..3 {
        let [Arrival { moved, bytes, object, .. }] = &f.arrived(n)[..] else { panic!("one arrival") };
        assert_eq!((*bytes, *object), (10, 30));
        let [delta] = &moved.deltas[..] else { panic!("one delta") };
        let there = f.remote.get_range(&delta.object, delta.offset..delta.offset + delta.length).await;
        assert_eq!((there.unwrap(), delta.last), (Bytes::from_static(b"some bytes"), DeltaSeq(7)));
        assert_eq!(delta.object.instance(), Some(Nonce([5; 16])));
    }
}

#[tokio::test]
async fn a_shared_request_counts_once_and_for_one_who_waits() {
    let f = Fixture::new();
    f.uploads.barrier(subtask(1), DeltaSeq(3));
    f.uploads.barrier(subtask(2), DeltaSeq(3));
    for n in 1..3 {
        f.offer(n, 3, "x");
    }
    f.offer(0, 1, "of no barrier");
    f.settled().await;
    let counts = [0, 1, 2].map(|n| f.arrived(n).iter().filter(|arrival| arrival.counts).count());
    assert_eq!((counts, f.remote.counters().puts), ([1, 1, 0], 2), "what nobody waits for goes by itself");
}

#[tokio::test]
async fn i6_an_upload_goes_on_after_a_request_was_given_up_and_its_bytes_count() {
    let f = Fixture::new();
    // Every one of them ends the tries of the request itself.
    for _ in 0..3 {
        f.store.plan(Op::Put, Fault::Denied);
    }
    let hold = Arc::new(());
    f.offer_held(0, 1, "patience", Arc::<()>::clone(&hold));
    while f.store.planned() > 0 {
        assert!(!f.uploads.is_settled());
        assert_eq!(Arc::strong_count(&hold), 2);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    f.settled().await;
    assert_eq!((f.arrived(0).len(), f.remote.counters().puts), (1, 4));
    assert_eq!(Arc::strong_count(&hold), 1);
}

#[tokio::test]
async fn nothing_is_tried_again_once_the_attempt_has_ended() {
    let f = Fixture::new();
    f.store.plan(Op::Put, Fault::Denied);
    f.told.over.store(true, Ordering::Relaxed);
    f.offer(0, 1, "too late");
    f.settled().await;
    assert!(f.arrived(0).is_empty());
    assert_eq!(f.remote.counters().puts, 1);
}

#[tokio::test]
async fn a_name_under_which_something_else_stands_is_given_up() {
    let f = Fixture::new();
    let taken = ObjectName::data(Epoch(1), subtask(0), Nonce([5; 16]), DataKind::Delta, 0);
    f.remote.put_data(&taken, Bytes::from_static(b"another's")).await.unwrap();
    f.offer(0, 1, "ours");
    f.settled().await;
    let arrived = f.arrived(0);
    let object = &arrived[0].moved.deltas[0].object;
    assert_ne!(*object, taken);
    assert_eq!(f.remote.get(object).await.unwrap(), "ours");
    assert_eq!(f.remote.get(&taken).await.unwrap(), "another's");
}

#[tokio::test]
async fn i3_a_joined_object_is_retired_when_the_last_store_has_let_go_of_it() {
    let f = Fixture::new();
    for n in 0..2 {
        f.offer(n, 1, "shared");
    }
    f.settled().await;
    let object = f.arrived(0)[0].moved.deltas[0].object.clone();
    f.uploads.release(subtask(0), vec![object.clone()]);
    f.settled().await;
    assert_eq!(*f.told.retired.lock().unwrap(), []);
    f.uploads.release(subtask(1), vec![object.clone()]);
    f.settled().await;
    assert_eq!(*f.told.retired.lock().unwrap(), [object]);
    // Those of others are theirs to retire.
    f.uploads.release(subtask(0), vec![f.names.next(DataKind::Sst)]);
    f.settled().await;
    assert_eq!(f.told.retired.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_one_look() {
    let f = Fixture::new();
    f.store.plan(Op::Put, Answer::Lost);
    f.offer(0, 1, "there already");
    f.settled().await;
    assert_eq!((f.arrived(0).len(), f.remote.counters().gets), (1, 1));
}
