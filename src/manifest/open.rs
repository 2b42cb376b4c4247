//! How an attempt begins: look before touching anything, probe, and put the `Open` record on top.

use super::errors::{fenced, unlisted};
use super::format;
use super::inline::Inline;
use super::model::Manifest;
use super::protocol::{Open, OpenVerdict, Step};
use super::read::{Damaged, Top, newest_version, read_top};
use super::retained::Entry;
use super::roots::list_retained;
use super::tries::{Tries, look_at};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::key_group::MaxParallelism;
use crate::remote::{ObjectName, Remote};

/// What the caller expects to find at the job's place. A mistyped URL must not silently start empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OpenMode {
    /// The job must not exist yet.
    Create,
    /// The job must exist.
    Existing,
    /// Either. The default.
    #[default]
    CreateOrOpen,
}

/// How often an opener that loses a race looks again.
const OPEN_ATTEMPTS: u32 = 16;

/// An attempt that has begun.
pub(super) struct Begun {
    pub(super) head: Manifest,
    /// The retained checkpoints, oldest first.
    pub(super) entries: Vec<Entry>,
    /// Up to which version some may be missing among them, because what names them cannot be read.
    pub(super) gaps: Option<Version>,
    /// The versions that were passed over, newest first.
    pub(super) damaged: Vec<Damaged>,
}

pub(super) async fn open(
    remote: &Remote,
    mode: OpenMode,
    max_parallelism: Option<MaxParallelism>,
    past_damage: bool,
) -> Result<Begun> {
    let mut probed = false;
    for attempt in 0..OPEN_ATTEMPTS {
        remote.pause(attempt).await;
        let top = read_top(remote).await?;
        let newest = top.newest;
        check_mode(remote, mode, newest).await?;
        if let Some(error) = top.refusal(past_damage) {
            return Err(error);
        }
        // All refusals come before the probe, which is the first request that writes.
        let Top { head, damaged, .. } = top;
        let max_parallelism = agree(head.as_ref(), max_parallelism)?;
        let version = newest.unwrap_or(Version(0)).next();
        if !probed {
            match remote.probe(version).await {
                Ok(()) => probed = true,
                // Its object may have been collected as a leftover, which looks as if the store were at fault.
                Err(error) if error.kind() == ErrorKind::UnsafeStore => {
                    if newest_version(remote).await? == newest {
                        return Err(error);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        let nonce = remote.env().nonces.nonce();
        let manifest = Manifest::open(version, nonce, head.as_ref(), max_parallelism);
        if begin(remote, &manifest).await? {
            // Read only now: until the record is there, an earlier attempt may still drop some of them.
            let (entries, gaps) = list_retained(remote, &manifest).await?;
            return Ok(Begun { head: manifest, entries, gaps, damaged });
        }
    }
    Err(Error::new(ErrorKind::StoreUnavailable, "other attempts of this job keep getting in first")
        .object(ObjectName::MANIFESTS)
        .advise("see that only one is started at a time"))
}

/// Nothing has been written yet when this refuses.
async fn check_mode(remote: &Remote, mode: OpenMode, newest: Option<Version>) -> Result<()> {
    match (newest, mode) {
        (Some(newest), OpenMode::Create) => {
            Err(Error::new(ErrorKind::AlreadyExists, "a job exists here already")
                .object(ObjectName::manifest(newest))
                .advise("open it as an existing job, or choose another place"))
        }
        (Some(_), OpenMode::Existing | OpenMode::CreateOrOpen) => Ok(()),
        (None, mode) => {
            refuse_foreign(remote).await?;
            if mode == OpenMode::Existing {
                return Err(Error::new(ErrorKind::NotFound, "no job exists here")
                    .advise("check the URL, or open it as a new job"));
            }
            Ok(())
        }
    }
}

/// Without a chain, the place must be empty except for probes that other openers have left.
async fn refuse_foreign(remote: &Remote) -> Result<()> {
    let foreign = |name: &str| {
        Error::new(ErrorKind::ForeignData, "the place holds something that is not a job of alluvium")
            .object(name)
            .advise("give the job a prefix or directory of its own; nothing was touched")
    };
    let top = remote.list_top().await?;
    if let Some(name) = top.iter().find(|name| !ObjectName::FOLDERS.contains(&name.as_str())) {
        return Err(foreign(name));
    }
    for folder in top {
        for listed in remote.list(&folder).await? {
            if ObjectName::parse(&listed.name).is_none() {
                return Err(foreign(&listed.name));
            }
            if folder == ObjectName::DATA {
                return Err(Error::corrupt("the place holds a job's data, but its manifests are gone")
                    .object(listed.name)
                    .advise("choose another place, or restore the folder manifest/"));
            }
        }
    }
    Ok(())
}

/// The job's number of key groups: fixed when it was created.
fn agree(head: Option<&Manifest>, wanted: Option<MaxParallelism>) -> Result<MaxParallelism> {
    match (head.map(|head| head.max_parallelism), wanted) {
        (Some(fixed), Some(wanted)) if fixed != wanted => {
            let (fixed, wanted) = (fixed.get(), wanted.get());
            let message = format!("the job was created with max parallelism {fixed}, not {wanted}");
            Err(Error::new(ErrorKind::Incompatible, message)
                .advise("leave it unset or as it is: keys are placed by it"))
        }
        (Some(fixed), _) => Ok(fixed),
        (None, wanted) => Ok(wanted.unwrap_or_default()),
    }
}

/// Puts the open record on top of the chain; false if that has to start over.
async fn begin(remote: &Remote, manifest: &Manifest) -> Result<bool> {
    let version = manifest.version;
    let name = ObjectName::manifest(version);
    let payload = format::encode(manifest, &Inline::new())?;
    let machine = Open::new(version, manifest.nonce);
    let mut tries = Tries::new(remote);
    let mut listings = 0;
    let mut step = machine.start();
    loop {
        step = match step {
            Step::Create => {
                tries.next(&name).await?;
                machine.created(tries.create(&name, &payload).await)
            }
            Step::Read => machine.read(look_at(remote, version).await?.0),
            Step::List => {
                // A version that is listed and missing was probably collected meanwhile.
                if listings == OPEN_ATTEMPTS {
                    return Err(Error::new(
                        ErrorKind::StoreUnavailable,
                        "the store goes on listing a version above this one that it does not have",
                    )
                    .object(&name)
                    .advise("try again later, or use a store whose listings are consistent"));
                }
                remote.pause(listings).await;
                listings += 1;
                machine.listed(newest_version(remote).await?)
            }
            Step::ReadNewest(newest) => machine.newest_read(look_at(remote, newest).await?.0),
            Step::Done(OpenVerdict::Opened) => return Ok(true),
            Step::Done(OpenVerdict::StartOver) => return Ok(false),
            Step::Done(OpenVerdict::Fenced(by)) => return Err(fenced(&name, Some(by))),
            Step::Done(OpenVerdict::Unlisted) => return Err(unlisted(&name)),
        };
    }
}
