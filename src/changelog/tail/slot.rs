//! One delta of a tail that is not durable yet.

use bytes::Bytes;

use crate::changelog::joined::Hold;
use crate::changelog::receipt::ReceiptDelta;
use crate::ids::{CheckpointId, DeltaSeq};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: SlotState,
    /// The sealed bytes.
    pub(super) kept: Option<Kept>,
    pub(super) entries: u64,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    pub(super) crc32c: u32,
    /// The store's memory, which the bytes count against until they are durable.
    pub(super) hold: Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// Frozen, not yet encoded.
    Sealing,
    /// Encoded, in memory.
    Held,
    /// Held, and part of a receipt whose checkpoint is not decided.
    Offered(CheckpointId),
    /// On its way to an object.
    Uploading,
}

impl Slot {
    pub(super) fn length(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.len() as u64)
    }

    /// The delta as it stands in a receipt of checkpoint `id`, to which its bytes are offered.
    pub(super) fn offer(&mut self, seq: DeltaSeq, id: CheckpointId) -> Option<ReceiptDelta> {
        match self.state {
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
