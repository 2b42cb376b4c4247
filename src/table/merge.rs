//! The merge operator: how RocksDB folds the operands that deltas leave.
//!
//! A stored operand is the [`MergeOp`]'s id (1 byte) ‖ the operand's bytes; a value that was put or
//! folded is the plain value. The name is written into every SST file, and a table that holds
//! operands opens only with an operator of the same name, so a change of the rules needs a new one.
//!
//! Folding also removes expired elements from lists that are always appended to: the elements at
//! the front, by the TTLs that the running program has registered, as the compaction filter does it
//! with whole values. An element hides nothing below it, so leaving it out is right in every fold,
//! of a few operands or of all. A list that loses all its elements becomes empty, and the filter
//! removes it the next time it sees it.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use rocksdb::{MergeOperands, Options};

use super::filter::Expiries;
use super::long_lists::LongLists;
use crate::delta::{MAX_FOLDED, MergeOp};

/// The operator's name, part of the stored format.
pub(crate) const OPERATOR_NAME: &str = "alluvium.merge.v1";

/// What a table's folds look at and tell.
#[derive(Clone)]
pub(super) struct Folds {
    pub(super) expiries: Arc<Expiries>,
    pub(super) long: Arc<LongLists>,
}

/// For files that are written without being folded.
pub(super) fn install(options: &mut Options) {
    options.set_merge_operator(
        OPERATOR_NAME,
        |_, base, operands| fold(base, operands, |part| part),
        |_, _, operands| concat(operands, |part| part),
    );
}

/// For a table.
pub(super) fn install_with(options: &mut Options, folds: Folds) {
    let partial = folds.clone();
    options.set_merge_operator(
        OPERATOR_NAME,
        move |key: &[u8], base: Option<&[u8]>, operands: &MergeOperands| folds.full(key, base, operands),
        move |key: &[u8], _: Option<&[u8]>, operands: &MergeOperands| partial.partial(key, operands),
    );
}

impl Folds {
    /// None makes RocksDB fail the read or the compaction with a Corruption status.
    fn full(&self, key: &[u8], base: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
        let expiry = self.expiries.of(key);
        let live = |part| expiry.map_or(part, |expiry| expiry.live_elements(part));
        let folded = fold(base, operands, live);
        match &folded {
            Some(folded) => self.long.note(key, folded.len()),
            None => {
                let operands =
                    operands.iter().fold(0_u64, |sum, operand| sum.saturating_add(operand.len() as u64));
                let bytes = operands.saturating_add(base.map_or(0, |base| base.len() as u64));
                if bytes > MAX_FOLDED as u64 {
                    self.long.refuse(key, bytes);
                }
            }
        }
        folded
    }

    /// Folds operands among themselves where no base is in sight. None only says that it cannot be
    /// done here; they then stay apart until a full merge.
    fn partial(&self, key: &[u8], operands: &MergeOperands) -> Option<Vec<u8>> {
        let expiry = self.expiries.of(key);
        let folded = concat(operands, |part| expiry.map_or(part, |expiry| expiry.live_elements(part)));
        folded.iter().for_each(|folded| self.long.note(key, folded.len()));
        folded
    }
}

/// None beyond [`MAX_FOLDED`] as well: an error at the read or the compaction, where RocksDB would
/// write a length that is cut to 32 bits and with it damage the keys that follow.
fn fold<'a>(
    base: Option<&'a [u8]>,
    operands: impl IntoIterator<Item = &'a [u8]>,
    live: impl Fn(&'a [u8]) -> &'a [u8],
) -> Option<Vec<u8>> {
    let (op, operands) = decode(operands)?;
    let parts = without_front(base.into_iter().chain(operands), live);
    let mut folded = Vec::with_capacity(total(&parts, MAX_FOLDED)?);
    parts.iter().for_each(|part| op.fold_into(&mut folded, part));
    Some(folded)
}

fn concat<'a>(
    operands: impl IntoIterator<Item = &'a [u8]>,
    live: impl Fn(&'a [u8]) -> &'a [u8],
) -> Option<Vec<u8>> {
    let (op, operands) = decode(operands)?;
    let parts = without_front(operands, live);
    let mut stored = Vec::with_capacity(1 + total(&parts, MAX_FOLDED)?);
    encode_operand(&mut stored, op, &[]);
    parts.iter().for_each(|part| op.fold_into(&mut stored, part));
    Some(stored)
}

