//! Inspects a job from outside: no attempt begins, nothing is written, a running job is not disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::inspection::{InspectedCheckpoint, InspectedRecord, Inspection};
use super::intact::Damage;
use super::outside::Outside;
use super::pins::inspect_pins;
use super::savepoints::{Savepoint, describe as describe_savepoint};
use super::{PARALLEL_READS, intact};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gc::savepoint;
use crate::ids::Version;
use crate::manifest::{ChainEntry, CheckpointRecord, Entry, Manifest, StateLists, list_chain, read_manifest};
use crate::remote::{JobLocation, ObjectName, Remote, Staged, count_staged};

/// How often the job is inspected again because a running job has collected what was listed.
const TRIES: usize = 8;
/// Inspects a job: lists all its objects, and reads all manifests that exist. Writes nothing, and begins no
/// attempt.
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
    // Listings do not show files that are being written.
    let Staged { files, bytes } = dir.map(|dir| count_staged(&dir)).unwrap_or_default();
    (inspection.staged_files, inspection.staged_bytes) = (files, bytes);
    Ok(inspection)
}

/// Inspects the job until it did not change meanwhile, at most [`TRIES`] times.
async fn look(remote: &Remote, url: &str) -> Result<Inspection> {
    for _ in 1..TRIES {
        match look_once(remote, url).await {
            Ok(inspection) if is_sound(&inspection) => return Ok(inspection),
            Ok(inspection) => {
                // Damaged, or collected by the running job between the listing and the reads: then
                // the chain has grown as well.
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

fn is_sound(inspection: &Inspection) -> bool {
    let mut checkpoints = inspection.records.iter().filter_map(|record| record.checkpoint.as_ref());
    inspection.missing.is_empty() && checkpoints.all(|checkpoint| checkpoint.damage.is_empty())
}

async fn look_once(remote: &Remote, url: &str) -> Result<Inspection> {
    let chain = list_chain(remote).await?;
    let Some(newest) = chain.last() else {
        return Err(Error::new(ErrorKind::NotFound, "there is no job at this place")
            .object(url)
            .advise("check the URL"));
    };
    let (manifests, mut damaged_versions) = read_all(remote, &chain).await?;
    let seen = |version| damaged_versions.iter().any(|(damaged, _)| *damaged == version);
    let head = manifests.last().filter(|(head, _)| head.version == newest.version || seen(newest.version));
    let Some((head, _)) = head else {
        // All of it is damaged, or the newest is gone.
        return Err(damaged_versions.pop().map_or_else(
            || Error::new(ErrorKind::MissingObject, "the newest manifest is gone").object(url),
            |(_, error)| error,
        ));
    };

    let sizes = sizes_of_all(remote).await?;
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
    let (savepoints, damaged) = look_at_savepoints(remote).await?;
    let pins = inspect_pins(remote).await?;
    let saved: BTreeSet<_> = savepoints.iter().map(|savepoint| Version(savepoint.version)).collect();
    let pinned = pins.iter().filter_map(|pin| pin.version).map(Version);
    let versions = saved.iter().copied().chain(pinned).collect();
    // Not what is only pinned: a killed reader's checkpoint may be gone.
    let needed =
        needed.filter(|manifest| retained.contains(&manifest.version) || saved.contains(&manifest.version));
    let needed: Vec<_> = needed.collect();
    let unread: Vec<_> = damaged_versions.iter().map(|(version, _)| *version).collect();
    let damage = intact::look(remote, &needed, &sizes, &unread).await?;
    // Not what a pin or savepoint names that came too late.
    let held: BTreeSet<_> = reach(&versions)
        .into_iter()
        .filter(|name| !live.contains(name) && sizes.contains_key(name))
        .collect();
    let records = inspected_records(remote, &manifests, &retained, &damage).await?;
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

/// Names and sizes of all objects of the job.
async fn sizes_of_all(remote: &Remote) -> Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for folder in ObjectName::FOLDERS {
        let listed = remote.list(folder).await?;
        sizes.extend(listed.into_iter().map(|object| (object.name, object.size)));
    }
    Ok(sizes)
}

/// The chain's records as an inspection shows them.
async fn inspected_records(
    remote: &Remote,
    manifests: &[(Manifest, u64)],
    retained: &BTreeSet<Version>,
    damage: &Damage,
) -> Result<Vec<InspectedRecord>> {
    // Many refer to what few carry.
    let carried = manifests.iter().filter_map(|(manifest, _)| {
        let states = &manifest.checkpoint()?.states;
        Some((states.carrier()?, states.known()?))
            .filter(|(carrier, _)| **carrier == ObjectName::manifest(manifest.version))
    });
    let carried: BTreeMap<_, _> = carried.collect();
    let mut records = Vec::new();
    for (manifest, bytes) in manifests {
        let checkpoint = match manifest.checkpoint() {
            Some(record) => {
                let states = match record.states.carrier().and_then(|carrier| carried.get(carrier)) {
                    Some(states) => (*states).clone(),
                    None => states_of(remote, record).await?,
                };
                let kept = retained.contains(&manifest.version);
                Some(InspectedCheckpoint::of(manifest, record, &states, kept, damage.of(manifest.version)))
            }
            None => None,
        };
        let (version, epoch) = (manifest.version.0, manifest.epoch.0);
        records.push(InspectedRecord { version, epoch, bytes: *bytes, checkpoint });
    }
    Ok(records)
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

/// The manifests of the chain with their sizes, and the versions that are damaged. What is gone by
/// now was collected, unless the newest still retains it.
async fn read_all(
    remote: &Remote,
    chain: &[ChainEntry],
) -> Result<(Vec<(Manifest, u64)>, Vec<(Version, Error)>)> {
    let reads: Vec<_> = chain.iter().map(|entry| read(remote, entry.version, entry.size)).collect();
    let read: Vec<_> = futures::stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    let (mut manifests, mut damaged) = (Vec::new(), Vec::new());
    for found in read.into_iter().flatten() {
        match found {
            Ok(found) => manifests.push(found),
            Err(found) => damaged.push(found),
        }
    }
    Ok((manifests, damaged))
}

/// None if it is gone.
async fn read(remote: &Remote, version: Version, size: u64) -> Result<Option<Read>> {
    match read_manifest(remote, version).await {
        Ok((manifest, _)) => Ok(Some(Ok((manifest, size)))),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(Err((version, error)))),
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok(None),
        Err(error) => Err(error),
    }
}

/// The descriptions of a checkpoint's states. Empty if the manifest that carries them is gone. That can be so for a
/// checkpoint that is not retained, whose manifest exists only because later ones need its deltas.
async fn states_of(remote: &Remote, record: &CheckpointRecord) -> Result<StateLists> {
    match record.states.fetch(remote).await {
        Err(error) if error.kind() == ErrorKind::MissingObject => Ok(StateLists::default()),
        states => states,
    }
}
