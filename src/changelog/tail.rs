//! The end of a subtask's changelog, as a pure state machine: which deltas are held, on their way or
//! durable, which barrier waits for what, and what has to be uploaded next. The task around it
//! ([`super::task`]) does what it is told and reports back.
//!
//! Life of a delta: `Sealing → Held → Uploading → Stored`, or `Held → offered to a checkpoint →
//! Stored` where it is small enough to travel inside the manifest.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeBounds;

use bytes::Bytes;

use crate::delta::Sealed;
use crate::ids::{CheckpointId, DeltaSeq, Nonce};
use crate::manifest::{BaseRef, DeltaRef};
use crate::remote::ObjectName;
use crate::store::BudgetShare;

use super::receipt::ReceiptDelta;

/// One delta after the base.
#[derive(Debug)]
struct Slot {
    place: Place,
    /// The sealed bytes: until durable, and beyond that while the delta lives in a manifest, so that
    /// it can be packed without reading it back.
    kept: Option<Kept>,
    entries: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    crc32c: u32,
    /// What the bytes count against the store's memory; given back once they are durable.
    _share: Option<BudgetShare>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
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

/// A cut that waits until everything up to it can be named in a receipt.
#[derive(Debug)]
struct Barrier<B> {
    seq: DeltaSeq,
    /// Whatever the task needs to write the receipt.
    context: B,
}

/// What the task has to do next.
#[derive(Debug)]
pub(crate) enum Action<B> {
    /// Upload these deltas, in this order, as one object.
    Upload(Vec<Upload>),
    /// Everything up to the barrier is durable or small enough to be inlined.
    Ready {
        /// As given to [`Tail::barrier`].
        context: B,
        /// The last delta before the cut.
        seq: DeltaSeq,
        /// The base that the checkpoint stands on.
        base: Option<BaseRef>,
        /// The deltas after it, oldest first.
        deltas: Vec<ReceiptDelta>,
    },
}

/// A delta on its way to an object.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) seq: DeltaSeq,
    pub(crate) bytes: Bytes,
    pub(crate) crc32c: u32,
    pub(crate) entries: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Tail<B> {
    /// Held bytes up to which a tail is inlined.
    inline_limit: u64,
    base: Option<BaseRef>,
    /// A newer base that an older barrier still in the queue must not see.
    next_base: Option<BaseRef>,
    slots: BTreeMap<DeltaSeq, Slot>,
    barriers: VecDeque<Barrier<B>>,
    /// Objects that nothing in the tail refers to any more.
    retired: Vec<ObjectName>,
}

impl<B> Tail<B> {
    /// The tail of a store that was restored from `base` and the `stored` deltas after it.
    pub(crate) fn new(inline_limit: u64, base: Option<BaseRef>, stored: Vec<DeltaRef>) -> Self {
        let slots = stored.into_iter().map(|delta| {
            let entries = delta.entries;
            (delta.last, Slot { place: Place::Stored(delta), kept: None, entries })
        });
        Self {
            inline_limit,
            base,
            next_base: None,
            slots: slots.collect(),
            barriers: VecDeque::new(),
            retired: Vec::new(),
        }
    }

    /// A delta was frozen; its bytes will follow.
    pub(crate) fn frozen(&mut self, seq: DeltaSeq) {
        self.slots.insert(seq, Slot { place: Place::Sealing, kept: None, entries: 0 });
    }

    /// A frozen delta's bytes are there.
    pub(crate) fn sealed(&mut self, seq: DeltaSeq, sealed: Sealed, share: BudgetShare) {
        // A base may have overtaken it; then nobody needs the bytes.
        if let Some(slot) = self.slots.get_mut(&seq) {
            slot.place = Place::Held;
            slot.entries = sealed.entries;
            slot.kept = Some(Kept { bytes: sealed.bytes, crc32c: sealed.crc32c, _share: Some(share) });
        }
    }

    /// A checkpoint's cut after delta `seq`.
    pub(crate) fn barrier(&mut self, seq: DeltaSeq, context: B) {
        self.barriers.push_back(Barrier { seq, context });
    }

