//! A message on its way between two processes, as bytes.
//!
//! ```text
//! frame: magic "ALVM", format 1
//!   side u8 (0: from the committer, 1: from a member), job 16 bytes, epoch u64, member u32,
//!   session 16 bytes, number u64, seen u64, message (postcard; none: the frame only acknowledges)
//! ```
//!
//! The session is the nonce that a member has drawn when it opened its assignment. The committer's
//! frames carry the one that it deals with, or zeros while it has not heard of the member.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{self, Fields};
use crate::ids::{Epoch, Nonce};

const MAGIC: [u8; 4] = *b"ALVM";
const FORMAT: u16 = 1;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Committer,
    Member,
}

/// The two processes that a link is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Nonce of the first record of the job's chain.
    pub(crate) job: Nonce,
    pub(crate) epoch: Epoch,
    /// The member's number.
    pub(crate) member: u32,
}

/// A frame without its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) from: Side,
    pub(crate) ends: Ends,
    pub(crate) session: Nonce,
    /// Counted by the sender from 1; 0 if there is no message.
    pub(crate) number: u64,
    /// The newest message that the sender has taken in.
    pub(crate) seen: u64,
}

/// A frame that was received and is intact.
#[derive(Debug, Clone)]
pub(crate) struct Received<M> {
    pub(crate) head: Head,
    pub(crate) message: Option<M>,
}

impl Head {
    /// The frame around an encoded message.
    pub(crate) fn seal(&self, message: &[u8]) -> Bytes {
        let side = [match self.from {
            Side::Committer => 0,
            Side::Member => 1,
        }];
        let Ends { job, epoch, member } = self.ends;
        frame::seal(
            MAGIC,
            FORMAT,
            &[
                &side,
                &job.0,
                &epoch.0.to_le_bytes(),
                &member.to_le_bytes(),
                &self.session.0,
                &self.number.to_le_bytes(),
                &self.seen.to_le_bytes(),
                message,
            ],
        )
    }

    fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let from = match fields.take::<1>()? {
            [0] => Side::Committer,
            [1] => Side::Member,
            _ => return None,
        };
        let job = Nonce(fields.take()?);
        let epoch = Epoch(u64::from_le_bytes(fields.take()?));
        let member = u32::from_le_bytes(fields.take()?);
        let session = Nonce(fields.take()?);
        let number = u64::from_le_bytes(fields.take()?);
        let seen = u64::from_le_bytes(fields.take()?);
        Some(Self { from, ends: Ends { job, epoch, member }, session, number, seen })
    }
}

/// A message as a frame carries it.
///
/// # Errors
/// `Internal` if it cannot be encoded. None such are known.
pub(crate) fn encode<M: Serialize>(message: &M) -> Result<Bytes> {
    let bytes = postcard::to_stdvec(message);
    bytes.map(Bytes::from).map_err(|error| Error::internal("a message cannot be encoded").source(error))
}

/// Reads a frame that comes from this `side`.
///
/// # Errors
/// `Corrupt` for any bytes that are no such frame; `UnsupportedVersion` for a newer format.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8], side: Side) -> Result<Received<M>> {
    let corrupt = |what: &str| Error::corrupt(what).object("a message between processes");
    let frame = frame::Frame::parse(MAGIC, bytes).ok_or_else(|| corrupt("this is not a message"))?;
    if frame.format != FORMAT {
        let message = format!("message format {} is unknown; this build reads {FORMAT}", frame.format);
        return Err(Error::new(ErrorKind::UnsupportedVersion, message)
            .object("a message between processes")
            .advise("run the same version of alluvium in all processes"));
    }
    if !frame.is_intact() {
        return Err(corrupt("the message's checksum does not match"));
    }
    let mut fields = Fields(frame.payload);
    let head = Head::take(&mut fields).ok_or_else(|| corrupt("the message is cut short"))?;
    if head.from != side {
        return Err(corrupt("the message goes the other way"));
    }
    let message = match head.number {
        0 if fields.0.is_empty() => None,
        0 => return Err(corrupt("a message without a number")),
        _ => Some(
            postcard::from_bytes(fields.0)
                .map_err(|error| corrupt("the message cannot be decoded").source(error))?,
        ),
    };
    Ok(Received { head, message })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::CheckpointId;
    use crate::messages::{FromMember, ToMember};

    fn head(number: u64) -> Head {
        let ends = Ends { job: Nonce([1; 16]), epoch: Epoch(2), member: 3 };
        Head { from: Side::Committer, ends, session: Nonce([4; 16]), number, seen: 6 }
    }

    fn sample() -> Bytes {
        let aborted = ToMember::Aborted(CheckpointId { epoch: Epoch(2), number: 7 });
        head(5).seal(&encode(&aborted).unwrap())
    }

    #[test]
    fn golden() {
        let path = format!("{}/tests/golden/message-v1.bin", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("ALLUVIUM_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, sample()).unwrap();
        }
        let golden = std::fs::read(path).unwrap();
        assert_eq!(golden, sample());
        let read: Received<ToMember> = decode(&golden, Side::Committer).unwrap();
        assert_eq!(read.head, head(5));
        assert!(matches!(read.message, Some(ToMember::Aborted(id)) if id.number == 7));
    }

    #[test]
    fn i4_a_damaged_message_is_an_error() {
        let bytes = sample();
        let problem = |bytes: &[u8]| decode::<ToMember>(bytes, Side::Committer).unwrap_err().kind();
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x20;
            problem(&flipped);
            assert_eq!(problem(&bytes[..at]), ErrorKind::Corrupt, "cut at {at}");
        }
        let reflected = decode::<FromMember>(&head(0).seal(b""), Side::Member).unwrap_err();
        assert_eq!(reflected.kind(), ErrorKind::Corrupt, "a member's own words come back: {reflected}");
        let mut newer = bytes.to_vec();
        newer[4] = 2;
        assert_eq!(problem(&newer), ErrorKind::UnsupportedVersion);
        assert_eq!(problem(&head(0).seal(b"x")), ErrorKind::Corrupt);
        assert!(decode::<ToMember>(&head(0).seal(b""), Side::Committer).unwrap().message.is_none());
    }

    proptest! {
        /// Intact frames around any bytes: another program may have made them.
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), number in 0..3_u64) {
            let _ = decode::<ToMember>(&bytes, Side::Committer);
            let _ = decode::<ToMember>(&head(number).seal(&bytes), Side::Committer);
            let _ = decode::<FromMember>(&Head { from: Side::Member, ..head(number) }.seal(&bytes), Side::Member);
        }
    }
}
