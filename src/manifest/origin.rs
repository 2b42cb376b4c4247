//! Where the state of a rescaled subtask comes from, until its first own base.
//!
//! A checkpoint right after a rescale must not wait for the state to be uploaded again. So its record
//! refers to the *old* subtasks' bases and deltas, and says which key groups of each count. The form is
//! flat however often a job is rescaled before a base is taken: an origin owns some key groups, has
//! one base, and the stretches of changelog after it, each with the identity that the headers of its
//! deltas carry. Entries of other key groups are left out when it is read.

use serde::{Deserialize, Serialize};

use super::references::{BaseRef, DeltaRef};
use crate::error::{Error, Result};
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::remote::ObjectName;

/// Some key groups, and what their state is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The key groups that count. Files and deltas may hold others.
    pub owned: KeyGroupRange,
    /// The base that the first segment follows, taken by the same subtask.
    pub base: Option<BaseRef>,
    /// Oldest first, never empty: one for each subtask that has owned the key groups since the base.
    pub segments: Vec<Segment>,
}

/// A stretch of one old subtask's changelog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub subtask: SubtaskIndex,
    /// What that subtask owned.
    pub range: KeyGroupRange,
    /// The last delta before it; that of the base, or 0, in an origin's first segment.
    pub after: DeltaSeq,
    /// Oldest first, without gaps.
    pub deltas: Vec<DeltaRef>,
    /// The last delta in it; `after` where there is none.
    pub seq: DeltaSeq,
}

impl Segment {
    /// A gap would replay to a state that never was (I1).
    pub(super) fn check_contiguous(&self) -> Result<()> {
        let mut end = self.after;
        for delta in &self.deltas {
            if end.0.checked_add(1) != Some(delta.first.0) || delta.last < delta.first {
                let DeltaRef { first, last, .. } = delta;
                return Err(Error::corrupt(format!("deltas {first}..={last} follow {end}")));
            }
            end = delta.last;
        }
        if end != self.seq {
            return Err(Error::corrupt(format!("changelog ends at {end}, the cut is at {}", self.seq)));
        }
        Ok(())
    }
}

impl Origin {
    /// The last delta in it. Those of a subtask that goes on from several origins count from the
    /// greatest.
    pub(crate) fn seq(&self) -> DeltaSeq {
        self.segments.last().map_or(DeltaSeq(0), |segment| segment.seq)
    }

    /// All deltas, oldest first, each with its segment.
    pub(crate) fn deltas(&self) -> impl Iterator<Item = (&Segment, &DeltaRef)> {
        self.segments.iter().flat_map(|segment| segment.deltas.iter().map(move |delta| (segment, delta)))
    }

    /// Whether it holds no state at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.base.is_none() && self.segments.iter().all(|segment| segment.deltas.is_empty())
    }

    /// The part of it that lies in `range`.
    pub(crate) fn clipped(&self, range: KeyGroupRange) -> Option<Self> {
        let owned = self.owned.intersection(range)?;
        Some(Self { owned, ..self.clone() })
    }

    /// Takes in `next` if it is of the same files and deltas and owns the key groups right after.
    pub(crate) fn join(&mut self, next: &Self) -> bool {
        let adjacent = self.owned.last.0.checked_add(1) == Some(next.owned.first.0);
        let same = adjacent && self.base == next.base && self.segments == next.segments;
        if same {
            self.owned.last = next.owned.last;
        }
        same
    }

    /// Every object that it refers to; some more than once.
    pub(super) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        let base = self.base.iter().flat_map(|base| std::iter::once(&base.object).chain(&base.files));
        base.chain(self.deltas().map(|(_, delta)| &delta.object))
    }

    /// Base and segments make up one changelog.
    pub(super) fn check_contiguous(&self) -> Result<()> {
        let mut end = self.base.as_ref().map_or(DeltaSeq(0), |base| base.seq);
        for (index, segment) in self.segments.iter().enumerate() {
            // A later subtask may have counted on from a greater number of another origin.
            let follows = if index == 0 { segment.after == end } else { segment.after >= end };
            if !follows {
                return Err(Error::corrupt(format!("a changelog after {} follows {end}", segment.after)));
            }
            segment.check_contiguous()?;
            end = segment.seq;
        }
        if self.segments.is_empty() {
            return Err(Error::corrupt("an origin names no subtask"));
        }
        Ok(())
    }

    pub(super) fn validate(&self, max_parallelism: MaxParallelism) -> Result<()> {
        self.owned.check(max_parallelism)?;
        self.base.iter().try_for_each(BaseRef::validate)?;
        for segment in &self.segments {
            segment.range.check(max_parallelism)?;
            if segment.range.intersection(self.owned) != Some(self.owned) {
                return Err(Error::corrupt(format!(
                    "key groups {} are taken from subtask {}, which had {}",
                    self.owned, segment.subtask, segment.range
                )));
            }
            segment.deltas.iter().try_for_each(DeltaRef::validate)?;
        }
        self.check_contiguous()
    }
}
