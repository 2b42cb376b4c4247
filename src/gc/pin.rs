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
//!
//! Bytes: magic "ALVP", format u16, version u64, epoch of the attempt that it belongs to u64 (0: none), nonce
//! that stands for the attempt's job 16 bytes (0: this one), in format 2 the length u8 and the name of the savepoint that
//! is being made, crc32c of all before u32 (little-endian).

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::savepoint_lookup;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Epoch, Nonce, Version};
use crate::manifest::{Found, Manifest, RestoreFrom, Retained, read_manifest, read_newest_list, read_top};
use crate::remote::{ObjectName, Remote, SavepointName};

const MAGIC: [u8; 4] = *b"ALVP";
const FORMAT: u16 = 1;
/// With the name of a savepoint.
const SAVING: u16 = 2;

/// How often a reader of the newest checkpoint chooses again when that one goes while it is pinned.
const TRIES: u32 = 16;

/// The holder of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A reader, which takes no part in any job.
    Reader,
    /// An attempt of the job itself.
    Attempt(Epoch),
    /// An attempt of the job itself, for as long as it makes a savepoint.
    Saving(Epoch, SavepointName),
    /// An attempt of another job; the nonce is that of the job's first record.
    Other(Nonce, Epoch),
}

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
        match remote.put_data(&name, encode(version, &holder)).await {
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

async fn newest(remote: &Remote, past_damage: bool) -> Result<Manifest> {
    let top = read_top(remote).await?;
    if let Some(damaged) = top.damaged.first().filter(|_| !past_damage) {
        let error = damaged.error.clone();
        return Err(
            error.advise("ask for a checkpoint by its id, or for a savepoint: inspect shows what is intact")
        );
    }
    top.head.ok_or_else(no_job)
}

fn no_job() -> Error {
    Error::new(ErrorKind::NotFound, "there is no job at this place").advise("check the URL")
}

/// The checkpoint that is meant.
///
/// # Errors
/// `NotFound` if there is no such job or checkpoint.
pub(crate) async fn find_wanted(remote: &Remote, from: &RestoreFrom, past_damage: bool) -> Result<Retained> {
    let all = match from {
        RestoreFrom::Checkpoint(_) => match read_newest_list(remote).await {
            Err(error) if past_damage && error.kind() == ErrorKind::Corrupt => {
                newest(remote, past_damage).await?.retained.fetch_readable(remote).await?
            }
            list => list?.ok_or_else(no_job)?.1,
        },
        // The rest of the list may be long.
        RestoreFrom::Latest | RestoreFrom::Savepoint(_) => {
            newest(remote, past_damage).await?.retained.newest().into_iter().collect()
        }
    };
    let all: Vec<_> = all.iter().map(|entry| entry.checkpoint).collect();
    choose(from, &all)
}

/// The one that is meant, of those that are `retained`, oldest first.
pub(crate) fn choose(from: &RestoreFrom, retained: &[Retained]) -> Result<Retained> {
    let RestoreFrom::Checkpoint(id) = from else {
        return retained.last().copied().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the job has no checkpoint yet").advise("take one first")
        });
    };
    retained.iter().find(|retained| retained.id == *id).copied().ok_or_else(|| {
        let known: Vec<_> = retained.iter().map(|retained| retained.id.to_string()).collect();
        let error = Error::new(ErrorKind::NotFound, "the checkpoint is not among the retained ones")
            .object(format!("checkpoint {id}"));
        match known.as_slice() {
            [] => error.advise("the job retains no checkpoint"),
            known => error.advise(format!("choose one of [{}]", known.join(", "))),
        }
    })
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

/// What savepoints and pins keep alive.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) versions: BTreeSet<Version>,
    /// What keeps nothing: pins of attempts that are fenced, and savepoints that were released.
    pub(super) stale: BTreeSet<ObjectName>,
    /// Pins under which attempts that are fenced were making savepoints. They keep what they name until it is known
    /// what came of that.
    pub(super) unfinished: Vec<(ObjectName, SavepointName)>,
    seen: BTreeSet<ObjectName>,
}

