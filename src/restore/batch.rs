//! Which deltas are fetched and replayed together, and in what order: a pure function of the plans.
//!
//! A changelog may be many times larger than memory, so it passes through memory in batches: while
//! one batch is replayed, the next is fetched. Deltas of one source keep their order. Between
//! sources there is no order. What lies in one object therefore goes into one batch where the
//! sources' orders allow it (I8), and the source with the most left goes first, so that all
//! subtasks are busy until the end.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::plan::SubtaskPlan;
use super::reads::{MAX_GAP, part_of};
use crate::error::Result;
use crate::remote::ObjectName;

/// Which delta of which source of which plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeltaId {
    pub(super) plan: usize,
    pub(super) source: usize,
    /// Counted from the source's oldest.
    pub(super) delta: usize,
}

/// Where a delta lies, and which one it is.
pub(super) type DeltaLocation = (ObjectName, Range<u64>, DeltaId);

/// Deltas of one source that follow each other in one object.
struct AdjacentDeltas {
    /// A number for the object's name.
    object: usize,
    deltas: Vec<DeltaLocation>,
    bytes: u64,
}

/// What is left to do of one source, oldest first.
struct Lane {
    runs: VecDeque<AdjacentDeltas>,
    bytes: u64,
}

/// All deltas of `plans`, each once, in batches of at most `limit` bytes to read. A batch exceeds
/// the limit only if a single delta or run does.
///
/// # Errors
/// [`Corrupt`](crate::error::ErrorKind::Corrupt) if a reference is to no possible place.
pub(super) fn batches(plans: &[SubtaskPlan], limit: u64) -> Result<Vec<Vec<DeltaLocation>>> {
    let mut lanes = lanes(plans)?;
    let mut batches = Batches { limit, bytes: 0, batches: Vec::new() };
    let mut objects = Objects::of(&lanes);
    while let Some((chosen, object, ready)) = objects.choose(&lanes) {
        let mut unit = Vec::new();
        for (index, lane) in lanes.iter_mut().enumerate() {
            let takes = if ready { lane.object() == Some(object) } else { index == chosen };
            let Some(run) = takes.then(|| lane.runs.pop_front()).flatten() else {
                continue;
            };
            objects.taken(object, lane.object());
            lane.bytes = lane.bytes.saturating_sub(run.bytes);
            unit.push(run.deltas);
        }
        batches.add(unit);
    }
    Ok(batches.batches)
}

fn lanes(plans: &[SubtaskPlan]) -> Result<Vec<Lane>> {
    let mut numbers = HashMap::new();
    let mut lanes = Vec::new();
    for (plan, wanted) in plans.iter().enumerate() {
        for (source, wanted) in wanted.sources.iter().enumerate() {
            let mut lane = Lane { runs: VecDeque::new(), bytes: 0 };
            for (delta, (_, wanted)) in wanted.deltas().enumerate() {
                let range = part_of(&wanted.object, wanted.offset, wanted.length)?;
                let next = numbers.len();
                let object = *numbers.entry(wanted.object.clone()).or_insert(next);
                let location = (wanted.object.clone(), range, DeltaId { plan, source, delta });
                lane.bytes = lane.bytes.saturating_add(wanted.length);
                match lane.runs.back_mut() {
                    Some(run) if run.object == object => {
                        run.deltas.push(location);
                        run.bytes = run.bytes.saturating_add(wanted.length);
                    }
                    _ => lane.runs.push_back(AdjacentDeltas {
                        object,
                        deltas: vec![location],
                        bytes: wanted.length,
                    }),
                }
            }
            lanes.push(lane);
        }
    }
    Ok(lanes)
}

impl Lane {
    /// The object that the next deltas lie in.
    fn object(&self) -> Option<usize> {
        self.runs.front().map(|run| run.object)
    }
}

/// For each object, by its number, how many runs in it are left, and how many of them are next in
/// their lanes: it can be read at once if all are.
struct Objects(Vec<(usize, usize)>);

impl Objects {
    fn of(lanes: &[Lane]) -> Self {
        let mut objects = Self(Vec::new());
        let runs = || lanes.iter().flat_map(|lane| &lane.runs);
        objects.0.resize(runs().map(|run| run.object + 1).max().unwrap_or_default(), (0, 0));
        runs().for_each(|run| objects.change(run.object, |(left, _)| *left += 1));
        lanes.iter().filter_map(Lane::object).for_each(|head| objects.change(head, |(_, next)| *next += 1));
        objects
    }

