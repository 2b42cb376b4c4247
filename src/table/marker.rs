//! The value of the marker key: which delta the table stands at.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, StateId};
use crate::key;

const VERSION: u8 = 1;

/// Version (1 byte) ‖ sequence number (8 bytes, big-endian). RocksDB's block checksums cover it.
pub(super) const LEN: usize = 9;

pub(super) fn encode(seq: DeltaSeq) -> [u8; LEN] {
    let mut bytes = [VERSION; LEN];
    let (_, number) = bytes.split_at_mut(1);
    number.copy_from_slice(&seq.0.to_be_bytes());
    bytes
}

/// `DeltaSeq(0)`, before all deltas, where there is no marker.
pub(super) fn decode(value: Option<&[u8]>) -> Result<DeltaSeq> {
    match value {
        None => Ok(DeltaSeq(0)),
        Some([VERSION, number @ ..]) => match number.try_into() {
            Ok(number) => Ok(DeltaSeq(u64::from_be_bytes(number))),
            Err(_) => Err(Error::corrupt(format!(
                "the marker of the applied delta has {} bytes, not {LEN}",
                number.len() + 1
            ))),
        },
        Some([]) => Err(Error::corrupt("the marker of the applied delta is empty")),
        Some([version, ..]) => Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("the marker of the applied delta has format {version}, this build knows {VERSION}"),
        )
        .advise("restore with the build that wrote it, or a later one")),
    }
}

/// Whether the key is Alluvium's own in its group.
pub(super) fn is_own(stored: &[u8]) -> bool {
    stored.get(2..key::PREFIX_LEN) == Some(&StateId::RESERVED.0.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_fixed_bytes() {
        assert_eq!(encode(DeltaSeq(0x0102)), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        for seq in [0, 1, u64::MAX] {
            assert_eq!(decode(Some(&encode(DeltaSeq(seq)))).unwrap(), DeltaSeq(seq));
        }
        assert_eq!(decode(None).unwrap(), DeltaSeq(0));
    }

    #[test]
    fn anything_else_is_an_error() {
        let kind = |bytes: &[u8]| decode(Some(bytes)).unwrap_err().kind();
        assert_eq!(kind(&[]), ErrorKind::Corrupt);
        assert_eq!(kind(&[1]), ErrorKind::Corrupt);
        assert_eq!(kind(&[1; 10]), ErrorKind::Corrupt);
        assert_eq!(kind(&[2; 9]), ErrorKind::UnsupportedVersion);
    }
}