/// Lists pins, savepoints, and pins again: a savepoint that is made under a pin is there before the pin
/// goes, and a pin that takes over from a savepoint before the savepoint goes. (Any two of the three
/// listings would miss one or the other: see the exploration in `manifest::model_check`.) `epoch` is the
/// newest attempt that the collector knows of.
///
/// # Errors
/// `Corrupt` if one does not read: it protects something, and there is no telling what.
pub(super) async fn held(remote: &Remote, epoch: Epoch) -> Result<Held> {
    let mut held = Held::default();
    held.add_pins(remote, epoch).await?;
    let savepoints = savepoint_lookup::look(remote).await?;
    held.versions.extend(savepoints.there.iter().map(|(_, record)| record.checkpoint.version));
    held.stale.extend(savepoints.stale);
    held.add_pins(remote, epoch).await?;
    Ok(held)
}

impl Held {
    async fn add_pins(&mut self, remote: &Remote, epoch: Epoch) -> Result<()> {
        for name in names(remote).await? {
            if self.seen.contains(&name) {
                continue;
            }
            let Some((version, holder)) = find(remote, &name).await? else { continue };
            self.seen.insert(name.clone());
            match holder {
                Holder::Attempt(owner) if owner < epoch => {
                    self.stale.insert(name);
                    continue;
                }
                Holder::Saving(owner, savepoint) if owner < epoch => self.unfinished.push((name, savepoint)),
                Holder::Reader | Holder::Attempt(_) | Holder::Saving(..) | Holder::Other(..) => {}
            }
            self.versions.insert(version);
        }
        Ok(())
    }
}

/// A pin as a listing finds it.
#[derive(Debug)]
pub(crate) struct ListedPin {
    pub(crate) name: ObjectName,
    pub(crate) nonce: Nonce,
    /// When it was made, by the clock of the store, in milliseconds since 1970.
    pub(crate) unix_millis: u64,
    /// What it keeps, and its holder; an error if the pin is damaged.
    pub(crate) content: Result<(Version, Holder)>,
}

/// All pins, damaged ones as well.
pub(crate) async fn list(remote: &Remote) -> Result<Vec<ListedPin>> {
    let mut pins = Vec::new();
    for listed in remote.list(ObjectName::PINS).await? {
        let Some(name @ ObjectName::Pin(nonce)) = ObjectName::parse(&listed.name) else { continue };
        let content = match find(remote, &name).await {
            // It was taken away meanwhile.
            Ok(None) => continue,
            Ok(Some(content)) => Ok(content),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion) => {
                Err(error)
            }
            Err(error) => return Err(error),
        };
        pins.push(ListedPin { name, nonce, unix_millis: listed.unix_millis, content });
    }
    Ok(pins)
}

async fn names(remote: &Remote) -> Result<Vec<ObjectName>> {
    let listed = remote.list(ObjectName::PINS).await?;
    let names = listed.iter().filter_map(|listed| ObjectName::parse(&listed.name));
    Ok(names.filter(|name| matches!(name, ObjectName::Pin(_))).collect())
}

/// What a pin says; None if it is gone by now, that is, withdrawn.
async fn find(remote: &Remote, name: &ObjectName) -> Result<Option<(Version, Holder)>> {
    let bytes = remote.get_optional(name).await?;
    bytes
        .map(|bytes| decode(&bytes))
        .transpose()
        .map_err(|error| error.object(name).advise("release it if no reader is at work"))
}

/// Releases the pins of attempts of `job`, another one, before `epoch`: they were fenced or have ended.
pub(crate) async fn release_earlier(remote: &Remote, job: Nonce, epoch: Epoch) -> Result<()> {
    let mut earlier = Vec::new();
    for name in names(remote).await? {
        let found = find(remote, &name).await?;
        if matches!(found, Some((_, Holder::Other(other, owner))) if other == job && owner < epoch) {
            earlier.push(name);
        }
    }
    if !earlier.is_empty() {
        remote.withdraw(earlier).await?;
    }
    Ok(())
}

