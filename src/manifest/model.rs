//! What a manifest says: plain values, the rules that every manifest obeys, and how one follows
//! from another. No I/O and no bytes here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::remote::{ObjectName, ParsedName};

/// How checkpoints are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// Every change goes into a changelog as well; a checkpoint uploads the last bit of it. The default.
    #[default]
    Changelog,
    /// A checkpoint flushes RocksDB and uploads the files that are new.
    NativeIncremental,
}

/// A run of a subtask's changelog: one delta, or several packed into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeltaRef {
    /// A data object, or the manifest that carries the bytes inline.
    pub object: ObjectName,
    pub offset: u64,
    pub length: u64,
    /// Of exactly these bytes.
    pub crc32c: u32,
    pub first: DeltaSeq,
    pub last: DeltaSeq,
    pub entries: u64,
}

/// A materialized snapshot of a subtask's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseRef {
    /// Holds the base's index.
    pub object: ObjectName,
    pub offset: u64,
    pub length: u64,
    /// Of the index.
    pub crc32c: u32,
    /// The last delta that the base contains.
    pub seq: DeltaSeq,
    pub state_bytes: u64,
    /// Every object that the index refers to, so that reachability can be told without reading it.
    pub files: Vec<ObjectName>,
}

/// A named state, as the program declared it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateInfo {
    pub id: StateId,
    pub name: String,
    /// Code of the state's kind; 0 is raw bytes.
    pub kind: u16,
    /// Id of its merge operator; 0 is none.
    pub merge: u8,
    pub schema: u32,
}

/// One subtask's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtaskRecord {
    pub subtask: SubtaskIndex,
    pub range: KeyGroupRange,
    pub base: Option<BaseRef>,
    /// What came after the base, oldest first, without gaps.
    pub deltas: Vec<DeltaRef>,
    /// The last delta before the cut.
    pub seq: DeltaSeq,
    /// The user's, as of this subtask's own barrier.
    pub metadata: Vec<u8>,
    /// The store that took the cut.
    pub instance: Nonce,
}

/// A checkpoint of the whole job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointRecord {
    pub id: CheckpointId,
    pub mode: CheckpointMode,
    /// When it was committed, for people.
    pub unix_millis: u64,
    /// The user's, from the coordinator.
    pub metadata: Vec<u8>,
    /// Ascending by subtask.
    pub subtasks: Vec<SubtaskRecord>,
    pub states: Vec<StateInfo>,
}

/// A checkpoint that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Retained {
    pub version: Version,
    pub id: CheckpointId,
}

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
    /// All checkpoints that can be restored, oldest first; a checkpoint names itself as the last.
    pub retained: Vec<Retained>,
    pub record: Record,
}