    fn change(&mut self, object: usize, change: impl FnOnce(&mut (usize, usize))) {
        if let Some(counts) = self.0.get_mut(object) {
            change(counts);
        }
    }

    /// A lane, the object that is next in it, and whether the object can be read at once. There may
    /// be no order in which every object can be; then an object is read more than once.
    fn choose(&self, lanes: &[Lane]) -> Option<(usize, usize, bool)> {
        let ready = |object: usize| self.0.get(object).is_some_and(|(left, next)| left == next);
        let heads = lanes.iter().enumerate().filter_map(|(index, lane)| {
            let object = lane.object()?;
            Some((ready(object), lane.bytes, std::cmp::Reverse(index), object))
        });
        heads.max().map(|(ready, _, std::cmp::Reverse(index), object)| (index, object, ready))
    }

    /// A run in `object` was taken out of a lane in which `next` is next now.
    fn taken(&mut self, object: usize, next: Option<usize>) {
        self.change(object, |(left, next)| (*left, *next) = (left.saturating_sub(1), next.saturating_sub(1)));
        if let Some(next) = next {
            self.change(next, |(_, next)| *next += 1);
        }
    }
}

struct Batches {
    limit: u64,
    /// What the last batch takes to read.
    bytes: u64,
    batches: Vec<Vec<DeltaLocation>>,
}

impl Batches {
    /// Adds runs of one object, one of each lane: to the last batch, or to a new one, or to several if
    /// they exceed the limit by themselves.
    fn add(&mut self, unit: Vec<Vec<DeltaLocation>>) {
        let ascending = unit.iter().all(|run| run.is_sorted_by_key(|(_, range, _)| range.start));
        let mut unit: Vec<_> = unit.into_iter().flatten().collect();
        if ascending {
            // In the order of the object, so that the deltas of a batch lie side by side.
            unit.sort_by_key(|(_, range, id)| (range.start, *id));
        }
        let cost = |end: Option<u64>, range: &Range<u64>| match end {
            // A small gap is read along.
            Some(end) if ascending && range.start <= end.saturating_add(MAX_GAP) => {
                range.end.saturating_sub(end)
            }
            _ => range.end.saturating_sub(range.start),
        };
        let (mut whole, mut end) = (0_u64, None);
        for (_, range, _) in &unit {
            whole = whole.saturating_add(cost(end, range));
            end = end.max(Some(range.end));
        }
        let fits = whole <= self.limit.saturating_sub(self.bytes);
        if self.batches.is_empty() || (!fits && whole <= self.limit) {
            self.begin();
        }
        let mut end = None;
        for delta in unit {
            let mut bytes = cost(end, &delta.1);
            if self.bytes > 0 && bytes > self.limit.saturating_sub(self.bytes) {
                self.begin();
                bytes = cost(None, &delta.1);
            }
            end = end.max(Some(delta.1.end));
            self.bytes = self.bytes.saturating_add(bytes);
            self.batches.last_mut().into_iter().for_each(|batch| batch.push(delta.clone()));
        }
    }

    fn begin(&mut self) {
        if self.batches.last().is_none_or(|last| !last.is_empty()) {
            self.batches.push(Vec::new());
        }
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::layout::Target;
    use super::super::plan::empty;
    use super::super::reads::coalesce;
    use super::*;
    use crate::ids::{DeltaSeq, SubtaskIndex, Version};
    use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
    use crate::manifest::{DeltaRef, Origin, Segment};

    /// A plan whose sources have deltas at these places: version of the manifest, offset, length.
    fn plan(sources: &[Vec<(u64, u64, u64)>]) -> SubtaskPlan {
        let range = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(9) };
        let subtask = SubtaskIndex(0);
        let source = |places: &Vec<(u64, u64, u64)>| {
            let deltas = (1..).zip(places).map(|(seq, (version, offset, length))| DeltaRef {
                object: ObjectName::manifest(Version(*version)),
                offset: *offset,
                length: *length,
                crc32c: 0,
                first: DeltaSeq(seq),
                last: DeltaSeq(seq),
                entries: 1,
            });
            let (deltas, seq) = (deltas.collect(), DeltaSeq(places.len() as u64));
            let segment = Segment { subtask, range, after: DeltaSeq(0), deltas, seq };
            Origin { owned: range, base: None, segments: vec![segment] }
        };
        let target = Target {
            subtask,
            operator: 0,
            number: 0,
            parallelism: 1,
            from: Some(0),
            max_parallelism: MaxParallelism::default(),
            range,
            dir: PathBuf::new(),
        };
        SubtaskPlan { sources: sources.iter().map(source).collect(), ..empty(&target) }
    }

