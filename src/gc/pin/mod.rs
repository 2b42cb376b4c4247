//! Pins: how a reader that takes no part in the chain keeps a checkpoint alive.
//!
//! A reader first creates its pin, then checks whether the newest manifest still retains the
//! checkpoint. The collector first commits what drops the checkpoint, then lists the pins. The
//! second of the two always sees the first, so no clock is needed (I3). A pin takes over from a
//! savepoint in the same way: pin, then check whether the savepoint is still the same.
//!
//! Attempts have pins of their own. One keeps the savepoint alive from which the attempt continues,
//! until a commit refers to the same objects. Once a later attempt has opened, it counts for
//! nothing. Another belongs to an attempt of another job that starts from this one; the next
//! attempt of that job removes it. A third kind keeps the checkpoint of which an attempt makes a
//! savepoint. Once a later attempt has opened, that attempt first makes sure that the savepoint
//! either exists or never will.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod choice;
mod listing;
mod protected;
mod record;

use std::sync::Arc;

use super::savepoint_lookup;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::manifest::{Found, RestoreFrom, Retained, read_manifest};
use crate::remote::{ObjectName, Remote};

use choice::newest;
pub(crate) use choice::{choose, find_wanted};
pub(crate) use listing::{ListedPin, list, release_earlier};
pub(super) use protected::{Protected, list_protected};
pub(crate) use record::Holder;

/// How often a reader of the newest checkpoint chooses again when that one goes while it is pinned.
const TRIES: u32 = 16;

/// Keeps one checkpoint alive until it is released. A pin that is dropped without a release stays,
/// and keeps the checkpoint until a user removes it, because a reader that crashed cannot be told
/// from one that is slow.
#[derive(Debug)]
pub(crate) struct Pin {
    remote: Arc<Remote>,
    name: ObjectName,
}

impl Pin {
    /// Pins the checkpoint that `from` names, and reads its manifest.
    ///
    /// # Errors
    /// `NotFound` if there is no such job, checkpoint or savepoint, `Corrupt` and the like if its
    /// manifest cannot be read; then nothing stays behind.
    pub(crate) async fn take(
        remote: &Arc<Remote>,
        from: &RestoreFrom,
        holder: Holder,
    ) -> Result<(Self, Found)> {
        Self::take_as(remote, from, holder, false).await
    }

    /// As [`Pin::take`], for a caller that only reads: a checkpoint named by its id is pinned even
    /// if the newest manifest is damaged. Then it is not known for sure whether the checkpoint is
    /// still retained. If it is not, the reader finds an object missing.
    pub(crate) async fn take_to_read(remote: &Arc<Remote>, from: &RestoreFrom) -> Result<(Self, Found)> {
        let past_damage = matches!(from, RestoreFrom::Checkpoint(_));
        Self::take_as(remote, from, Holder::Reader, past_damage).await
    }

    async fn take_as(
        remote: &Arc<Remote>,
        from: &RestoreFrom,
        holder: Holder,
        past_damage: bool,
    ) -> Result<(Self, Found)> {
        match from {
            RestoreFrom::Savepoint(name) => Self::take_savepoint(remote, name, holder).await,
            RestoreFrom::Latest | RestoreFrom::Checkpoint(_) => {
                for _ in 1..TRIES {
                    let taken = Self::take_retained(remote, from, holder.clone(), past_damage).await?;
                    if let Some(taken) = taken {
                        return Ok(taken);
                    }
                }
                Err(Error::new(
                    ErrorKind::StoreUnavailable,
                    "checkpoints come and go faster than they can be pinned",
                )
                .advise("retain more of them"))
            }
        }
    }

    /// None if the checkpoint went while it was being pinned.
    async fn take_retained(
        remote: &Arc<Remote>,
        from: &RestoreFrom,
        holder: Holder,
        past_damage: bool,
    ) -> Result<Option<(Self, Found)>> {
        let wanted = find_wanted(remote, from, past_damage).await?;
        let pin = Self::put(remote, wanted.version, holder).await?;
        let confirm = async {
            // Every collection from now on sees the pin. A collector that listed the pins before
            // had committed what drops the checkpoint even earlier.
            let retained = newest(remote, past_damage).await?.retained.keeps(wanted);
            if retained { read(remote, wanted).await.map(Some) } else { Ok(None) }
        };
        match pin.or_withdraw(confirm.await).await? {
            (pin, Some(found)) => Ok(Some((pin, found))),
            (pin, None) => pin.release().await.map(|()| None),
        }
    }