    /// Deltas became durable, in an object or a manifest.
    pub(crate) fn stored(&mut self, refs: Vec<DeltaRef>) {
        for delta in refs {
            if let Some(slot) = self.slots.get_mut(&delta.last) {
                if let Place::Stored(old) = &slot.place {
                    self.retired.push(old.object.clone());
                }
                // What lives in a manifest is kept for packing, but no longer counts as not durable.
                slot.kept = slot
                    .kept
                    .take()
                    .filter(|_| delta.object.is_manifest())
                    .map(|kept| Kept { _share: None, ..kept });
                slot.place = Place::Stored(delta);
            } else {
                self.retired.push(delta.object);
            }
        }
    }

    /// The checkpoint was given up: what it was offered has to become durable by itself, and its
    /// barrier waits no longer.
    pub(crate) fn aborted(&mut self, id: CheckpointId, id_of: impl Fn(&B) -> CheckpointId) -> Option<B> {
        for slot in self.slots.values_mut() {
            if slot.place == Place::Offered(id) {
                slot.place = Place::Held;
            }
        }
        let at = self.barriers.iter().position(|barrier| id_of(&barrier.context) == id)?;
        self.barriers.remove(at).map(|barrier| barrier.context)
    }

    /// A newer base is durable.
    pub(crate) fn materialized(&mut self, base: BaseRef) {
        if let Some(old) = self.next_base.replace(base) {
            self.retire_base(old);
        }
    }

    /// What the changelog weighs since the newest base.
    pub(crate) fn bytes_since_base(&self) -> u64 {
        let base = self.next_base.as_ref().or(self.base.as_ref()).map_or(DeltaSeq(0), |base| base.seq);
        self.slots.range(base.next()..).map(|(_, slot)| slot.length()).sum()
    }

    /// Whether no delta waits to be encoded or for a checkpoint that would carry it.
    pub(crate) fn is_flushed(&self) -> bool {
        self.slots.values().all(|slot| !matches!(slot.place, Place::Sealing | Place::Held))
    }

    /// Objects of store instance `instance` that nothing here refers to any more. A checkpoint that is
    /// being committed, or a retained one, may still do. Objects that hold deltas of several
    /// subtasks are not of one instance, and are left out: another tail may refer to them.
    pub(crate) fn take_retired(&mut self, instance: Nonce) -> Vec<ObjectName> {
        let mut retired = std::mem::take(&mut self.retired);
        retired.retain(|object| {
            let named = self.durable().any(|(delta, _)| delta.object == *object);
            !named && object.instance() == Some(instance)
        });
        retired
    }

    fn retire_base(&mut self, old: BaseRef) {
        let newer = self.next_base.as_ref().or(self.base.as_ref());
        let kept = |object: &ObjectName| newer.is_some_and(|base| base.files.contains(object));
        self.retired.extend(old.files.into_iter().filter(|object| !kept(object)));
        self.retired.push(old.object);
    }

    /// Whether nothing is being encoded, uploaded or waited for. Small deltas may still be held for
    /// the next checkpoint.
    pub(crate) fn is_idle(&self) -> bool {
        self.barriers.is_empty()
            && self
                .slots
                .values()
                .all(|slot| matches!(slot.place, Place::Stored(_) | Place::Held | Place::Offered(_)))
    }

    /// The context of the barrier that is waited for.
    pub(crate) fn waiting_mut(&mut self) -> Option<&mut B> {
        self.barriers.front_mut().map(|barrier| &mut barrier.context)
    }

    /// Ends all waiting.
    pub(crate) fn give_up(&mut self) -> impl Iterator<Item = B> {
        std::mem::take(&mut self.barriers).into_iter().map(|barrier| barrier.context)
    }

    /// The durable deltas with the bytes that are still in memory.
    pub(crate) fn durable(&self) -> impl Iterator<Item = (&DeltaRef, Option<&Bytes>)> {
        self.slots.values().filter_map(|slot| match &slot.place {
            Place::Stored(delta) => Some((delta, slot.kept.as_ref().map(|kept| &kept.bytes))),
            _ => None,
        })
    }

