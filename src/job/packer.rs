//! Copies deltas from many small objects into larger ones, in the background. The bytes come from
//! memory where possible, and from the store after a restore.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::channel::oneshot;
use futures::{StreamExt, stream};

use crate::changelog::{Pack, Portion, Upload, join, lay_out, packing_due};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::manifest::DeltaRef;
use crate::materialize::NameSource;
use crate::messages::ToStore;
use crate::remote::{DataKind, ObjectName, Remote};
use crate::restore::{Read, coalesce};
use crate::store::{Event, EventSender};
use crate::uploads::{PARALLEL_DELTAS, Uploads};

use super::background::Busy;

/// Requests for what is packed that are under way at a time.
const PARALLEL_READS: usize = 8;

pub(crate) struct Packer {
    remote: Arc<Remote>,
    /// The uploader's: what is packed goes the way of what was uploaded.
    names: Arc<NameSource>,
    uploads: Uploads,
    stores: BTreeMap<SubtaskIndex, EventSender>,
    /// Bytes that manifests may carry before they are packed for it.
    carried: u64,
    busy: Busy,
    /// Objects that are damaged or gone. They stay where they are, and the others are packed without them.
    unreadable: Mutex<BTreeSet<ObjectName>>,
    /// How often something was read back.
    #[cfg(test)]
    pub(super) reads: std::sync::atomic::AtomicU64,
}

/// A durable delta of one of the stores.
struct Durable {
    subtask: SubtaskIndex,
    delta: DeltaRef,
    bytes: Option<Bytes>,
}

impl Packer {
    pub(crate) fn new(
        remote: Arc<Remote>,
        names: Arc<NameSource>,
        uploads: Uploads,
        stores: BTreeMap<SubtaskIndex, EventSender>,
        carried: u64,
    ) -> Self {
        let (busy, unreadable) = (Busy::default(), Mutex::default());
        Self {
            remote,
            names,
            uploads,
            stores,
            carried,
            busy,
            unreadable,
            #[cfg(test)]
            reads: Default::default(),
        }
    }

