//! When to pack deltas that lie in many small objects into one, so that a restore reads few (I8). A
//! pure decision.
//!
//! Two kinds of carriers: manifests with inlined deltas, which are packed once more than
//! [`MAX_CARRIERS`] of them are live, and small objects, which are packed once [`FANOUT`] of them are
//! of one size class. Classes grow by the same factor, so a byte is rewritten at most once a class and
//! the number of objects grows with the logarithm of the changelog.
//!
//! Where many subtasks write small objects, a single checkpoint adds one of each: waiting for some
//! [`PER_SUBTASK`] keeps packing from going on at every checkpoint. The number of objects is then bounded
//! by a multiple of the subtasks, which a restore reads from anyway.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::manifest::DeltaRef;
use crate::remote::ObjectName;

/// Manifests that may carry live deltas.
const MAX_CARRIERS: usize = 16;
/// Objects of one size class that may exist side by side,
const FANOUT: usize = 8;
/// or, if that is more, this many for each subtask that has written one.
const PER_SUBTASK: usize = 4;
/// Objects of this size are worth a request of their own.
const LARGE: u64 = 2 << 20;
/// Upper end of the smallest size class.
const SMALLEST: u64 = 256 << 10;
/// What is packed into one object, and so is in memory at a time.
const MAX_PACK: u64 = 16 << 20;

/// Deltas that one reference may stand for: what a restore reads and decodes at least at a time.
const MAX_RUN: u64 = LARGE;

/// What an object holds of the live deltas.
struct Live<'a> {
    name: &'a ObjectName,
    bytes: u64,
    oldest: DeltaSeq,
}

/// The objects whose live deltas should be packed now: those of each list into one, the oldest first.
/// `deltas` are all that the newest checkpoint of the process refers to.
pub(crate) fn due<'a>(deltas: impl Iterator<Item = &'a DeltaRef>) -> Vec<Vec<ObjectName>> {
    let mut live = BTreeMap::<&ObjectName, Live<'_>>::new();
    for delta in deltas {
        let name = &delta.object;
        let carrier = live.entry(name).or_insert(Live { name, bytes: 0, oldest: delta.first });
        carrier.bytes = carrier.bytes.saturating_add(delta.length);
        carrier.oldest = carrier.oldest.min(delta.first);
    }
    let (manifests, objects): (Vec<_>, Vec<_>) =
        live.into_values().partition(|carrier| carrier.name.is_manifest());
    if manifests.len() > MAX_CARRIERS {
        // By their versions. Even one alone is worth it: its manifest may go.
        return packs(manifests, 1);
    }
    let mut classes = BTreeMap::<u32, Vec<Live<'_>>>::new();
    for object in objects {
        if object.bytes < LARGE {
            classes.entry(class_of(object.bytes)).or_default().push(object);
        }
    }
    let full = classes.into_values().find(|objects| {
        let writers: BTreeSet<_> = objects.iter().filter_map(|object| subtask_of(object.name)).collect();
        objects.len() >= FANOUT.max(writers.len() * PER_SUBTASK)
    });
    let mut full = full.unwrap_or_default();
    full.sort_by_key(|object| object.oldest);
    packs(full, 2)
}

/// The runs that one subtask's `deltas`, in the order of `pack`, make up in it: several that follow each
/// other without a gap.
pub(crate) fn runs(deltas: &[DeltaRef], pack: &[u8]) -> Vec<DeltaRef> {
    let mut bytes = 0;
    let together = |a: &DeltaRef, b: &DeltaRef| {
        // From the first on, or anew after one that did not fit.
        bytes = if bytes == 0 { a.length } else { bytes }.saturating_add(b.length);
        let adjacent = a.offset.checked_add(a.length) == Some(b.offset) && a.last.next() == b.first;
        let together = adjacent && bytes <= MAX_RUN;
        bytes = if together { bytes } else { 0 };
        together
    };
    let run = |deltas: &[DeltaRef]| {
        let ([first, .., last], length) = (deltas, deltas.iter().map(|delta| delta.length).sum::<u64>())
        else {
            return None;
        };
        let start = usize::try_from(first.offset).ok()?;
        let bytes = pack.get(start..start.checked_add(usize::try_from(length).ok()?)?)?;
        let entries = deltas.iter().map(|delta| delta.entries).sum();
        Some(DeltaRef { length, crc32c: crc32c::crc32c(bytes), last: last.last, entries, ..first.clone() })
    };
    deltas.chunk_by(together).filter_map(run).collect()
}

