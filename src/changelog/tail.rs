//! The tail of a subtask's changelog, as a pure state machine. It knows which deltas are held,
//! being uploaded or durable, which barrier waits for which deltas, and what has to be uploaded
//! next. The store's task carries out its actions and reports back.
//!
//! Life of a delta: `Sealing → Held → Uploading → durable`. A small one that travels inside a
//! manifest goes `Held → offered to a checkpoint → durable`.
//!
//! The task asks after each event what has to be done. Deltas that are not durable are few, because
//! memory bounds them, and are walked over. Durable ones may be many, and are not (I5).

mod counted;
mod durable;
#[cfg(test)]
mod durable_tests;
mod slot;

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Budget;
use crate::delta::Sealed;
use crate::ids::{CheckpointId, DeltaSeq, Nonce};
use crate::manifest::{BaseRef, DeltaRef, Origin};
use crate::remote::ObjectName;

use super::joined::{Hold, Moved, Upload};
use super::receipt::ReceiptDelta;
use counted::Counted;
use durable::{Durable, Spare};
use slot::{Kept, Slot, SlotState};

/// A cut that waits until everything up to it can be named in a receipt.
#[derive(Debug)]
struct Barrier<B> {
    seq: DeltaSeq,
    /// Data of the task's that it needs to write the receipt.
    context: B,
}

/// What the task has to do next.
#[derive(Debug)]
pub(crate) enum Action<B> {
    /// Have these deltas uploaded; they are in order.
    Upload(Vec<Upload>),
    /// Everything up to the barrier is durable or small enough to be inlined.
    Ready {
        /// As given to [`Tail::barrier`].
        context: B,
        /// The last delta before the cut.
        seq: DeltaSeq,
        /// The state taken over from other subtasks, as long as there is no base of its own.
        origins: Vec<Origin>,
        /// The base that the checkpoint stands on.
        base: Option<BaseRef>,
        /// The deltas after it, oldest first.
        deltas: Vec<ReceiptDelta>,
    },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Tail<B> {
    /// Held bytes up to which a tail is inlined.
    inline_limit: u64,
    /// Where the changelog continues from after a rescale, until the first base of its own.
    origins: Vec<Origin>,
    base: Option<BaseRef>,
    /// Whether there is state before the first delta that is in no object yet. Then no checkpoint
    /// is taken before there is a base.
    needs_base: bool,
    /// A newer base that an older barrier still in the queue must not see.
    next_base: Option<BaseRef>,
    /// Deltas that are not durable.
    waiting: Counted<DeltaSeq, Slot>,
    durable: Durable,
    barriers: VecDeque<Barrier<B>>,
    /// The last delta that was cut ahead of a barrier.
    hurried: DeltaSeq,
    /// Objects to which a reference in the tail has been dropped.
    retired: BTreeSet<ObjectName>,
    /// The budget of durable bytes that are kept for packing. None: they are not kept.
    packing: Option<Arc<Budget>>,
}

impl<B> Tail<B> {
    /// The tail of a store that was restored from `base`, or from the `origins` of other subtasks,
    /// and the `stored` deltas after them.
    pub(crate) fn new(
        inline_limit: u64,
        origins: Vec<Origin>,
        base: Option<BaseRef>,
        stored: Vec<DeltaRef>,
    ) -> Self {
        let durable = Durable::new(base.as_ref().map_or(DeltaSeq(0), |base| base.seq), stored);
        Self {
            inline_limit,
            origins,
            base,
            needs_base: false,
            next_base: None,
            waiting: Counted::default(),
            durable,
            barriers: VecDeque::new(),
            hurried: DeltaSeq(0),
            retired: BTreeSet::new(),
            packing: None,
        }
    }

    /// Keeps the bytes of deltas that will be packed, as long as `packing` has room for them.
    #[must_use]
    pub(crate) fn keeping(mut self, packing: Arc<Budget>) -> Self {
        self.packing = Some(packing);
        self
    }

    /// The tail of a store whose table came from another job. The state before the deltas is in no
    /// object yet, so barriers wait for the first base.
    #[must_use]
    pub(crate) fn needing_base(mut self) -> Self {
        self.needs_base = true;
        self
    }