fn encode(version: Version, holder: &Holder) -> Bytes {
    let (job, epoch, savepoint) = match holder {
        Holder::Reader => (Nonce::default(), Epoch(0), None),
        Holder::Attempt(epoch) => (Nonce::default(), *epoch, None),
        Holder::Saving(epoch, savepoint) => (Nonce::default(), *epoch, Some(savepoint.to_string())),
        Holder::Other(job, epoch) => (*job, *epoch, None),
    };
    let mut buffer = BytesMut::with_capacity(42);
    buffer.put_slice(&MAGIC);
    buffer.put_u16_le(if savepoint.is_some() { SAVING } else { FORMAT });
    buffer.put_u64_le(version.0);
    buffer.put_u64_le(epoch.0);
    buffer.put_slice(&job.0);
    if let Some(savepoint) = savepoint {
        // A name has at most 100 bytes.
        buffer.put_u8(u8::try_from(savepoint.len()).unwrap_or(u8::MAX));
        buffer.put_slice(savepoint.as_bytes());
    }
    let crc = crc32c::crc32c(&buffer);
    buffer.put_u32_le(crc);
    buffer.freeze()
}

fn decode(bytes: &[u8]) -> Result<(Version, Holder)> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(not_a_pin)?;
    let (format, rest) = rest.split_first_chunk::<2>().ok_or_else(not_a_pin)?;
    if *magic != MAGIC {
        return Err(not_a_pin());
    }
    let format = u16::from_le_bytes(*format);
    if format > SAVING {
        return Err(Error::new(ErrorKind::UnsupportedVersion, format!("pin has format {format}")));
    }
    let (version, rest) = rest.split_first_chunk::<8>().ok_or_else(not_a_pin)?;
    let (epoch, rest) = rest.split_first_chunk::<8>().ok_or_else(not_a_pin)?;
    let (job, rest) = rest.split_first_chunk::<16>().ok_or_else(not_a_pin)?;
    let (savepoint, crc) = match format {
        SAVING => {
            let (length, rest) = rest.split_first().ok_or_else(not_a_pin)?;
            let (name, crc) = rest.split_at_checked(usize::from(*length)).ok_or_else(not_a_pin)?;
            (Some(name), crc)
        }
        _ => (None, rest),
    };
    let checked = bytes.len().saturating_sub(crc.len());
    let expected = bytes.get(..checked).map(crc32c::crc32c).unwrap_or_default();
    if format == 0 || crc != expected.to_le_bytes() {
        return Err(Error::corrupt("checksum of a pin does not match"));
    }
    let savepoint = savepoint.map(|name| std::str::from_utf8(name).ok()?.parse::<SavepointName>().ok());
    let holder = match (Nonce(*job), Epoch(u64::from_le_bytes(*epoch)), savepoint) {
        (_, epoch, Some(savepoint)) => Holder::Saving(epoch, savepoint.ok_or_else(not_a_pin)?),
        (Nonce(job), Epoch(0), None) if job == [0; 16] => Holder::Reader,
        (Nonce(job), epoch, None) if job == [0; 16] => Holder::Attempt(epoch),
        (job, epoch, None) => Holder::Other(job, epoch),
    };
    Ok((Version(u64::from_le_bytes(*version)), holder))
}

fn not_a_pin() -> Error {
    Error::corrupt("not a pin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_change_and_every_flip_is_noticed() {
        let holder = Holder::Other(Nonce([0xab; 16]), Epoch(3));
        let bytes = encode(Version(0x0102), &holder);
        assert_eq!(&bytes[..14], b"ALVP\x01\x00\x02\x01\x00\x00\x00\x00\x00\x00");
        assert_eq!(&bytes[14..22], b"\x03\x00\x00\x00\x00\x00\x00\x00");
        assert_eq!(&bytes[22..38], &[0xab; 16]);
        assert_eq!(decode(&bytes).unwrap(), (Version(0x0102), holder));
        let saving = Holder::Saving(Epoch(9), "daily".parse().unwrap());
        for holder in [Holder::Reader, Holder::Attempt(Epoch(9)), saving.clone()] {
            assert_eq!(decode(&encode(Version(7), &holder)).unwrap(), (Version(7), holder));
        }
        let saving = encode(Version(0x0102), &saving);
        assert_eq!(&saving[..8], b"ALVP\x02\x00\x02\x01");
        assert_eq!(&saving[38..44], b"\x05daily");
        for bytes in [bytes, saving] {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&flipped).is_err(), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
            }
            assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
        }
    }
}
