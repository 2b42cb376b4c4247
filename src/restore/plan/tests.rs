//! Plans of single checkpoints, and of any history of rescales.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::{CheckpointId, Epoch, Nonce, Version};
use crate::key_group::KeyGroup;
use crate::manifest::CheckpointMode;
use crate::manifest::samples::operator;
use crate::remote::ObjectName;

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
        elements: [].into(),
        instance: Nonce([subtask as u8; 16]),
    }
}

fn checkpoint(subtasks: Vec<SubtaskRecord>) -> CheckpointRecord {
    CheckpointRecord {
        id: CheckpointId { epoch: Epoch(1), number: 2 },
        mode: CheckpointMode::Changelog,
        unix_millis: 0,
        metadata: Vec::new(),
        operators: Vec::new(),
        subtasks,
        states: Default::default(),
    }
}

/// Plans of a job's one operator.
fn plan(checkpoint: &CheckpointRecord, wanted: &[(SubtaskIndex, KeyGroupRange)]) -> Result<Vec<SubtaskPlan>> {
    let max_parallelism = crate::key_group::MaxParallelism::default();
    let wanted: Vec<_> = wanted.iter().map(|(subtask, range)| target(*subtask, *range, Some(0))).collect();
    super::plan(checkpoint, &checkpoint.parts(max_parallelism), &wanted)
}

fn target(subtask: SubtaskIndex, range: KeyGroupRange, from: Option<usize>) -> Target {
    let max_parallelism = crate::key_group::MaxParallelism::default();
    let (operator, number, parallelism, dir) = (0, subtask.0, 1, Default::default());
    Target { subtask, operator, number, parallelism, from, max_parallelism, range, dir }
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
    let host = |first, last| plan(&checkpoint, &[(SubtaskIndex(9), range(first, last))]).unwrap()[0].host();
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
        elements: [].into(),
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

#[test]
fn i9_operators_do_not_see_each_others_state() {
    let mut checkpoint = checkpoint(vec![
        record(0, range(0, 63), Some(base(4)), &[(5, 5)], 5),
        record(1, range(64, 127), None, &[(1, 2)], 2),
        record(2, range(0, 127), Some(base(7)), &[(8, 8)], 8),
    ]);
    checkpoint.operators = vec![operator("first", 128, 2), operator("second", 128, 1)];
    let parts = checkpoint.parts(crate::key_group::MaxParallelism::default());
    // The first operator has one subtask more now, so the second's has another number.
    let moved = Target { number: 0, ..target(SubtaskIndex(3), range(0, 127), Some(1)) };
    let wanted =
        [moved, target(SubtaskIndex(0), range(0, 127), Some(0)), target(SubtaskIndex(4), range(0, 9), None)];
    let plans = super::plan(&checkpoint, &parts, &wanted).unwrap();
    assert_eq!(plans[0].sources, checkpoint.subtasks[2].as_origins());
    // It is an origin: its deltas carry the old number.
    assert_eq!((&plans[0].origins, &plans[0].base, plans[0].deltas.len()), (&plans[0].sources, &None, 0));
    assert_eq!(plans[0].metadata.as_deref(), Some(&[2][..]), "it is the same subtask of its operator");
    assert_eq!(plans[1].sources.len(), 2);
    assert!(plans[1].sources.iter().all(|source| source.segments[0].subtask.0 < 2));
    assert_eq!((plans[2].sources.len(), plans[2].seq, &plans[2].metadata), (0, DeltaSeq(0), &None));
    // At its old number its changelog goes on.
    let same = Target { number: 0, ..target(SubtaskIndex(2), range(0, 127), Some(1)) };
    let plans = super::plan(&checkpoint, &parts, &[same]).unwrap();
    assert_eq!((plans[0].origins.len(), &plans[0].base, plans[0].deltas.len()), (0, &Some(base(7)), 1));
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
}
