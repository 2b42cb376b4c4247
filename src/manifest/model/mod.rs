//! The content of a manifest: plain values, the rules that every manifest obeys, and how one
//! follows from another. No I/O and no bytes here.

mod checkpoint;
mod mode;
mod operator;
mod subtask;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::carried::decode_states;
use super::inline::Inline;
use super::retained::{Entry, Retained, RetainedList};
use crate::error::{Error, Result};
use crate::ids::{DeltaSeq, Epoch, Nonce, Version};
use crate::key_group::MaxParallelism;
use crate::remote::{ObjectName, Remote};

pub(crate) use checkpoint::CheckpointRecord;
pub use mode::CheckpointMode;
pub(crate) use operator::{OperatorPart, OperatorRecord};
pub(crate) use subtask::SubtaskRecord;

/// What a version of the chain stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// An attempt began. Fences all earlier ones and is never deleted.
    Open,
    Checkpoint(CheckpointRecord),
}

impl Record {
    pub(crate) fn kind(&self) -> RecordKind {
        match self {
            Self::Open => RecordKind::Open,
            Self::Checkpoint(_) => RecordKind::Checkpoint,
        }
    }
}

/// What can be told from a manifest's header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RecordKind {
    Open,
    Checkpoint,
}

/// One version of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub version: Version,
    /// Tells this write from any other of the same version.
    pub nonce: Nonce,
    /// The nonce of the manifest that this one follows; zero for the first.
    pub parent: Nonce,
    /// The attempt that wrote it.
    pub epoch: Epoch,
    pub max_parallelism: MaxParallelism,
    /// All checkpoints that can be restored; a checkpoint names itself as the last.
    pub retained: RetainedList,
    pub record: Record,
}

impl Manifest {
    /// The record that begins an attempt at `version`, after `head`.
    pub(crate) fn open(
        version: Version,
        nonce: Nonce,
        head: Option<&Manifest>,
        max_parallelism: MaxParallelism,
    ) -> Self {
        Self {
            version,
            nonce,
            parent: head.map_or(Nonce::default(), |head| head.nonce),
            epoch: Epoch(version.0),
            max_parallelism,
            retained: head.map_or_else(RetainedList::default, |head| head.retained.clone()),
            record: Record::Open,
        }
    }

    /// The manifest that commits `record` right after `self` and retains the checkpoints from version
    /// `oldest` on, at least itself.
    pub(crate) fn next(&self, nonce: Nonce, record: CheckpointRecord, oldest: Version) -> Self {
        let version = self.version.next();
        let mut retained = self.retained.clone();
        retained.push(record.entry(version), oldest);
        Self {
            version,
            nonce,
            parent: self.nonce,
            epoch: self.epoch,
            max_parallelism: self.max_parallelism,
            retained,
            record: Record::Checkpoint(record),
        }
    }

    /// Lets what it does not find in manifests before it, of which `before` is the newest, travel in it. `all`
    /// are the retained checkpoints before it, if they are known.
    pub(super) fn carry(
        &mut self,
        before: &Self,
        all: Option<&VecDeque<Entry>>,
        inline: &mut Inline,
    ) -> Result<()> {
        if let Record::Checkpoint(record) = &mut self.record {
            let before = before.checkpoint().map(|before| &before.states);
            record.states.carry(before, self.retained.oldest(), self.version, inline)?;
            self.retained.compact(all, self.version, inline)?;
        }
        Ok(())
    }

    /// Reads the descriptions of the states, if an earlier manifest carries them.
    ///
    /// # Errors
    /// `Corrupt` or `MissingObject` naming that manifest; what the store answers.
    pub(crate) async fn fetch_states(&mut self, remote: &Remote) -> Result<()> {
        if let Record::Checkpoint(record) = &mut self.record {
            let states = record.states.fetch(remote).await?;
            record.states.fill(states);
        }
        Ok(())
    }

    /// Reads what the manifest, whose bytes these are, carries of its own states.
    pub(super) fn read_carried(&mut self, bytes: &[u8]) -> Result<()> {
        if let Record::Checkpoint(record) = &mut self.record
            && let Some(place) = record.states.place.clone().filter(|place| place.is_in(self.version))
        {
            record.states.fill(decode_states(place.of(bytes)?)?);
        }
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Option<&CheckpointRecord> {
        match &self.record {
            Record::Open => None,
            Record::Checkpoint(record) => Some(record),
        }
    }

    /// The checkpoint's operators, in their order: one in a job that names none. None at all in an
    /// open record.
    pub(crate) fn operators(&self) -> Vec<OperatorPart<'_>> {
        self.checkpoint().map_or_else(Vec::new, |record| record.parts(self.max_parallelism))
    }

