//! Many deltas as one: the algebra over sorted runs, for restore's replay and for packs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::decoded::DecodedDelta;
use super::entry::{Entry, MAX_FOLDED, MergeOp};
use super::range_set::RangeSet;
use crate::error::{Error, ErrorKind, Result};

/// The result of [`merge_all`]: one entry per key, left in the delta where it was, and the union of
/// the tombstones.
pub(crate) struct MergedDeltas {
    /// The deltas, oldest first, and at the end one with the entries that had to be folded.
    sources: Vec<DecodedDelta>,
    /// Source and number of each entry, in the order of keys.
    order: Vec<(u32, u32)>,
    tombstones: RangeSet,
}

impl MergedDeltas {
    /// The ranges deleted. They lie below the entries.
    pub(crate) fn tombstones(&self) -> &RangeSet {
        &self.tombstones
    }

    /// Number of entries, tombstones not counted.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The entries in ascending order of their keys.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Entry<'_>)> {
        self.order.iter().map(|(source, index)| {
            let entry = self.sources.get(*source as usize).and_then(|source| source.get(*index as usize));
            entry.expect("the merge lists entries that are there")
        })
    }
}

/// Merges deltas, given oldest first, into one with the same effect. Copies nothing but folded
/// operands.
///
/// # Errors
/// `Incompatible` if the operands of one key exceed [`MAX_FOLDED`].
pub(crate) fn merge_all(deltas: Vec<DecodedDelta>) -> Result<MergedDeltas> {
    merge_limited(deltas, MAX_FOLDED)
}

fn merge_limited(deltas: Vec<DecodedDelta>, max_folded: usize) -> Result<MergedDeltas> {
    let mut tombstones = RangeSet::new();
    deltas.iter().for_each(|delta| tombstones.extend(delta.tombstones()));
    let mut order = Vec::with_capacity(deltas.iter().map(DecodedDelta::len).max().unwrap_or_default());
    let mut folded = DecodedDelta::default();
    let folded_source = deltas.len() as u32;
    let layers = Tombstones::of(&deltas);
    let mut runs = Runs::new(&deltas);
    let mut versions = Vec::new();
    while let Some(key) = runs.next_key(&mut versions) {
        match resolve(key, &versions, &layers) {
            Resolved::Gone => {}
            Resolved::As(version) => order.push((version.source, version.index)),
            Resolved::Folded { put, op, operands } => {
                if operands.iter().map(|operand| operand.len()).sum::<usize>() > max_folded {
                    let message = format!("what was appended to one key exceeds {max_folded} bytes");
                    return Err(Error::new(ErrorKind::Incompatible, message)
                        .object(format!("key {}", key.escape_ascii()))
                        .advise("restore an older checkpoint, and clear lists before they grow that long"));
                }
                let value = op.fold(None, operands);
                // Folded entries are a delta of their own, at the end, so that all entries are
                // found alike.
                order.push((folded_source, folded.len() as u32));
                folded.push(key, if put { Entry::Put(&value) } else { Entry::Merge { op, operand: &value } });
            }
        }
    }
    let mut sources = deltas;
    sources.push(folded);
    Ok(MergedDeltas { sources, order, tombstones })
}

/// One delta's entry for a key.
#[derive(Clone, Copy)]
struct Version<'a> {
    source: u32,
    index: u32,
    entry: Entry<'a>,
}

