//! Which deltas are fetched and replayed together, and in what order: a pure function of the plans.
//!
//! A changelog may be many times larger than memory, so it passes through in batches: while one is
//! replayed, the next is fetched. Within a source deltas keep their order. Between sources there is
//! none, so what lies in one object goes into one batch wherever the order allows it (I8), and those
//! that have the most to do go first, so that all subtasks are busy until the end.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::plan::{MAX_GAP, SubtaskPlan, part_of};
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

/// A delta, and where it lies.
pub(super) type Part = (ObjectName, Range<u64>, DeltaId);

/// Deltas of one source that follow each other in one object.
struct Run {
    /// A number for the object's name.
    object: usize,
    parts: Vec<Part>,
    bytes: u64,
}

/// What is left to do of one source, oldest first.
struct Lane {
    runs: VecDeque<Run>,
    bytes: u64,
}

/// All deltas of `plans`, each once, in batches that take at most `limit` bytes to read; more only
/// where a single delta does.
///
/// # Errors
/// [`Corrupt`](crate::error::ErrorKind::Corrupt) if a reference is to no possible place.
pub(super) fn batches(plans: &[SubtaskPlan], limit: u64) -> Result<Vec<Vec<Part>>> {
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
            unit.push(run.parts);
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
                let part = (wanted.object.clone(), range, DeltaId { plan, source, delta });
                lane.bytes = lane.bytes.saturating_add(wanted.length);
                match lane.runs.back_mut() {
                    Some(run) if run.object == object => {
                        run.parts.push(part);
                        run.bytes = run.bytes.saturating_add(wanted.length);
                    }
                    _ => lane.runs.push_back(Run { object, parts: vec![part], bytes: wanted.length }),
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

    /// A lane, the object that is next in it, and whether that can be read at once. An order in which
    /// every object can be need not exist; then one is read more than once.
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
    batches: Vec<Vec<Part>>,
}

impl Batches {
    /// Adds runs of one object, one of each lane: to the last batch, or to a new one, or to several if
    /// they exceed the limit by themselves.
    fn add(&mut self, unit: Vec<Vec<Part>>) {
        let ascending = unit.iter().all(|run| run.is_sorted_by_key(|(_, range, _)| range.start));
        let mut unit: Vec<_> = unit.into_iter().flatten().collect();
        if ascending {
            // In the order of the object, so that the parts of a batch lie side by side.
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
        for part in unit {
            let mut bytes = cost(end, &part.1);
            if self.bytes > 0 && bytes > self.limit.saturating_sub(self.bytes) {
                self.begin();
                bytes = cost(None, &part.1);
            }
            end = end.max(Some(part.1.end));
            self.bytes = self.bytes.saturating_add(bytes);
            self.batches.last_mut().into_iter().for_each(|batch| batch.push(part.clone()));
        }
    }

    fn begin(&mut self) {
        if self.batches.last().is_none_or(|last| !last.is_empty()) {
            self.batches.push(Vec::new());
        }
        self.bytes = 0;
    }
}
