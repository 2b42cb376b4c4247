//! The messages to a store's task.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;
use tokio::sync::mpsc;

use crate::budget::BudgetShare;
use crate::changelog::{Receipt, ReceiptBase, ReceiptCost};
use crate::delta::Sealed;
use crate::error::Result;
use crate::ids::{CheckpointId, DeltaSeq};
use crate::manifest::{BaseRef, DeltaRef, Elements, StateInfo};
use crate::materialize::Uploaded;
use crate::messages::ToStore;
use crate::table::TableFiles;
use crate::uploads::Arrival;

use super::layer::ChargedLayer;
use super::shared::StoreShared;

/// A message to a store's task.
pub(crate) enum Event {
    /// A message of the job.
    Told(ToStore),
    Frozen {
        held: ChargedLayer,
        sealed_share: BudgetShare,
    },
    Sealed {
        seq: DeltaSeq,
        sealed: Sealed,
        share: BudgetShare,
    },
    /// Deltas that were uploaded are durable.
    Stored(Arrival),
    /// A barrier is near: upload everything that was cut so far.
    Hurry,
    /// A cut in changelog mode.
    Barrier {
        seq: DeltaSeq,
        pending: Box<PendingCut>,
    },
    /// A cut in native mode, and the files to upload.
    NativeCut {
        seq: DeltaSeq,
        files: TableFiles,
        pending: Box<PendingCut>,
    },
    /// The store has finished: from now on the task cuts for it.
    Finished(Box<FinalCut>),
    /// The snapshot for a finished store's native checkpoint.
    FinishedSnapshot {
        dir: PathBuf,
        pending: Box<PendingCut>,
        result: Result<(DeltaSeq, TableFiles)>,
    },
    NativeUploaded {
        seq: DeltaSeq,
        pending: Box<PendingCut>,
        result: Result<NativeUpload>,
    },
    Snapshot {
        dir: PathBuf,
        result: Result<(DeltaSeq, TableFiles)>,
    },
    Materialized {
        seq: DeltaSeq,
        result: Result<(BaseRef, Uploaded)>,
    },
    /// Asks which deltas of these references are durable where they say, with the bytes that are in
    /// memory.
    Durable {
        wanted: Vec<DeltaRef>,
        reply: oneshot::Sender<Vec<(DeltaRef, Option<Bytes>)>>,
    },
}

/// The result of a native checkpoint's upload.
pub(crate) struct NativeUpload {
    pub(crate) base: ReceiptBase,
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
    /// Bytes of the largest object.
    pub(crate) largest: u64,
}

/// A cut on its way to its receipt.
pub(crate) struct PendingCut {
    pub(crate) id: CheckpointId,
    pub(crate) metadata: Vec<u8>,
    /// State that is not keyed.
    pub(crate) elements: Arc<[Elements]>,
    pub(crate) states: Arc<[StateInfo]>,
    pub(crate) cost: ReceiptCost,
    pub(crate) reply: oneshot::Sender<Result<Receipt>>,
}

/// Answers all later cuts of a store that has finished.
pub(crate) struct FinalCut {
    /// Its last delta.
    pub(crate) seq: DeltaSeq,
    /// Number of the last checkpoint that it has cut for itself.
    pub(crate) cut: u64,
    pub(crate) metadata: Vec<u8>,
    pub(crate) elements: Arc<[Elements]>,
    pub(crate) states: Arc<[StateInfo]>,
}

impl FinalCut {
    /// A cut for checkpoint `id` whose receipt only the job waits for.
    pub(crate) fn pending_cut(&self, id: CheckpointId) -> Box<PendingCut> {
        let (reply, _) = oneshot::channel();
        let (metadata, states) = (self.metadata.clone(), Arc::clone(&self.states));
        let elements = Arc::clone(&self.elements);
        Box::new(PendingCut { id, metadata, elements, states, cost: ReceiptCost::default(), reply })
    }
}

/// Sends events and counts them, so that "settled" can be told from outside.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    sender: mpsc::UnboundedSender<Event>,
    shared: Arc<StoreShared>,
}

impl EventSender {
    pub(crate) fn new(sender: mpsc::UnboundedSender<Event>, shared: Arc<StoreShared>) -> Self {
        Self { sender, shared }
    }

    /// Brings a message of the job.
    pub(crate) fn tell(&self, message: ToStore) {
        self.send(Event::Told(message));
    }

    pub(crate) fn send(&self, event: Event) {
        self.shared.message_sent();
        // Fails only when the job is shutting down; then the effect is not needed.
        let _ = self.sender.send(event);
    }
}