/// Cuts `carriers` into packs; one of fewer than `least` is left as it is.
fn packs(carriers: Vec<Live<'_>>, least: usize) -> Vec<Vec<ObjectName>> {
    let mut packs = vec![Vec::new()];
    let mut left = MAX_PACK;
    for Live { name, bytes, .. } in carriers {
        if bytes > left {
            packs.push(Vec::new());
            left = MAX_PACK;
        }
        left = left.saturating_sub(bytes);
        if let Some(pack) = packs.last_mut() {
            pack.push(name.clone());
        }
    }
    packs.retain(|pack| pack.len() >= least);
    packs
}

fn subtask_of(name: &ObjectName) -> Option<SubtaskIndex> {
    match name {
        ObjectName::Data { subtask, .. } => Some(*subtask),
        _ => None,
    }
}

fn class_of(bytes: u64) -> u32 {
    (bytes / SMALLEST).checked_ilog(FANOUT as u64).map_or(0, |class| class + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Nonce, Version};
    use crate::remote::DataKind;

    fn delta(object: ObjectName, length: u64) -> DeltaRef {
        DeltaRef { object, offset: 0, length, crc32c: 0, first: DeltaSeq(1), last: DeltaSeq(1), entries: 1 }
    }

    fn manifest(version: u64) -> DeltaRef {
        delta(ObjectName::manifest(Version(version)), 1000)
    }

    fn object(n: u64, length: u64) -> DeltaRef {
        object_of(0, n, length)
    }

    fn object_of(subtask: u32, n: u64, length: u64) -> DeltaRef {
        let subtask = SubtaskIndex(subtask);
        let object = ObjectName::data(Epoch(1), subtask, Nonce::default(), DataKind::Delta, n);
        DeltaRef { first: DeltaSeq(n), last: DeltaSeq(n), ..delta(object, length) }
    }

    fn sizes(packs: &[Vec<ObjectName>]) -> Vec<usize> {
        packs.iter().map(Vec::len).collect()
    }

    /// Packs whatever is due; returns how many packs were written.
    fn pack_all(deltas: &mut Vec<DeltaRef>, next: &mut u64) -> usize {
        let mut written = 0;
        loop {
            let due = due(deltas.iter());
            if due.is_empty() {
                return written;
            }
            for names in due {
                let (packed, rest): (Vec<_>, Vec<_>) =
                    deltas.drain(..).partition(|delta| names.contains(&delta.object));
                *deltas = rest;
                *next += 1;
                let bytes = packed.iter().map(|delta| delta.length).sum();
                assert!(bytes <= MAX_PACK, "{bytes} bytes in memory at a time");
                deltas.push(object(*next, bytes));
                written += 1;
            }
        }
    }

    #[test]
    fn manifests_are_packed_when_more_than_sixteen_carry() {
        let mut deltas: Vec<_> = (1..=16).map(manifest).collect();
        // Two deltas in one manifest are one carrier.
        deltas.push(manifest(16));
        assert_eq!(due(deltas.iter()), Vec::<Vec<_>>::new());
        deltas.push(manifest(17));
        assert_eq!(sizes(&due(deltas.iter())), [17]);
    }

    #[test]
    fn small_objects_are_packed_by_size_class_and_large_ones_never() {
        let mut deltas: Vec<_> = (0..7).map(|n| object(n, 100_000)).collect();
        deltas.extend((100..120).map(|n| object(n, LARGE)));
        deltas.extend((200..207).map(|n| object(n, 1 << 20)));
        assert_eq!(due(deltas.iter()), Vec::<Vec<_>>::new());
        deltas.push(object(7, 200_000));
        assert_eq!(sizes(&due(deltas.iter())), [8]);
    }

    #[test]
    fn what_one_pack_holds_is_bounded_and_the_oldest_come_first() {
        let carried = |version| DeltaRef { length: 6 << 20, ..manifest(version) };
        let deltas: Vec<_> = (1..=17).map(carried).collect();
        let packs = due(deltas.iter());
        assert_eq!(sizes(&packs), [2, 2, 2, 2, 2, 2, 2, 2, 1], "12 MiB each");
        assert_eq!(packs[0], [1, 2].map(|version| ObjectName::manifest(Version(version))));

        let mut deltas: Vec<_> = (0..9).map(|n| object(n, LARGE - 1)).collect();
        deltas.reverse();
        let packs = due(deltas.iter());
        assert_eq!(sizes(&packs), [8], "a pack of one alone would gain nothing");
        assert!(!packs[0].contains(&deltas[0].object));
    }

    #[test]
    fn a_run_is_what_follows_without_a_gap_up_to_a_size() {
        let pack: Vec<u8> = (0..5 << 20).map(|n: u32| (n * 7 / 3) as u8).collect();
        let mut deltas: Vec<DeltaRef> = Vec::new();
        let mut add = |last: u64, gap: u64, length: u64| {
            let first = deltas.last().map_or(1, |delta: &DeltaRef| delta.last.0 + 1);
            let offset = deltas.last().map_or(10, |delta| delta.offset + delta.length) + gap;
            let seq = (DeltaSeq(first), DeltaSeq(last));
            deltas.push(DeltaRef { first: seq.0, last: seq.1, offset, ..object(9, length) });
        };
        add(1, 0, 10);
        // Was packed before.
        add(7, 0, 30);
        add(8, 0, 20);
        add(9, 1, 20);
        // What would make a run too large begins the next one.
        add(10, 0, MAX_RUN - 30);
        add(11, 0, 40);
        add(12, 0, MAX_RUN);
        deltas[6].first = DeltaSeq(13);
        deltas[6].last = DeltaSeq(13);
        let found = runs(&deltas, &pack);
        let run = |first, last, offset: u64, length: u64, entries| DeltaRef {
            first: DeltaSeq(first),
            last: DeltaSeq(last),
            offset,
            crc32c: crc32c::crc32c(&pack[offset as usize..(offset + length) as usize]),
            entries,
            ..object(9, length)
        };
        assert_eq!(found, [run(1, 8, 10, 60, 3), run(9, 10, 71, MAX_RUN - 10, 2)]);
        assert_eq!(runs(&deltas[..1], &pack), []);
        assert_eq!(runs(&[], &pack), []);
        assert_eq!(runs(&deltas, &pack[..50]), [], "not of what is not there");
    }

    #[test]
    fn i8_objects_stay_few_however_long_the_changelog() {
        let (mut deltas, mut next) = (Vec::new(), 1_000_000);
        for n in 0..5000 {
            deltas.push(object(n, 130_000));
            pack_all(&mut deltas, &mut next);
            let small = deltas.iter().filter(|delta| delta.length < LARGE).count();
            assert!(small <= 7 * 3, "{small} small objects after {n} deltas");
        }
    }

    #[test]
    fn i8_many_subtasks_do_not_pack_at_every_checkpoint() {
        for subtasks in [2, 8, 64, 200] {
            let (mut deltas, mut next, mut runs) = (Vec::new(), 1_000_000, 0);
            for n in 0..400 {
                deltas.extend((0..subtasks).map(|subtask| object_of(subtask, n, 130_000)));
                runs += usize::from(pack_all(&mut deltas, &mut next) > 0);
                let small = deltas.iter().filter(|delta| delta.length < LARGE).count();
                let most = 8.max(subtasks as usize * PER_SUBTASK) + 2 * 7;
                assert!(small < most, "{small} small objects of {subtasks} subtasks after {n} checkpoints");
            }
            assert!(runs <= 400 / PER_SUBTASK, "{runs} runs for 400 checkpoints of {subtasks} subtasks");
        }
    }
}
