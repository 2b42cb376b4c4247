//! The frame of stored records: magic, format, payload, checksum.
//!
//! ```text
//! magic 4 bytes, format u16, payload, CRC32C of all before u32     (little-endian)
//! ```
//!
//! Savepoints, pins, lists of open records and base indexes are such frames, and so is the header of a
//! manifest. Two records differ, and stay as they are, because stored bytes never change. A receipt
//! has one byte for its format, and its checksum in front. A delta has this frame around its header,
//! but writes it into the buffer of the whole delta and reads it with the cursor of its other
//! sections, because sealing is on the path of every checkpoint.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a frame without its payload.
const AROUND: usize = 10;

/// A frame around the `parts` of a payload.
pub(crate) fn seal(magic: [u8; 4], format: u16, parts: &[&[u8]]) -> Bytes {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let mut buffer = BytesMut::with_capacity(payload + AROUND);
    append(&mut buffer, magic, format, parts);
    buffer.freeze()
}

/// Adds a frame to what is in `buffer`. Its checksum covers the frame alone.
pub(crate) fn append(buffer: &mut BytesMut, magic: [u8; 4], format: u16, parts: &[&[u8]]) {
    let start = buffer.len();
    buffer.put_slice(&magic);
    buffer.put_u16_le(format);
    parts.iter().for_each(|part| buffer.put_slice(part));
    let crc = crc32c::crc32c(buffer.get(start..).unwrap_or_default());
    buffer.put_u32_le(crc);
}

/// A frame that was taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) format: u16,
    pub(crate) payload: &'a [u8],
    checked: &'a [u8],
    crc32c: u32,
}

impl<'a> Frame<'a> {
    /// Takes `bytes` apart. None if they begin with another magic, or are too few for a frame.
    ///
    /// The checksum is not compared yet. Whether a reader looks first at the format or at the checksum
    /// decides how it calls a record of a newer format that has no such frame.
    pub(crate) fn parse(magic: [u8; 4], bytes: &'a [u8]) -> Option<Self> {
        let (checked, crc) = bytes.split_last_chunk::<4>()?;
        let mut fields = Fields(checked);
        if fields.take::<4>()? != magic {
            return None;
        }
        let format = u16::from_le_bytes(fields.take()?);
        Some(Self { format, payload: fields.0, checked, crc32c: u32::from_le_bytes(*crc) })
    }

    /// Whether the checksum matches all bytes before it (I4).
    pub(crate) fn is_intact(&self) -> bool {
        crc32c::crc32c(self.checked) == self.crc32c
    }
}

/// Reads fixed-size fields from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field. None if too few bytes are left.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// The next `length` bytes. None if too few are left.
    pub(crate) fn take_slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAGIC: [u8; 4] = *b"ALVT";

    #[test]
    fn bytes_never_change() {
        let bytes = seal(MAGIC, 0x0201, &[b"pay", b"load"]);
        assert_eq!(&bytes[..], b"ALVT\x01\x02payload\xcb\xa3\xb5\x46");
        let mut after = BytesMut::from(&b"before"[..]);
        append(&mut after, MAGIC, 0x0201, &[b"payload"]);
        assert_eq!(&after[6..], bytes, "the checksum covers the frame alone");
    }

    #[test]
    fn i4_every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = seal(MAGIC, 1, &[b"payload"]);
        let intact = |bytes: &[u8]| Frame::parse(MAGIC, bytes).is_some_and(|frame| frame.is_intact());
        assert!(intact(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!intact(&flipped), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(!intact(&bytes[..len]), "{len} bytes");
        }
        assert!(!intact(&[&bytes[..], b"x"].concat()));
    }

    #[test]
    fn a_newer_format_is_seen_before_its_checksum() {
        let mut bytes = seal(MAGIC, 1, &[b"payload"]).to_vec();
        bytes[4] = 9;
        let frame = Frame::parse(MAGIC, &bytes).unwrap();
        assert_eq!((frame.format, frame.payload, frame.is_intact()), (9, &b"payload"[..], false));
        assert!(Frame::parse(*b"ALVX", &bytes).is_none());
    }

    proptest! {
        #[test]
        fn any_payload_reads_back(format: u16, payload in prop::collection::vec(any::<u8>(), 0..50), at in 0..50_usize) {
            let (head, tail) = payload.split_at(at.min(payload.len()));
            let bytes = seal(MAGIC, format, &[head, tail]);
            let frame = Frame::parse(MAGIC, &bytes).unwrap();
            prop_assert!(frame.is_intact());
            prop_assert_eq!((frame.format, frame.payload), (format, &payload[..]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            prop_assert!(!Frame::parse(MAGIC, &bytes).is_some_and(|frame| frame.is_intact()));
        }
    }
}
