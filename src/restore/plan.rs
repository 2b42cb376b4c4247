//! What a restore has to fetch: a pure function of the checkpoint's record and the wanted ranges.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{BaseRef, CheckpointRecord, DeltaRef, SubtaskRecord};
use crate::remote::ObjectName;

/// What one subtask restores from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtaskPlan {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    /// The old subtasks whose state goes in. Exactly one, with the same range, until rescaling
    /// joins several.
    pub(crate) sources: Vec<Source>,
    /// Where the subtask's own changelog goes on.
    pub(crate) seq: DeltaSeq,
    /// The user's, as of the cut.
    pub(crate) metadata: Vec<u8>,
}

/// The state of one old subtask: its base, if it had one, and everything after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    pub(crate) base: Option<BaseRef>,
    pub(crate) deltas: Vec<DeltaRef>,
    pub(crate) seq: DeltaSeq,
}

/// Plans the restore of the `wanted` subtasks, which may be only some of the job's.
///
/// # Errors
/// [`Incompatible`](ErrorKind::Incompatible) if a range is not one of the checkpoint's;
/// [`Corrupt`](ErrorKind::Corrupt) if the record has a gap in a changelog.
pub(crate) fn plan(
    checkpoint: &CheckpointRecord,
    wanted: &[(SubtaskIndex, KeyGroupRange)],
) -> Result<Vec<SubtaskPlan>> {
    let plan_one = |(subtask, range): &(SubtaskIndex, KeyGroupRange)| {
        let same = |record: &&SubtaskRecord| record.subtask == *subtask && record.range == *range;
        let record =
            checkpoint.subtasks.iter().find(same).ok_or_else(|| rescaled(checkpoint, *subtask, *range))?;
        check_contiguous(record).map_err(|error| error.object(format!("checkpoint {}", checkpoint.id)))?;
        let source = Source {
            subtask: record.subtask,
            range: record.range,
            base: record.base.clone(),
            deltas: record.deltas.clone(),
            seq: record.seq,
        };
        Ok(SubtaskPlan {
            subtask: *subtask,
            range: *range,
            sources: vec![source],
            seq: record.seq,
            metadata: record.metadata.clone(),
        })
    };
    wanted.iter().map(plan_one).collect()
}

fn rescaled(checkpoint: &CheckpointRecord, subtask: SubtaskIndex, range: KeyGroupRange) -> Error {
    let count = checkpoint.subtasks.len();
    let message = format!(
        "subtask {subtask} wants key groups {range}, which no subtask of the checkpoint held; \
         rescaling is not supported yet"
    );
    Error::new(ErrorKind::Incompatible, message)
        .object(format!("checkpoint {}", checkpoint.id))
        .advice(format!("open the job with {count} subtask{}", if count == 1 { "" } else { "s" }))
}

/// A gap would replay to a state that never was (I1).
fn check_contiguous(record: &SubtaskRecord) -> Result<()> {
    let mut at = record.base.as_ref().map_or(DeltaSeq(0), |base| base.seq);
    for delta in &record.deltas {
        if delta.first.0.checked_sub(1) != Some(at.0) || delta.last < delta.first {
            return Err(Error::corrupt(format!(
                "the changelog of subtask {} goes from delta {at} to {}..={}",
                record.subtask, delta.first, delta.last
            )));
        }
        at = delta.last;
    }
    if at != record.seq {
        return Err(Error::corrupt(format!(
            "the changelog of subtask {} ends at delta {at}, but its cut is at {}",
            record.subtask, record.seq
        )));
    }
    Ok(())
}

