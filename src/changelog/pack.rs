//! When to pack deltas that lie in many small objects into one, so that a restore reads few (I8). A
//! pure decision.
//!
//! Two kinds of carriers: manifests with inlined deltas, which are packed once more than
//! [`MAX_CARRIERS`] of them are live, and small objects, which are packed once [`FANOUT`] of them are
//! of one size class. Classes grow by the same factor, so a byte is rewritten at most once a class and
//! the number of objects grows with the logarithm of the changelog.

use std::collections::BTreeMap;

use crate::manifest::DeltaRef;
use crate::remote::ObjectName;

/// Manifests that may carry live deltas.
const MAX_CARRIERS: usize = 16;
/// Objects of one size class that may exist side by side.
const FANOUT: usize = 8;
/// Objects of this size are worth a request of their own.
const LARGE: u64 = 2 << 20;
/// Upper end of the smallest size class.
const SMALLEST: u64 = 256 << 10;

/// The objects whose live deltas should be packed now, if any. `deltas` are all that the newest
/// checkpoint of the process refers to.
pub(crate) fn due<'a>(deltas: impl Iterator<Item = &'a DeltaRef>) -> Option<Vec<ObjectName>> {
    let mut live = BTreeMap::<&ObjectName, u64>::new();
    for delta in deltas {
        *live.entry(&delta.object).or_default() += delta.length;
    }
    let (manifests, objects): (Vec<_>, Vec<_>) = live.into_iter().partition(|(name, _)| name.is_manifest());
    if manifests.len() > MAX_CARRIERS {
        return Some(manifests.into_iter().map(|(name, _)| name.clone()).collect());
    }
    let mut classes = BTreeMap::<u32, Vec<&ObjectName>>::new();
    for (name, bytes) in objects {
        if bytes < LARGE {
            classes.entry(class_of(bytes)).or_default().push(name);
        }
    }
    let (_, full) = classes.into_iter().find(|(_, names)| names.len() >= FANOUT)?;
    Some(full.into_iter().cloned().collect())
}

fn class_of(bytes: u64) -> u32 {
    (bytes / SMALLEST).checked_ilog(FANOUT as u64).map_or(0, |class| class + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeltaSeq, Epoch, Nonce, SubtaskIndex, Version};
    use crate::remote::DataKind;

    fn delta(object: ObjectName, length: u64) -> DeltaRef {
        DeltaRef { object, offset: 0, length, crc32c: 0, first: DeltaSeq(1), last: DeltaSeq(1), entries: 1 }
    }

    fn manifest(version: u64) -> DeltaRef {
        delta(ObjectName::manifest(Version(version)), 1000)
    }

    fn object(n: u64, length: u64) -> DeltaRef {
        delta(ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce::default(), DataKind::Delta, n), length)
    }

    #[test]
    fn manifests_are_packed_when_more_than_sixteen_carry() {
        let mut deltas: Vec<_> = (1..=16).map(manifest).collect();
        // Two deltas in one manifest are one carrier.
        deltas.push(manifest(16));
        assert_eq!(due(deltas.iter()), None);
        deltas.push(manifest(17));
        assert_eq!(due(deltas.iter()).unwrap().len(), 17);
    }

    #[test]
    fn small_objects_are_packed_by_size_class_and_large_ones_never() {
        let mut deltas: Vec<_> = (0..7).map(|n| object(n, 100_000)).collect();
        deltas.extend((100..120).map(|n| object(n, LARGE)));
        deltas.extend((200..207).map(|n| object(n, 1 << 20)));
        assert_eq!(due(deltas.iter()), None);
        deltas.push(object(7, 200_000));
        assert_eq!(due(deltas.iter()).unwrap().len(), 8);
    }

    #[test]
    fn i8_objects_stay_few_however_long_the_changelog() {
        let mut deltas = Vec::new();
        for n in 0..5000 {
            deltas.push(object(n, 130_000));
            while let Some(names) = due(deltas.iter()) {
                let (packed, rest): (Vec<_>, Vec<_>) =
                    deltas.into_iter().partition(|delta| names.contains(&delta.object));
                deltas = rest;
                deltas.push(object(1_000_000 + n * 10, packed.iter().map(|delta| delta.length).sum()));
            }
            let small = deltas.iter().filter(|delta| delta.length < LARGE).count();
            assert!(small <= 7 * 3, "{small} small objects after {n} deltas");
        }
    }
}