    /// What has to be done now. Called after every change until it returns nothing.
    pub(crate) fn advance(&mut self, flush: Flush, id_of: impl Fn(&B) -> CheckpointId) -> Option<Action<B>> {
        self.adopt_base();
        let Some(barrier) = self.barriers.front() else {
            let held = self.held(..);
            let weight: u64 = held.iter().map(|upload| upload.bytes.len() as u64).sum();
            // No path that frees memory waits for a barrier: above the low-water mark it goes at once.
            let due = weight > self.inline_limit || (flush == Flush::All && weight > 0);
            return due.then(|| self.start(held));
        };

        let seq = barrier.seq;
        if flush == Flush::All {
            // Memory is short: what came after the barrier does not wait for it.
            let held = self.held(seq.next()..);
            if !held.is_empty() {
                return Some(self.start(held));
            }
        }
        if self.slots.range(..=seq).any(|(_, slot)| slot.place == Place::Sealing) {
            return None;
        }
        let held = self.held(..=seq);
        let weight: u64 = held.iter().map(|upload| upload.bytes.len() as u64).sum();
        if weight > self.inline_limit {
            return Some(self.start(held));
        }
        if self.slots.range(..=seq).any(|(_, slot)| slot.place == Place::Uploading) {
            return None;
        }
        let barrier = self.barriers.pop_front()?;
        let id = id_of(&barrier.context);
        let deltas = self.slots.range_mut(..=seq).filter_map(|(seq, slot)| slot.offer(*seq, id)).collect();
        Some(Action::Ready { context: barrier.context, seq, base: self.base.clone(), deltas })
    }

    /// Takes up a newer base once no barrier before it waits: a checkpoint must not contain what came
    /// after its cut (I1).
    fn adopt_base(&mut self) {
        let Some(base) = &self.next_base else { return };
        if self.barriers.front().is_some_and(|barrier| barrier.seq < base.seq) {
            return;
        }
        let newer = self.slots.split_off(&base.seq.next());
        for slot in std::mem::replace(&mut self.slots, newer).into_values() {
            if let Place::Stored(delta) = slot.place {
                self.retired.push(delta.object);
            }
        }
        if let Some(old) = self.base.take() {
            self.retire_base(old);
        }
        self.base = self.next_base.take();
    }

    fn held(&self, range: impl RangeBounds<DeltaSeq>) -> Vec<Upload> {
        self.slots
            .range(range)
            .filter(|(_, slot)| slot.place == Place::Held)
            .filter_map(|(seq, slot)| {
                let kept = slot.kept.as_ref()?;
                Some(Upload {
                    seq: *seq,
                    bytes: kept.bytes.clone(),
                    crc32c: kept.crc32c,
                    entries: slot.entries,
                })
            })
            .collect()
    }

    fn start(&mut self, uploads: Vec<Upload>) -> Action<B> {
        for upload in &uploads {
            if let Some(slot) = self.slots.get_mut(&upload.seq) {
                slot.place = Place::Uploading;
            }
        }
        Action::Upload(uploads)
    }
}

impl Slot {
    fn length(&self) -> u64 {
        match (&self.place, &self.kept) {
            (Place::Stored(delta), _) => delta.length,
            (_, Some(kept)) => kept.bytes.len() as u64,
            _ => 0,
        }
    }

    /// The delta as it stands in a receipt; held bytes are offered to checkpoint `id`.
    fn offer(&mut self, seq: DeltaSeq, id: CheckpointId) -> Option<ReceiptDelta> {
        match &self.place {
            Place::Stored(delta) => Some(ReceiptDelta::Stored(delta.clone())),
            Place::Held | Place::Offered(_) => {
                let kept = self.kept.as_ref()?;
                self.place = Place::Offered(id);
                Some(ReceiptDelta::Inline {
                    seq,
                    entries: self.entries,
                    crc32c: kept.crc32c,
                    bytes: kept.bytes.clone(),
                })
            }
            Place::Sealing | Place::Uploading => None,
        }
    }
}

/// Whether held deltas may wait for the next checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Up to the inline limit they may: the next manifest carries them.
    AboveLimit,
    /// A checkpoint was aborted, or the job drains: everything goes now.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, SubtaskIndex, Version};
    use crate::remote::DataKind;
    use crate::store::Budget;