    /// A delta was frozen; its bytes will follow.
    pub(crate) fn frozen(&mut self, seq: DeltaSeq) {
        self.waiting.insert(seq, Slot { state: SlotState::Sealing, kept: None, entries: 0 });
    }

    /// A frozen delta's bytes are there, and count against what `hold` stands for.
    pub(crate) fn sealed(&mut self, seq: DeltaSeq, sealed: Sealed, hold: Hold) {
        // If a base has overtaken the delta, its bytes are no longer needed.
        if let Some(slot) = self.waiting.get_mut(&seq) {
            slot.state = SlotState::Held;
            slot.entries = sealed.entries;
            let Sealed { bytes, crc32c, .. } = sealed;
            slot.kept = Some(Kept { bytes, crc32c, hold });
        }
    }

    /// The deltas up to `seq` were cut ahead of a barrier, because about as many bytes again are
    /// expected until then. They wait for the barrier only if there is room for both.
    pub(crate) fn hurry(&mut self, seq: DeltaSeq) {
        self.hurried = self.hurried.max(seq);
    }

    /// A checkpoint's cut after delta `seq`.
    pub(crate) fn barrier(&mut self, seq: DeltaSeq, context: B) {
        self.barriers.push_back(Barrier { seq, context });
    }

    /// Checkpoint `id` was committed, whose manifest carries these deltas.
    pub(crate) fn committed(&mut self, id: CheckpointId, mut refs: Vec<DeltaRef>) {
        // A delta that was offered to a later checkpoint since may be carried by that one's manifest
        // as well, and this one be garbage already. The word on the later one will come, or the
        // delta be offered once more (I3).
        let offered = SlotState::Offered(id);
        refs.retain(|delta| self.waiting.get(&delta.last).is_some_and(|slot| slot.state == offered));
        // Manifests are packed, whatever their size.
        self.moved(Moved { deltas: refs, runs: Vec::new(), small: true });
    }

    /// Deltas became durable in an object, or durable ones were copied to another: each for itself,
    /// and the runs that they make up.
    pub(crate) fn moved(&mut self, Moved { deltas, runs, small }: Moved) {
        let packing = self.packing.as_ref().filter(|_| small);
        for delta in deltas {
            if let Some(slot) = self.waiting.remove(&delta.last) {
                let kept = slot.kept.zip(packing).and_then(|(kept, packing)| Spare::of(kept, packing));
                self.durable.put(delta, kept);
                continue;
            }
            // If a base has overtaken the delta, nothing refers to the new object.
            let before = self.durable.relocate(delta, packing.is_some());
            self.retired.insert(before.unwrap_or_else(|overtaken| overtaken.object));
        }
        for run in runs {
            self.durable.add_run(run);
        }
    }

    /// The checkpoint was given up. The deltas offered to it must become durable as objects, and
    /// its barrier waits no longer.
    pub(crate) fn aborted(&mut self, id: CheckpointId, id_of: impl Fn(&B) -> CheckpointId) -> Option<B> {
        for (_, slot) in self.waiting.range_mut(..) {
            if slot.state == SlotState::Offered(id) {
                slot.state = SlotState::Held;
            }
        }
        let at = self.barriers.iter().position(|barrier| id_of(&barrier.context) == id)?;
        self.barriers.remove(at).map(|barrier| barrier.context)
    }

    /// A newer base is durable.
    pub(crate) fn materialized(&mut self, base: BaseRef) {
        self.durable.rebase(base.seq);
        if let Some(old) = self.next_base.replace(base) {
            self.retire_base(old);
        }
    }

    /// Where the newest base stands, if there is one.
    pub(crate) fn base_seq(&self) -> Option<DeltaSeq> {
        self.next_base.as_ref().or(self.base.as_ref()).map(|base| base.seq)
    }

    /// Bytes of the changelog since the newest base. Without a base, the bytes of the origins count
    /// as well; with origins the result is at least 1.
    pub(crate) fn bytes_since_base(&self) -> u64 {
        // A base of its own makes the origins superfluous.
        let origins = if self.next_base.is_none() { self.origins.as_slice() } else { &[] };
        let taken_over = origins.iter().flat_map(Origin::deltas).map(|(_, delta)| delta.length);
        let taken_over = taken_over.fold(u64::from(!origins.is_empty()), u64::saturating_add);
        let base = self.base_seq().unwrap_or_default();
        let waiting = self.waiting.range(base.next()..).map(|(_, slot)| slot.length());
        waiting.fold(taken_over.saturating_add(self.durable.bytes()), u64::saturating_add)
    }