enum Resolved<'a> {
    /// Only tombstones are left.
    Gone,
    /// One of the versions, as it is.
    As(Version<'a>),
    /// These folded, in order.
    Folded { put: bool, op: MergeOp, operands: Vec<&'a [u8]> },
}

/// The tombstones of those deltas that have any. These are mostly a few of thousands, so a key need
/// not ask all deltas.
struct Tombstones<'a> {
    /// Number of all deltas.
    deltas: usize,
    /// Ascending by the delta's number.
    ranges: Vec<(usize, &'a RangeSet)>,
}

impl<'a> Tombstones<'a> {
    fn of(deltas: &'a [DecodedDelta]) -> Self {
        let ranges = deltas.iter().map(DecodedDelta::tombstones).enumerate();
        Self { deltas: deltas.len(), ranges: ranges.filter(|(_, set)| !set.is_empty()).collect() }
    }

    /// Whether a delta from `from` up to but without `to` has a tombstone over the key.
    fn cover(&self, key: &[u8], from: usize, to: usize) -> bool {
        let start = self.ranges.partition_point(|(delta, _)| *delta < from);
        let later = self.ranges.iter().skip(start).take_while(|(delta, _)| *delta < to);
        later.into_iter().any(|(_, set)| set.contains(key))
    }
}

/// Decides what remains of a key's `versions`, given newest first.
fn resolve<'a>(key: &[u8], versions: &[Version<'a>], tombstones: &Tombstones<'_>) -> Resolved<'a> {
    let covered = |from: usize, to: usize| tombstones.cover(key, from, to);
    let mut operands: Vec<&[u8]> = Vec::new();
    let mut operator = None;
    // The newest version may already be under the tombstone of a later delta, which wins over it.
    let mut above = tombstones.deltas;
    let mut newest_operand = None;
    let mut has_base = false;
    for version in versions {
        let source = version.source as usize;
        if covered(source + 1, above) {
            has_base = true;
            break;
        }
        match version.entry {
            // The newest version wins. Nothing needs to be folded or copied.
            Entry::Put(_) | Entry::Delete if operator.is_none() => return Resolved::As(*version),
            Entry::Put(value) => {
                operands.push(value);
                has_base = true;
            }
            Entry::Delete => has_base = true,
            Entry::Merge { op, operand } => {
                operands.push(operand);
                operator.get_or_insert(op);
                newest_operand.get_or_insert(*version);
            }
        }
        if has_base {
            break;
        }
        // Later deltas are known to have no tombstone over the key. This one has none either, or
        // the operand would be a put; but bytes from outside may break that rule.
        above = source + 1;
    }
    let (Some(op), Some(newest)) = (operator, newest_operand) else { return Resolved::Gone };
    let put = has_base || covered(0, above);
    // A single operand without a base stays as it is; the table has the base.
    if operands.len() == 1 && !put {
        return Resolved::As(newest);
    }
    operands.reverse();
    Resolved::Folded { put, op, operands }
}

/// The entries of all deltas in the order of their keys, those of equal keys newest first.
struct Runs<'a> {
    deltas: &'a [DecodedDelta],
    heap: BinaryHeap<Reverse<Head<'a>>>,
}

/// A delta's next entry. The derived order is by key, then newest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    key: &'a [u8],
    source: Reverse<u32>,
    index: u32,
}

impl<'a> Runs<'a> {
    fn new(deltas: &'a [DecodedDelta]) -> Self {
        let first = |(source, delta): (u32, &'a DecodedDelta)| {
            delta.get(0).map(|(key, _)| Reverse(Head { key, source: Reverse(source), index: 0 }))
        };
        Self { deltas, heap: (0..).zip(deltas).filter_map(first).collect() }
    }

    /// The next key, with its versions newest first.
    fn next_key(&mut self, versions: &mut Vec<Version<'a>>) -> Option<&'a [u8]> {
        versions.clear();
        let key = self.heap.peek()?.0.key;
        while let Some(mut top) = self.heap.peek_mut().filter(|top| top.0.key == key) {
            let Head { source: Reverse(source), index, .. } = top.0;
            let delta = &self.deltas[source as usize];
            if let Some((_, entry)) = delta.get(index as usize) {
                versions.push(Version { source, index, entry });
            }
            match delta.get(index as usize + 1) {
                Some((key, _)) => top.0 = Head { key, source: Reverse(source), index: index + 1 },
                None => {
                    PeekMut::pop(top);
                }
            }
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(operand: &[u8]) -> DecodedDelta {
        let mut delta = DecodedDelta::default();
        delta.push(b"list", Entry::Merge { op: MergeOp::ListAppend, operand });
        delta
    }

    #[test]
    fn a_list_that_grew_too_long_is_an_error_that_names_the_key() {
        let deltas = || vec![append(&[1; 60]), append(&[2; 40])];
        assert_eq!(merge_limited(deltas(), 100).unwrap().len(), 1);
        let error = merge_limited(deltas(), 99).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("key list"), "{error}");
    }

    #[test]
    fn only_tombstones_of_the_asked_deltas_cover() {
        let deltas: Vec<_> = (0..6_u8)
            .map(|delta| {
                let mut ranges = RangeSet::new();
                if delta % 2 == 1 {
                    ranges.insert(&[delta], &[delta + 1]);
                }
                DecodedDelta::new(ranges)
            })
            .collect();
        let tombstones = Tombstones::of(&deltas);
        assert_eq!(tombstones.ranges.len(), 3);
        for (from, to) in (0..=6).flat_map(|from| (from..=6).map(move |to| (from, to))) {
            for delta in 0..6_u8 {
                let inside = delta % 2 == 1 && (from..to).contains(&usize::from(delta));
                assert_eq!(tombstones.cover(&[delta], from, to), inside, "{delta} in {from}..{to}");
            }
        }
    }
}