    async fn take_savepoint(remote: &Arc<Remote>, name: &str, holder: Holder) -> Result<(Self, Found)> {
        let name = name.parse()?;
        let record = savepoint_lookup::require(remote, &name).await?;
        let pin = Self::put(remote, record.checkpoint.version, holder).await?;
        let confirm = async {
            // It is still the same savepoint. So it existed when any collector that has not seen the pin
            // listed savepoints, and that collector keeps the checkpoint.
            if savepoint_lookup::find(remote, &name).await? != Some(record) {
                return Err(Error::new(ErrorKind::NotFound, "the savepoint was released a moment ago")
                    .object(format!("savepoint {name}")));
            }
            read(remote, record.checkpoint).await.map_err(|error| match error.kind() {
                ErrorKind::MissingObject => {
                    error.advise(format!("savepoint {name} was made too late: release it and choose another"))
                }
                _ => error,
            })
        };
        pin.or_withdraw(confirm.await).await
    }

    async fn put(remote: &Arc<Remote>, version: Version, holder: Holder) -> Result<Self> {
        let name = ObjectName::pin(remote.env().nonces.nonce());
        match remote.put_data(&name, record::encode(version, &holder)).await {
            Ok(()) => Ok(Self { remote: Arc::clone(remote), name }),
            // A request whose answer was lost may have been applied.
            Err(error) => Err(match remote.withdraw(vec![name.clone()]).await {
                Ok(_) => error,
                Err(_) => left_behind(error, &name),
            }),
        }
    }

    /// Keeps the pin only with a good result.
    async fn or_withdraw<T>(self, result: Result<T>) -> Result<(Self, T)> {
        match result {
            Ok(value) => Ok((self, value)),
            Err(error) => {
                let name = self.name.clone();
                Err(match self.release().await {
                    Ok(()) => error,
                    // The first error says more than one from the withdrawal.
                    Err(_) => left_behind(error, &name),
                })
            }
        }
    }

    /// As a listing of pins calls it.
    pub(crate) fn id(&self) -> String {
        let name = self.name.to_string();
        name.rsplit('/').next().unwrap_or(&name).to_owned()
    }

    /// Lets the checkpoint go.
    pub(crate) async fn release(self) -> Result<()> {
        self.remote.withdraw(vec![self.name.clone()]).await
    }
}

/// Says that a pin may have stayed.
fn left_behind(error: Error, name: &ObjectName) -> Error {
    error.more_advice(format!("{name} may have stayed behind: release that pin when the store answers again"))
}

/// As [`Pin::take_to_read`], without a pin: what is found may go at any time.
pub(crate) async fn find_to_read(remote: &Remote, from: &RestoreFrom) -> Result<Found> {
    if let RestoreFrom::Savepoint(name) = from {
        return read(remote, savepoint_lookup::require(remote, &name.parse()?).await?.checkpoint).await;
    }
    let past_damage = matches!(from, RestoreFrom::Checkpoint(_));
    for _ in 1..TRIES {
        let wanted = find_wanted(remote, from, past_damage).await?;
        match read(remote, wanted).await {
            // It went between the two: choose again.
            Err(error) if error.kind() == ErrorKind::MissingObject && *from == RestoreFrom::Latest => {}
            found => return found,
        }
    }
    read(remote, find_wanted(remote, from, past_damage).await?).await
}

async fn read(remote: &Remote, wanted: Retained) -> Result<Found> {
    let (mut manifest, _) = read_manifest(remote, wanted.version).await?;
    manifest.fetch_states(remote).await?;
    if manifest.checkpoint().is_none_or(|record| record.id != wanted.id) {
        return Err(Error::corrupt(format!("is not checkpoint {}", wanted.id))
            .object(ObjectName::manifest(wanted.version)));
    }
    Ok(Found { retained: wanted, manifest: Some(Arc::new(manifest)) })
}
