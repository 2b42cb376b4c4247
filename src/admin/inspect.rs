//! Looking at a job from outside: no attempt begins, nothing is written, the job does not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::intact;
use super::outside::Outside;
use super::pins::{InspectedPin, inspect_pins};
use super::savepoints::{Savepoint, describe as describe_savepoint};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gc::savepoint;
use crate::ids::{CheckpointId, SubtaskIndex, Version};
use crate::manifest::{
    CheckpointMode, CheckpointRecord, Entry, Manifest, Origin, StateInfo, SubtaskRecord, list_chain,
    read_manifest,
};
use crate::remote::{JobLocation, ObjectName, Remote, Staged, count_staged};

/// A running job may collect what was listed a moment ago; then everything is looked at anew.
const TRIES: usize = 8;
/// Manifests read at the same time.
pub(super) const PARALLEL_READS: usize = 16;

/// A job as its object store shows it. Sizes in bytes.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The job's number of key groups.
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
    /// What the retained checkpoints reach.
    pub live_bytes: u64,
    /// Number of objects that the retained checkpoints reach.
    pub live_objects: u64,
    /// What savepoints and pins keep beside that.
    pub held_bytes: u64,
    /// Number of objects that savepoints and pins keep beside that.
    pub held_objects: u64,
    /// Everything below the job's prefix.
    pub total_bytes: u64,
    /// Number of objects below the job's prefix.
    pub total_objects: u64,
    /// Bytes of files that lie beside the objects of a local store because they are being written, or because the process
    /// that was writing them was killed. The next attempt removes those of earlier ones. 0 in other stores.
    pub staged_bytes: u64,
    /// Number of these files.
    pub staged_files: u64,
    /// Objects that a retained checkpoint needs and that do not exist. Empty in a sound job.
    pub missing: Vec<String>,
    /// Objects that a retained checkpoint needs and that are shorter than it says. Empty in a sound job.
    pub cut: Vec<String>,
    /// Savepoints that cannot be read, or whose checkpoint cannot, each with what is wrong. No garbage is collected
    /// while there are such, because there is no telling what they keep. Empty in a sound job; for pins see
    /// [`PinHolder::Damaged`](crate::admin::PinHolder::Damaged).
    pub damaged: Vec<String>,
    /// Versions of the manifest chain that cannot be read, each with what is wrong; oldest first. What is said above is as
    /// of the newest that can. Above that one they keep a job from being opened, unless
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

/// A checkpoint, retained or only kept because it carries deltas that later ones refer to.
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
    /// What a restore of it has to read.
    pub full_bytes: u64,
    /// Size of the coordinator's metadata.
    pub metadata_bytes: u64,
    /// The coordinator's metadata, as given to [`Job::trigger`](crate::Job::trigger). Not serialized.
    #[serde(skip)]
    pub metadata: Vec<u8>,
    /// The names of its states.
    pub states: Vec<String>,
    /// What is wrong with the objects that it needs: which do not exist, are shorter than they must be, or do not
    /// read. Told from a listing of all objects; content is looked at only in the indexes of bases, and in what lies
    /// within a damaged version of the chain. Empty in a sound job.
    pub damage: Vec<String>,
    /// Each subtask's part.
    pub subtasks: Vec<InspectedSubtask>,
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
    /// The subtask's metadata, as given to [`StateStore::cut`](crate::StateStore::cut): the offset
    /// of its source, for example. Not serialized.
    #[serde(skip)]
    pub metadata: Vec<u8>,
    /// What the state is read from, beside the deltas above, where the subtask was rescaled and has no
    /// base of its own yet.
    pub origins: Vec<InspectedOrigin>,
}

/// What a rescaled subtask has taken over from others.
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

/// Looks at a job. Reads all manifests that exist and
/// lists all objects.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if there is no job, [`Corrupt`](ErrorKind::Corrupt) if no manifest can be read,
/// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) naming the manifest that a newer version has written,
/// [`InvalidArgument`](ErrorKind::InvalidArgument), [`StoreUnavailable`](ErrorKind::StoreUnavailable).
pub fn inspect(location: impl Into<JobLocation>) -> Result<Inspection> {
    let location = location.into();
    let (outside, dir) = Outside::at(&location, Env::default())?;
    let (remote, name) = (Arc::clone(&outside.remote), location.name().to_owned());
    let mut inspection = outside.run(async move { look(&remote, &name).await })?;
    // No listing shows them.
    let Staged { files, bytes } = dir.map(|dir| count_staged(&dir)).unwrap_or_default();
    (inspection.staged_files, inspection.staged_bytes) = (files, bytes);
    Ok(inspection)
}

