//! The bytes of a pin.
//!
//! A [`frame`] with magic "ALVP" around
//!
//! ```text
//! version u64, epoch of the attempt that it belongs to u64 (0: none), nonce that stands for the
//! attempt's job 16 bytes (0: this one), in format 2 the length u8 and the name of the savepoint that
//! is being made                                                                      (little-endian)
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{self, Fields, Frame};
use crate::ids::{Epoch, Nonce, Version};
use crate::remote::SavepointName;

const MAGIC: [u8; 4] = *b"ALVP";
const FORMAT: u16 = 1;
/// With the name of a savepoint.
const SAVING: u16 = 2;

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

pub(super) fn encode(version: Version, holder: &Holder) -> Bytes {
    let (job, epoch, savepoint) = match holder {
        Holder::Reader => (Nonce::default(), Epoch(0), None),
        Holder::Attempt(epoch) => (Nonce::default(), *epoch, None),
        Holder::Saving(epoch, savepoint) => (Nonce::default(), *epoch, Some(savepoint.to_string())),
        Holder::Other(job, epoch) => (*job, *epoch, None),
    };
    let format = if savepoint.is_some() { SAVING } else { FORMAT };
    let mut buffer = BytesMut::with_capacity(32);
    buffer.put_u64_le(version.0);
    buffer.put_u64_le(epoch.0);
    buffer.put_slice(&job.0);
    if let Some(savepoint) = savepoint {
        // A name has at most 100 bytes.
        buffer.put_u8(u8::try_from(savepoint.len()).unwrap_or(u8::MAX));
        buffer.put_slice(savepoint.as_bytes());
    }
    frame::seal(MAGIC, format, &[&buffer])
}

pub(super) fn decode(bytes: &[u8]) -> Result<(Version, Holder)> {
    let frame = Frame::parse(MAGIC, bytes).ok_or_else(not_a_pin)?;
    let format = frame.format;
    if format > SAVING {
        return Err(Error::new(ErrorKind::UnsupportedVersion, format!("pin has format {format}")));
    }
    if format == 0 || !frame.is_intact() {
        return Err(Error::corrupt("checksum of a pin does not match"));
    }
    let mut fields = Fields(frame.payload);
    let version: [u8; 8] = fields.take().ok_or_else(not_a_pin)?;
    let epoch: [u8; 8] = fields.take().ok_or_else(not_a_pin)?;
    let job: [u8; 16] = fields.take().ok_or_else(not_a_pin)?;
    let savepoint = match format {
        SAVING => {
            let [length] = fields.take().ok_or_else(not_a_pin)?;
            Some(fields.take_slice(length.into()).ok_or_else(not_a_pin)?)
        }
        _ => None,
    };
    if !fields.0.is_empty() {
        return Err(not_a_pin());
    }
    let savepoint = savepoint.map(|name| std::str::from_utf8(name).ok()?.parse::<SavepointName>().ok());
    let holder = match (Nonce(job), Epoch(u64::from_le_bytes(epoch)), savepoint) {
        (_, epoch, Some(savepoint)) => Holder::Saving(epoch, savepoint.ok_or_else(not_a_pin)?),
        (Nonce(job), Epoch(0), None) if job == [0; 16] => Holder::Reader,
        (Nonce(job), epoch, None) if job == [0; 16] => Holder::Attempt(epoch),
        (job, epoch, None) => Holder::Other(job, epoch),
    };
    Ok((Version(u64::from_le_bytes(version)), holder))
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
