//! Changelog mode: the active delta, and the frozen ones that the table does not hold yet.

use std::sync::Arc;

use crate::cache::{Cached, RecordCache};
use crate::delta::{ActiveDelta, FrozenDelta, Lookup, MergeOp, Pooled, Recycler, TableKind};
use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::store::event::Event;
use crate::store::layer::Layer;
use crate::store::scan::ScanBuilder;
use crate::store::value::Value;

use super::background::Background;
use super::early_cuts::EarlyCuts;
use super::found::{Found, Operands};

/// The part of the budget for deltas, as a divisor, that is never lent to the cache. The cache gives back
/// a chunk at a time, and writes must not wait for that.
const KEPT_FREE: u64 = 4;

pub(in crate::store) struct Changelog {
    pub(super) active: ActiveDelta,
    /// Current values of keys that are read again and again.
    cache: RecordCache,
    /// Not yet applied, oldest first.
    frozen: Vec<Arc<Layer>>,
    /// Size at which the active delta is cut between two barriers.
    delta_bytes: usize,
    /// Size up to which it may wait for the barrier: about what travels in the manifest.
    inline_limit: usize,
    early_cuts: EarlyCuts,
    background: Background,
}

impl Changelog {
    pub(super) fn new(
        background: Background,
        recycler: &Arc<Recycler>,
        cache: RecordCache,
        delta_bytes: usize,
        inline_limit: usize,
    ) -> Self {
        let active = ActiveDelta::recycled_by(Arc::clone(recycler));
        Self {
            active,
            cache,
            frozen: Vec::new(),
            delta_bytes,
            inline_limit,
            early_cuts: EarlyCuts::default(),
            background,
        }
    }

    pub(super) fn seq(&self) -> DeltaSeq {
        self.background.seq()
    }

    #[inline]
    pub(super) fn put(&mut self, kind: TableKind, key: &[u8], value: &[u8]) {
        // Every change goes to both. A change that the cache missed would be hidden by the older record,
        // because reads ask the cache first.
        self.cache.put(key, value);
        self.active.put(kind, key, value);
    }

    #[inline]
    pub(super) fn delete(&mut self, kind: TableKind, key: &[u8]) {
        self.cache.delete(key);
        self.active.delete(kind, key);
    }

    #[inline]
    pub(super) fn merge(&mut self, kind: TableKind, op: MergeOp, key: &[u8], operand: &[u8]) {
        match op {
            MergeOp::ListAppend => self.cache.append(key, operand),
        }
        self.active.merge(kind, op, key, operand);
    }