/// Looks until nothing has moved meanwhile, or often enough.
async fn look(remote: &Remote, url: &str) -> Result<Inspection> {
    for _ in 1..TRIES {
        match look_once(remote, url).await {
            Ok(inspection) if inspection.missing.is_empty() => return Ok(inspection),
            Ok(inspection) => {
                // Lost, or collected by the running job: then the chain has grown as well.
                let newest = list_chain(remote).await?.last().map(|entry| entry.version.0);
                if newest == Some(inspection.newest_version) {
                    return Ok(inspection);
                }
            }
            Err(error) if error.kind() == ErrorKind::MissingObject => {}
            Err(error) => return Err(error),
        }
    }
    look_once(remote, url).await
}

async fn look_once(remote: &Remote, url: &str) -> Result<Inspection> {
    let chain = list_chain(remote).await?;
    let Some(newest) = chain.last() else {
        return Err(Error::new(ErrorKind::NotFound, "there is no job at this place")
            .object(url)
            .advise("check the URL"));
    };
    let reads: Vec<_> = chain.iter().map(|entry| read(remote, entry.version, entry.size)).collect();
    let read: Vec<_> = futures::stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    // What is gone by now was collected, unless the newest still retains it.
    let (mut manifests, mut damaged_versions) = (Vec::new(), Vec::new());
    for found in read.into_iter().flatten() {
        match found {
            Ok(found) => manifests.push(found),
            Err((version, error)) => damaged_versions.push((version, error)),
        }
    }
    let seen = |version| damaged_versions.iter().any(|(damaged, _)| *damaged == version);
    let head = manifests.last().filter(|(head, _)| head.version == newest.version || seen(newest.version));
    let Some((head, _)) = head else {
        // All of it is damaged, or the newest is gone.
        return Err(damaged_versions.pop().map_or_else(
            || Error::new(ErrorKind::MissingObject, "the newest manifest is gone").object(url),
            |(_, error)| error,
        ));
    };

    let mut sizes = BTreeMap::new();
    for folder in ObjectName::FOLDERS {
        let listed = remote.list(folder).await?;
        sizes.extend(listed.into_iter().map(|object| (object.name, object.size)));
    }
    let entries = head.retained.fetch_readable(remote).await?;
    let retained: BTreeSet<_> = entries.iter().map(Entry::version).collect();
    let reach = |versions: &BTreeSet<Version>| {
        let mut names: BTreeSet<_> =
            versions.iter().map(|version| ObjectName::manifest(*version).to_string()).collect();
        for (manifest, _) in manifests.iter().filter(|(manifest, _)| versions.contains(&manifest.version)) {
            names.extend(manifest.references().map(ToString::to_string));
        }
        names
    };
    let live = reach(&retained);
    let needed = manifests.iter().map(|(manifest, _)| manifest);
    let needed: Vec<_> = needed.filter(|manifest| retained.contains(&manifest.version)).collect();
    let unread: Vec<_> = damaged_versions.iter().map(|(version, _)| *version).collect();
    let damage = intact::look(remote, &needed, &sizes, &unread).await?;
    let (savepoints, damaged) = look_at_savepoints(remote).await?;
    let pins = inspect_pins(remote).await?;
    let versions = savepoints.iter().map(|savepoint| savepoint.version);
    let versions = versions.chain(pins.iter().filter_map(|pin| pin.version)).map(Version).collect();
    // Not what a pin or savepoint names that came too late.
    let held: BTreeSet<_> = reach(&versions)
        .into_iter()
        .filter(|name| !live.contains(name) && sizes.contains_key(name))
        .collect();
    // Many refer to what few carry.
    let carried = manifests.iter().filter_map(|(manifest, _)| {
        let states = &manifest.checkpoint()?.states;
        Some((states.carrier()?, states.known()?))
            .filter(|(carrier, _)| **carrier == ObjectName::manifest(manifest.version))
    });
    let carried: BTreeMap<_, _> = carried.collect();
    let mut records = Vec::new();
    for (manifest, bytes) in &manifests {
        let checkpoint = match manifest.checkpoint() {
            Some(record) => {
                let states = match record.states.carrier().and_then(|carrier| carried.get(carrier)) {
                    Some(states) => Arc::clone(states),
                    None => states_of(remote, record).await?,
                };
                let kept = retained.contains(&manifest.version);
                Some(describe(record, &states, kept, damage.of(manifest.version)))
            }
            None => None,
        };
        let (version, epoch) = (manifest.version.0, manifest.epoch.0);
        records.push(InspectedRecord { version, epoch, bytes: *bytes, checkpoint });
    }
    let opens =
        manifests.iter().map(|(manifest, _)| manifest).filter(|manifest| manifest.checkpoint().is_none());
    Ok(Inspection {
        max_parallelism: head.max_parallelism.get(),
        newest_version: newest.version.0,
        epochs: opens.map(|manifest| manifest.epoch.0).collect(),
        records,
        savepoints,
        pins,
        held_bytes: held.iter().filter_map(|name| sizes.get(name)).sum(),
        held_objects: held.len() as u64,
        live_bytes: live.iter().filter_map(|name| sizes.get(name)).sum(),
        live_objects: live.len() as u64,
        total_bytes: sizes.values().sum(),
        total_objects: sizes.len() as u64,
        staged_bytes: 0,
        staged_files: 0,
        missing: live.iter().filter(|name| !sizes.contains_key(*name)).cloned().collect(),
        cut: damage.cut.into_iter().collect(),
        damaged,
        damaged_versions: damaged_versions
            .into_iter()
            .map(|(version, error)| (version.0, error.to_string()))
            .collect(),
    })
}