    fn bytes(batch: &[DeltaLocation]) -> u64 {
        coalesce(batch.to_vec()).iter().map(|read| read.range.end - read.range.start).sum()
    }

    /// Four subtasks that have a delta in each of eight manifests, and large ones of their own between.
    fn job() -> Vec<SubtaskPlan> {
        let deltas = |subtask: u64| {
            let of =
                move |number: u64| [(number, 100 * subtask, 100), (1000 + 10 * subtask + number, 0, 500)];
            vec![(1..=8).flat_map(of).collect()]
        };
        (0..4).map(|subtask| plan(&deltas(subtask))).collect()
    }

    #[test]
    fn i8_what_lies_in_one_object_is_read_at_once() {
        let plans = job();
        let requests = |limit| {
            let batches = batches(&plans, limit).unwrap();
            assert!(batches.iter().all(|batch| bytes(batch) <= limit));
            (batches.len(), batches.into_iter().map(|batch| coalesce(batch).len()).sum::<usize>())
        };
        assert_eq!(requests(u64::MAX), (1, 8 + 32));
        assert_eq!(requests(2400), (8, 8 + 32));
        // In the time of one batch all subtasks have something to do.
        for batch in batches(&plans, 2400).unwrap() {
            assert!((0..4).all(|plan| batch.iter().any(|(_, _, id)| id.plan == plan)));
        }
        let (count, asked) = requests(600);
        // Each border between two batches can cut one object.
        assert!(asked <= 8 + 32 + count, "{asked} requests in {count} batches");
    }

    #[test]
    fn what_cannot_be_is_corrupt() {
        for (offset, length) in [(0, 0), (u64::MAX, 1)] {
            let error = batches(&[plan(&[vec![(1, offset, length)]])], 100).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt);
        }
        assert!(batches(&[plan(&[]), plan(&[Vec::new()])], 100).unwrap().is_empty());
    }

    proptest! {
        /// I1, I6: whatever lies where, each delta comes once and in turn, and no batch is too large.
        #[test]
        fn every_delta_comes_once_and_in_turn(
            plans in prop::collection::vec(
                prop::collection::vec(
                    prop::collection::vec((0..6_u64, 0..3_000_000_u64, 1..400_000_u64), 0..12),
                    0..3,
                ),
                0..4,
            ),
            limit in 1..4_000_000_u64,
        ) {
            let sources = plans;
            let plans: Vec<_> = sources.iter().map(|sources| plan(sources)).collect();
            let batches = batches(&plans, limit).unwrap();
            let mut next = BTreeMap::new();
            for batch in &batches {
                prop_assert!(!batch.is_empty());
                let mut sorted = batch.clone();
                sorted.sort_by_key(|(_, _, id)| *id);
                for (_, range, id) in sorted {
                    let (_, offset, length) = sources[id.plan][id.source][id.delta];
                    prop_assert_eq!(range, offset..offset + length);
                    let next = next.entry((id.plan, id.source)).or_insert(0);
                    prop_assert_eq!(*next, id.delta);
                    *next += 1;
                }
                // Gaps not counted: a batch may have two stretches of an object where deltas do not ascend.
                let mut places: Vec<_> = batch.iter().map(|(object, range, _)| (object, range.clone())).collect();
                places.sort_by_key(|(object, range)| (*object, range.start));
                let mut wanted = 0;
                for object in places.chunk_by(|(a, _), (b, _)| a == b) {
                    object.iter().fold(0, |end, (_, range)| {
                        wanted += range.end.saturating_sub(range.start.max(end));
                        range.end.max(end)
                    });
                }
                let largest = batch.iter().map(|(_, range, _)| range.end - range.start).max();
                prop_assert!(wanted <= limit.max(largest.unwrap()), "{} of {}", wanted, limit);
            }
            let all: usize = sources.iter().flatten().map(Vec::len).sum();
            prop_assert_eq!(next.values().sum::<usize>(), all);
        }
    }
}
