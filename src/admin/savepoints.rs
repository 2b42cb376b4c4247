//! A job's savepoints from outside: the job may be running, and does not notice.

use std::sync::Arc;

use serde::Serialize;

use super::no_job;
use super::outside::Outside;
use crate::env::Env;
use crate::error::{ErrorKind, Result};
use crate::gc::Holder;
use crate::gc::savepoint::{self, SavepointRecord};
use crate::ids::CheckpointId;
use crate::manifest::{CheckpointRecord, RestoreFrom, read_manifest, read_top};
use crate::remote::{JobLocation, Remote, SavepointName};

/// A named checkpoint that garbage collection never touches until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Savepoint {
    /// Its name.
    pub name: String,
    /// The checkpoint that it keeps.
    pub checkpoint: CheckpointId,
    /// The checkpoint's version in the manifest chain.
    pub version: u64,
    /// When the savepoint was made, in milliseconds since 1970 UTC.
    pub unix_millis: u64,
    /// Bytes that a restore reads. None if its manifest is gone. Then a request that had been given up has made the
    /// savepoint too late, and it cannot be restored.
    pub full_bytes: Option<u64>,
}

/// Makes, lists and releases the savepoints of a job, without opening it: a running attempt goes on
/// undisturbed, and is not fenced. A running job makes one of its state of the moment by
/// [`Job::savepoint`](crate::Job::savepoint).
///
/// A savepoint is a name for a checkpoint. It costs one small object, and keeps the checkpoint's objects alive where
/// they are; nothing is copied. A job goes on from a savepoint by [`RestoreFrom::Savepoint`], in any checkpoint mode.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode};
/// use alluvium::admin::Savepoints;
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
/// let pending = opened.job.savepoint("before-upgrade", "")?;
/// opened.stores[0].cut(pending.id(), "")?;
/// pending.wait()?;
///
/// let savepoints = Savepoints::open(&url)?;
/// assert_eq!(savepoints.list()?[0].name, "before-upgrade");
/// savepoints.release("before-upgrade")?;
/// assert!(savepoints.list()?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Savepoints {
    outside: Outside,
}

impl Savepoints {
    /// The savepoints of the job at a location. Looks at nothing yet.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a wrong URL or option,
    /// [`NotFound`](ErrorKind::NotFound) if it is a directory that does not exist.
    pub fn open(location: impl Into<JobLocation>) -> Result<Self> {
        Outside::new(&location.into(), Env::default()).map(|outside| Self { outside })
    }

    /// All savepoints, ascending by name.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no job, [`Corrupt`](ErrorKind::Corrupt) and
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) naming the object that does not read,
    /// [`StoreUnavailable`](ErrorKind::StoreUnavailable).
    pub fn list(&self) -> Result<Vec<Savepoint>> {
        let remote = Arc::clone(&self.outside.remote);
        self.outside.run(async move {
            let records = savepoint::list(&remote).await?;
            // Where there is none, there may be no job either: then the URL is wrong, and that none was found says nothing.
            if records.is_empty() && read_top(&remote).await?.newest.is_none() {
                return Err(no_job());
            }
            let reads = records.iter().map(|(name, record)| describe(&remote, name, record));
            futures::future::try_join_all(reads).await
        })
    }

    /// Makes a savepoint of a checkpoint that the job still retains: the newest, or the one that is
    /// given. For the syntax of names see [`Job::savepoint`](crate::Job::savepoint).
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a name that is none,
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if it is taken, [`NotFound`](ErrorKind::NotFound) if
    /// there is no job or no such checkpoint, or if the job gave it up a moment ago.
    pub fn create(&self, name: &str, checkpoint: Option<CheckpointId>) -> Result<Savepoint> {
        let name: SavepointName = name.parse()?;
        let remote = Arc::clone(&self.outside.remote);
        self.outside.run(async move {
            let from = checkpoint.map_or(RestoreFrom::Latest, RestoreFrom::Checkpoint);
            let record = savepoint::create(&remote, &name, &from, Holder::Reader).await?;
            describe(&remote, &name, &record).await
        })
    }

    /// Lets a savepoint go. What it alone kept is taken by the running job's next garbage collection,
    /// or that of the next attempt. A reader of the savepoint, and a job that goes on from it, are not disturbed.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), naming those that there are.
    pub fn release(&self, name: &str) -> Result<()> {
        let name: SavepointName = name.parse()?;
        let remote = Arc::clone(&self.outside.remote);
        self.outside.run(async move { savepoint::release(&remote, &name).await })
    }
}

pub(crate) async fn describe(
    remote: &Remote,
    name: &SavepointName,
    record: &SavepointRecord,
) -> Result<Savepoint> {
    let checkpoint = record.checkpoint;
    let full_bytes = match read_manifest(remote, checkpoint.version).await {
        Ok((manifest, _)) => manifest
            .checkpoint()
            .filter(|record| record.id == checkpoint.id)
            .map(CheckpointRecord::full_bytes),
        Err(error) if error.kind() == ErrorKind::MissingObject => None,
        Err(error) => return Err(error),
    };
    Ok(Savepoint {
        name: name.to_string(),
        checkpoint: checkpoint.id,
        version: checkpoint.version.0,
        unix_millis: record.unix_millis,
        full_bytes,
    })
}
