//! Savepoints: pins that a user gave a name. They keep a checkpoint alive, through any number of later
//! checkpoints and attempts, until they are released.
//!
//! One is made under a [pin](super::pin): first the pin, which looks whether the checkpoint is still
//! retained, then the savepoint, by a conditional create, so that no name is given twice; then the pin
//! goes. So a savepoint that exists is good from its first moment, and whoever finds one may go on from
//! it (I3). A checkpoint may thus be handed on from a pin to a savepoint to another pin, and no
//! further: the collector lists pins, savepoints, and pins again, and sees at least one.
//!
//! A savepoint is self-contained in that everything it needs lies within its job.
//!
//! ```text
//! magic "ALVS", format u16, version u64, epoch u64 and number u64 of the checkpoint,
//! milliseconds since 1970 u64, nonce 16 bytes, crc32c of all before u32             (little-endian)
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use super::pin::{Holder, Pin};
use crate::config::RestoreFrom;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, Epoch, Nonce, Version};
use crate::manifest::Retained;
use crate::remote::{ObjectName, Remote, SavepointName};

const MAGIC: [u8; 4] = *b"ALVS";
const FORMAT: u16 = 1;
const LEN: usize = 4 + 2 + 8 + 8 + 8 + 8 + 16 + 4;

/// Savepoints read at the same time.
const PARALLEL_READS: usize = 16;

/// What a savepoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavepointRecord {
    pub(crate) checkpoint: Retained,
    /// When it was made, for people.
    pub(crate) unix_millis: u64,
    /// Tells it from another one that is given the same name later.
    pub(crate) nonce: Nonce,
}

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
    let (pin, found) = Pin::take(remote, from, holder).await?;
    let env = remote.env();
    let (unix_millis, nonce) = (env.clock.unix_millis(), env.nonces.nonce());
    let record = SavepointRecord { checkpoint: found.retained, unix_millis, nonce };
    let made = match remote.put_data(&ObjectName::savepoint(name), encode(&record)).await {
        Ok(()) => Ok(record),
        // Another one of this name came first.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let there = find(remote, name).await?;
            Err(there.map_or(error, |there| taken(name, &there)))
        }
        // The pin stays: the request may yet be applied, and its savepoint must be a good one.
        Err(error) => return Err(error.advice("list the savepoints: it may exist all the same")),
    };
    if let Err(error) = pin.release().await {
        tracing::warn!(%error, savepoint = %name, "the pin under which a savepoint was made stays behind");
    }
    made
}

/// The savepoint of this name, if there is one.
///
/// # Errors
/// `Corrupt` and `UnsupportedVersion` naming the object; what the store answers.
pub(crate) async fn find(remote: &Remote, name: &SavepointName) -> Result<Option<SavepointRecord>> {
    let object = ObjectName::savepoint(name);
    let bytes = remote.get_optional(&object).await?;
    bytes.map(|bytes| decode(&bytes)).transpose().map_err(|error| error.object(object))
}

/// As [`find`].
///
/// # Errors
/// `NotFound`, naming the savepoints that there are.
pub(crate) async fn require(remote: &Remote, name: &SavepointName) -> Result<SavepointRecord> {
    if let Some(record) = find(remote, name).await? {
        return Ok(record);
    }
    let known: Vec<_> = names(remote).await?.iter().map(ToString::to_string).collect();
    let error = Error::new(ErrorKind::NotFound, "the job has no savepoint of this name")
        .object(format!("savepoint {name}"));
    Err(match known.as_slice() {
        [] => error.advice("it has none at all: make one first"),
        known => error.advice(format!("choose one of [{}]", known.join(", "))),
    })
}

/// The names of all savepoints, ascending.
pub(crate) async fn names(remote: &Remote) -> Result<Vec<SavepointName>> {
    let listed = remote.list(ObjectName::SAVEPOINTS).await?;
    let name = |text: &str| match ObjectName::parse(text) {
        Some(ObjectName::Savepoint(name)) => Some(name),
        _ => None,
    };
    Ok(listed.iter().filter_map(|listed| name(&listed.name)).collect())
}

