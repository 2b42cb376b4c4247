//! Pins: how a reader that takes no part in the chain keeps a checkpoint alive.
//!
//! A reader first creates its pin, then looks whether the newest manifest still retains the
//! checkpoint; the collector first commits what drops it, then lists the pins. Whoever comes second
//! sees the other, so no clock is needed (I3).
//!
//! Bytes: magic "ALVP", format u16, version u64, crc32c of all before u32 (little-endian).

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::Version;
use crate::manifest::{Manifest, read_manifest, read_newest};
use crate::remote::{ObjectName, ParsedName, Remote};

const MAGIC: [u8; 4] = *b"ALVP";
const FORMAT: u16 = 1;

/// Keeps one checkpoint alive until it is released. One that is dropped without stays, and keeps
/// the checkpoint for ever: a reader that crashed cannot be told from one that is slow.
#[derive(Debug)]
pub(crate) struct Pin {
    remote: Arc<Remote>,
    name: ObjectName,
    version: Version,
}

#[cfg_attr(not(test), expect(dead_code, reason = "for readers from outside, which are to come"))]
impl Pin {
    /// Pins the checkpoint of `version`, and reads its manifest.
    ///
    /// # Errors
    /// `NotFound` if it is no longer retained; then nothing stays behind.
    pub(crate) async fn take(remote: Arc<Remote>, version: Version) -> Result<(Self, Manifest)> {
        let name = ObjectName::pin(remote.env().nonces.nonce());
        remote.put_data(&name, encode(version)).await?;
        let pin = Self { remote, name, version };
        match pin.confirm().await {
            Ok(manifest) => Ok((pin, manifest)),
            Err(error) => {
                // The first error says more than one from the withdrawal.
                if let Err(left) = pin.release().await {
                    tracing::warn!(error = %left, "a pin that failed stays behind");
                }
                Err(error)
            }
        }
    }

    async fn confirm(&self) -> Result<Manifest> {
        let newest = read_newest(&self.remote).await?;
        let retained = newest
            .is_some_and(|newest| newest.retained.iter().any(|retained| retained.version == self.version));
        if !retained {
            return Err(Error::new(ErrorKind::NotFound, "the job no longer retains this checkpoint")
                .object(ObjectName::manifest(self.version))
                .advice("choose a newer one"));
        }
        read_manifest(&self.remote, self.version).await.map(|(manifest, _)| manifest)
    }

    /// Lets the checkpoint go.
    pub(crate) async fn release(self) -> Result<()> {
        self.remote.delete(vec![self.name.clone()]).await.map(drop)
    }
}

/// The versions that pins name, ascending.
///
/// # Errors
/// `Corrupt` if a pin does not read: it protects something, and there is no telling what.
pub(super) async fn pinned_versions(remote: &Remote) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for listed in remote.list(ObjectName::PINS).await? {
        let Some(parsed @ ParsedName::Pin(_)) = ObjectName::parse(&listed.name) else { continue };
        let name = parsed.name();
        // One that is gone by now was withdrawn.
        if let Some(bytes) = remote.get_optional(&name).await? {
            versions.push(
                decode(&bytes).map_err(|error| {
                    error.object(name).advice("delete it by hand if no reader is at work")
                })?,
            );
        }
    }
    versions.sort_unstable();
    versions.dedup();
    Ok(versions)
}

fn encode(version: Version) -> Bytes {
    let mut buffer = BytesMut::with_capacity(18);
    buffer.put_slice(&MAGIC);
    buffer.put_u16_le(FORMAT);
    buffer.put_u64_le(version.0);
    let crc = crc32c::crc32c(&buffer);
    buffer.put_u32_le(crc);
    buffer.freeze()
}

fn decode(bytes: &[u8]) -> Result<Version> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(not_a_pin)?;
    let (format, rest) = rest.split_first_chunk::<2>().ok_or_else(not_a_pin)?;
    if *magic != MAGIC {
        return Err(not_a_pin());
    }
    let format = u16::from_le_bytes(*format);
    if format > FORMAT {
        return Err(Error::new(ErrorKind::UnsupportedVersion, format!("pin has format {format}")));
    }
    let (version, crc) = rest.split_first_chunk::<8>().ok_or_else(not_a_pin)?;
    let checked = bytes.len().saturating_sub(crc.len());
    let expected = bytes.get(..checked).map(crc32c::crc32c).unwrap_or_default();
    if format != FORMAT || crc != expected.to_le_bytes() {
        return Err(Error::corrupt("checksum of a pin does not match"));
    }
    Ok(Version(u64::from_le_bytes(*version)))
}

fn not_a_pin() -> Error {
    Error::corrupt("not a pin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_change_and_every_flip_is_noticed() {
        let bytes = encode(Version(0x0102));
        assert_eq!(&bytes[..14], b"ALVP\x01\x00\x02\x01\x00\x00\x00\x00\x00\x00");
        assert_eq!(decode(&bytes).unwrap(), Version(0x0102));
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