    pub(super) fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.cache.delete_range(start, end);
        self.active.delete_range(start, end);
    }

    /// The table has answered a read of this key, which is worth remembering.
    #[inline]
    pub(super) fn offer(&self, key: &[u8], value: Option<&[u8]>) {
        self.cache.offer(key, value);
    }

    #[inline]
    pub(super) fn settle(&mut self) {
        self.cache.settle();
    }

    /// The value of the key has changed, but not by a write to this engine.
    pub(in crate::store) fn forget(&self, key: &[u8]) {
        self.cache.forget(key);
    }

    /// Looked at once per write: an empty delta is where memory is asked for, a full one is cut.
    #[inline]
    fn needs_room(&self) -> bool {
        self.active.is_empty() || self.active.bytes() >= self.delta_bytes
    }

    /// Drops the layers that the table holds.
    fn purge(&mut self) {
        self.frozen.retain(|layer| !layer.is_applied());
    }

    /// Cuts a full active delta, and waits where memory is at its bound.
    #[inline]
    pub(super) fn make_room(&mut self) -> Result<()> {
        if !self.needs_room() {
            self.cut_early();
            return Ok(());
        }
        self.freeze();
        if self.background.shared.has_room() {
            return Ok(());
        }
        // Borrowed apart: the wait drops layers while it uses the background.
        let Self { frozen, background, .. } = self;
        background.wait_for_room(|| frozen.retain(|layer| !layer.is_applied()))
    }

    /// Cuts a large delta ahead of a barrier if the job has asked for it since the last write, so
    /// that less has to be uploaded after the barrier.
    #[inline]
    fn cut_early(&mut self) {
        let asked = self.background.shared.attempt.early_cuts();
        if !self.early_cuts.knows(asked) {
            self.heed(asked);
        }
    }

    /// A few times for each checkpoint.
    #[cold]
    fn heed(&mut self, asked: u64) {
        // A smaller delta travels in the manifest, and costs no upload of its own. Nothing is cut
        // where memory is short: a write asks for memory only before it begins a delta, and the next
        // delta would come on top.
        let bytes = self.active.bytes();
        let limit = if self.background.has_room_for(bytes) { self.inline_limit } else { usize::MAX };
        if self.early_cuts.heed(asked, bytes, limit) {
            self.freeze_active();
            self.background.events.send(Event::Hurry);
        }
    }

    /// Cuts a full active delta. False if memory is at its bound, and the next write would wait.
    pub(super) fn freeze_if_due(&mut self) -> bool {
        if !self.needs_room() {
            return true;
        }
        self.freeze();
        !self.background.shared.budget.is_full()
    }

    /// Swaps the active delta for an empty one and hands it to the background (I7: no flush, no
    /// copy, no I/O).
    pub(super) fn freeze(&mut self) {
        self.early_cuts.was_cut(self.background.shared.attempt.early_cuts());
        self.freeze_active();
    }

    fn freeze_active(&mut self) {
        self.purge();
        self.divide();
        // Once, unless scans hold parts of the delta.
        while !self.active.is_empty() {
            let delta = self.active.cut();
            let layer = self.background.hand_over(delta);
            self.take_in([layer]);
        }
    }

    /// The cache may use what deltas do not. A part stays free for what is written until it has given
    /// that back.
    fn divide(&mut self) {
        let shared = &self.background.shared;
        let (limit, held) = (shared.budget.limit(), shared.budget.held());
        self.cache.lend(limit.saturating_sub(held + limit / KEPT_FREE));
        shared.cache.set(self.cache.stats());
    }

    /// Adds layers that lie below the active delta and above all others.
    pub(in crate::store) fn take_in(&mut self, layers: impl IntoIterator<Item = Arc<Layer>>) {
        self.frozen.extend(layers);
        debug_assert!(
            self.frozen.is_sorted_by_key(|layer| layer.seq),
            "a read takes the first layer from the back that knows the key"
        );
    }

    /// Whether the active delta says anything of a key.
    pub(in crate::store) fn touches(&self, key: &[u8]) -> bool {
        let unknown = |table: &Pooled| matches!(table.get(key), Lookup::Unknown);
        self.active.tables().any(|table| !unknown(table))
    }

    /// Hands a delta to the background that comes before the active one, and waits where memory is
    /// at its bound. `handed` learns of its layer before this call waits, `purge` meanwhile.
    pub(in crate::store) fn hand_over(
        &self,
        delta: FrozenDelta,
        handed: impl FnOnce(Arc<Layer>),
        purge: impl FnMut(),
    ) -> Result<()> {
        handed(self.background.hand_over(delta));
        if self.background.shared.has_room() {
            return Ok(());
        }
        self.background.wait_for_room(purge)
    }

    /// Adds the layers to a scan, newest first.
    pub(super) fn scan(&self, builder: &mut ScanBuilder) {
        builder.active(&self.active);
        self.frozen.iter().rev().for_each(|layer| builder.frozen(layer));
    }

    /// Looks a key up: in the cache, which has the last word, and then from the newest layer down.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Found<'_> {
        match self.cache.get(key) {
            Cached::Value(value) => Found::Settled(Some(Value::borrowed(value))),
            Cached::Absent => Found::Settled(None),
            Cached::Unknown => self.find_in_layers(key),
        }
    }

    #[cfg(test)]
    pub(super) fn hold_applies(&self, held: bool) {
        self.background.hold_applies(held);
    }

    fn find_in_layers(&self, key: &[u8]) -> Found<'_> {
        let mut operands = Operands::default();
        // The newest table is looked up separately, because most reads that memory answers end
        // there.
        if let Some(found) = operands.settle(None, self.active.newest(key)) {
            return found;
        }
        for table in self.active.older() {
            if let Some(found) = operands.settle(None, table.get(key)) {
                return found;
            }
        }
        for layer in self.frozen.iter().rev() {
            // Deltas are applied in order: whatever is older than an applied one is in the table as
            // well.
            if layer.is_applied() {
                break;
            }
            if let Some(found) = operands.settle(Some(layer.seq), layer.delta.get(key)) {
                return found;
            }
        }
        if operands.is_empty() { Found::Nothing } else { Found::Operands(operands) }
    }
}
