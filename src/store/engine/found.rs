//! What the layers above the table know of one key.

use crate::delta::{Lookup, MergeOp};
use crate::ids::DeltaSeq;
use crate::store::scan::fold;
use crate::store::value::Value;

/// What memory answers to a read.
pub(in crate::store) enum Found<'a> {
    /// The value, or that there is none; the table need not be asked.
    Settled(Option<Value<'a>>),
    /// The table has the answer.
    Nothing,
    /// Operands to be folded into the table's value.
    Operands(Operands<'a>),
}

/// Merge operands of one key, newest first, each with its layer (None: the active delta).
#[derive(Default)]
pub(in crate::store) struct Operands<'a>(Vec<(Option<DeltaSeq>, MergeOp, &'a [u8])>);

impl<'a> Operands<'a> {
    /// Drops the operands of layers that a view of the table as of delta `applied` contains.
    pub(in crate::store) fn drop_applied(&mut self, applied: DeltaSeq) {
        self.0.retain(|(seq, ..)| seq.is_none_or(|seq| seq > applied));
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in the next older layer's answer. Returns the result if that settles it; an operand is
    /// noted.
    #[inline]
    pub(super) fn settle(&mut self, seq: Option<DeltaSeq>, lookup: Lookup<'a>) -> Option<Found<'a>> {
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

    pub(in crate::store) fn fold_into(&self, base: Option<&[u8]>) -> Option<Value<'static>> {
        let operands = self.0.iter().map(|(_, op, operand)| (*op, operand.to_vec())).collect();
        fold(base.map(<[u8]>::to_vec), operands).map(Value::owned)
    }
}
