//! Which parts of objects are read by one request: a pure function of the references.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::remote::ObjectName;

/// The largest gap between two wanted parts of an object that is read along. A gap of this size takes
/// about as long as one more round trip.
pub(super) const MAX_GAP: u64 = 1 << 20;

/// The bytes of an object that a reference names.
pub(super) fn part_of(object: &ObjectName, offset: u64, length: u64) -> Result<Range<u64>> {
    let end = offset.checked_add(length).filter(|_| length > 0);
    end.map(|end| offset..end)
        .ok_or_else(|| Error::corrupt(format!("a reference to {length} bytes at {offset}")).object(object))
}

/// One request: a range of an object, and the parts of it that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read<T> {
    pub(crate) object: ObjectName,
    pub(crate) range: Range<u64>,
    /// Each with what it stands for, ascending by offset.
    pub(crate) parts: Vec<(Range<u64>, T)>,
}

/// Groups parts of objects into as few reads as are sensible: deltas of many subtasks and
/// checkpoints lie side by side in one manifest or pack (I8).
pub(crate) fn coalesce<T>(parts: impl IntoIterator<Item = (ObjectName, Range<u64>, T)>) -> Vec<Read<T>> {
    let mut objects = BTreeMap::<ObjectName, Vec<(Range<u64>, T)>>::new();
    for (object, range, tag) in parts {
        objects.entry(object).or_default().push((range, tag));
    }
    let mut reads = Vec::<Read<T>>::new();
    for (object, mut parts) in objects {
        parts.sort_by_key(|(range, _)| (range.start, range.end));
        for (range, tag) in parts {
            match reads.last_mut() {
                Some(read)
                    if read.object == object && range.start <= read.range.end.saturating_add(MAX_GAP) =>
                {
                    read.range.end = read.range.end.max(range.end);
                    read.parts.push((range, tag));
                }
                _ => reads.push(Read {
                    object: object.clone(),
                    range: range.clone(),
                    parts: vec![(range, tag)],
                }),
            }
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Version;

    #[test]
    fn i8_neighbours_share_a_request_and_distant_parts_do_not() {
        let (a, b) = (ObjectName::manifest(Version(1)), ObjectName::manifest(Version(2)));
        let reads = coalesce([
            (b.clone(), 0..5, 'x'),
            (a.clone(), 40..50, 'c'),
            (a.clone(), 32..40, 'b'),
            (a.clone(), 50 + MAX_GAP..60 + MAX_GAP, 'd'),
            (a.clone(), 61 + 2 * MAX_GAP..62 + 2 * MAX_GAP, 'e'),
        ]);
        let seen: Vec<_> = reads
            .iter()
            .map(|read| {
                (
                    read.object == a,
                    read.range.clone(),
                    read.parts.iter().map(|(_, tag)| *tag).collect::<String>(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (true, 32..60 + MAX_GAP, "bcd".to_owned()),
                (true, 61 + 2 * MAX_GAP..62 + 2 * MAX_GAP, "e".to_owned()),
                (false, 0..5, "x".to_owned()),
            ]
        );
    }

    proptest! {
        #[test]
        fn every_part_is_read_exactly_once(
            parts in prop::collection::vec((0..3_u64, 0..10_000_000_u64, 0..2_000_000_u64), 0..30),
        ) {
            let wanted: Vec<_> = parts
                .iter()
                .enumerate()
                .map(|(tag, (object, start, len))| (ObjectName::manifest(Version(*object)), *start..start + len, tag))
                .collect();
            let reads = coalesce(wanted.clone());
            let mut seen: Vec<_> = reads
                .iter()
                .flat_map(|read| {
                    read.parts.iter().map(|(range, tag)| {
                        assert!(read.range.start <= range.start && range.end <= read.range.end);
                        (read.object.clone(), range.clone(), *tag)
                    })
                })
                .collect();
            seen.sort_by_key(|(_, _, tag)| *tag);
            prop_assert_eq!(seen, wanted);
            for pair in reads.windows(2) {
                let apart = pair[1].range.start > pair[0].range.end + MAX_GAP;
                prop_assert!(pair[0].object != pair[1].object || apart);
            }
        }
    }
}
