//! Copies deltas from many small objects into larger ones, in the background. The bytes come from
//! memory where possible, and from the store after a restore.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::channel::oneshot;
use futures::{StreamExt, stream};

use crate::changelog::{Pack, Portion, Sizes, Upload, join, lay_out, packing_due};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::SubtaskIndex;
use crate::manifest::DeltaRef;
use crate::materialize::NameSource;
use crate::messages::ToStore;
use crate::remote::{DataKind, ObjectName, Remote};
use crate::restore::{Read, coalesce};
use crate::store::{Event, EventSender};
use crate::uploads::{PARALLEL_DELTAS, Uploads};

use crate::job::busy::Busy;

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
    sizes: Mutex<Sizes>,
    /// Objects that are damaged or gone. They stay where they are, and the others are packed without them.
    unreadable: Mutex<BTreeSet<ObjectName>>,
    /// How often something was read back.
    #[cfg(test)]
    pub(in crate::job) reads: std::sync::atomic::AtomicU64,
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
        let (busy, sizes, unreadable) = (Busy::default(), Mutex::default(), Mutex::default());
        Self {
            remote,
            names,
            uploads,
            stores,
            carried,
            busy,
            sizes,
            unreadable,
            #[cfg(test)]
            reads: Default::default(),
        }
    }

    /// A checkpoint that refers to these deltas was committed: packs what is due, unless a run is under
    /// way. The next checkpoint asks again.
    pub(crate) fn committed(self: &Arc<Self>, deltas: &[(SubtaskIndex, &DeltaRef)]) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.named(deltas.iter().map(|(_, delta)| *delta));
        let Some(run) = self.busy.begin() else { return };
        let due = {
            let mut unreadable = self.unreadable();
            if !unreadable.is_empty() {
                let named: BTreeSet<_> = deltas.iter().map(|(_, delta)| &delta.object).collect();
                unreadable.retain(|object| named.contains(object));
            }
            let readable = deltas.iter().filter(|(_, delta)| !unreadable.contains(&delta.object));
            packing_due(readable.copied(), self.carried, &sizes)
        };
        drop(sizes);
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
        let mut wanted = BTreeMap::<SubtaskIndex, Vec<DeltaRef>>::new();
        for (subtask, delta) in pack {
            wanted.entry(*subtask).or_default().push(delta.clone());
        }
        let ask = |(subtask, wanted)| {
            let (reply, durable) = oneshot::channel();
            self.stores.get(&subtask)?.send(Event::Durable { wanted, reply });
            Some((subtask, durable))
        };
        let asked: Vec<_> = wanted.into_iter().filter_map(ask).collect();
        let mut found = Vec::new();
        for (subtask, durable) in asked {
            // What the checkpoint names as one may be several: their bytes are pieces of their own.
            let deltas = durable.await.ok()?.into_iter();
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
        let put = self.remote.put_data_shared(&object, join(&portions), PARALLEL_DELTAS + 1).await;
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
