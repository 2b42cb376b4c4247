//! What the stores' receipts name, until their checkpoints are decided. The committer sends back only
//! where the inlined deltas lie, and a member packs what it wrote by itself.

use std::collections::BTreeMap;

use crate::changelog::{Receipt, ReceiptDelta};
use crate::ids::{CheckpointId, DeltaSeq, SubtaskIndex};
use crate::manifest::DeltaRef;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Named(BTreeMap<CheckpointId, BTreeMap<SubtaskIndex, Vec<Part>>>);

/// A delta of a receipt, without its bytes.
#[derive(Debug)]
enum Part {
    Stored(DeltaRef),
    Inline(DeltaSeq),
}

impl Named {
    pub(super) fn note(&mut self, receipt: &Receipt) {
        let parts = receipt.deltas.iter().map(|delta| match delta {
            ReceiptDelta::Stored(delta) => Part::Stored(delta.clone()),
            ReceiptDelta::Inline { seq, .. } => Part::Inline(*seq),
        });
        self.0.entry(receipt.checkpoint).or_default().insert(receipt.subtask, parts.collect());
    }

    /// All deltas that the checkpoint refers to, those of a subtask oldest first. `refs` are those
    /// that travelled in it.
    pub(super) fn committed(
        &mut self,
        id: CheckpointId,
        refs: &[(SubtaskIndex, Vec<DeltaRef>)],
    ) -> Vec<(SubtaskIndex, DeltaRef)> {
        let receipts = self.0.remove(&id).unwrap_or_default();
        self.decided(id);
        let carried = |subtask, seq| {
            let mut own = refs.iter().filter(|(other, _)| *other == subtask).flat_map(|(_, refs)| refs);
            own.find(|delta| delta.last == seq).cloned()
        };
        let mut all = Vec::new();
        for (subtask, parts) in receipts {
            all.extend(parts.into_iter().filter_map(|part| match part {
                Part::Stored(delta) => Some((subtask, delta)),
                Part::Inline(seq) => carried(subtask, seq).map(|delta| (subtask, delta)),
            }));
        }
        all
    }

    /// The checkpoint, and all before it, will not be committed any more.
    pub(super) fn decided(&mut self, id: CheckpointId) {
        let mut later = self.0.split_off(&id);
        later.remove(&id);
        self.0 = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changelog::ReceiptCost;
    use crate::ids::{Epoch, Nonce, Version};
    use crate::key_group::MaxParallelism;
    use crate::remote::{DataKind, ObjectName};

    fn id(number: u64) -> CheckpointId {
        CheckpointId { epoch: Epoch(1), number }
    }

    fn delta(object: ObjectName, seq: u64) -> DeltaRef {
        let (first, last) = (DeltaSeq(seq), DeltaSeq(seq));
        DeltaRef { object, offset: 0, length: 1, crc32c: 0, first, last, entries: 1 }
    }

    fn stored(seq: u64) -> DeltaRef {
        delta(ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce::default(), DataKind::Delta, seq), seq)
    }

    /// Of delta 1, which is durable, and the inlined delta 2.
    fn receipt(number: u64, subtask: u32) -> Receipt {
        let inline = ReceiptDelta::Inline { seq: DeltaSeq(2), entries: 1, crc32c: 0, bytes: vec![1].into() };
        let subtask = SubtaskIndex(subtask);
        Receipt {
            checkpoint: id(number),
            subtask,
            range: MaxParallelism::default().range_of(subtask, 2).unwrap(),
            instance: Nonce::default(),
            seq: DeltaSeq(2),
            origins: Vec::new(),
            base: None,
            deltas: vec![ReceiptDelta::Stored(stored(1)), inline],
            metadata: Vec::new(),
            elements: [].into(),
            states: [].into(),
            cost: ReceiptCost::default(),
        }
    }

    #[test]
    fn a_commit_says_where_the_inlined_deltas_lie_and_the_receipts_the_rest() {
        let mut named = Named::default();
        named.note(&receipt(1, 0));
        named.note(&receipt(2, 0));
        named.note(&receipt(2, 1));
        // A barrier may overtake the word of the commit before.
        named.note(&receipt(3, 1));
        let carried = delta(ObjectName::manifest(Version(9)), 2);
        let refs = [0, 1].map(|subtask| (SubtaskIndex(subtask), vec![carried.clone()]));
        let all: Vec<_> = refs
            .iter()
            .flat_map(|(subtask, _)| [(*subtask, stored(1)), (*subtask, carried.clone())])
            .collect();
        assert_eq!(named.committed(id(2), &refs), all);
        assert_eq!(named.0.keys().copied().collect::<Vec<_>>(), [id(3)], "earlier ones were given up");
        assert_eq!(named.committed(id(2), &refs), [], "once");
        named.decided(id(3));
        assert!(named.0.is_empty());
    }
}