    /// Whether no delta waits to be encoded or for a checkpoint that would carry it.
    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.values().all(|slot| !matches!(slot.state, SlotState::Sealing | SlotState::Held))
    }

    /// Objects that the tail no longer refers to. A checkpoint that is being committed, or a
    /// retained one, may still refer to them.
    pub(crate) fn take_retired(&mut self, instance: Nonce) -> Retired {
        let mut retired = std::mem::take(&mut self.retired);
        // Retention takes manifests, not the tail. An object may hold other deltas that are still needed.
        retired.retain(|object| !object.is_manifest() && !self.durable.is_in(object));
        // What several subtasks share goes when the last of them has released it, which the uploader knows.
        let (own, shared) = retired.into_iter().partition(|object| object.instance() == Some(instance));
        Retired { own, shared }
    }

    /// Files are shared between bases, as RocksDB rewrites few of them from one to the next.
    fn retire_base(&mut self, old: BaseRef) {
        let newer = self.next_base.as_ref().or(self.base.as_ref());
        let kept = |object: &ObjectName| newer.is_some_and(|base| base.files.contains(object));
        self.retired.extend(old.files.into_iter().filter(|object| !kept(object)));
        self.retired.insert(old.object);
    }

    /// Whether nothing is being encoded, uploaded or waited for. Small deltas may still be held for
    /// the next checkpoint.
    pub(crate) fn is_idle(&self) -> bool {
        self.barriers.is_empty()
            && self.waiting.values().all(|slot| matches!(slot.state, SlotState::Held | SlotState::Offered(_)))
    }

    /// The context of the barrier that has waited for these deltas.
    pub(crate) fn waiting_for(&mut self, deltas: &[DeltaRef]) -> Option<&mut B> {
        let barrier = self.barriers.front_mut()?;
        deltas.iter().any(|delta| delta.first <= barrier.seq).then_some(&mut barrier.context)
    }

    /// Ends all waiting.
    pub(crate) fn give_up(&mut self) -> impl Iterator<Item = B> {
        std::mem::take(&mut self.barriers).into_iter().map(|barrier| barrier.context)
    }

    /// What the tail still has of the `wanted` references, which are in order: each delta that is
    /// durable where the reference says, with the bytes that are still in memory.
    pub(crate) fn durable_of(&self, wanted: &[DeltaRef]) -> Vec<(DeltaRef, Option<Bytes>)> {
        self.durable.pieces_of(wanted)
    }

    /// What has to be done now. Called after every change until it returns nothing.
    pub(crate) fn advance(&mut self, flush: Flush, id_of: impl Fn(&B) -> CheckpointId) -> Option<Action<B>> {
        // First, because what a base contains need not be uploaded any more.
        self.adopt_base();
        let Some(seq) = self.barriers.front().map(|barrier| barrier.seq) else {
            return self.upload_ahead(.., flush);
        };
        // What the barrier waits for goes first.
        if !self.has(..=seq, SlotState::Sealing) {
            // Small deltas stay, even where memory is short: the manifest carries them, and the commit
            // frees them.
            if let Some(action) = self.upload(self.held(..=seq), self.inline_limit) {
                return Some(action);
            }
            let stands = !self.needs_base || self.base.is_some();
            if stands && !self.has(..=seq, SlotState::Uploading) {
                let barrier = self.barriers.pop_front()?;
                let id = id_of(&barrier.context);
                let deltas = self.receipt(seq, id);
                debug_assert!(follow_each_other(&deltas, seq), "a receipt of {seq} has a gap: {deltas:?}");
                return Some(Action::Ready {
                    context: barrier.context,
                    seq,
                    origins: self.origins.clone(),
                    base: self.base.clone(),
                    deltas,
                });
            }
        }
        // What came after it does not wait for it.
        self.upload_ahead(seq.next().., flush)
    }

    /// Deltas ahead of a barrier that is not there yet. No path that frees memory waits for one:
    /// they go at once if they exceed the low-water mark, which is 0 if memory is short.
    fn upload_ahead(&mut self, range: impl RangeBounds<DeltaSeq>, flush: Flush) -> Option<Action<B>> {
        let held = self.held(range);
        let early = held.first().is_some_and(|oldest| oldest.first <= self.hurried);
        let waits = match flush {
            Flush::All => 0,
            Flush::AboveLimit if early => self.inline_limit / 2,
            Flush::AboveLimit => self.inline_limit,
        };
        self.upload(held, waits)
    }