    const LIMIT: u64 = 100;
    const INSTANCE: Nonce = Nonce([7; 16]);

    fn id(number: u64) -> CheckpointId {
        CheckpointId { epoch: Epoch(1), number }
    }

    fn object(n: u64) -> ObjectName {
        ObjectName::data(Epoch(1), SubtaskIndex(0), INSTANCE, DataKind::Delta, n)
    }

    fn delta(seq: u64, object: ObjectName) -> DeltaRef {
        let seq = DeltaSeq(seq);
        DeltaRef { object, offset: 0, length: 10, crc32c: 0, first: seq, last: seq, entries: 1 }
    }

    fn base(seq: u64) -> BaseRef {
        BaseRef {
            object: object(1000 + seq),
            offset: 0,
            length: 1,
            crc32c: 0,
            seq: DeltaSeq(seq),
            state_bytes: 1,
            files: vec![object(2000 + seq)],
        }
    }

    /// A tail whose barriers carry nothing but the checkpoint's id.
    struct Fixture {
        tail: Tail<CheckpointId>,
        budget: std::sync::Arc<Budget>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { tail: Tail::new(LIMIT, None, Vec::new()), budget: Budget::new(1 << 20) }
        }

        fn sealed(&mut self, seq: u64, bytes: usize) {
            let sealed = Sealed { bytes: vec![0; bytes].into(), crc32c: 0, entries: 1 };
            let share = self.budget.take(bytes as u64);
            self.tail.sealed(DeltaSeq(seq), sealed, share);
        }

        fn held(&mut self, seq: u64, bytes: usize) {
            self.tail.frozen(DeltaSeq(seq));
            self.sealed(seq, bytes);
        }

        fn advance(&mut self, flush: Flush) -> Option<Action<CheckpointId>> {
            self.tail.advance(flush, |id| *id)
        }

        /// The deltas that have to be uploaded now.
        fn uploads(&mut self, flush: Flush) -> Vec<u64> {
            match self.advance(flush) {
                Some(Action::Upload(uploads)) => uploads.iter().map(|upload| upload.seq.0).collect(),
                None => Vec::new(),
                Some(Action::Ready { .. }) => panic!("no barrier is ready"),
            }
        }

