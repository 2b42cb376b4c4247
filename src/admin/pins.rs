//! A job's pins from outside: what keeps a checkpoint alive that no savepoint and no retention does.

use std::sync::Arc;

use serde::Serialize;

use super::no_job;
use super::outside::Outside;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gc::{Holder, ListedPin, list_pins};
use crate::ids::{CheckpointId, Epoch};
use crate::manifest::{CheckpointRecord, read_manifest, read_top};
use crate::remote::{JobLocation, Remote};

/// A pin: it keeps a checkpoint alive until its holder removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InspectedPin {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// When it was made, by the clock of the object store, in milliseconds since 1970 UTC.
    pub unix_millis: u64,
    /// Its holder.
    pub holder: PinHolder,
    /// The version of the manifest chain that it keeps. None if the pin is damaged.
    pub version: Option<u64>,
    /// The checkpoint of that version. None if the pin or the manifest is damaged, or if the pin keeps nothing
    /// because it came too late.
    pub checkpoint: Option<CheckpointId>,
    /// Bytes that a restore of the checkpoint reads. Other checkpoints may need the same objects.
    pub full_bytes: Option<u64>,
}

/// The holder of a pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PinHolder {
    /// A reader: a [`CheckpointReader`](crate::CheckpointReader), or [`Savepoints::create`](crate::admin::Savepoints::create)
    /// under way. One that was killed cannot be told from one that is slow.
    Reader,
    /// An attempt of the job itself, that goes on from a savepoint or makes one.
    Attempt {
        /// The attempt.
        epoch: u64,
        /// Whether a later attempt has opened. Then the pin is removed by itself.
        fenced: bool,
    },
    /// An attempt of another job that has started from this one. That job removes the pin once it no longer depends on
    /// this one, or with its next attempt.
    OtherJob {
        /// Stands for the other job.
        job: String,
        /// The attempt.
        epoch: u64,
    },
    /// The pin cannot be read. No garbage is collected while it exists, because the objects that it keeps are not
    /// known.
    Damaged {
        /// The problem.
        problem: String,
    },
}

/// Lists the pins of a job, and releases those that their holders have left behind. No attempt begins, and a
/// running one goes on undisturbed.
///
/// A reader pins the checkpoint that it reads, and removes the pin when done. If the reader's process is killed, the
/// pin stays and keeps the checkpoint's objects. Release it once you know that no reader is at work; the pin itself
/// does not tell.
///
/// ```
/// use alluvium::{CheckpointReader, Job, JobOptions, OpenMode, ReaderOptions, RestoreFrom};
/// use alluvium::admin::{PinHolder, Pins};
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
/// let checkpoint = opened.job.trigger("")?;
/// opened.stores[0].cut(checkpoint.id(), "")?;
/// checkpoint.wait()?;
///
/// // As if the process had been killed.
/// let options = ReaderOptions::new().dir(place.path().join("reader"));
/// std::mem::forget(CheckpointReader::open(&url, &RestoreFrom::Latest, options)?);
///
/// let pins = Pins::open(&url)?;
/// let left = pins.list()?;
/// assert_eq!(left[0].holder, PinHolder::Reader);
/// pins.release(&left[0].id)?;
/// assert!(pins.list()?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pins {
    outside: Outside,
}

impl Pins {
    /// The pins of the job at a location. Looks at nothing yet.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a wrong URL or option,
    /// [`NotFound`](ErrorKind::NotFound) if it is a directory that does not exist.
    pub fn open(location: impl Into<JobLocation>) -> Result<Self> {
        Outside::new(&location.into(), Env::default()).map(|outside| Self { outside })
    }

    /// All pins, oldest first. Those that are damaged are among them.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no job, [`StoreUnavailable`](ErrorKind::StoreUnavailable).
    pub fn list(&self) -> Result<Vec<InspectedPin>> {
        let remote = Arc::clone(&self.outside.remote);
        self.outside.run(async move { inspect_pins(&remote).await })
    }

