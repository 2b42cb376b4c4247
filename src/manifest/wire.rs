//! The body of a manifest as it is serialized (postcard).
//!
//! Object names are not written out: a base of a large state refers to thousands of files, and each
//! checkpoint repeats the list, so a name is some 5 bytes, an index into a table of the folders
//! (epoch, subtask, instance) and a number. What a checkpoint costs must hardly depend on the size
//! of the state (I5).

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::model::{
    BaseRef, CheckpointMode, CheckpointRecord, DeltaRef, Manifest, Record, Retained, SubtaskRecord,
};
use super::origin;
use super::state_info::StateInfo;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, SubtaskIndex, Version};
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::remote::{DataKind, ObjectName};

#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    version: Version,
    nonce: Nonce,
    parent: Nonce,
    epoch: Epoch,
    max_parallelism: u16,
    retained: Vec<Retained>,
    folders: Vec<Folder>,
    checkpoint: Option<Checkpoint>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Folder {
    epoch: Epoch,
    subtask: SubtaskIndex,
    instance: Nonce,
}

#[derive(Serialize, Deserialize)]
enum Object {
    Manifest(Version),
    Data { folder: u32, kind: Kind, n: u64 },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    Delta,
    Pack,
    Sst,
    Base,
}

#[derive(Serialize, Deserialize)]
enum Mode {
    Changelog,
    NativeIncremental,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    id: CheckpointId,
    mode: Mode,
    unix_millis: u64,
    metadata: Vec<u8>,
    subtasks: Vec<Subtask>,
    states: Vec<StateInfo>,
}

#[derive(Serialize, Deserialize)]
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

#[derive(Serialize, Deserialize)]
struct Origin {
    first_group: u16,
    last_group: u16,
    base: Option<Base>,
    segments: Vec<Segment>,
}

#[derive(Serialize, Deserialize)]
struct Segment {
    subtask: SubtaskIndex,
    first_group: u16,
    last_group: u16,
    after: DeltaSeq,
    deltas: Vec<Delta>,
    seq: DeltaSeq,
}

#[derive(Serialize, Deserialize)]
struct Base {
    object: Object,
    offset: u64,
    length: u64,
    crc32c: u32,
    seq: DeltaSeq,
    state_bytes: u64,
    files: Vec<Object>,
}

#[derive(Serialize, Deserialize)]
struct Delta {
    object: Object,
    offset: u64,
    length: u64,
    crc32c: u32,
    first: DeltaSeq,
    last: DeltaSeq,
    entries: u64,
}

/// Gives folders their numbers, in the order in which they are met.
#[derive(Default)]
struct Folders {
    list: Vec<Folder>,
    numbers: HashMap<Folder, u32>,
}

impl Folders {
    fn object(&mut self, name: &ObjectName) -> Result<Object> {
        match *name {
            ObjectName::Manifest(version) => Ok(Object::Manifest(version)),
            ObjectName::Data { epoch, subtask, instance, kind, n } => {
                let folder = Folder { epoch, subtask, instance };
                let next = self.list.len() as u32;
                let number = *self.numbers.entry(folder).or_insert(next);
                if number == next {
                    self.list.push(folder);
                }
                let kind = match kind {
                    DataKind::Delta => Kind::Delta,
                    DataKind::Pack => Kind::Pack,
                    DataKind::Sst => Kind::Sst,
                    DataKind::Base => Kind::Base,
                };
                Ok(Object::Data { folder: number, kind, n })
            }
            ObjectName::Pin(_) | ObjectName::Savepoint(..) | ObjectName::Probe(_) => {
                Err(Error::internal("a manifest cannot refer to such an object").object(name))
            }
        }
    }

    fn objects(&mut self, names: &[ObjectName]) -> Result<Vec<Object>> {
        names.iter().map(|name| self.object(name)).collect()
    }
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
    pub(super) fn of(manifest: &Manifest) -> Result<Self> {
        let mut folders = Folders::default();
        let checkpoint =
            manifest.checkpoint().map(|record| Checkpoint::of(record, &mut folders)).transpose()?;
        Ok(Self {
            version: manifest.version,
            nonce: manifest.nonce,
            parent: manifest.parent,
            epoch: manifest.epoch,
            max_parallelism: manifest.max_parallelism.get(),
            retained: manifest.retained.clone(),
            folders: folders.list,
            checkpoint,
        })
    }

