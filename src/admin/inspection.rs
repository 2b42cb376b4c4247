//! What an inspection reports.

use serde::Serialize;

use super::pins::InspectedPin;
use super::savepoints::Savepoint;
use crate::ids::{CheckpointId, SubtaskIndex};
use crate::manifest::{
    CheckpointMode, CheckpointRecord, Manifest, Origin, StateInfo, StateLists, SubtaskRecord,
};

/// A job as its object store shows it. Sizes in bytes.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The job's number of key groups; operators may have others.
    pub max_parallelism: u16,
    /// The newest version of the manifest chain.
    pub newest_version: u64,
    /// The epochs of all attempts, oldest first.
    pub epochs: Vec<u64>,
    /// The versions of the chain that still exist, oldest first.
    pub records: Vec<InspectedRecord>,
    /// The savepoints, ascending by name.
    pub savepoints: Vec<Savepoint>,
    /// The pins of readers and attempts, oldest first.
    pub pins: Vec<InspectedPin>,
    /// Bytes of objects that the retained checkpoints need.
    pub live_bytes: u64,
    /// Number of these objects.
    pub live_objects: u64,
    /// Bytes of further objects that savepoints and pins keep.
    pub held_bytes: u64,
    /// Number of these objects.
    pub held_objects: u64,
    /// Bytes of all objects below the job's prefix.
    pub total_bytes: u64,
    /// Number of these objects.
    pub total_objects: u64,
    /// Bytes of files in a local store that are still being written, or were when their process was killed. The next
    /// attempt removes those of earlier attempts. 0 in other stores.
    pub staged_bytes: u64,
    /// Number of these files.
    pub staged_files: u64,
    /// Objects that a retained checkpoint needs and that do not exist. Empty in a sound job.
    pub missing: Vec<String>,
    /// Objects that a retained checkpoint needs and that are shorter than it says. Empty in a sound job.
    pub cut: Vec<String>,
    /// Savepoints that cannot be read, or whose checkpoint cannot be read, each with the problem. No garbage is collected
    /// while they exist, because the objects that they keep are not known. Empty in a sound job. For pins see
    /// [`PinHolder::Damaged`](crate::admin::PinHolder::Damaged).
    pub damaged: Vec<String>,
    /// Versions of the manifest chain that cannot be read, each with the problem, oldest first. All other fields are as of
    /// the newest readable version. A damaged version above it keeps the job from being opened, unless
    /// [`JobOptions::fallback`](crate::JobOptions::fallback) is allowed. Empty in a sound job.
    pub damaged_versions: Vec<(u64, String)>,
}

/// One version of the chain.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InspectedRecord {
    /// Its position.
    pub version: u64,
    /// The attempt that wrote it.
    pub epoch: u64,
    /// Its size.
    pub bytes: u64,
    /// The checkpoint that it commits; None for the record that opens an attempt.
    pub checkpoint: Option<InspectedCheckpoint>,
}

/// A checkpoint. One that is not retained exists only because it carries deltas that later ones need.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InspectedCheckpoint {
    /// Its id.
    pub id: CheckpointId,
    /// Whether it can be restored.
    pub retained: bool,
    /// How it was taken.
    pub mode: CheckpointMode,
    /// When it was committed, in milliseconds since 1970 UTC.
    pub unix_millis: u64,
    /// Bytes that a restore reads.
    pub full_bytes: u64,
    /// Size of the coordinator's metadata.
    pub metadata_bytes: u64,
    /// The coordinator's metadata, as given to [`Job::trigger`](crate::Job::trigger). Not serialized.
    #[serde(skip)]
    pub metadata: Vec<u8>,
    /// The names of its states, those of all operators.
    pub states: Vec<String>,
    /// Its operators, in the order of their subtasks. Empty if they have no names: then there is one.
    pub operators: Vec<InspectedOperator>,
    /// Problems with the objects that it needs: missing, too short, or unreadable. Found from a listing of all objects.
    /// Content is read only of base indexes, and of what travels in a damaged version of the chain. Empty in a sound
    /// job.
    pub damage: Vec<String>,
    /// Each subtask's part.
    pub subtasks: Vec<InspectedSubtask>,
}

/// An operator's part of a checkpoint.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InspectedOperator {
    /// Its id.
    pub id: String,
    /// Its number of key groups.
    pub max_parallelism: u16,
    /// Its subtasks.
    pub subtasks: Vec<SubtaskIndex>,
    /// The names of its states, ascending.
    pub states: Vec<String>,
}