    /// `held` are to be uploaded if they are more than `waits` bytes.
    fn upload(&mut self, held: Vec<Upload>, waits: u64) -> Option<Action<B>> {
        let weight: u64 = held.iter().map(Upload::weight).sum();
        (weight > waits).then(|| self.start(held))
    }

    /// The deltas up to `seq`, oldest first. Those that are not durable are offered to checkpoint `id`.
    fn receipt(&mut self, seq: DeltaSeq, id: CheckpointId) -> Vec<ReceiptDelta> {
        let stored = self.durable.named(seq).into_iter().map(ReceiptDelta::Stored);
        let offered = self.waiting.range_mut(..=seq).filter_map(|(seq, slot)| slot.offer(*seq, id));
        let mut deltas: Vec<_> = stored.chain(offered).collect();
        deltas.sort_by_key(ReceiptDelta::range);
        deltas
    }

    fn has(&self, range: impl RangeBounds<DeltaSeq>, state: SlotState) -> bool {
        self.waiting.range(range).any(|(_, slot)| slot.state == state)
    }

    /// Adopts a newer base once no earlier barrier waits: a checkpoint must not contain changes
    /// after its cut (I1).
    fn adopt_base(&mut self) {
        let Some(base) = &self.next_base else { return };
        if self.barriers.front().is_some_and(|barrier| barrier.seq < base.seq) {
            return;
        }
        let seq = base.seq;
        self.retired.extend(self.durable.drop_through(seq));
        while self.waiting.pop_through(&seq).is_some() {}
        if let Some(old) = self.base.take() {
            self.retire_base(old);
        }
        // The origins refer to objects of other instances. These are collected with the manifests
        // that name them.
        self.origins.clear();
        self.base = self.next_base.take();
    }

    fn held(&self, range: impl RangeBounds<DeltaSeq>) -> Vec<Upload> {
        self.waiting
            .range(range)
            .filter(|(_, slot)| slot.state == SlotState::Held)
            .filter_map(|(seq, slot)| {
                let kept = slot.kept.as_ref()?;
                Some(Upload {
                    first: *seq,
                    last: *seq,
                    bytes: kept.bytes.clone(),
                    crc32c: kept.crc32c,
                    entries: slot.entries,
                    _hold: Some(Arc::clone(&kept.hold)),
                })
            })
            .collect()
    }

    fn start(&mut self, uploads: Vec<Upload>) -> Action<B> {
        for upload in &uploads {
            if let Some(slot) = self.waiting.get_mut(&upload.last) {
                slot.state = SlotState::Uploading;
            }
        }
        Action::Upload(uploads)
    }
}

#[cfg(test)]
impl<B> Tail<B> {
    /// The durable deltas with the bytes that are still in memory.
    pub(crate) fn durable(&self) -> impl Iterator<Item = (&DeltaRef, Option<&Bytes>)> {
        self.durable.pieces()
    }

    /// How many entries of what it keeps were looked at so far.
    pub(super) fn looks(&self) -> u64 {
        self.waiting.looks() + self.durable.looks()
    }
}

/// Whether a restore that replays `deltas` arrives at delta `seq` without a gap (I1).
fn follow_each_other(deltas: &[ReceiptDelta], seq: DeltaSeq) -> bool {
    let ranges: Vec<_> = deltas.iter().map(ReceiptDelta::range).collect();
    let ends = ranges.last().is_none_or(|(_, last)| *last == seq);
    ends && ranges.windows(2).all(|pair| pair[0].1.next() == pair[1].0)
}

/// Objects that a tail refers to no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    /// Those of the store's own instance.
    pub(crate) own: Vec<ObjectName>,
    /// Objects that another instance wrote, such as the uploader. Other tails may refer to them
    /// too.
    pub(crate) shared: Vec<ObjectName>,
}

/// Whether held deltas may wait for the next checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Up to the inline limit they may: the next manifest carries them.
    AboveLimit,
    /// A checkpoint was aborted, or the job drains: everything goes now.
    All,
}
