//! A checkpoint of the whole job, as a manifest has it.

use std::collections::BTreeSet;

use super::super::carried::States;
use super::super::origin::Origin;
use super::super::retained::{Entry, Facts, Retained};
use super::mode::CheckpointMode;
use super::operator::{self, OperatorPart, OperatorRecord};
use super::subtask::SubtaskRecord;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, OperatorId, StateId, Version};
use crate::key_group::MaxParallelism;
use crate::remote::ObjectName;

/// A checkpoint of the whole job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointRecord {
    pub id: CheckpointId,
    pub mode: CheckpointMode,
    /// When it was committed, for people.
    pub unix_millis: u64,
    /// The user's, from the coordinator.
    pub metadata: Vec<u8>,
    /// Those of a job that names its operators: each owns a run of `subtasks`. Empty in a job that
    /// names none; then all subtasks are of one operator.
    pub operators: Vec<OperatorRecord>,
    /// Ascending by subtask.
    pub subtasks: Vec<SubtaskRecord>,
    pub states: States,
}

impl CheckpointRecord {
    /// Makes references to what travels in manifest `from` point to manifest `to` instead. Origins are
    /// older than any draft.
    pub(crate) fn relocate(&mut self, from: Version, to: Version) {
        if from == to {
            return;
        }
        let (from, to) = (ObjectName::manifest(from), ObjectName::manifest(to));
        for subtask in &mut self.subtasks {
            let base = subtask.base.iter_mut().map(|base| &mut base.object);
            let deltas = subtask.deltas.iter_mut().map(|delta| &mut delta.object);
            base.chain(deltas).filter(|object| **object == from).for_each(|object| *object = to.clone());
        }
    }

    /// Every object that restoring the checkpoint needs; some more than once.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        let states = self.states.place.iter().map(|place| &place.object);
        states.chain(self.subtasks.iter().flat_map(SubtaskRecord::references))
    }

    /// Bytes that a restore has to read.
    pub(crate) fn full_bytes(&self) -> u64 {
        // What a manifest says comes from outside.
        let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
        let own = self.subtasks.iter().map(|subtask| {
            let base = subtask.base.as_ref().map_or(0, |base| base.state_bytes);
            sum(&mut subtask.deltas.iter().map(|delta| delta.length)).saturating_add(base)
        });
        // What several subtasks have taken over from one is read once.
        let origins = || self.subtasks.iter().flat_map(|subtask| &subtask.origins);
        let bases = origins().filter_map(|origin| origin.base.as_ref());
        let bases = bases.map(|base| (&base.object, base.offset, base.state_bytes));
        let deltas = origins().flat_map(Origin::deltas).map(|(_, delta)| delta);
        let deltas = deltas.map(|delta| (&delta.object, delta.offset, delta.length));
        let taken_over: BTreeSet<_> = bases.chain(deltas).collect();
        let taken_over = sum(&mut taken_over.into_iter().map(|(.., bytes)| bytes));
        sum(&mut own.into_iter()).saturating_add(taken_over)
    }

    /// The checkpoint as a list of retained ones names it.
    pub(crate) fn entry(&self, version: Version) -> Entry {
        let facts = Facts { unix_millis: self.unix_millis, full_bytes: self.full_bytes() };
        Entry { checkpoint: Retained { version, id: self.id }, facts: Some(facts) }
    }

    /// Each operator's part, in their order. `of_job` is the max parallelism of a job that names no
    /// operators.
    pub(crate) fn parts(&self, of_job: MaxParallelism) -> Vec<OperatorPart<'_>> {
        if self.operators.is_empty() {
            let (id, subtasks) = (OperatorId::UNNAMED, &self.subtasks[..]);
            return vec![OperatorPart { id, max_parallelism: of_job, subtasks }];
        }
        let mut rest = &self.subtasks[..];
        let part = |operator: &'_ OperatorRecord| {
            let own = usize::try_from(operator.subtasks).unwrap_or(usize::MAX).min(rest.len());
            let (subtasks, others) = rest.split_at(own);
            rest = others;
            subtasks
        };
        let parts: Vec<_> = self.operators.iter().map(part).collect();
        let named = self.operators.iter().zip(parts).map(|(operator, subtasks)| OperatorPart {
            id: &operator.id,
            max_parallelism: operator.max_parallelism,
            subtasks,
        });
        named.collect()
    }

    /// Whether it says what formats before 3 have no words for.
    pub(in crate::manifest) fn needs_format_3(&self) -> bool {
        !self.operators.is_empty() || self.subtasks.iter().any(|subtask| !subtask.elements.is_empty())
    }

    pub(super) fn validate(&self, max_parallelism: MaxParallelism) -> Result<()> {
        operator::validate(&self.operators, self.subtasks.len())?;
        if !self.subtasks.is_sorted_by(|a, b| a.subtask < b.subtask) {
            return Err(Error::corrupt("subtasks are not in ascending order"));
        }
        for part in self.parts(max_parallelism) {
            part.validate()
                .map_err(|error| if part.id.is_named() { error.object(part.id) } else { error })?;
        }
        let Some(lists) = self.states.known() else { return Ok(()) };
        if lists.iter().len() > self.operators.len().max(1) {
            return Err(Error::corrupt("a checkpoint describes states of more operators than it has"));
        }
        for list in lists.iter() {
            let mut seen = BTreeSet::new();
            for state in list.iter() {
                if state.id == StateId::RESERVED || !seen.insert(state.id.0) {
                    return Err(Error::corrupt(format!("state {:?} has an id that is taken", state.name)));
                }
            }
        }
        Ok(())
    }
}