/// All savepoints, ascending by name.
///
/// # Errors
/// As [`find`]: one that does not read protects something, and there is no telling what.
pub(crate) async fn list(remote: &Remote) -> Result<Vec<(SavepointName, SavepointRecord)>> {
    let reads = names(remote).await?.into_iter().map(async |name: SavepointName| {
        // One that is gone by now was released.
        Ok(find(remote, &name).await?.map(|record| (name, record)))
    });
    let reads: Vec<_> = reads.collect();
    let found: Vec<_> = stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Lets a savepoint go: the next garbage collection takes what it alone kept. Also one that does
/// not read.
///
/// # Errors
/// `NotFound` if there is none of this name.
pub(crate) async fn release(remote: &Remote, name: &SavepointName) -> Result<()> {
    match require(remote, name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
        // Damage is what the user may want to get rid of.
        Ok(_) | Err(_) => {}
    }
    remote.delete(vec![ObjectName::savepoint(name)]).await.map(drop)
}

fn taken(name: &SavepointName, there: &SavepointRecord) -> Error {
    let message = format!("a savepoint of this name exists, of checkpoint {}", there.checkpoint.id);
    Error::new(ErrorKind::AlreadyExists, message)
        .object(format!("savepoint {name}"))
        .advice("choose another name, or release it first")
}

fn encode(record: &SavepointRecord) -> Bytes {
    let Retained { version, id } = record.checkpoint;
    let mut buffer = BytesMut::with_capacity(LEN);
    buffer.put_slice(&MAGIC);
    buffer.put_u16_le(FORMAT);
    buffer.put_u64_le(version.0);
    buffer.put_u64_le(id.epoch.0);
    buffer.put_u64_le(id.number);
    buffer.put_u64_le(record.unix_millis);
    buffer.put_slice(&record.nonce.0);
    let crc = crc32c::crc32c(&buffer);
    buffer.put_u32_le(crc);
    buffer.freeze()
}

fn decode(bytes: &[u8]) -> Result<SavepointRecord> {
    let mut fields = Fields(bytes);
    if fields.take::<4>()? != MAGIC {
        return Err(not_one());
    }
    let format = u16::from_le_bytes(fields.take()?);
    if format > FORMAT {
        let message = format!("savepoint has format {format}, this build reads up to {FORMAT}");
        return Err(
            Error::new(ErrorKind::UnsupportedVersion, message).advice("use a newer version of alluvium")
        );
    }
    let version = Version(u64::from_le_bytes(fields.take()?));
    let epoch = Epoch(u64::from_le_bytes(fields.take()?));
    let number = u64::from_le_bytes(fields.take()?);
    let unix_millis = u64::from_le_bytes(fields.take()?);
    let nonce = Nonce(fields.take()?);
    let crc = u32::from_le_bytes(fields.take()?);
    let expected = bytes.get(..LEN - 4).map(crc32c::crc32c);
    if format != FORMAT || !fields.0.is_empty() || Some(crc) != expected {
        return Err(Error::corrupt("checksum of a savepoint does not match"));
    }
    Ok(SavepointRecord {
        checkpoint: Retained { version, id: CheckpointId { epoch, number } },
        unix_millis,
        nonce,
    })
}

/// Reads fixed-size fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or_else(not_one)?;
        self.0 = rest;
        Ok(*field)
    }
}

fn not_one() -> Error {
    Error::corrupt("not a savepoint").advice("release it if no one needs it; nothing is collected until then")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn sample() -> SavepointRecord {
        SavepointRecord {
            checkpoint: Retained {
                version: Version(0x0102),
                id: CheckpointId { epoch: Epoch(0x03), number: 0x0405 },
            },
            unix_millis: 1_709_251_198_500,
            nonce: Nonce([0xab; 16]),
        }
    }

    #[test]
    fn golden_file_reads_and_is_written_the_same() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/savepoint-v1.bin");
        let encoded = encode(&sample());
        if !path.exists() && std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &encoded).unwrap();
        }
        let stored = std::fs::read(&path).unwrap();
        assert_eq!(decode(&stored).unwrap(), sample(), "reads differently");
        assert_eq!(encoded, stored, "is written differently");
    }

    #[test]
    fn i4_every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&sample());
        assert_eq!(bytes.len(), LEN);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = decode(&flipped).unwrap_err();
            let format = (4..6).contains(&(bit / 8)) && error.kind() == ErrorKind::UnsupportedVersion;
            assert!(format || error.kind() == ErrorKind::Corrupt, "bit {bit}: {error}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    proptest! {
        #[test]
        fn any_record_reads_back(version: u64, epoch: u64, number: u64, unix_millis: u64, nonce: [u8; 16]) {
            let id = CheckpointId { epoch: Epoch(epoch), number };
            let checkpoint = Retained { version: Version(version), id };
            let record = SavepointRecord { checkpoint, unix_millis, nonce: Nonce(nonce) };
            prop_assert_eq!(decode(&encode(&record)).unwrap(), record);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
