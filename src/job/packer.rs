//! Packs deltas that lie in many small objects into one, in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::channel::oneshot;

use crate::changelog::Upload;
use crate::error::{Error, Result};
use crate::ids::SubtaskIndex;
use crate::manifest::DeltaRef;
use crate::materialize::NameSource;
use crate::remote::{DataKind, ObjectName, Remote};
use crate::store::{Event, EventSender, join};

pub(crate) struct Packer {
    pub(crate) remote: Arc<Remote>,
    pub(crate) names: NameSource,
    pub(crate) stores: Vec<EventSender>,
    pub(crate) running: AtomicBool,
}

impl Packer {
    /// Packs the live deltas of `objects`, unless a run is under way: the next checkpoint asks again.
    pub(crate) fn start(self: Arc<Self>, objects: Vec<ObjectName>) {
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = self.pack(&objects.into_iter().collect()).await {
                tracing::warn!(%error, "deltas could not be packed; a later checkpoint tries again");
            }
            self.running.store(false, Ordering::Release);
        });
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    async fn pack(&self, objects: &BTreeSet<ObjectName>) -> Result<()> {
        let mut uploads = Vec::new();
        let mut owners = Vec::new();
        for (index, store) in self.stores.iter().enumerate() {
            let (reply, durable) = oneshot::channel();
            store.send(Event::Durable(reply));
            let Ok(durable) = durable.await else { return Ok(()) };
            for (delta, bytes) in durable {
                // A delta that was packed from several stays as it is: its bytes are one piece.
                if objects.contains(&delta.object) {
                    owners.push((index, delta.clone()));
                    uploads.push(self.fetch(delta, bytes).await?);
                }
            }
        }
        if uploads.is_empty() {
            return Ok(());
        }
        let object = self.names.next(DataKind::Pack);
        let (payload, refs) = join(uploads, &object);
        self.remote.put_data(&object, payload).await?;
        let mut moved = BTreeMap::<usize, Vec<DeltaRef>>::new();
        for ((index, old), new) in owners.into_iter().zip(refs) {
            moved.entry(index).or_default().push(DeltaRef { first: old.first, ..new });
        }
        for (index, refs) in moved {
            if let Some(store) = self.stores.get(index) {
                store.send(Event::Packed(refs));
            }
        }
        Ok(())
    }

    /// The bytes of a delta: from memory, or read back and checked (I4).
    async fn fetch(&self, delta: DeltaRef, bytes: Option<Bytes>) -> Result<Upload> {
        let bytes = match bytes {
            Some(bytes) => bytes,
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
}

/// Packs hold deltas of all subtasks; their names are given under the first.
pub(crate) const PACK_OWNER: SubtaskIndex = SubtaskIndex(0);