    /// A checkpoint that refers to these deltas was committed: packs what is due, unless a run is under
    /// way. The next checkpoint asks again.
    pub(crate) fn committed(self: &Arc<Self>, deltas: &[(SubtaskIndex, &DeltaRef)]) {
        let Some(run) = self.busy.begin() else { return };
        let due = {
            let mut unreadable = self.unreadable();
            if !unreadable.is_empty() {
                let named: BTreeSet<_> = deltas.iter().map(|(_, delta)| &delta.object).collect();
                unreadable.retain(|object| named.contains(object));
            }
            let readable = deltas.iter().filter(|(_, delta)| !unreadable.contains(&delta.object));
            packing_due(readable.copied(), self.carried)
        };
        if due.is_empty() {
            return;
        }
        let packer = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = packer.run(due).await {
                tracing::warn!(%error, "deltas could not be packed; a later checkpoint tries again");
            }
            drop(run);
        });
    }

    pub(crate) fn is_running(&self) -> bool {
        self.busy.is_busy()
    }

    async fn run(&self, due: Vec<Pack>) -> Result<()> {
        for pack in due {
            // Each from what there is by then: bases may have overtaken some of it.
            let Some(durable) = self.durable(&pack).await else { return Ok(()) };
            let portions = self.read(durable).await;
            self.write(portions).await?;
        }
        Ok(())
    }

    /// What is durable of a pack; None if the job is going down.
    async fn durable(&self, pack: &Pack) -> Option<Vec<Durable>> {
        let objects: Arc<BTreeSet<_>> =
            Arc::new(pack.iter().map(|(_, delta)| delta.object.clone()).collect());
        let mut wanted = BTreeMap::<SubtaskIndex, BTreeMap<DeltaSeq, &DeltaRef>>::new();
        for (subtask, delta) in pack {
            wanted.entry(*subtask).or_default().insert(delta.first, delta);
        }
        let ask = |(subtask, wanted)| {
            let (reply, durable) = oneshot::channel();
            let objects = Arc::clone(&objects);
            self.stores.get(&subtask)?.send(Event::Durable { objects, reply });
            Some((subtask, wanted, durable))
        };
        let asked: Vec<_> = wanted.into_iter().filter_map(ask).collect();
        let mut found = Vec::new();
        for (subtask, wanted, durable) in asked {
            // What the checkpoint names as one may be several: their bytes are pieces of their own.
            let is_wanted = |delta: &DeltaRef| {
                let named = wanted.range(..=delta.first).next_back();
                named.is_some_and(|(_, named)| delta.last <= named.last && delta.object == named.object)
            };
            let deltas = durable.await.ok()?.into_iter().filter(|(delta, _)| is_wanted(delta));
            found.extend(deltas.map(|(delta, bytes)| Durable { subtask, delta, bytes }));
        }
        Some(found)
    }

    /// The bytes of what is to be packed: from memory, or read back and checked (I4). What cannot be read is
    /// left out.
    async fn read(&self, durable: Vec<Durable>) -> Vec<Portion> {
        let part = |(at, Durable { delta, bytes, .. }): (usize, &Durable)| {
            let range = delta.offset..delta.offset.saturating_add(delta.length);
            bytes.is_none().then(|| (delta.object.clone(), range, at))
        };
        let reads = coalesce(durable.iter().enumerate().filter_map(part));
        let reads: Vec<_> = reads.into_iter().map(|read| self.read_parts(read)).collect();
        let read = stream::iter(reads).buffer_unordered(PARALLEL_READS).collect::<Vec<_>>().await;
        let mut read: BTreeMap<_, _> = read.into_iter().flatten().collect();
        let mut portions = Vec::<Portion>::new();
        for (at, Durable { subtask, delta, bytes }) in durable.into_iter().enumerate() {
            let Some(bytes) = bytes.or_else(|| read.remove(&at)) else { continue };
            let DeltaRef { object, first, last, crc32c, entries, .. } = delta;
            if crc32c::crc32c(&bytes) != crc32c {
                self.left_out(object, &Error::corrupt("a delta's checksum does not match"));
                continue;
            }
            let upload = Upload { first, last, bytes, crc32c, entries, _hold: None };
            match portions.last_mut().filter(|portion| portion.subtask == subtask) {
                Some(portion) => portion.deltas.push(upload),
                None => portions.push(Portion { subtask, deltas: vec![upload] }),
            }
        }
        portions
    }

    async fn read_parts(&self, read: Read<usize>) -> Vec<(usize, Bytes)> {
        let Read { object, range, parts } = read;
        let start = range.start;
        #[cfg(test)]
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let bytes = match self.remote.get_range(&object, range).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.left_out(object, &error);
                return Vec::new();
            }
        };
        let slice = |(range, at): (Range<u64>, usize)| {
            let place = |offset: u64| usize::try_from(offset.checked_sub(start)?).ok();
            let (from, to) = (place(range.start)?, place(range.end)?);
            (from <= to && to <= bytes.len()).then(|| (at, bytes.slice(from..to)))
        };
        parts.into_iter().filter_map(slice).collect()
    }

    fn left_out(&self, object: ObjectName, error: &Error) {
        tracing::warn!(%error, %object, "a delta could not be read, and is left out of the pack");
        if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::MissingObject) {
            self.unreadable().insert(object);
        }
    }

    async fn write(&self, portions: Vec<Portion>) -> Result<()> {
        if portions.is_empty() {
            return Ok(());
        }
        let object = self.names.next(DataKind::Pack);
        // Beside as many deltas as may be on their way.
        let put = self.remote.put_beside(&object, join(&portions), PARALLEL_DELTAS + 1).await;
        // A pack whose upload failed may exist all the same; no reference names it.
        let owners = portions.iter().filter(|_| put.is_ok()).map(|portion| portion.subtask);
        self.uploads.own(object.clone(), owners.collect());
        put?;
        for (subtask, moved) in lay_out(&portions, &object) {
            if let Some(store) = self.stores.get(&subtask) {
                store.tell(ToStore::Packed(moved));
            }
        }
        Ok(())
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeSet<ObjectName>> {
        // Every change is one call on a set.
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects that hold deltas of all subtasks get names under the first.
pub(crate) const PACK_OWNER: SubtaskIndex = SubtaskIndex(0);

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use tokio::sync::mpsc;

    use super::*;
    use crate::budget::Budget;
    use crate::env::Env;
    use crate::ids::{Epoch, Nonce};
    use crate::remote::faulty::{Fault, Faulty, Op};
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
        faults: Arc<Faulty>,
        store: mpsc::UnboundedReceiver<Event>,
        retired: Arc<Retired>,
    }

    const SUBTASK: SubtaskIndex = SubtaskIndex(3);

    impl Fixture {
        fn new() -> Self {
            let faults = Faulty::new(InMemory::new());
            let inner: Arc<dyn object_store::ObjectStore> = Arc::<Faulty>::clone(&faults);
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
                        Event::Durable { objects, reply } => {
                            let there = tail.iter().filter(|delta| objects.contains(&delta.object));
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
}
