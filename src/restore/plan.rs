//! What a restore has to fetch: a pure function of the checkpoint's record and the wanted ranges.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{BaseRef, CheckpointRecord, DeltaRef, Origin, SubtaskRecord};
use crate::remote::ObjectName;

/// What one subtask restores from, and what its own changelog goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtaskPlan {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    /// The parts that the state is made of. Together they are the range, ascending. One part if
    /// nothing was rescaled, none if there is no state.
    pub(crate) sources: Vec<Origin>,
    /// What the subtask's next checkpoints record about the origin of its state until it has a new
    /// base: either origins or a base of its own, and its own deltas since.
    pub(crate) origins: Vec<Origin>,
    pub(crate) base: Option<BaseRef>,
    pub(crate) deltas: Vec<DeltaRef>,
    /// Where its own changelog goes on.
    pub(crate) seq: DeltaSeq,
    /// The user's, as of the cut; None if no subtask of this number had the same key groups.
    pub(crate) metadata: Option<Vec<u8>>,
}

impl SubtaskPlan {
    /// The source whose files the table is opened from: the one with the most bytes to copy, so
    /// that these are spared. The data of other sources is brought into it, by copying where
    /// necessary.
    pub(crate) fn host(&self) -> Option<usize> {
        let estimate = |source: &Origin| -> Option<u128> {
            let (base, first) = (source.base.as_ref()?, source.segments.first()?);
            Some(
                u128::from(base.state_bytes) * u128::from(source.owned.count())
                    / u128::from(first.range.count()),
            )
        };
        let sized =
            self.sources.iter().enumerate().filter_map(|(index, source)| Some((estimate(source)?, index)));
        sized.max().map(|(_, index)| index)
    }
}

/// Plans the restore of the `wanted` subtasks, which may be only some of the job's, at whatever
/// ranges.
///
/// # Errors
/// [`Incompatible`](ErrorKind::Incompatible) if the checkpoint does not have all of a range;
/// [`Corrupt`](ErrorKind::Corrupt) if the record has a gap in a changelog.
pub(crate) fn plan(
    checkpoint: &CheckpointRecord,
    wanted: &[(SubtaskIndex, KeyGroupRange)],
) -> Result<Vec<SubtaskPlan>> {
    let named = |error: Error| error.object(format!("checkpoint {}", checkpoint.id));
    for record in &checkpoint.subtasks {
        record.check_contiguous().map_err(|error| {
            named(error.object(format!("subtask {} of checkpoint {}", record.subtask, checkpoint.id)))
        })?;
    }
    wanted.iter().map(|(subtask, range)| plan_one(checkpoint, *subtask, *range).map_err(named)).collect()
}

fn plan_one(
    checkpoint: &CheckpointRecord,
    subtask: SubtaskIndex,
    range: KeyGroupRange,
) -> Result<SubtaskPlan> {
    let overlapping = checkpoint.subtasks.iter().filter(|record| record.range.intersection(range).is_some());
    let mut sources: Vec<_> =
        overlapping.flat_map(SubtaskRecord::as_origins).filter_map(|origin| origin.clipped(range)).collect();
    sources.sort_by_key(|source| source.owned.first);
    // Parts that a rescale had split and that no subtask has changed since are joined again.
    sources.dedup_by(|next, source| source.join(next));
    if !range.is_tiled_by(sources.iter().map(|source| source.owned)) {
        return Err(not_all(checkpoint, subtask, range));
    }
    let same = checkpoint.subtasks.iter().find(|record| record.subtask == subtask && record.range == range);
    let metadata = same.map(|record| record.metadata.clone());
    let seq = sources.iter().map(Origin::seq).max().unwrap_or_default();
    if sources.iter().all(Origin::is_empty) {
        sources.clear();
    }
    // A changelog that is the subtask's own goes on; anything else is an origin of a new one.
    let (origins, base, deltas) = match (same, sources.as_slice()) {
        (Some(record), _) => (record.origins.clone(), record.base.clone(), record.deltas.clone()),
        (None, [source]) if is_own(source, subtask, range) => {
            let deltas = source.deltas().map(|(_, delta)| delta.clone());
            (Vec::new(), source.base.clone(), deltas.collect())
        }
        (None, sources) => (sources.to_vec(), None, Vec::new()),
    };
    Ok(SubtaskPlan { subtask, range, sources, origins, base, deltas, seq, metadata })
}

