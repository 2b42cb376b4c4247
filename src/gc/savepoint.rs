//! Savepoints: pins that a user gave a name. They keep a checkpoint alive, through any number of later
//! checkpoints and attempts, until they are released.
//!
//! A savepoint is made under a [pin](super::pin). First the pin is taken, which checks that the checkpoint is
//! still retained. Then the savepoint is created by a conditional create, so that no name is given twice. Then
//! the pin is released. A savepoint that exists is therefore valid from its first moment, and any attempt or
//! reader may go on from it (I3). A checkpoint may pass from a pin to a savepoint to another pin, and no
//! further. The collector lists pins, savepoints, and pins again, and so sees at least one of them.
//!
//! A release creates an object too, which says so, and deletes the savepoint's object after that.
//! [`slots`](super::slots) explains why, and which of a name's objects counts.
//!
//! A savepoint is self-contained in that everything it needs lies within its job.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use super::pin::{Holder, Pin};
pub(crate) use super::savepoint_lookup::{find, list, names, require};
use super::savepoint_lookup::{read, slots, unknown, void};
pub(crate) use super::savepoint_record::SavepointRecord;
use super::savepoint_record::{Slot, encode};
use super::slots::{Slots, release_of};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::manifest::{RestoreFrom, fenced_by, newest_attempt};
use crate::remote::{ObjectName, Remote, SavepointName};

/// How often a name is listed again that other processes give and release meanwhile.
const TRIES: u32 = 16;

/// Makes a savepoint of a checkpoint that the job retains, for `holder`.
///
/// # Errors
/// `AlreadyExists` if the name is taken, `NotFound` if the checkpoint is not retained; then nothing
/// stays behind. What the store answers otherwise; whether the savepoint exists is then open.
pub(crate) async fn create(
    remote: &Arc<Remote>,
    name: &SavepointName,
    from: &RestoreFrom,
    holder: Holder,
) -> Result<SavepointRecord> {
    if let Some(there) = find(remote, name).await? {
        return Err(taken(name, &there));
    }
    let (pin, found) = Pin::take(remote, from, holder.clone()).await?;
    let env = remote.env();
    let (unix_millis, nonce) = (env.clock.unix_millis(), env.nonces.nonce());
    let record = SavepointRecord { checkpoint: found.retained, unix_millis, nonce };
    let made = match put(remote, name, &record, &holder).await {
        Ok(made) => made,
        // Nothing was sent that might yet have an effect.
        Err(error) if error.kind() == ErrorKind::Fenced => {
            return pin.release().await.and(Err(error));
        }
        // The pin stays: the request may yet be applied, and its savepoint must be a good one.
        Err(error) => return Err(error.advise("list the savepoints: it may exist all the same")),
    };
    if let Err(error) = pin.release().await {
        tracing::warn!(%error, savepoint = %name, "the pin under which a savepoint was made stays behind");
    }
    // Another one of this name came first.
    made.map_or(Ok(record), |there| Err(taken(name, &there)))
}

/// Creates the next generation. Returns the savepoint that has the name already, if there is one.
async fn put(
    remote: &Remote,
    name: &SavepointName,
    record: &SavepointRecord,
    holder: &Holder,
) -> Result<Option<SavepointRecord>> {
    for attempt in 0..TRIES {
        remote.pause(attempt).await;
        let slots = slots(remote, name).await?;
        let generation = slots.next();
        if let Some(there) = read(remote, name, &slots).await? {
            return Ok(Some(there).filter(|there| there != record));
        }
        // This check comes after the listing. A later attempt that opens from here on takes this generation, or a
        // later one, before it removes the pin, so this create can no longer succeed.
        if let Holder::Saving(epoch, _) = holder {
            let (_, newest) = newest_attempt(remote, (Version(epoch.0), *epoch)).await?;
            if newest > *epoch {
                return Err(fenced_by(newest));
            }
        }
        let object = ObjectName::savepoint(name, generation);
        match remote.put_data(&object, encode(&Slot::Savepoint(*record))).await {
            // If the listing was out of date, the object may fill a void hole.
            Ok(()) => {}
            // Another one was faster.
            Err(error) if error.kind() == ErrorKind::Corrupt => continue,
            Err(error) => return Err(error),
        }
        // Only the newest generation counts, and another process may have created a newer one after the listing
        // above. Then this one is void, and the next turn tries above it.
        let now = self::slots(remote, name).await?;
        if now.current() == Some(generation) {
            forget(remote, name, &now).await;
            return Ok(None);
        }
    }
    Err(Error::new(ErrorKind::StoreUnavailable, "other processes keep giving this name and releasing it")
        .object(format!("savepoint {name}"))
        .advise("choose another name"))
}

/// Finds out what became of a savepoint that an attempt was making when it was fenced: afterwards it either exists, or
/// nothing will come of any request that was on its way.
pub(super) async fn settle(remote: &Remote, name: &SavepointName) -> Result<()> {
    let slots = slots(remote, name).await?;
    if read(remote, name, &slots).await?.is_some() {
        return Ok(());
    }
    // Where the attempt would create it, as it has looked before this one has opened, or above.
    let generation = slots.next();
    for generation in [generation, release_of(generation)] {
        let object = ObjectName::savepoint(name, generation);
        let released = encode(&Slot::Released(remote.env().nonces.nonce()));
        match remote.put_data(&object, released).await {
            Ok(()) => {}
            // It was made after all, or another savepoint of the name was.
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    forget(remote, name, &self::slots(remote, name).await?).await;
    Ok(())
}

/// Releases a savepoint, also one that cannot be read. The next garbage collection deletes the objects that it alone
/// kept.
///
/// # Errors
/// `NotFound` if there is none of this name.
pub(crate) async fn release(remote: &Remote, name: &SavepointName) -> Result<()> {
    let slots = slots(remote, name).await?;
    let Some(generation) = slots.current() else { return Err(unknown(name, &names(remote).await?)) };
    // A damaged savepoint must be releasable, or garbage collection would stand still for ever.
    if let Ok(None) = read(remote, name, &slots).await {
        return Err(unknown(name, &names(remote).await?));
    }
    // The object that says so comes before the deletion. With the deletion alone, the next savepoint of this name
    // would get the same generation, and a delete that is still on its way would take that one.
    let object = ObjectName::savepoint(name, release_of(generation));
    match remote.put_data(&object, encode(&Slot::Released(remote.env().nonces.nonce()))).await {
        Ok(()) => {}
        // Another process releases it at the same time.
        Err(error) if error.kind() == ErrorKind::Corrupt => {}
        Err(error) => return Err(error.advise("release it again: whether it is gone is not known")),
    }
    forget(remote, name, &self::slots(remote, name).await.unwrap_or(slots)).await;
    Ok(())
}

/// Deletes objects that the name no longer stands for. Objects that stay behind go with a later sweep of the job.
async fn forget(remote: &Remote, name: &SavepointName, slots: &Slots) {
    let void: Vec<_> = void(name, slots).collect();
    if void.is_empty() {
        return;
    }
    if let Err(error) = remote.withdraw(void).await {
        tracing::warn!(%error, savepoint = %name, "a released savepoint's object stays behind");
    }
}

fn taken(name: &SavepointName, there: &SavepointRecord) -> Error {
    let message = format!("a savepoint of this name exists, of checkpoint {}", there.checkpoint.id);
    Error::new(ErrorKind::AlreadyExists, message)
        .object(format!("savepoint {name}"))
        .advise("choose another name, or release it first")
}