    /// Every object that restoring this manifest's checkpoint needs. Manifests that carry a delta
    /// are among them, this one too where it carries one.
    pub(crate) fn references(&self) -> impl Iterator<Item = &ObjectName> {
        self.checkpoint().into_iter().flat_map(CheckpointRecord::references)
    }

    /// Checks all that can be checked without other objects. `inline` is where in the manifest's
    /// bytes the deltas lie that travel in it.
    pub(crate) fn validate(&self, inline: std::ops::Range<u64>) -> Result<()> {
        if self.version.0 == 0 || self.epoch.0 == 0 {
            return Err(Error::corrupt("versions and epochs count from 1"));
        }
        self.retained.validate(self.version, &inline)?;
        let newest = self.retained.newest().map(|newest| newest.checkpoint);
        match &self.record {
            Record::Open => {
                if self.epoch.0 != self.version.0 {
                    return Err(Error::corrupt("the epoch of an open record is its version"));
                }
                if newest.is_some_and(|newest| newest.version >= self.version) {
                    return Err(Error::corrupt("an open record retains what comes after it"));
                }
            }
            Record::Checkpoint(record) => {
                if self.epoch.0 >= self.version.0 || record.id.epoch != self.epoch {
                    return Err(Error::corrupt("the checkpoint does not belong to its epoch"));
                }
                if newest != Some(Retained { version: self.version, id: record.id }) {
                    return Err(Error::corrupt("a checkpoint does not retain itself"));
                }
                record.validate(self.max_parallelism)?;
                self.validate_carriers(record, inline)?;
            }
        }
        Ok(())
    }

    /// References to manifests point backwards, or to where inline deltas lie in this one.
    fn validate_carriers(&self, record: &CheckpointRecord, inline: std::ops::Range<u64>) -> Result<()> {
        record.states.place.iter().try_for_each(|place| place.validate(self.version, &inline))?;
        for (object, offset, length) in record.subtasks.iter().flat_map(SubtaskRecord::places) {
            let ObjectName::Manifest(carrier) = *object else { continue };
            let inside = offset >= inline.start && offset.saturating_add(length) <= inline.end;
            if carrier > self.version || (carrier == self.version && !inside) {
                return Err(Error::corrupt(format!(
                    "reference to {length} bytes at {offset} of {object}, which carries none there"
                )));
            }
        }
        Ok(())
    }

    /// Whether `next` may be committed right after `self`: nothing goes backwards. Only within an
    /// attempt, as a later one may start from any older checkpoint.
    pub(crate) fn may_precede(&self, next: &CheckpointRecord) -> Result<()> {
        let Some(last) = self.checkpoint().filter(|_| self.epoch == next.id.epoch) else { return Ok(()) };
        if next.id <= last.id {
            return Err(Error::internal(format!("checkpoint {} comes after {}", next.id, last.id)));
        }
        if next.operators != last.operators {
            return Err(Error::internal(format!(
                "checkpoint {} has other operators than {}",
                next.id, last.id
            )));
        }
        for record in &next.subtasks {
            let before = last.subtasks.iter().find(|before| before.subtask == record.subtask);
            // Another instance has a changelog of its own.
            let Some(before) = before.filter(|before| before.instance == record.instance) else { continue };
            let base = |record: &SubtaskRecord| record.base.as_ref().map_or(DeltaSeq(0), |base| base.seq);
            if record.seq < before.seq || base(record) < base(before) {
                return Err(Error::internal(format!(
                    "subtask {} goes back in checkpoint {}: cut {} after {}, base {} after {}",
                    record.subtask,
                    next.id,
                    record.seq,
                    before.seq,
                    base(record),
                    base(before),
                )));
            }
            if record.base.is_none() && record.origins != before.origins {
                return Err(Error::internal(format!(
                    "subtask {} loses its origins in checkpoint {} without a base of its own",
                    record.subtask, next.id
                )));
            }
        }
        Ok(())
    }
}
