//! Packs deltas that lie in many small objects into one, in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::channel::oneshot;
use tokio::sync::mpsc;

use crate::changelog::{Packed, Upload, packing_due, runs_of};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::SubtaskIndex;
use crate::manifest::DeltaRef;
use crate::materialize::NameSource;
use crate::remote::{DataKind, ObjectName, Remote};
use crate::store::{Event, EventSender, PARALLEL_DELTAS, join};

use super::Command;
use super::background::Busy;

pub(crate) struct Packer {
    remote: Arc<Remote>,
    names: NameSource,
    stores: Vec<EventSender>,
    coordinator: mpsc::UnboundedSender<Command>,
    busy: Busy,
    memory: Mutex<Memory>,
}

/// What is remembered from one run to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Packs that may exist, and that no committed checkpoint has named yet.
    open: BTreeSet<ObjectName>,
    /// Objects that are damaged or gone. They stay where they are, and the others are packed without them.
    unreadable: BTreeSet<ObjectName>,
}

/// A durable delta of one of the stores.
struct Durable {
    store: usize,
    delta: DeltaRef,
    bytes: Option<Bytes>,
}

impl Packer {
    pub(crate) fn new(
        remote: Arc<Remote>,
        names: NameSource,
        stores: Vec<EventSender>,
        coordinator: mpsc::UnboundedSender<Command>,
    ) -> Self {
        let (busy, memory) = (Busy::default(), Mutex::default());
        Self { remote, names, stores, coordinator, busy, memory }
    }

    /// A checkpoint that refers to these deltas was committed: packs what is due, unless a run is under
    /// way. The next checkpoint asks again.
    pub(crate) fn committed(self: &Arc<Self>, deltas: &[&DeltaRef]) {
        let due = {
            let mut memory = self.memory();
            for delta in deltas {
                memory.open.remove(&delta.object);
            }
            memory.unreadable.retain(|object| deltas.iter().any(|delta| delta.object == *object));
            let readable = deltas.iter().filter(|delta| !memory.unreadable.contains(&delta.object));
            let due = packing_due(readable.copied());
            if due.is_empty() && memory.open.is_empty() {
                return;
            }
            due
        };
        let Some(run) = self.busy.begin() else { return };
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

    async fn run(&self, due: Vec<Vec<ObjectName>>) -> Result<()> {
        let mut due = due.into_iter();
        loop {
            // Each pack from what there is by then, and the last of them may be overtaken already.
            let Some(durable) = self.durable().await else { return Ok(()) };
            self.retire(&durable);
            let Some(objects) = due.next() else { return Ok(()) };
            self.pack(&durable, &objects).await?;
        }
    }

    /// What is durable in all stores; None if the job is going down.
    async fn durable(&self) -> Option<Vec<Durable>> {
        let mut all = Vec::new();
        for (store, events) in self.stores.iter().enumerate() {
            let (reply, durable) = oneshot::channel();
            events.send(Event::Durable(reply));
            let deltas = durable.await.ok()?.into_iter();
            all.extend(deltas.map(|(delta, bytes)| Durable { store, delta, bytes }));
        }
        Some(all)
    }

    /// Hands in the packs that bases have overtaken before any checkpoint named them. The stores have
    /// heard of all packs when they say what they refer to, so that one which is not among it will be
    /// in no later receipt; a commit that is under way comes before the collection.
    fn retire(&self, durable: &[Durable]) {
        let named = |pack: &ObjectName| durable.iter().any(|there| there.delta.object == *pack);
        let overtaken: Vec<_> = {
            let mut memory = self.memory();
            let open = std::mem::take(&mut memory.open).into_iter();
            let (open, overtaken): (Vec<_>, Vec<_>) = open.partition(named);
            memory.open = open.into_iter().collect();
            overtaken
        };
        if !overtaken.is_empty() {
            // The job is going down if nobody listens.
            let _ = self.coordinator.send(Command::Retired(overtaken));
        }
    }

    async fn pack(&self, durable: &[Durable], objects: &[ObjectName]) -> Result<()> {
        let mut uploads = Vec::new();
        let mut owners = Vec::new();
        for there in durable.iter().filter(|there| objects.contains(&there.delta.object)) {
            // A delta that was packed from several stays as it is: its bytes are one piece.
            match self.fetch(there).await {
                Ok(upload) => {
                    owners.push((there.store, there.delta.first));
                    uploads.push(upload);
                }
                Err(error) => {
                    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::MissingObject) {
                        self.memory().unreadable.insert(there.delta.object.clone());
                    }
                    tracing::warn!(%error, "a delta could not be read, and is left out of the pack");
                }
            }
        }
        if uploads.is_empty() {
            return Ok(());
        }
        let object = self.names.next(DataKind::Pack);
        let (payload, refs) = join(uploads, &object);
        let mut moved = BTreeMap::<usize, Vec<DeltaRef>>::new();
        for ((store, first), new) in owners.into_iter().zip(refs) {
            moved.entry(store).or_default().push(DeltaRef { first, ..new });
        }
        self.memory().open.insert(object.clone());
        // Beside as many deltas as may be on their way.
        self.remote.put_beside(&object, payload.clone(), PARALLEL_DELTAS + 1).await?;
        for (store, deltas) in moved {
            let runs = runs_of(&deltas, &payload);
            if let Some(store) = self.stores.get(store) {
                store.send(Event::Packed(Packed { deltas, runs }));
            }
        }
        Ok(())
    }