/// Those that read, and what is wrong with the others.
async fn look_at_savepoints(remote: &Remote) -> Result<(Vec<Savepoint>, Vec<String>)> {
    let (mut savepoints, mut damaged) = (Vec::new(), Vec::new());
    for name in savepoint::names(remote).await? {
        match savepoint::find(remote, &name).await {
            Ok(Some(record)) => match describe_savepoint(remote, &name, &record).await {
                Ok(savepoint) => savepoints.push(savepoint),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    damaged.push(error.more_advice(format!("savepoint {name} names it")).to_string());
                }
                Err(error) => return Err(error),
            },
            // It was released meanwhile.
            Ok(None) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                damaged.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok((savepoints, damaged))
}

/// A manifest and its size, or what is wrong with it.
type Read = std::result::Result<(Manifest, u64), (Version, Error)>;

/// None if it is gone.
async fn read(remote: &Remote, version: Version, size: u64) -> Result<Option<Read>> {
    match read_manifest(remote, version).await {
        Ok((manifest, _)) => Ok(Some(Ok((manifest, size)))),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(Err((version, error)))),
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok(None),
        Err(error) => Err(error),
    }
}

/// The descriptions of a checkpoint's states; none where what carries them is gone, as may be for a manifest that
/// is only there because later ones need its deltas.
async fn states_of(remote: &Remote, record: &CheckpointRecord) -> Result<Arc<[StateInfo]>> {
    match record.states.fetch(remote).await {
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok(Arc::default()),
        states => states,
    }
}

fn describe(
    record: &CheckpointRecord,
    states: &[StateInfo],
    retained: bool,
    damage: Vec<String>,
) -> InspectedCheckpoint {
    InspectedCheckpoint {
        id: record.id,
        retained,
        mode: record.mode,
        unix_millis: record.unix_millis,
        full_bytes: record.full_bytes(),
        metadata_bytes: record.metadata.len() as u64,
        metadata: record.metadata.clone(),
        states: states.iter().map(|state| state.name.clone()).collect(),
        damage,
        subtasks: record.subtasks.iter().map(describe_subtask).collect(),
    }
}

fn describe_subtask(record: &SubtaskRecord) -> InspectedSubtask {
    let base = record.base.as_ref();
    InspectedSubtask {
        subtask: record.subtask,
        range: record.range.to_string(),
        base_seq: base.map(|base| base.seq.0),
        base_bytes: base.map_or(0, |base| base.state_bytes),
        base_files: base.map_or(0, |base| base.files.len() as u64),
        deltas: record.deltas.len() as u64,
        delta_bytes: record.deltas.iter().map(|delta| delta.length).sum(),
        seq: record.seq.0,
        metadata_bytes: record.metadata.len() as u64,
        metadata: record.metadata.clone(),
        origins: record.origins.iter().map(describe_origin).collect(),
    }
}

fn describe_origin(origin: &Origin) -> InspectedOrigin {
    let base = origin.base.as_ref();
    InspectedOrigin {
        range: origin.owned.to_string(),
        subtasks: origin.segments.iter().map(|segment| segment.subtask).collect(),
        base_seq: base.map(|base| base.seq.0),
        base_bytes: base.map_or(0, |base| base.state_bytes),
        base_files: base.map_or(0, |base| base.files.len() as u64),
        deltas: origin.deltas().count() as u64,
        delta_bytes: origin.deltas().map(|(_, delta)| delta.length).sum(),
    }
}
