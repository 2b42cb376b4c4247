//! Everything above the table: the active delta and the frozen ones that are not applied yet.

use std::sync::Arc;

use crate::delta::{ActiveDelta, Lookup, MergeOp, Recycler};
use crate::ids::DeltaSeq;

use super::appliers::Applier;
use super::scan::fold;
use super::shared::Layer;
use super::value::Value;

#[derive(Debug)]
pub(super) struct Layers {
    pub(super) active: ActiveDelta,
    /// Not yet applied, oldest first.
    pub(super) frozen: Vec<Arc<Layer>>,
    /// Size at which the active delta is cut between two barriers.
    delta_bytes: usize,
    /// Size up to which it may wait for the barrier: about what travels in the manifest.
    inline_limit: usize,
    pub(super) applier: Applier,
}

/// What memory answers to a read.
pub(super) enum Found<'a> {
    /// The value, or that there is none; the table need not be asked.
    Settled(Option<Value<'a>>),
    /// The table has the answer.
    Nothing,
    /// Operands to be folded into the table's value.
    Operands(Operands<'a>),
}

/// Merge operands of one key, newest first, each with its layer (None: the active delta).
#[derive(Default)]
pub(super) struct Operands<'a>(Vec<(Option<DeltaSeq>, MergeOp, &'a [u8])>);

impl<'a> Operands<'a> {
    /// Drops the operands of layers that a view of the table as of delta `applied` contains.
    pub(super) fn drop_applied(&mut self, applied: DeltaSeq) {
        self.0.retain(|(seq, ..)| seq.is_none_or(|seq| seq > applied));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The answer, if what the next older layer knows settles it; otherwise its operand is noted.
    #[inline]
    fn settle(&mut self, seq: Option<DeltaSeq>, lookup: Lookup<'a>) -> Option<Found<'a>> {
        let base = match lookup {
            Lookup::Unknown => return None,
            Lookup::Operand { op, operand } => {
                self.0.push((seq, op, operand));
                return None;
            }
            Lookup::Value(value) => Some(value),
            Lookup::Deleted => None,
        };
        Some(Found::Settled(if self.is_empty() { base.map(Value::borrowed) } else { self.fold_into(base) }))
    }

    pub(super) fn fold_into(&self, base: Option<&[u8]>) -> Option<Value<'static>> {
        let operands = self.0.iter().map(|(_, op, operand)| (*op, operand.to_vec())).collect();
        fold(base.map(<[u8]>::to_vec), operands).map(Value::owned)
    }
}

impl Layers {
    pub(super) fn new(
        applier: Applier,
        recycler: &Arc<Recycler>,
        delta_bytes: usize,
        inline_limit: usize,
    ) -> Self {
        let active = ActiveDelta::recycled_by(Arc::clone(recycler));
        Self { active, frozen: Vec::new(), delta_bytes, inline_limit, applier }
    }

    /// Whether the active delta should be cut ahead of a barrier, rather than be uploaded at it.
    pub(super) fn is_large(&self) -> bool {
        self.active.bytes() > self.inline_limit
    }

    /// Looked at once per write: an empty delta is where memory is asked for, a full one is cut.
    pub(super) fn needs_room(&self) -> bool {
        self.active.is_empty() || self.active.bytes() >= self.delta_bytes
    }

    /// Lets go of what the table holds.
    pub(super) fn purge(&mut self) {
        self.frozen.retain(|layer| !layer.is_applied());
    }

    /// What the layers know of a key.
    pub(super) fn find(&self, key: &[u8]) -> Found<'_> {
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
            // Deltas are applied in order: whatever is older than an applied one is in the table as well.
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