/// Bytes between two wanted parts of an object that are rather read along than asked for apart:
/// about what a connection moves in one round trip.
const MAX_GAP: u64 = 1 << 20;

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
    use crate::ids::{CheckpointId, Epoch, Nonce, Version};
    use crate::key_group::KeyGroup;
    use crate::manifest::CheckpointMode;

    fn range(first: u16, last: u16) -> KeyGroupRange {
        KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
    }

    fn delta(first: u64, last: u64) -> DeltaRef {
        DeltaRef {
            object: ObjectName::manifest(Version(first)),
            offset: 32,
            length: 10,
            crc32c: 0,
            first: DeltaSeq(first),
            last: DeltaSeq(last),
            entries: 1,
        }
    }

    fn base(seq: u64) -> BaseRef {
        BaseRef {
            object: ObjectName::manifest(Version(1)),
            offset: 0,
            length: 1,
            crc32c: 0,
            seq: DeltaSeq(seq),
            state_bytes: 0,
            files: Vec::new(),
        }
    }

    fn record(
        subtask: u32,
        range: KeyGroupRange,
        base: Option<BaseRef>,
        deltas: &[(u64, u64)],
        seq: u64,
    ) -> SubtaskRecord {
        SubtaskRecord {
            subtask: SubtaskIndex(subtask),
            range,
            base,
            deltas: deltas.iter().map(|(first, last)| delta(*first, *last)).collect(),
            seq: DeltaSeq(seq),
            metadata: vec![subtask as u8],
            instance: Nonce([subtask as u8; 16]),
        }
    }

    fn checkpoint(subtasks: Vec<SubtaskRecord>) -> CheckpointRecord {
        CheckpointRecord {
            id: CheckpointId { epoch: Epoch(1), number: 2 },
            mode: CheckpointMode::Changelog,
            unix_millis: 0,
            metadata: Vec::new(),
            subtasks,
            states: Vec::new(),
        }
    }

    #[test]
    fn the_same_ranges_take_over_everything() {
        let checkpoint = checkpoint(vec![
            record(0, range(0, 63), Some(base(4)), &[(5, 5), (6, 9)], 9),
            record(1, range(64, 127), None, &[(1, 1)], 1),
            record(2, range(128, 129), None, &[], 0),
        ]);
        let wanted = [(SubtaskIndex(2), range(128, 129)), (SubtaskIndex(0), range(0, 63))];
        let plans = plan(&checkpoint, &wanted).unwrap();
        assert_eq!(plans.len(), 2);
        assert_eq!(plans[0].seq, DeltaSeq(0));
        assert_eq!(plans[0].sources[0].base, None);
        assert_eq!(plans[1].seq, DeltaSeq(9));
        assert_eq!(plans[1].metadata, [0]);
        assert_eq!(
            plans[1].sources,
            [Source {
                subtask: SubtaskIndex(0),
                range: range(0, 63),
                base: Some(base(4)),
                deltas: vec![delta(5, 5), delta(6, 9)],
                seq: DeltaSeq(9),
            }]
        );
    }

    #[test]
    fn other_ranges_are_refused_with_the_way_out() {
        let checkpoint =
            checkpoint(vec![record(0, range(0, 63), None, &[], 0), record(1, range(64, 127), None, &[], 0)]);
        for (subtask, range) in
            [(0, range(0, 127)), (0, range(0, 31)), (1, range(0, 63)), (7, range(64, 127))]
        {
            let error = plan(&checkpoint, &[(SubtaskIndex(subtask), range)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            assert!(error.to_string().contains("rescaling"), "{error}");
            assert!(error.to_string().contains("with 2 subtasks"), "{error}");
        }
    }

    #[test]
    fn i1_a_gap_in_the_changelog_is_corrupt() {
        let all = range(0, 127);
        for wrong in [
            record(0, all, None, &[(2, 2)], 2),
            record(0, all, None, &[(1, 1), (3, 3)], 3),
            record(0, all, None, &[(1, 2), (2, 3)], 3),
            record(0, all, None, &[(1, 0)], 0),
            record(0, all, None, &[(0, 0)], 0),
            record(0, all, None, &[(1, 1)], 2),
            record(0, all, Some(base(3)), &[(3, 4)], 4),
            record(0, all, Some(base(3)), &[], 4),
            record(0, all, Some(base(u64::MAX)), &[(0, 0)], 0),
        ] {
            let error = plan(&checkpoint(vec![wrong]), &[(SubtaskIndex(0), all)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("checkpoint 1-2"), "{error}");
        }
    }

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
