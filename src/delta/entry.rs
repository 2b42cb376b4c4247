//! What a delta says about one key, and the merge operators that fold operands.

/// One key's change within a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// The key has this value.
    Put(&'a [u8]),
    /// The key has no value.
    Delete,
    /// The operand is folded into whatever value lies below this delta.
    Merge {
        /// How operands are folded.
        op: MergeOp,
        /// All operands of the delta, folded to one.
        operand: &'a [u8],
    },
}

impl Entry<'_> {
    /// Bytes of value or operand.
    pub(crate) fn payload_len(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Delete => 0,
            Self::Merge { operand, .. } => operand.len(),
        }
    }
}

/// Bytes that the operands of one key may come to. RocksDB keeps a value's length in 32 bits and
/// does not check it; far below that, because folding needs the bytes twice.
pub(crate) const MAX_FOLDED: usize = 2 << 30;

/// A merge operator. Its number is part of every stored format, so a variant is never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum MergeOp {
    /// Operands are concatenated as bytes; how a list's elements are framed is decided above.
    ListAppend = 1,
}

impl MergeOp {
    /// The number in stored formats.
    pub(crate) fn id(self) -> u8 {
        self as u8
    }

    /// The operator that stored formats number `id`; None if this build does not know it.
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::ListAppend),
            _ => None,
        }
    }

    /// The value that `base` becomes when `operands`, oldest first, are folded into it.
    pub(crate) fn fold<'a>(
        self,
        base: Option<&'a [u8]>,
        operands: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let mut value = base.map(<[u8]>::to_vec).unwrap_or_default();
        for operand in operands {
            self.fold_into(&mut value, operand);
        }
        value
    }

    /// Folds one more operand into `value`, a value or operands folded before.
    pub(crate) fn fold_into(self, value: &mut Vec<u8>, operand: &[u8]) {
        match self {
            Self::ListAppend => value.extend_from_slice(operand),
        }
    }
}

/// What one layer (active delta, frozen delta) knows about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup<'a> {
    /// Nothing: look below.
    Unknown,
    /// The value; what lies below does not matter.
    Value(&'a [u8]),
    /// Deleted here, by itself or under a tombstone; what lies below does not matter.
    Deleted,
    /// Only operands: look below for the base and fold them in.
    Operand {
        /// How operands are folded.
        op: MergeOp,
        /// All operands of the layer, folded to one.
        operand: &'a [u8],
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_append_concatenates_in_order() {
        let operands = || [b"b".as_slice(), b"", b"cd"];
        assert_eq!(MergeOp::ListAppend.fold(Some(b"a"), operands()), b"abcd");
        assert_eq!(MergeOp::ListAppend.fold(None, operands()), b"bcd");
        assert_eq!(MergeOp::ListAppend.fold(None, []), b"");
    }

    #[test]
    fn ids_are_part_of_the_format() {
        assert_eq!(MergeOp::ListAppend.id(), 1);
        for id in 0..=u8::MAX {
            assert!(MergeOp::from_id(id).is_none_or(|op| op.id() == id));
        }
    }
}
