//! What a checkpoint says of one subtask.

use std::sync::Arc;

use super::super::elements::{self, Elements};
use super::super::origin::{Origin, Segment};
use super::super::references::{BaseRef, DeltaRef};
use crate::error::{Error, Result};
use crate::ids::{DeltaSeq, Nonce, SubtaskIndex};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::remote::ObjectName;

/// One subtask's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtaskRecord {
    pub subtask: SubtaskIndex,
    pub range: KeyGroupRange,
    /// Where the state comes from, if the subtask was rescaled and has no base of its own yet:
    /// ascending, disjoint, and together the range.
    pub origins: Vec<Origin>,
    pub base: Option<BaseRef>,
    /// What came after the base or the origins, oldest first, without gaps.
    pub deltas: Vec<DeltaRef>,
    /// The last delta before the cut.
    pub seq: DeltaSeq,
    /// The user's, as of this subtask's own barrier.
    pub metadata: Vec<u8>,
    /// State that is not keyed, ascending by state. Empty in most jobs.
    pub elements: Arc<[Elements]>,
    /// The store that took the cut.
    pub instance: Nonce,
}

impl SubtaskRecord {
    /// Every object that restoring this subtask needs; some more than once.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        let own = self.base_references().chain(self.deltas.iter().map(|delta| &delta.object));
        self.origins.iter().flat_map(Origin::references).chain(own)
    }

    /// What its own base refers to.
    pub(in crate::manifest) fn base_references(&self) -> impl Iterator<Item = &ObjectName> {
        self.base.iter().flat_map(|base| std::iter::once(&base.object).chain(&base.files))
    }

    /// Bases and deltas by their places: object, offset, length.
    pub(super) fn places(&self) -> impl Iterator<Item = (&ObjectName, u64, u64)> {
        let bases = self.origins.iter().map(|origin| &origin.base).chain([&self.base]).flatten();
        let bases = bases.map(|base| (&base.object, base.offset, base.length));
        let deltas = self.origins.iter().flat_map(Origin::deltas).map(|(_, delta)| delta).chain(&self.deltas);
        bases.chain(deltas.map(|delta| (&delta.object, delta.offset, delta.length)))
    }

    /// The subtask's own changelog, after its base or its origins.
    fn own_segment(&self) -> Segment {
        let base = self.base.as_ref().map(|base| base.seq);
        let after = base.or_else(|| self.origins.iter().map(Origin::seq).max());
        Segment {
            subtask: self.subtask,
            range: self.range,
            after: after.unwrap_or_default(),
            deltas: self.deltas.clone(),
            seq: self.seq,
        }
    }

    /// The state in the form of origins: what another subtask takes over of it.
    pub(crate) fn as_origins(&self) -> Vec<Origin> {
        let own = self.own_segment();
        if self.origins.is_empty() {
            return vec![Origin { owned: self.range, base: self.base.clone(), segments: vec![own] }];
        }
        let mut origins = self.origins.clone();
        if !own.deltas.is_empty() {
            // They may touch the key groups of any of the origins.
            origins.iter_mut().for_each(|origin| origin.segments.push(own.clone()));
        }
        origins
    }

    /// Checks that base, origins and deltas make up changelogs without gaps that end at the cut: anything
    /// else would restore to a state that never was (I1).
    pub(crate) fn check_contiguous(&self) -> Result<()> {
        self.origins.iter().try_for_each(Origin::check_contiguous)?;
        self.own_segment().check_contiguous()
    }

    pub(crate) fn validate(&self, max_parallelism: MaxParallelism) -> Result<()> {
        self.range.check(max_parallelism)?;
        elements::validate(&self.elements)?;
        self.base.iter().try_for_each(BaseRef::validate)?;
        self.deltas.iter().try_for_each(DeltaRef::validate)?;
        self.origins.iter().try_for_each(|origin| origin.validate(max_parallelism))?;
        if !self.origins.is_empty() {
            if self.base.is_some() {
                return Err(Error::corrupt("a subtask with a base of its own has origins"));
            }
            let owned = self.origins.iter().map(|origin| origin.owned);
            if !self.range.is_tiled_by(owned) {
                let range = self.range;
                return Err(Error::corrupt(format!("the origins do not make up key groups {range}")));
            }
        }
        self.check_contiguous()
    }
}