/// A subtask's part of a checkpoint.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InspectedSubtask {
    /// The subtask.
    pub subtask: SubtaskIndex,
    /// Its key groups, as in `0..=63`.
    pub range: String,
    /// The last delta in its base; None if it has no base yet.
    pub base_seq: Option<u64>,
    /// Size of the base's files.
    pub base_bytes: u64,
    /// Number of objects that hold the base's files.
    pub base_files: u64,
    /// Deltas after the base.
    pub deltas: u64,
    /// Their size.
    pub delta_bytes: u64,
    /// The last delta before the cut.
    pub seq: u64,
    /// Size of the subtask's metadata.
    pub metadata_bytes: u64,
    /// Size of the subtask's state that is not keyed. What all subtasks of an operator have in full
    /// counts for one of them.
    pub element_bytes: u64,
    /// The subtask's metadata, as given to [`StateStore::cut`](crate::StateStore::cut): the offset
    /// of its source, for example. Not serialized.
    #[serde(skip)]
    pub metadata: Vec<u8>,
    /// The sources of the state before the deltas above, while a rescaled subtask has no base of its own.
    pub origins: Vec<InspectedOrigin>,
}

/// State that a rescaled subtask has taken over from other subtasks.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InspectedOrigin {
    /// The key groups that are taken over, as in `0..=63`. Base and deltas may hold others.
    pub range: String,
    /// The subtasks that have owned them since the base, oldest first, as they were numbered then.
    pub subtasks: Vec<SubtaskIndex>,
    /// The last delta in the base; None if there was none.
    pub base_seq: Option<u64>,
    /// Size of the base's files.
    pub base_bytes: u64,
    /// Number of objects that hold the base's files.
    pub base_files: u64,
    /// Deltas after the base.
    pub deltas: u64,
    /// Their size.
    pub delta_bytes: u64,
}

impl InspectedCheckpoint {
    pub(super) fn of(
        manifest: &Manifest,
        record: &CheckpointRecord,
        states: &StateLists,
        retained: bool,
        damage: Vec<String>,
    ) -> Self {
        Self {
            id: record.id,
            retained,
            mode: record.mode,
            unix_millis: record.unix_millis,
            full_bytes: record.full_bytes(),
            metadata_bytes: record.metadata.len() as u64,
            metadata: record.metadata.clone(),
            states: states.iter().flat_map(|list| names(list)).collect(),
            operators: InspectedOperator::all(manifest, states),
            damage,
            subtasks: record.subtasks.iter().map(InspectedSubtask::of).collect(),
        }
    }
}

fn names(states: &[StateInfo]) -> impl Iterator<Item = String> {
    states.iter().map(|state| state.name.clone())
}

impl InspectedOperator {
    fn all(manifest: &Manifest, states: &StateLists) -> Vec<Self> {
        let parts = manifest.operators();
        let named = parts.iter().enumerate().filter(|(_, part)| part.id.is_named());
        let operators = named.map(|(at, part)| {
            let mut states: Vec<_> = names(states.get(at)).collect();
            states.sort_unstable();
            Self {
                id: part.id.as_str().to_owned(),
                max_parallelism: part.max_parallelism.get(),
                subtasks: part.subtasks.iter().map(|record| record.subtask).collect(),
                states,
            }
        });
        operators.collect()
    }
}

impl InspectedSubtask {
    pub(super) fn of(record: &SubtaskRecord) -> Self {
        let base = record.base.as_ref();
        Self {
            subtask: record.subtask,
            range: record.range.to_string(),
            base_seq: base.map(|base| base.seq.0),
            base_bytes: base.map_or(0, |base| base.state_bytes),
            base_files: base.map_or(0, |base| base.files.len() as u64),
            deltas: record.deltas.len() as u64,
            delta_bytes: record.deltas.iter().map(|delta| delta.length).sum(),
            seq: record.seq.0,
            metadata_bytes: record.metadata.len() as u64,
            element_bytes: record
                .elements
                .iter()
                .flat_map(|one| &one.items)
                .map(|item| item.len() as u64)
                .sum(),
            metadata: record.metadata.clone(),
            origins: record.origins.iter().map(InspectedOrigin::of).collect(),
        }
    }
}

impl InspectedOrigin {
    pub(super) fn of(origin: &Origin) -> Self {
        let base = origin.base.as_ref();
        Self {
            range: origin.owned.to_string(),
            subtasks: origin.segments.iter().map(|segment| segment.subtask).collect(),
            base_seq: base.map(|base| base.seq.0),
            base_bytes: base.map_or(0, |base| base.state_bytes),
            base_files: base.map_or(0, |base| base.files.len() as u64),
            deltas: origin.deltas().count() as u64,
            delta_bytes: origin.deltas().map(|(_, delta)| delta.length).sum(),
        }
    }
}
