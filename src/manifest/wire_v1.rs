//! The body of a manifest in format 1 (postcard), which is read for ever and written no more. Names of objects
//! are indexes into a table of folders (epoch, subtask, instance) and numbers.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use serde::Deserialize;

use super::carried::States;
use super::model::{CheckpointMode, CheckpointRecord, Manifest, Record, SubtaskRecord};
use super::origin;
use super::references::{BaseRef, DeltaRef};
use super::retained::{Entry, Retained, RetainedList};
use super::state_info::StateInfo;
use super::state_lists::StateLists;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, SubtaskIndex, Version};
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::remote::{DataKind, ObjectName};

/// The manifest that has this body. What it says is yet to be validated.
pub(super) fn decode(body: &[u8]) -> Result<Manifest> {
    let (body, rest) = postcard::take_from_bytes::<Body>(body)
        .map_err(|error| Error::corrupt("manifest's body does not read").source(error))?;
    if !rest.is_empty() {
        return Err(Error::corrupt("manifest's body is longer than what it holds"));
    }
    body.manifest()
}

fn entry(checkpoint: Retained) -> Entry {
    Entry { checkpoint, facts: None }
}

#[derive(Deserialize)]
struct Body {
    version: Version,
    nonce: Nonce,
    parent: Nonce,
    epoch: Epoch,
    max_parallelism: u16,
    retained: Vec<Retained>,
    folders: Vec<Folder>,
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Copy, Deserialize)]
struct Folder {
    epoch: Epoch,
    subtask: SubtaskIndex,
    instance: Nonce,
}

#[derive(Deserialize)]
enum Object {
    Manifest(Version),
    Data { folder: u32, kind: Kind, n: u64 },
}

#[derive(Clone, Copy, Deserialize)]
enum Kind {
    Delta,
    Pack,
    Sst,
    Base,
}

#[derive(Deserialize)]
enum Mode {
    Changelog,
    NativeIncremental,
}

#[derive(Deserialize)]
struct Checkpoint {
    id: CheckpointId,
    mode: Mode,
    unix_millis: u64,
    metadata: Vec<u8>,
    subtasks: Vec<Subtask>,
    states: Vec<StateInfo>,
}

#[derive(Deserialize)]
struct Subtask {
    subtask: SubtaskIndex,
    first_group: u16,
    last_group: u16,
    origins: Vec<Origin>,
    base: Option<Base>,
    deltas: Vec<Delta>,
    seq: DeltaSeq,
    metadata: Vec<u8>,
    instance: Nonce,
}

#[derive(Deserialize)]
struct Origin {
    first_group: u16,
    last_group: u16,
    base: Option<Base>,
    segments: Vec<Segment>,
}

#[derive(Deserialize)]
struct Segment {
    subtask: SubtaskIndex,
    first_group: u16,
    last_group: u16,
    after: DeltaSeq,
    deltas: Vec<Delta>,
    seq: DeltaSeq,
}

#[derive(Deserialize)]
struct Base {
    object: Object,
    offset: u64,
    length: u64,
    crc32c: u32,
    seq: DeltaSeq,
    state_bytes: u64,
    files: Vec<Object>,
}

#[derive(Deserialize)]
struct Delta {
    object: Object,
    offset: u64,
    length: u64,
    crc32c: u32,
    first: DeltaSeq,
    last: DeltaSeq,
    entries: u64,
}

fn name(folders: &[Folder], object: &Object) -> Result<ObjectName> {
    match *object {
        Object::Manifest(version) => Ok(ObjectName::manifest(version)),
        Object::Data { folder, kind, n } => {
            let folder = usize::try_from(folder).ok().and_then(|folder| folders.get(folder));
            let Folder { epoch, subtask, instance } =
                *folder.ok_or_else(|| Error::corrupt("manifest refers to a folder that it does not list"))?;
            let kind = match kind {
                Kind::Delta => DataKind::Delta,
                Kind::Pack => DataKind::Pack,
                Kind::Sst => DataKind::Sst,
                Kind::Base => DataKind::Base,
            };
            Ok(ObjectName::data(epoch, subtask, instance, kind, n))
        }
    }
}

impl Body {
    fn manifest(self) -> Result<Manifest> {
        let max_parallelism = MaxParallelism::new(self.max_parallelism)
            .map_err(|_| Error::corrupt(format!("max parallelism {} is not one", self.max_parallelism)))?;
        let record = match self.checkpoint {
            None => Record::Open,
            Some(checkpoint) => Record::Checkpoint(checkpoint.record(&self.folders)?),
        };
        Ok(Manifest {
            version: self.version,
            nonce: self.nonce,
            parent: self.parent,
            epoch: self.epoch,
            max_parallelism,
            retained: RetainedList::plain(self.retained.into_iter().map(entry).collect()),
            record,
        })
    }
}

impl Checkpoint {
    fn record(self, folders: &[Folder]) -> Result<CheckpointRecord> {
        Ok(CheckpointRecord {
            id: self.id,
            mode: match self.mode {
                Mode::Changelog => CheckpointMode::Changelog,
                Mode::NativeIncremental => CheckpointMode::NativeIncremental,
            },
            unix_millis: self.unix_millis,
            metadata: self.metadata,
            operators: Vec::new(),
            subtasks: self
                .subtasks
                .into_iter()
                .map(|subtask| subtask.record(folders))
                .collect::<Result<_>>()?,
            states: States::new(StateLists::from(Arc::from(self.states))),
        })
    }
}

impl Subtask {
    fn record(self, folders: &[Folder]) -> Result<SubtaskRecord> {
        Ok(SubtaskRecord {
            subtask: self.subtask,
            range: range(self.first_group, self.last_group),
            origins: self.origins.into_iter().map(|origin| origin.origin(folders)).collect::<Result<_>>()?,
            base: self.base.map(|base| base.reference(folders)).transpose()?,
            deltas: self.deltas.iter().map(|delta| delta.reference(folders)).collect::<Result<_>>()?,
            seq: self.seq,
            metadata: self.metadata,
            elements: Arc::default(),
            instance: self.instance,
        })
    }
}

fn range(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

impl Origin {
    fn origin(self, folders: &[Folder]) -> Result<origin::Origin> {
        Ok(origin::Origin {
            owned: range(self.first_group, self.last_group),
            base: self.base.map(|base| base.reference(folders)).transpose()?,
            segments: self
                .segments
                .into_iter()
                .map(|segment| segment.segment(folders))
                .collect::<Result<_>>()?,
        })
    }
}

impl Segment {
    fn segment(self, folders: &[Folder]) -> Result<origin::Segment> {
        Ok(origin::Segment {
            subtask: self.subtask,
            range: range(self.first_group, self.last_group),
            after: self.after,
            deltas: self.deltas.iter().map(|delta| delta.reference(folders)).collect::<Result<_>>()?,
            seq: self.seq,
        })
    }
}

impl Base {
    fn reference(self, folders: &[Folder]) -> Result<BaseRef> {
        Ok(BaseRef {
            object: name(folders, &self.object)?,
            offset: self.offset,
            length: self.length,
            crc32c: self.crc32c,
            seq: self.seq,
            state_bytes: self.state_bytes,
            files: self.files.iter().map(|file| name(folders, file)).collect::<Result<_>>()?,
        })
    }
}

impl Delta {
    fn reference(&self, folders: &[Folder]) -> Result<DeltaRef> {
        Ok(DeltaRef {
            object: name(folders, &self.object)?,
            offset: self.offset,
            length: self.length,
            crc32c: self.crc32c,
            first: self.first,
            last: self.last,
            entries: self.entries,
        })
    }
}