    /// The bytes of a delta: from memory, or read back and checked (I4).
    async fn fetch(&self, Durable { delta, bytes, .. }: &Durable) -> Result<Upload> {
        let bytes = match bytes {
            Some(bytes) => bytes.clone(),
            None => {
                let range = delta.offset..delta.offset.saturating_add(delta.length);
                self.remote.get_range(&delta.object, range).await?
            }
        };
        if crc32c::crc32c(&bytes) != delta.crc32c {
            return Err(Error::corrupt("a delta's checksum does not match").object(&delta.object));
        }
        Ok(Upload { seq: delta.last, bytes, crc32c: delta.crc32c, entries: delta.entries })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change is one call on a set.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Packs hold deltas of all subtasks; their names are given under the first.
pub(crate) const PACK_OWNER: SubtaskIndex = SubtaskIndex(0);

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;
    use crate::env::Env;
    use crate::ids::{DeltaSeq, Epoch, Nonce};
    use crate::store::{Attempt, Budget, StoreShared};

    /// A packer over one store that is played by the test.
    struct Fixture {
        packer: Packer,
        remote: Arc<Remote>,
        store: mpsc::UnboundedReceiver<Event>,
        commands: mpsc::UnboundedReceiver<Command>,
    }

    impl Fixture {
        fn new() -> Self {
            let remote =
                Arc::new(Remote::new(Arc::new(InMemory::new()), Path::from("jobs/a"), Env::default()));
            let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(1 << 20), DeltaSeq(0));
            let (sender, store) = mpsc::unbounded_channel();
            let (coordinator, commands) = mpsc::unbounded_channel();
            let names = NameSource::new(Epoch(1), PACK_OWNER, Nonce([9; 16]));
            let stores = vec![EventSender::new(sender, shared)];
            let packer = Packer::new(Arc::clone(&remote), names, stores, coordinator);
            Self { packer, remote, store, commands }
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

        /// A run over `objects`, while `tail` is what the store refers to.
        async fn run(&mut self, objects: Vec<ObjectName>, tail: &mut Vec<DeltaRef>) {
            let due = if objects.is_empty() { Vec::new() } else { vec![objects] };
            let store = &mut self.store;
            let play = async {
                while let Some(event) = store.recv().await {
                    match event {
                        Event::Durable(reply) => {
                            drop(reply.send(tail.iter().map(|delta| (delta.clone(), None)).collect()));
                        }
                        Event::Packed(Packed { deltas, .. }) => {
                            tail.retain(|old| deltas.iter().all(|new| new.last != old.last));
                            tail.extend(deltas);
                        }
                        _ => panic!("an event that no packer sends"),
                    }
                }
            };
            tokio::select! {
                result = self.packer.run(due) => result.unwrap(),
                () = play => {}
            }
        }

        fn retired(&mut self) -> Vec<ObjectName> {
            match self.commands.try_recv() {
                Ok(Command::Retired(objects)) => objects,
                _ => Vec::new(),
            }
        }
    }

    fn objects(deltas: &[DeltaRef]) -> Vec<ObjectName> {
        deltas.iter().map(|delta| delta.object.clone()).collect()
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
        f.run(objects(&tail), &mut tail).await;
        let packed = |delta: &&DeltaRef| delta.object.instance() == Some(Nonce([9; 16]));
        let moved: Vec<_> = tail.iter().filter(packed).collect();
        assert_eq!(moved.iter().map(|delta| delta.last.0).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(f.remote.get(&moved[0].object).await.unwrap(), "delta 1delta 4");
        let unreadable: Vec<_> = f.packer.memory().unreadable.iter().cloned().collect();
        assert_eq!(unreadable, [gone, damaged]);
    }

    #[tokio::test]
    async fn i3_a_pack_is_retired_only_when_nothing_refers_to_it() {
        let mut f = Fixture::new();
        let mut tail = vec![f.delta(1).await, f.delta(2).await];
        f.run(objects(&tail), &mut tail).await;
        f.run(Vec::new(), &mut tail).await;
        assert_eq!(f.retired(), [], "the store refers to it");
        // So does a checkpoint: what commits drop is found by its manifest.
        let packer = Arc::new(f.packer);
        packer.committed(&[&tail[0]]);
        f.packer = Arc::into_inner(packer).unwrap();
        f.run(Vec::new(), &mut Vec::new()).await;
        assert_eq!(f.retired(), []);

        // Another one is overtaken by a base before any checkpoint names it.
        let mut tail = vec![f.delta(3).await, f.delta(4).await];
        f.run(objects(&tail), &mut tail).await;
        f.run(Vec::new(), &mut Vec::new()).await;
        assert_eq!(f.retired(), [tail[0].object.clone()]);
        f.run(Vec::new(), &mut Vec::new()).await;
        assert_eq!(f.retired(), [], "handed in once");
    }
}
