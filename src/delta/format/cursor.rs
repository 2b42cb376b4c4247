//! Reads integers and bytes off the front of a slice.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::error::{Error, Result};

/// The bytes that are left to read. Every read checks that there are enough.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// A cursor over `bytes`, which errors call `what`.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error about these bytes.
    pub(super) fn corrupt(&self, problem: &str) -> Error {
        Error::corrupt(format!("{} of a delta {problem}", self.what))
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.corrupt("ends too early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.corrupt("ends too early"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length in LEB128, below 2^32.
    pub(super) fn varint(&mut self) -> Result<usize> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let value = u32::try_from(value).map_err(|_| self.corrupt("has a length out of bounds"))?;
                return Ok(value as usize);
            }
        }
        Err(self.corrupt("has a length out of bounds"))
    }
}

/// Writes what [`Cursor::varint`] reads.
pub(super) fn write_varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = u32::try_from(value).expect("keys and values are checked to be below 4 GiB");
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