/// The parts of a list without what is not `live` at its front.
fn without_front<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    live: impl Fn(&'a [u8]) -> &'a [u8],
) -> Vec<&'a [u8]> {
    let mut front = true;
    let mut kept = Vec::new();
    for part in parts {
        let part = if front { live(part) } else { part };
        front &= part.is_empty();
        kept.push(part);
    }
    kept
}

/// Bytes of all parts, unless they exceed `limit`.
fn total(parts: &[&[u8]], limit: usize) -> Option<usize> {
    let sum = parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.len()));
    sum.filter(|sum| *sum <= limit)
}

/// Overwrites `buffer` with the stored form of an operand.
pub(super) fn encode_operand(buffer: &mut Vec<u8>, op: MergeOp, operand: &[u8]) {
    buffer.clear();
    buffer.push(op.id());
    buffer.extend_from_slice(operand);
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

    /// Nothing has expired.
    fn all(part: &[u8]) -> &[u8] {
        part
    }

    #[test]
    fn folds_operands_of_one_operator() {
        let fold = |base, operands: &[&'static [u8]]| super::fold(base, operands.iter().copied(), all);
        assert_eq!(fold(Some(b"a"), &[b"\x01b", b"\x01", b"\x01cd"]), Some(b"abcd".to_vec()));
        assert_eq!(fold(None, &[b"\x01b"]), Some(b"b".to_vec()));
        assert_eq!(concat([b"\x01b".as_slice(), b"\x01c"], all), Some(b"\x01bc".to_vec()));
    }

    #[test]
    fn malformed_operands_fail_and_do_not_panic() {
        for operands in [vec![], vec![b"".as_slice()], vec![b"\x00b"], vec![b"\x01b", b"\xffc"]] {
            assert_eq!(fold(Some(b"a"), operands.iter().copied(), all), None, "{operands:?}");
            assert_eq!(concat(operands.iter().copied(), all), None, "{operands:?}");
        }
    }

    #[test]
    fn what_folds_to_too_much_is_refused() {
        let parts = [[0; 3].as_slice(), &[0; 4], &[0; 3]];
        assert_eq!((total(&parts, 10), total(&parts, 9)), (Some(10), None));
    }

    /// Elements are single bytes here, and capitals have expired.
    fn lower(part: &[u8]) -> &[u8] {
        let live = part.iter().position(u8::is_ascii_lowercase).unwrap_or(part.len());
        &part[live..]
    }

    #[test]
    fn what_has_expired_is_left_out_up_to_the_first_that_lives() {
        for (base, operands, left) in [
            (Some("AbC"), ["D", "e"], "bCDe"),
            (Some("ABC"), ["De", "F"], "eF"),
            (Some("ABC"), ["D", "E"], ""),
            (None, ["Ab", "C"], "bC"),
            (None, ["A", ""], ""),
        ] {
            let operands = operands.map(|operand| [&[1], operand.as_bytes()].concat());
            let operands = || operands.iter().map(Vec::as_slice);
            assert_eq!(fold(base.map(str::as_bytes), operands(), lower).unwrap(), left.as_bytes());
            if base.is_none() {
                assert_eq!(concat(operands(), lower).unwrap(), [&[1], left.as_bytes()].concat());
            }
        }
    }

    proptest! {
        /// However compaction groups the operands, the folded value is the same.
        #[test]
        fn partial_merges_change_nothing(
            base in proptest::option::of(any::<Vec<u8>>()),
            operands in proptest::collection::vec(any::<Vec<u8>>(), 1..8),
            split in any::<proptest::sample::Index>(),
        ) {
            let operands: Vec<Vec<u8>> = operands.iter().map(|o| [&[1], &o[..]].concat()).collect();
            let stored = || operands.iter().map(Vec::as_slice);
            let cut = split.index(operands.len());
            let left = concat(stored().take(cut), all);
            let right = concat(stored().skip(cut), all);
            let grouped: Vec<&[u8]> = left.iter().chain(&right).map(Vec::as_slice).collect();
            prop_assert_eq!(fold(base.as_deref(), grouped, all), fold(base.as_deref(), stored(), all));
        }

        #[test]
        fn random_operands_never_panic(operands in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let _ = fold(None, operands.iter().map(Vec::as_slice), all);
            let _ = concat(operands.iter().map(Vec::as_slice), all);
        }
    }
}