    pub(super) fn manifest(self) -> Result<Manifest> {
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
            retained: self.retained,
            record,
        })
    }
}

impl Checkpoint {
    fn of(record: &CheckpointRecord, folders: &mut Folders) -> Result<Self> {
        Ok(Self {
            id: record.id,
            mode: match record.mode {
                CheckpointMode::Changelog => Mode::Changelog,
                CheckpointMode::NativeIncremental => Mode::NativeIncremental,
            },
            unix_millis: record.unix_millis,
            metadata: record.metadata.clone(),
            subtasks: record
                .subtasks
                .iter()
                .map(|subtask| Subtask::of(subtask, folders))
                .collect::<Result<_>>()?,
            states: record.states.clone(),
        })
    }

    fn record(self, folders: &[Folder]) -> Result<CheckpointRecord> {
        Ok(CheckpointRecord {
            id: self.id,
            mode: match self.mode {
                Mode::Changelog => CheckpointMode::Changelog,
                Mode::NativeIncremental => CheckpointMode::NativeIncremental,
            },
            unix_millis: self.unix_millis,
            metadata: self.metadata,
            subtasks: self
                .subtasks
                .into_iter()
                .map(|subtask| subtask.record(folders))
                .collect::<Result<_>>()?,
            states: self.states,
        })
    }
}

impl Subtask {
    fn of(record: &SubtaskRecord, folders: &mut Folders) -> Result<Self> {
        Ok(Self {
            subtask: record.subtask,
            first_group: record.range.first.0,
            last_group: record.range.last.0,
            origins: record
                .origins
                .iter()
                .map(|origin| Origin::of(origin, folders))
                .collect::<Result<_>>()?,
            base: record.base.as_ref().map(|base| Base::of(base, folders)).transpose()?,
            deltas: record.deltas.iter().map(|delta| Delta::of(delta, folders)).collect::<Result<_>>()?,
            seq: record.seq,
            metadata: record.metadata.clone(),
            instance: record.instance,
        })
    }

    fn record(self, folders: &[Folder]) -> Result<SubtaskRecord> {
        Ok(SubtaskRecord {
            subtask: self.subtask,
            range: range(self.first_group, self.last_group),
            origins: self.origins.into_iter().map(|origin| origin.origin(folders)).collect::<Result<_>>()?,
            base: self.base.map(|base| base.reference(folders)).transpose()?,
            deltas: self.deltas.iter().map(|delta| delta.reference(folders)).collect::<Result<_>>()?,
            seq: self.seq,
            metadata: self.metadata,
            instance: self.instance,
        })
    }
}

fn range(first: u16, last: u16) -> KeyGroupRange {
    KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }
}

impl Origin {
    fn of(origin: &origin::Origin, folders: &mut Folders) -> Result<Self> {
        Ok(Self {
            first_group: origin.owned.first.0,
            last_group: origin.owned.last.0,
            base: origin.base.as_ref().map(|base| Base::of(base, folders)).transpose()?,
            segments: origin
                .segments
                .iter()
                .map(|segment| Segment::of(segment, folders))
                .collect::<Result<_>>()?,
        })
    }

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
    fn of(segment: &origin::Segment, folders: &mut Folders) -> Result<Self> {
        Ok(Self {
            subtask: segment.subtask,
            first_group: segment.range.first.0,
            last_group: segment.range.last.0,
            after: segment.after,
            deltas: segment.deltas.iter().map(|delta| Delta::of(delta, folders)).collect::<Result<_>>()?,
            seq: segment.seq,
        })
    }

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
    fn of(base: &BaseRef, folders: &mut Folders) -> Result<Self> {
        Ok(Self {
            object: folders.object(&base.object)?,
            offset: base.offset,
            length: base.length,
            crc32c: base.crc32c,
            seq: base.seq,
            state_bytes: base.state_bytes,
            files: folders.objects(&base.files)?,
        })
    }

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
    fn of(delta: &DeltaRef, folders: &mut Folders) -> Result<Self> {
        Ok(Self {
            object: folders.object(&delta.object)?,
            offset: delta.offset,
            length: delta.length,
            crc32c: delta.crc32c,
            first: delta.first,
            last: delta.last,
            entries: delta.entries,
        })
    }

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