    /// Deletes a pin, and returns it as it was. Objects that nothing else keeps go with the next garbage collection of the
    /// running job, or of the next attempt. A reader that still needs them fails.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no pin of this id, naming those that there are;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it belongs to the job's newest attempt, which needs it and takes
    /// it away by itself; [`StoreUnavailable`](ErrorKind::StoreUnavailable).
    pub fn release(&self, id: &str) -> Result<InspectedPin> {
        let (remote, id) = (Arc::clone(&self.outside.remote), id.to_owned());
        self.outside.run(async move {
            let listed = list_pins(&remote).await?;
            let Some(pin) = listed.iter().find(|pin| pin.nonce.to_string() == id) else {
                let known: Vec<_> = listed.iter().map(|pin| pin.nonce.to_string()).collect();
                let error = Error::new(ErrorKind::NotFound, "the job has no pin of this id")
                    .object(format!("pin {id}"));
                return Err(match known.as_slice() {
                    [] => error.advise("the job has no pins"),
                    known => error.advise(format!("choose one of [{}]", known.join(", "))),
                });
            };
            // Epochs only grow, so an attempt that is fenced now stays fenced.
            let inspected = inspect_pin(&remote, pin, newest_epoch(&remote).await?).await?;
            if matches!(inspected.holder, PinHolder::Attempt { fenced: false, .. }) {
                return Err(Error::invalid("the pin belongs to the job's newest attempt, which may need it")
                    .object(format!("pin {id}"))
                    .advise("leave it: the attempt takes it away with its first checkpoint, or the next attempt does"));
            }
            remote.withdraw(vec![pin.name.clone()]).await?;
            Ok(inspected)
        })
    }
}

/// All pins of a job, oldest first.
pub(crate) async fn inspect_pins(remote: &Remote) -> Result<Vec<InspectedPin>> {
    let listed = list_pins(remote).await?;
    let epoch = newest_epoch(remote).await?;
    let mut pins = Vec::new();
    for pin in &listed {
        pins.push(inspect_pin(remote, pin, epoch).await?);
    }
    pins.sort_by(|a, b| (a.unix_millis, &a.id).cmp(&(b.unix_millis, &b.id)));
    Ok(pins)
}

async fn newest_epoch(remote: &Remote) -> Result<Epoch> {
    // If the newest version is damaged, this is the epoch of a version below it. An attempt that is fenced by that
    // epoch is fenced all the same.
    read_top(remote).await?.head.map(|newest| newest.epoch).ok_or_else(no_job)
}

async fn inspect_pin(remote: &Remote, pin: &ListedPin, newest: Epoch) -> Result<InspectedPin> {
    let mut inspected = InspectedPin {
        id: pin.nonce.to_string(),
        unix_millis: pin.unix_millis,
        holder: PinHolder::Reader,
        version: None,
        checkpoint: None,
        full_bytes: None,
    };
    let (version, holder) = match &pin.content {
        Ok(content) => content.clone(),
        Err(error) => {
            inspected.holder = PinHolder::Damaged { problem: error.to_string() };
            return Ok(inspected);
        }
    };
    inspected.version = Some(version.0);
    inspected.holder = match holder {
        Holder::Reader => PinHolder::Reader,
        Holder::Attempt(epoch) | Holder::Saving(epoch, _) => {
            PinHolder::Attempt { epoch: epoch.0, fenced: epoch < newest }
        }
        Holder::Other(job, epoch) => PinHolder::OtherJob { job: job.to_string(), epoch: epoch.0 },
    };
    match read_manifest(remote, version).await {
        Ok((manifest, _)) => {
            inspected.checkpoint = manifest.checkpoint().map(|record| record.id);
            inspected.full_bytes = manifest.checkpoint().map(CheckpointRecord::full_bytes);
        }
        // Gone or damaged. An inspection of the job shows which.
        Err(error) if matches!(error.kind(), ErrorKind::MissingObject | ErrorKind::Corrupt) => {}
        Err(error) => return Err(error),
    }
    Ok(inspected)
}
