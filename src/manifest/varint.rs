//! Numbers of few bytes, and their total reader: what the body of a manifest is made of.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::error::{Error, Result};

/// Items of a list that room is made for before they were read.
pub(super) const MOST_AT_ONCE: usize = 1024;

/// Appends numbers and bytes.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// LEB128.
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// How far `value` is from `from`, on either side: few bytes where they are close.
    pub(super) fn distance(&mut self, value: u64, from: u64) {
        let distance = value.wrapping_sub(from).cast_signed();
        self.number(((distance << 1) ^ (distance >> 63)).cast_unsigned());
    }

    /// How far `value` lies before `from`. Only for values that were validated to do so.
    pub(super) fn back(&mut self, value: u64, from: u64) {
        self.number(from.wrapping_sub(value));
    }

    pub(super) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    pub(super) fn fixed<const N: usize>(&mut self, bytes: [u8; N]) {
        self.0.extend_from_slice(&bytes);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }
}

/// Reads what [`Writer`] wrote; an error on anything else.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::corrupt("a number in the manifest has more than 64 bits"))
    }

    /// A number that must fit the type.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Result<T> {
        T::try_from(self.number()?).map_err(|_| Error::corrupt("a number in the manifest is too large"))
    }

    pub(super) fn distance(&mut self, from: u64) -> Result<u64> {
        let coded = self.number()?;
        let distance = (coded >> 1).cast_signed() ^ -((coded & 1).cast_signed());
        Ok(from.wrapping_add(distance.cast_unsigned()))
    }

    pub(super) fn back(&mut self, from: u64) -> Result<u64> {
        let before = || Error::corrupt("the manifest refers to what lies before the beginning");
        from.checked_sub(self.number()?).ok_or_else(before)
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or_else(short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.small::<usize>()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A list. Memory is not set aside for what a number alone says to be there.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(short());
        }
        let mut items = Vec::with_capacity((count as usize).min(MOST_AT_ONCE));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn end(&self) -> Result<()> {
        match self.0 {
            [] => Ok(()),
            rest => Err(Error::corrupt(format!("{} bytes are left over in the manifest", rest.len()))),
        }
    }
}

fn short() -> Error {
    Error::corrupt("the manifest's body ends too early")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers_and_short_distances_take_one_byte() {
        let mut writer = Writer::default();
        writer.number(127);
        writer.distance(1_000_000, 999_950);
        writer.distance(0, u64::MAX);
        writer.back(10, 12);
        assert_eq!(writer.0, [127, 100, 2, 2]);
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let most = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(Reader(&most).number().unwrap(), u64::MAX);
        assert!(Reader(&[&[0xff; 9][..], &[2]].concat()).number().is_err());
        assert!(Reader(&[0x80; 11]).number().is_err());
        assert!(Reader(&[0x80]).number().is_err());
        assert!(Reader(&[5, 1]).list(Reader::byte).is_err(), "more items than bytes");
        assert!(Reader(&[3]).back(2).is_err());
    }

    proptest! {
        #[test]
        fn everything_comes_back(a: u64, b: u64, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut writer = Writer::default();
            writer.number(a);
            writer.distance(a, b);
            writer.bytes(&bytes);
            writer.back(a.min(b), a.max(b));
            let mut reader = Reader(&writer.0);
            prop_assert_eq!(reader.number().unwrap(), a);
            prop_assert_eq!(reader.distance(b).unwrap(), a);
            prop_assert_eq!(reader.bytes().unwrap(), &bytes[..]);
            prop_assert_eq!(reader.back(a.max(b)).unwrap(), a.min(b));
            prop_assert!(reader.end().is_ok());
        }
    }
}