/// Whether all of it was written by the subtask itself.
fn is_own(source: &Origin, subtask: SubtaskIndex, range: KeyGroupRange) -> bool {
    matches!(&source.segments[..], [only] if only.subtask == subtask && only.range == range)
        && source.owned == range
}

fn not_all(checkpoint: &CheckpointRecord, subtask: SubtaskIndex, range: KeyGroupRange) -> Error {
    let held: Vec<_> = checkpoint.subtasks.iter().map(|record| record.range.to_string()).collect();
    let message = format!(
        "subtask {subtask} wants key groups {range}, but the checkpoint has only [{}]",
        held.join(", ")
    );
    Error::new(ErrorKind::Incompatible, message).advise("restore a checkpoint of the whole job")
}

/// A gap between two wanted parts of an object that is read along rather than requested apart:
/// about what a connection moves in one round trip.
pub(super) const MAX_GAP: u64 = 1 << 20;

/// The part of an object that a reference is to.
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
            origins: Vec::new(),
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
            states: Default::default(),
        }
    }

    /// The whole of a record, as a source.
    fn source(record: &SubtaskRecord, owned: KeyGroupRange) -> Origin {
        Origin { owned, ..record.as_origins().remove(0) }
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
        assert_eq!(plans[0].sources, []);
        assert_eq!(plans[1].seq, DeltaSeq(9));
        assert_eq!(plans[1].metadata.as_deref(), Some(&[0][..]));
        let SubtaskPlan { sources, origins, base: own, deltas, .. } = &plans[1];
        assert_eq!((origins.len(), own), (0, &Some(base(4))));
        assert_eq!(deltas[..], [delta(5, 5), delta(6, 9)]);
        assert_eq!(sources[..], [source(&checkpoint.subtasks[0], range(0, 63))]);
    }

    #[test]
    fn a_range_across_two_subtasks_takes_over_a_part_of_each() {
        let checkpoint = checkpoint(vec![
            record(0, range(0, 63), Some(base(4)), &[(5, 5)], 5),
            record(1, range(64, 127), None, &[(1, 7)], 7),
        ]);
        let plans = plan(&checkpoint, &[(SubtaskIndex(1), range(43, 85))]).unwrap();
        let [plan] = &plans[..] else { panic!("{plans:?}") };
        let parts =
            [source(&checkpoint.subtasks[0], range(43, 63)), source(&checkpoint.subtasks[1], range(64, 85))];
        assert_eq!(plan.sources[..], parts);
        assert_eq!(plan.origins, plan.sources);
        assert_eq!((&plan.base, plan.deltas.len()), (&None, 0));
        // Counts on from the greater, so that the table's marker only grows.
        assert_eq!((plan.seq, &plan.metadata), (DeltaSeq(7), &None));
        assert_eq!(plan.host(), Some(0), "the only one with files");
    }

    #[test]
    fn the_table_is_opened_from_the_source_with_the_most_to_copy() {
        let sized = |bytes| Some(BaseRef { state_bytes: bytes, ..base(1) });
        let checkpoint = checkpoint(vec![
            record(0, range(0, 9), sized(1000), &[], 1),
            record(1, range(10, 19), sized(1200), &[], 1),
            record(2, range(20, 29), sized(u64::MAX), &[], 1),
        ]);
        let host =
            |first, last| plan(&checkpoint, &[(SubtaskIndex(9), range(first, last))]).unwrap()[0].host();
        assert_eq!(host(0, 19), Some(1));
        assert_eq!(host(0, 14), Some(0));
        assert_eq!(host(5, 20), Some(2));
    }

    #[test]
    fn what_was_split_and_left_alone_comes_together_again() {
        let all = record(0, range(0, 127), Some(base(4)), &[(5, 6)], 6);
        let halves = [(SubtaskIndex(0), range(0, 63)), (SubtaskIndex(1), range(64, 127))];
        let split = plan(&checkpoint(vec![all.clone()]), &halves).unwrap();
        let mut parts: Vec<_> = split.iter().map(committed).collect();
        let whole = [(SubtaskIndex(0), range(0, 127))];
        let [joined] = &plan(&checkpoint(parts.clone()), &whole).unwrap()[..] else { panic!("one") };
        assert_eq!(joined.sources, all.as_origins());
        assert_eq!((joined.origins.len(), &joined.base, &joined.deltas), (0, &all.base, &all.deltas));
        // One delta since, and they are two.
        parts[1].deltas.push(delta(7, 7));
        parts[1].seq = DeltaSeq(7);
        let [joined] = &plan(&checkpoint(parts), &whole).unwrap()[..] else { panic!("one") };
        assert_eq!(joined.sources.len(), 2);
        assert_eq!(joined.origins, joined.sources);
        assert_eq!(joined.sources[1].segments.len(), 2);
        assert_eq!(joined.seq, DeltaSeq(7));
    }

    /// What a subtask with this plan commits before it has written anything.
    fn committed(plan: &SubtaskPlan) -> SubtaskRecord {
        SubtaskRecord {
            subtask: plan.subtask,
            range: plan.range,
            origins: plan.origins.clone(),
            base: plan.base.clone(),
            deltas: plan.deltas.clone(),
            seq: plan.seq,
            metadata: Vec::new(),
            instance: Nonce::default(),
        }
    }

    #[test]
    fn key_groups_that_the_checkpoint_lacks_are_refused() {
        let checkpoint =
            checkpoint(vec![record(0, range(0, 63), None, &[], 0), record(1, range(70, 127), None, &[], 0)]);
        for range in [range(0, 127), range(60, 66), range(64, 69), range(100, 130)] {
            let error = plan(&checkpoint, &[(SubtaskIndex(0), range)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            assert!(error.to_string().contains("has only [0..=63, 70..=127] (checkpoint 1-2)"), "{error}");
        }
    }

    #[test]
    fn i1_a_gap_in_the_changelog_is_corrupt() {
        let all = range(0, 127);
        let origin = |deltas: &[(u64, u64)], seq| record(7, all, Some(base(3)), deltas, seq).as_origins();
        let rescaled = |origins, deltas, seq| SubtaskRecord { origins, ..record(0, all, None, deltas, seq) };
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
            rescaled(origin(&[(5, 5)], 5), &[], 5),
            rescaled(origin(&[(4, 5)], 6), &[], 6),
            rescaled(origin(&[(4, 5)], 5), &[(7, 7)], 7),
            rescaled(origin(&[(4, 5)], 5), &[(5, 6)], 6),
            rescaled(origin(&[(4, 5)], 5), &[], 6),
        ] {
            let error = plan(&checkpoint(vec![wrong]), &[(SubtaskIndex(0), all)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("checkpoint 1-2"), "{error}");
        }
    }

    /// A job over many attempts, as plans and records see it. Every delta and every base has a number of
    /// its own, in the place of its bytes.
    struct History {
        groups: u16,
        record: CheckpointRecord,
        /// The deltas that each key group has met, in order.
        met: Vec<Vec<u64>>,
        /// What each base holds, by its number: its subtask's range, and the same for each group.
        bases: BTreeMap<u64, (KeyGroupRange, Vec<Vec<u64>>)>,
        next: u64,
    }

    impl History {
        fn new(groups: u16) -> Self {
            let record = checkpoint(vec![record(0, range(0, groups - 1), None, &[], 0)]);
            let met = vec![Vec::new(); usize::from(groups)];
            Self { groups, record, met, bases: BTreeMap::new(), next: 0 }
        }

        fn number(&mut self) -> u64 {
            self.next += 1;
            self.next
        }

        /// Some subtasks write a delta.
        fn write(&mut self, which: u32) {
            for at in (0..self.record.subtasks.len()).filter(|at| which & (1 << at) != 0) {
                let number = self.number();
                let record = &mut self.record.subtasks[at];
                record.seq = record.seq.next();
                record.deltas.push(DeltaRef { offset: number, ..delta(record.seq.0, record.seq.0) });
                for group in record.range.groups() {
                    self.met[usize::from(group.0)].push(number);
                }
            }
        }

        /// Some subtasks take a base.
        fn materialize(&mut self, which: u32) {
            for at in (0..self.record.subtasks.len()).filter(|at| which & (1 << at) != 0) {
                let number = self.number();
                let record = &mut self.record.subtasks[at];
                if record.seq > DeltaSeq(0) {
                    self.bases.insert(number, (record.range, self.met.clone()));
                    record.base = Some(BaseRef { offset: number, ..base(record.seq.0) });
                    record.origins.clear();
                    record.deltas.clear();
                }
            }
        }

        fn restore(&mut self, parallelism: u32) {
            let max = crate::key_group::MaxParallelism::new(self.groups).unwrap();
            let wanted: Vec<_> = (0..parallelism.min(self.groups.into()))
                .map(|index| {
                    (
                        SubtaskIndex(index),
                        max.range_of(SubtaskIndex(index), parallelism.min(self.groups.into())).unwrap(),
                    )
                })
                .collect();
            let plans = plan(&self.record, &wanted).unwrap();
            for plan in &plans {
                self.check(plan);
            }
            self.record.subtasks = plans.iter().map(committed).collect();
        }

        /// Carries a plan out: each key group ends with the deltas that it has met, in order, each once.
        fn check(&self, plan: &SubtaskPlan) {
            if plan.sources.is_empty() {
                assert!(plan.range.groups().all(|group| self.met[usize::from(group.0)].is_empty()));
                return;
            }
            for source in &plan.sources {
                for group in source.owned.groups() {
                    let mut found = Vec::new();
                    if let Some(base) = &source.base {
                        let (range, held) = &self.bases[&base.offset];
                        assert_eq!(source.segments[0].range, *range, "the base is the first segment's");
                        found.extend(&held[usize::from(group.0)]);
                    }
                    found.extend(source.deltas().map(|(segment, delta)| {
                        assert!(segment.range.contains(group));
                        delta.offset
                    }));
                    assert_eq!(found, self.met[usize::from(group.0)], "group {group} of {plan:?}");
                }
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Write(u32),
        Materialize(u32),
        Restore(u32),
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
        /// I9: whatever the history, every key group is restored from exactly what it has met.
        #[test]
        fn i9_any_history_of_rescales_is_planned_exactly(
            groups in 1..12_u16,
            steps in prop::collection::vec(
                prop_oneof![
                    any::<u32>().prop_map(Step::Write),
                    any::<u32>().prop_map(Step::Materialize),
                    (1..9_u32).prop_map(Step::Restore),
                    (1..9_u32).prop_map(Step::Restore),
                ],
                1..30,
            ),
        ) {
            let mut history = History::new(groups);
            for step in steps {
                match step {
                    Step::Write(which) => history.write(which),
                    Step::Materialize(which) => history.materialize(which),
                    Step::Restore(parallelism) => history.restore(parallelism),
                }
                // What it comes to may be written into a manifest.
                let max = crate::key_group::MaxParallelism::new(groups).unwrap();
                for record in &history.record.subtasks {
                    record.validate(max).unwrap();
                }
            }
        }

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