        /// The deltas of the receipt, with whether each is inline, and the base's number.
        fn ready(&mut self) -> (Vec<(u64, bool)>, Option<u64>) {
            let Some(Action::Ready { deltas, base, .. }) = self.advance(Flush::AboveLimit) else {
                panic!("the barrier is not ready");
            };
            let deltas = deltas.iter().map(|delta| match delta {
                ReceiptDelta::Stored(delta) => (delta.last.0, false),
                ReceiptDelta::Inline { seq, .. } => (seq.0, true),
            });
            (deltas.collect(), base.map(|base| base.seq.0))
        }
    }

    #[test]
    fn a_small_tail_waits_for_the_barrier_and_travels_inline() {
        let mut f = Fixture::new();
        f.held(1, 40);
        assert!(f.advance(Flush::AboveLimit).is_none());
        f.tail.frozen(DeltaSeq(2));
        f.tail.barrier(DeltaSeq(2), id(1));
        assert!(f.advance(Flush::AboveLimit).is_none(), "delta 2 is not sealed yet");
        f.sealed(2, 40);
        assert_eq!(f.ready(), (vec![(1, true), (2, true)], None));
        assert_eq!(f.budget.held(), 80);
        let carrier = ObjectName::manifest(Version(9));
        f.tail.stored(vec![delta(1, carrier.clone()), delta(2, carrier)]);
        assert_eq!(f.budget.held(), 0, "what is durable no longer counts");
        assert!(f.tail.durable().all(|(_, bytes)| bytes.is_some()), "kept for packing");
    }

    #[test]
    fn above_the_limit_nothing_waits_for_a_barrier() {
        let mut f = Fixture::new();
        f.held(1, 60);
        f.held(2, 60);
        assert_eq!(f.uploads(Flush::AboveLimit), [1, 2]);
        assert!(f.advance(Flush::AboveLimit).is_none(), "once is enough");
        f.tail.barrier(DeltaSeq(2), id(1));
        assert!(f.advance(Flush::AboveLimit).is_none(), "not durable yet");
        f.tail.stored(vec![delta(1, object(1)), delta(2, object(1))]);
        assert_eq!(f.ready(), (vec![(1, false), (2, false)], None));
    }

    #[test]
    fn a_large_tail_at_the_barrier_is_uploaded_first() {
        let mut f = Fixture::new();
        f.tail.frozen(DeltaSeq(1));
        f.tail.barrier(DeltaSeq(1), id(1));
        f.sealed(1, 200);
        assert_eq!(f.uploads(Flush::AboveLimit), [1]);
        f.tail.stored(vec![delta(1, object(1))]);
        assert_eq!(f.ready(), (vec![(1, false)], None));
    }

    #[test]
    fn i6_an_aborted_tail_is_uploaded_and_belongs_to_the_next_checkpoint() {
        let mut f = Fixture::new();
        f.held(1, 40);
        f.tail.barrier(DeltaSeq(1), id(1));
        f.ready();
        assert!(f.tail.is_flushed());
        assert_eq!(f.tail.aborted(id(1), |id| *id), None);
        assert!(!f.tail.is_flushed());
        assert_eq!(f.uploads(Flush::All), [1]);
        f.tail.stored(vec![delta(1, object(1))]);
        f.tail.barrier(DeltaSeq(1), id(2));
        assert_eq!(f.ready(), (vec![(1, false)], None));
    }

    #[test]
    fn an_aborted_barrier_waits_no_longer() {
        let mut f = Fixture::new();
        f.tail.frozen(DeltaSeq(1));
        f.tail.barrier(DeltaSeq(1), id(1));
        assert_eq!(f.tail.aborted(id(1), |id| *id), Some(id(1)));
        f.sealed(1, 10);
        assert!(f.advance(Flush::AboveLimit).is_none());
    }

    #[test]
    fn i1_a_base_newer_than_a_waiting_cut_is_not_used_for_it() {
        let mut f = Fixture::new();
        f.held(1, 10);
        f.tail.frozen(DeltaSeq(2));
        f.tail.barrier(DeltaSeq(2), id(1));
        f.tail.frozen(DeltaSeq(3));
        f.tail.materialized(base(3));
        f.sealed(2, 10);
        assert_eq!(f.ready(), (vec![(1, true), (2, true)], None), "base 3 has more than the cut at 2");
        f.tail.barrier(DeltaSeq(3), id(2));
        assert_eq!(f.ready(), (vec![], Some(3)), "for the next cut it stands for all");
        assert_eq!(f.tail.bytes_since_base(), 0);
    }

    #[test]
    fn what_nothing_refers_to_is_handed_out_once() {
        let mut f = Fixture::new();
        f.held(1, 10);
        f.tail.stored(vec![delta(1, object(1))]);
        f.tail.materialized(base(1));
        f.advance(Flush::AboveLimit);
        assert_eq!(f.tail.take_retired(INSTANCE), [object(1)]);
        f.tail.materialized(base(2));
        f.advance(Flush::AboveLimit);
        let mut retired = f.tail.take_retired(INSTANCE);
        retired.sort();
        assert_eq!(retired, [object(1001), object(2001)]);
        f.tail.stored(vec![delta(1, object(9))]);
        assert_eq!(f.tail.take_retired(INSTANCE), [object(9)], "came after its base");
        f.tail.stored(vec![delta(2, object(10))]);
        assert_eq!(f.tail.take_retired(Nonce([1; 16])), [], "of another instance");
    }

    #[test]
    fn memory_that_is_short_does_not_wait_for_a_barrier_in_front() {
        let mut f = Fixture::new();
        f.tail.frozen(DeltaSeq(1));
        f.tail.barrier(DeltaSeq(1), id(1));
        f.held(2, 10);
        assert!(f.advance(Flush::AboveLimit).is_none());
        assert_eq!(f.uploads(Flush::All), [2]);
    }
}
