//! One delta of a tail: where its bytes are, and how a receipt names it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Budget;
use crate::changelog::joined::Hold;
use crate::changelog::receipt::ReceiptDelta;
use crate::ids::{CheckpointId, DeltaSeq};
use crate::manifest::DeltaRef;

/// One delta after the base.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: SlotState,
    /// The sealed bytes. They are kept until the delta is durable. If it lives in a manifest or a
    /// small object, they are kept longer, so that packing need not read them back.
    pub(super) kept: Option<Kept>,
    pub(super) entries: u64,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    pub(super) crc32c: u32,
    /// The budget that the bytes count against: the store's memory until they are durable, then the
    /// memory for packing.
    pub(super) hold: Hold,
    pub(super) durable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlotState {
    /// Frozen, not yet encoded.
    Sealing,
    /// Encoded, in memory.
    Held,
    /// Held, and part of a receipt whose checkpoint is not decided.
    Offered(CheckpointId),
    /// On its way to an object.
    Uploading,
    /// Durable.
    Stored(DeltaRef),
}

impl Slot {
    pub(super) fn length(&self) -> u64 {
        match (&self.state, &self.kept) {
            (SlotState::Stored(delta), _) => delta.length,
            (_, Some(kept)) => kept.bytes.len() as u64,
            _ => 0,
        }
    }

    /// The delta as it stands in a receipt; held bytes are offered to checkpoint `id`.
    pub(super) fn offer(&mut self, seq: DeltaSeq, id: CheckpointId) -> Option<ReceiptDelta> {
        match &self.state {
            SlotState::Stored(delta) => Some(ReceiptDelta::Stored(delta.clone())),
            SlotState::Held | SlotState::Offered(_) => {
                let kept = self.kept.as_ref()?;
                // Offered to a later checkpoint if an earlier one still has it: the later commit
                // carries it as well.
                self.state = SlotState::Offered(id);
                Some(ReceiptDelta::Inline {
                    seq,
                    entries: self.entries,
                    crc32c: kept.crc32c,
                    bytes: kept.bytes.clone(),
                })
            }
            SlotState::Sealing | SlotState::Uploading => None,
        }
    }
}

impl Kept {
    /// The bytes of a delta that is durable now, if there is room to keep them for packing.
    pub(super) fn durable(self, packing: &Arc<Budget>) -> Option<Self> {
        if self.durable {
            return Some(self);
        }
        // Without room the bytes are read back when they are packed.
        let room = !packing.is_full();
        let length = self.bytes.len() as u64;
        room.then(|| Self { hold: Arc::new(packing.take(length)), durable: true, ..self })
    }
}

/// `deltas` with one reference for each run, if all of the run is there and lies where it did.
pub(super) fn in_runs(deltas: Vec<ReceiptDelta>, runs: &BTreeMap<DeltaSeq, DeltaRef>) -> Vec<ReceiptDelta> {
    let mut folded = Vec::with_capacity(deltas.len());
    let mut rest = deltas.as_slice();
    while let Some((first, others)) = rest.split_first() {
        let run = first.stored().and_then(|first| runs.get(&first.first));
        let run = run.and_then(|run| {
            let in_it = |delta: &&ReceiptDelta| {
                delta.stored().is_some_and(|delta| delta.object == run.object && delta.last <= run.last)
            };
            let count = rest.iter().take_while(in_it).count();
            let (deltas, others) = rest.split_at_checked(count)?;
            let whole = deltas.last()?.stored()?.last == run.last;
            whole.then_some((ReceiptDelta::Stored(run.clone()), others))
        });
        let (delta, others) = run.unwrap_or_else(|| (first.clone(), others));
        folded.push(delta);
        rest = others;
    }
    folded
}
