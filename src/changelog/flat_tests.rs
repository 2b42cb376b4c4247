//! What a checkpoint costs does not depend on how many deltas there are since the base.

use std::sync::Arc;

use super::tail::{Action, Flush, Tail};
use super::{Pack, Portion, Sizes, Upload, lay_out, packing_due};
use crate::budget::Budget;
use crate::delta::Sealed;
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, SubtaskIndex, Version};
use crate::manifest::DeltaRef;
use crate::remote::{DataKind, ObjectName};

use super::receipt::ReceiptDelta;

const SUBTASK: SubtaskIndex = SubtaskIndex(0);
const INSTANCE: Nonce = Nonce([7; 16]);
/// Nothing is packed for the bytes that manifests carry.
const CARRIED: u64 = u64::MAX;

/// Length of a delta. A thousand of them fill the smallest class of objects, all of which is packed
/// again each time that eight have gathered.
const BYTES: usize = 256;

/// A store without bases that takes one checkpoint after the other, each of one small delta.
struct Store {
    tail: Tail<CheckpointId>,
    seq: DeltaSeq,
    packs: u64,
    budget: Arc<Budget>,
}

impl Store {
    fn new() -> Self {
        let tail = Tail::new(1 << 10, Vec::new(), None, Vec::new()).keeping(Budget::new(1 << 30));
        Self { tail, seq: DeltaSeq(0), packs: 0, budget: Budget::new(1 << 30) }
    }

    /// What the store's task does after each event.
    fn event(&mut self) -> Option<Vec<ReceiptDelta>> {
        let mut receipt = None;
        while let Some(action) = self.tail.advance(Flush::AboveLimit, |id| *id) {
            match action {
                Action::Ready { deltas, .. } => receipt = Some(deltas),
                Action::Upload(_) => panic!("a small delta travels inline"),
            }
        }
        self.tail.is_flushed();
        self.tail.take_retired(INSTANCE);
        self.tail.is_idle();
        receipt
    }

    /// One checkpoint, and a tick of the task. Returns the checkpoint's references.
    fn checkpoint(&mut self) -> Vec<DeltaRef> {
        self.seq = self.seq.next();
        let id = CheckpointId { epoch: Epoch(1), number: self.seq.0 };
        self.tail.frozen(self.seq);
        let bytes = self.seq.0.to_le_bytes().repeat(BYTES / 8);
        let crc32c = crc32c::crc32c(&bytes);
        let share = Arc::new(self.budget.take(bytes.len() as u64));
        self.tail.sealed(self.seq, Sealed { bytes: bytes.into(), crc32c, entries: 1 }, share);
        assert!(self.event().is_none());
        self.tail.barrier(self.seq, id);
        let deltas = self.event().expect("the barrier waits for nothing");
        let named: Vec<_> = deltas.iter().map(|delta| self.durable(delta)).collect();
        let carried =
            named.iter().zip(&deltas).filter(|(_, delta)| matches!(delta, ReceiptDelta::Inline { .. }));
        self.tail.committed(id, carried.map(|(delta, _)| delta.clone()).collect());
        self.event();
        assert_eq!(self.tail.bytes_since_base(), self.seq.0 * BYTES as u64);
        named
    }

    fn durable(&self, delta: &ReceiptDelta) -> DeltaRef {
        match delta {
            ReceiptDelta::Stored(delta) => delta.clone(),
            ReceiptDelta::Inline { seq, entries, crc32c, bytes } => DeltaRef {
                object: ObjectName::manifest(Version(self.seq.0)),
                offset: 100,
                length: bytes.len() as u64,
                crc32c: *crc32c,
                first: *seq,
                last: *seq,
                entries: *entries,
            },
        }
    }

    /// Packs what is due, as the packer does. Returns whether anything was.
    fn pack(&mut self, named: &[DeltaRef]) -> bool {
        let due = packing_due(named.iter().map(|delta| (SUBTASK, delta)), CARRIED, &Sizes::default());
        for pack in &due {
            self.pack_one(pack);
        }
        !due.is_empty()
    }

    fn pack_one(&mut self, pack: &Pack) {
        let wanted: Vec<_> = pack.iter().map(|(_, delta)| delta.clone()).collect();
        let upload = |(delta, bytes): (DeltaRef, Option<bytes::Bytes>)| {
            let DeltaRef { first, last, crc32c, entries, .. } = delta;
            Upload { first, last, bytes: bytes.expect("there is room"), crc32c, entries, _hold: None }
        };
        let deltas: Vec<_> = self.tail.durable_of(&wanted).into_iter().map(upload).collect();
        self.packs += 1;
        let object = ObjectName::data(Epoch(1), SUBTASK, INSTANCE, DataKind::Pack, self.packs);
        for (_, moved) in lay_out(&[Portion { subtask: SUBTASK, deltas }], &object) {
            self.tail.moved(moved);
        }
        self.event();
    }
}

/// Entries that the last `count` of `length` checkpoints look at: one at most, without the packing,
/// and all of them on average, with it.
fn looks(length: u64, count: u64) -> (u64, u64) {
    let mut store = Store::new();
    let (mut most, mut start) = (0, 0);
    for number in 1..=length {
        let before = store.tail.looks();
        let named = store.checkpoint();
        let after = store.tail.looks();
        store.pack(&named);
        if number + count == length {
            start = store.tail.looks();
        } else if number + count > length {
            most = most.max(after - before);
        }
    }
    assert!(store.packs > length / 32, "deltas are packed");
    assert_eq!(store.tail.durable().count() as u64, length, "all of them are there");
    (most, (store.tail.looks() - start) / count)
}

/// A checkpoint names as many references as there are classes of objects, which is the logarithm of
/// the changelog. Its work grows with these and not with the deltas.
#[test]
fn i5_the_work_of_a_checkpoint_does_not_grow_with_the_deltas_since_the_base() {
    let (few, few_average) = looks(1024, 512);
    let (many, many_average) = looks(16_384, 8192);
    println!("looks in a checkpoint, and on average with packing:");
    println!("{few} and {few_average} after 1024 deltas, {many} and {many_average} after 16,384");
    assert!(many <= 2 * few, "{many} looks in a checkpoint after 16,384 deltas, {few} after 1024");
    assert!(many_average <= 2 * few_average, "{many_average} on average, {few_average} after 1024 deltas");
}
