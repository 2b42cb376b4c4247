//! The bytes of a savepoint, and of what says that one was released.
//!
//! ```text
//! savepoint   magic "ALVS", format u16 = 1, version u64, epoch u64 and number u64 of the checkpoint,
//!             milliseconds since 1970 u64, nonce 16 bytes, crc32c of all before u32
//! released    magic "ALVS", format u16 = 2, nonce 16 bytes, crc32c of all before u32     (little-endian)
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{self, Fields, Frame};
use crate::ids::{CheckpointId, Epoch, Nonce, Version};
use crate::manifest::Retained;

const MAGIC: [u8; 4] = *b"ALVS";
const SAVEPOINT: u16 = 1;
const RELEASED: u16 = 2;

/// What a savepoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavepointRecord {
    pub(crate) checkpoint: Retained,
    /// When it was made, for people.
    pub(crate) unix_millis: u64,
    /// Tells it from another one that is given the same name later.
    pub(crate) nonce: Nonce,
}

/// What one object of a savepoint's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Savepoint(SavepointRecord),
    /// The nonce tells this write from others.
    Released(Nonce),
}

pub(super) fn encode(slot: &Slot) -> Bytes {
    match slot {
        Slot::Savepoint(SavepointRecord { checkpoint, unix_millis, nonce }) => {
            let mut buffer = BytesMut::with_capacity(48);
            buffer.put_u64_le(checkpoint.version.0);
            buffer.put_u64_le(checkpoint.id.epoch.0);
            buffer.put_u64_le(checkpoint.id.number);
            buffer.put_u64_le(*unix_millis);
            buffer.put_slice(&nonce.0);
            frame::seal(MAGIC, SAVEPOINT, &[&buffer])
        }
        Slot::Released(nonce) => frame::seal(MAGIC, RELEASED, &[&nonce.0]),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Slot> {
    let frame = Frame::parse(MAGIC, bytes).ok_or_else(not_one)?;
    match frame.format {
        0 => return Err(damaged()),
        SAVEPOINT | RELEASED => {}
        format => {
            let message = format!("savepoint has format {format}, this build reads up to {RELEASED}");
            let error = Error::new(ErrorKind::UnsupportedVersion, message);
            return Err(error.advise("use a newer version of alluvium"));
        }
    }
    if !frame.is_intact() {
        return Err(damaged());
    }
    let mut fields = Fields(frame.payload);
    let slot = match frame.format {
        RELEASED => fields.take().map(|nonce| Slot::Released(Nonce(nonce))),
        _ => savepoint(&mut fields),
    };
    slot.filter(|_| fields.0.is_empty()).ok_or_else(damaged)
}

fn savepoint(fields: &mut Fields<'_>) -> Option<Slot> {
    let version = Version(u64::from_le_bytes(fields.take()?));
    let epoch = Epoch(u64::from_le_bytes(fields.take()?));
    let number = u64::from_le_bytes(fields.take()?);
    let unix_millis = u64::from_le_bytes(fields.take()?);
    let nonce = Nonce(fields.take()?);
    let checkpoint = Retained { version, id: CheckpointId { epoch, number } };
    Some(Slot::Savepoint(SavepointRecord { checkpoint, unix_millis, nonce }))
}

fn damaged() -> Error {
    Error::corrupt("checksum of a savepoint does not match")
        .advise("release it if no one needs it; nothing is collected until then")
}

fn not_one() -> Error {
    Error::corrupt("not a savepoint").advise("release it if no one needs it; nothing is collected until then")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn sample() -> Slot {
        Slot::Savepoint(SavepointRecord {
            checkpoint: Retained {
                version: Version(0x0102),
                id: CheckpointId { epoch: Epoch(0x03), number: 0x0405 },
            },
            unix_millis: 1_709_251_198_500,
            nonce: Nonce([0xab; 16]),
        })
    }

    fn released() -> Slot {
        Slot::Released(Nonce([0xcd; 16]))
    }

    #[test]
    fn golden_files_read_and_are_written_the_same() {
        for (name, slot) in [("savepoint-v1.bin", sample()), ("savepoint-released-v2.bin", released())] {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
            let encoded = encode(&slot);
            if !path.exists() && std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
                std::fs::write(&path, &encoded).unwrap();
            }
            let stored = std::fs::read(&path).unwrap();
            assert_eq!(decode(&stored).unwrap(), slot, "{name} reads differently");
            assert_eq!(encoded, stored, "{name} is written differently");
        }
    }

    #[test]
    fn i4_every_flipped_bit_and_every_cut_is_noticed() {
        for bytes in [encode(&sample()), encode(&released())] {
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
    }

    proptest! {
        #[test]
        fn any_record_reads_back(version: u64, epoch: u64, number: u64, unix_millis: u64, nonce: [u8; 16]) {
            let id = CheckpointId { epoch: Epoch(epoch), number };
            let checkpoint = Retained { version: Version(version), id };
            let record = SavepointRecord { checkpoint, unix_millis, nonce: Nonce(nonce) };
            for slot in [Slot::Savepoint(record), Slot::Released(Nonce(nonce))] {
                prop_assert_eq!(decode(&encode(&slot)).unwrap(), slot);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
