//! The merge operator: how RocksDB folds the operands that deltas leave.
//!
//! A stored operand is the [`MergeOp`]'s id (1 byte) ‖ the operand's bytes; a value that was put or
//! folded is the plain value. The name is written into every SST file, and a table that holds
//! operands opens only with an operator of the same name, so a change of the rules needs a new one.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use rocksdb::{MergeOperands, Options};

use crate::delta::{MAX_FOLDED, MergeOp};

/// The operator's name, part of the stored format.
pub(crate) const OPERATOR_NAME: &str = "alluvium.merge.v1";

pub(super) fn install(options: &mut Options) {
    options.set_merge_operator(OPERATOR_NAME, full_merge, partial_merge);
}

/// Overwrites `buffer` with the stored form of an operand.
pub(super) fn encode_operand(buffer: &mut Vec<u8>, op: MergeOp, operand: &[u8]) {
    buffer.clear();
    buffer.push(op.id());
    buffer.extend_from_slice(operand);
}

/// None makes RocksDB fail the read or the compaction with a Corruption status.
fn full_merge(_key: &[u8], base: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    fold(base, operands)
}

/// Folds operands among themselves where no base is in sight. None only says that it cannot be done
/// here; they then stay apart until a full merge.
fn partial_merge(_key: &[u8], _base: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    concat(operands)
}

/// None beyond [`MAX_FOLDED`] as well: an error at the read or the compaction, where RocksDB would write a
/// length that is cut to 32 bits and with it damage the keys that follow.
fn fold<'a>(base: Option<&'a [u8]>, operands: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (op, operands) = decode(operands)?;
    fits(base.map_or(0, <[u8]>::len), &operands, MAX_FOLDED).then(|| op.fold(base, operands))
}

fn fits(base: usize, operands: &[&[u8]], limit: usize) -> bool {
    operands
        .iter()
        .try_fold(base, |sum, operand| sum.checked_add(operand.len()))
        .is_some_and(|sum| sum <= limit)
}

fn concat<'a>(operands: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (op, operands) = decode(operands)?;
    if !fits(0, &operands, MAX_FOLDED) {
        return None;
    }
    let folded = op.fold(None, operands);
    let mut stored = Vec::with_capacity(1 + folded.len());
    encode_operand(&mut stored, op, &folded);
    Some(stored)
}

/// The operator that all operands name, and their bytes. None if one is malformed or they differ.
fn decode<'a>(operands: impl IntoIterator<Item = &'a [u8]>) -> Option<(MergeOp, Vec<&'a [u8]>)> {
    let mut op = None;
    let mut bytes = Vec::new();
    for operand in operands {
        let (id, operand) = operand.split_first()?;
        let this = MergeOp::from_id(*id)?;
        if *op.get_or_insert(this) != this {
            return None;
        }
        bytes.push(operand);
    }
    op.map(|op| (op, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folds_operands_of_one_operator() {
        assert_eq!(fold(Some(b"a"), [b"\x01b".as_slice(), b"\x01", b"\x01cd"]), Some(b"abcd".to_vec()));
        assert_eq!(fold(None, [b"\x01b".as_slice()]), Some(b"b".to_vec()));
        assert_eq!(concat([b"\x01b".as_slice(), b"\x01c"]), Some(b"\x01bc".to_vec()));
    }

    #[test]
    fn malformed_operands_fail_and_do_not_panic() {
        for operands in [vec![], vec![b"".as_slice()], vec![b"\x00b"], vec![b"\x01b", b"\xffc"]] {
            assert_eq!(fold(Some(b"a"), operands.iter().copied()), None, "{operands:?}");
            assert_eq!(concat(operands.iter().copied()), None, "{operands:?}");
        }
    }

    #[test]
    fn what_folds_to_too_much_is_refused() {
        let operands = [[0; 3].as_slice(), &[0; 4]];
        assert!(fits(3, &operands, 10));
        assert!(!fits(4, &operands, 10));
        assert!(!fits(usize::MAX, &operands, usize::MAX));
    }

    proptest! {
        /// However compaction groups the operands, the folded value is the same.
        #[test]
        fn partial_merges_change_nothing(
            base in proptest::option::of(any::<Vec<u8>>()),
            operands in proptest::collection::vec(any::<Vec<u8>>(), 1..8),
            split in any::<proptest::sample::Index>(),
        ) {
            let stored: Vec<Vec<u8>> = operands.iter().map(|o| [&[1], &o[..]].concat()).collect();
            let all = || stored.iter().map(Vec::as_slice);
            let cut = split.index(stored.len());
            let left = concat(all().take(cut));
            let right = concat(all().skip(cut));
            let grouped: Vec<&[u8]> = left.iter().chain(&right).map(Vec::as_slice).collect();
            prop_assert_eq!(fold(base.as_deref(), grouped), fold(base.as_deref(), all()));
        }

        #[test]
        fn random_operands_never_panic(operands in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let _ = fold(None, operands.iter().map(Vec::as_slice));
            let _ = concat(operands.iter().map(Vec::as_slice));
        }
    }
}
