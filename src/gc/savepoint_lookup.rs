//! Finding savepoints by their names, without making or releasing any.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use futures::{StreamExt, TryStreamExt, stream};

use super::savepoint_record::{SavepointRecord, Slot, decode};
use super::slots::{Slots, by_name};
use crate::error::{Error, ErrorKind, Result};
use crate::remote::{ObjectName, Remote, SavepointName};

/// Savepoints read at the same time.
const PARALLEL_READS: usize = 16;

/// All savepoints, and objects that their names no longer stand for.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Ascending by name.
    pub(super) there: Vec<(SavepointName, SavepointRecord)>,
    /// Void for good, even if a late request writes them again.
    pub(super) stale: Vec<ObjectName>,
}

/// The savepoint of this name, if there is one.
///
/// # Errors
/// `Corrupt` and `UnsupportedVersion` naming the object; what the store answers.
pub(crate) async fn find(remote: &Remote, name: &SavepointName) -> Result<Option<SavepointRecord>> {
    read(remote, name, &slots(remote, name).await?).await
}

pub(super) async fn slots(remote: &Remote, name: &SavepointName) -> Result<Slots> {
    let listed = remote.list(ObjectName::SAVEPOINTS).await?;
    Ok(by_name(&listed).remove(name).unwrap_or_default())
}

pub(super) async fn read(
    remote: &Remote,
    name: &SavepointName,
    slots: &Slots,
) -> Result<Option<SavepointRecord>> {
    let Some(generation) = slots.current() else { return Ok(None) };
    let object = ObjectName::savepoint(name, generation);
    // One that is gone by now was released.
    let Some(bytes) = remote.get_optional(&object).await? else { return Ok(None) };
    match decode(&bytes).map_err(|error| error.object(&object))? {
        Slot::Savepoint(record) => Ok(Some(record)),
        Slot::Released(_) => Ok(None),
    }
}

/// As [`find`].
///
/// # Errors
/// `NotFound`, naming the savepoints that there are.
pub(crate) async fn require(remote: &Remote, name: &SavepointName) -> Result<SavepointRecord> {
    match find(remote, name).await? {
        Some(record) => Ok(record),
        None => Err(unknown(name, &names(remote).await?)),
    }
}

pub(super) fn unknown(name: &SavepointName, known: &[SavepointName]) -> Error {
    let known: Vec<_> = known.iter().map(ToString::to_string).collect();
    let error = Error::new(ErrorKind::NotFound, "the job has no savepoint of this name")
        .object(format!("savepoint {name}"));
    match known.as_slice() {
        [] => error.advise("the job has no savepoints"),
        known => error.advise(format!("choose one of [{}]", known.join(", "))),
    }
}

/// The names of all savepoints, ascending.
pub(crate) async fn names(remote: &Remote) -> Result<Vec<SavepointName>> {
    let all = by_name(&remote.list(ObjectName::SAVEPOINTS).await?).into_iter();
    Ok(all.filter(|(_, slots)| slots.current().is_some()).map(|(name, _)| name).collect())
}

/// All savepoints, ascending by name.
///
/// # Errors
/// As [`find`]. A savepoint that cannot be read keeps a checkpoint that is not known.
pub(crate) async fn list(remote: &Remote) -> Result<Vec<(SavepointName, SavepointRecord)>> {
    look(remote).await.map(|looked| looked.there)
}

/// As [`list`], with what is left over.
pub(super) async fn look(remote: &Remote) -> Result<Looked> {
    let all = by_name(&remote.list(ObjectName::SAVEPOINTS).await?);
    let stale = all.iter().flat_map(|(name, slots)| void(name, slots)).collect();
    let reads = all.iter().map(async |(name, slots): (&SavepointName, &Slots)| {
        // One that is gone by now was released.
        Ok(read(remote, name, slots).await?.map(|record| (name.clone(), record)))
    });
    let reads: Vec<_> = reads.collect();
    let found: Vec<_> = stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    Ok(Looked { there: found.into_iter().flatten().collect(), stale })
}

pub(super) fn void(name: &SavepointName, slots: &Slots) -> impl Iterator<Item = ObjectName> {
    slots.void().map(|generation| ObjectName::savepoint(name, generation))
}
