//! The layout of stored values: the user's bytes, the time of their last access (states with TTL)
//! and the schema version that wrote them (states with a version other than 0).
//!
//! ```text
//! cell    = flags (1 byte) ‖ head ‖ payload                    value, map entry, reduced or aggregated value
//! list    = element*                                           appended one by one, never rewritten
//! element = varint(payload length << 2 | flags) ‖ head ‖ payload
//! head    = [u64, little-endian: milliseconds since 1970, if flag 1] ‖ [varint: schema version, if flag 2]
//! ```
//!
//! Each cell and each element has its own flags, so TTL can be switched on, off or changed, and a
//! type can be migrated, without rewriting stored values. Varints are LEB128.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::error::{Error, Result};

const FLAG_TIME: u8 = 1;
const FLAG_SCHEMA: u8 = 2;
/// All flags that there are. Others belong to a later format.
const FLAGS: u8 = FLAG_TIME | FLAG_SCHEMA;
/// How far an element's length is shifted.
const FLAG_BITS: u32 = 2;

/// The fields before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// When the payload was last accessed, in milliseconds since 1970, if the state had a TTL then.
    pub(crate) time: Option<u64>,
    /// The user's schema version; 0 is not written out.
    pub(crate) schema: u32,
}

/// A payload with its head: a whole value, or one element of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
}

impl Head {
    fn flags(self) -> u8 {
        let time = if self.time.is_some() { FLAG_TIME } else { 0 };
        let schema = if self.schema == 0 { 0 } else { FLAG_SCHEMA };
        time | schema
    }

    fn push_fields(self, buffer: &mut Vec<u8>) {
        if let Some(time) = self.time {
            buffer.extend_from_slice(&time.to_le_bytes());
        }
        if self.schema != 0 {
            push_varint(buffer, u64::from(self.schema));
        }
    }

    /// Appends the beginning of a cell; the payload follows.
    pub(crate) fn push(self, buffer: &mut Vec<u8>) {
        buffer.push(self.flags());
        self.push_fields(buffer);
    }

    /// Makes an element of the payload that lies in `buffer` from `start` on, by moving it up.
    pub(crate) fn frame(self, buffer: &mut Vec<u8>, start: usize) {
        let payload_end = buffer.len();
        let len = (payload_end.saturating_sub(start)) as u64;
        push_varint(buffer, len << FLAG_BITS | u64::from(self.flags()));
        self.push_fields(buffer);
        let head_len = buffer.len() - payload_end;
        if let Some(element) = buffer.get_mut(start..) {
            // The payload is encoded first, because its length stands in the head.
            element.rotate_right(head_len);
        }
    }

    fn take(flags: u8, bytes: &mut &[u8]) -> Option<Self> {
        let time = match flags & FLAG_TIME {
            0 => None,
            _ => {
                let (time, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(u64::from_le_bytes(*time))
            }
        };
        let schema = match flags & FLAG_SCHEMA {
            0 => 0,
            // 0 is never written out, so every head has one form.
            _ => u32::try_from(take_varint(bytes)?).ok().filter(|schema| *schema != 0)?,
        };
        Some(Self { time, schema })
    }
}

impl<'a> Cell<'a> {
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not a cell.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        Self::parse(bytes).ok_or_else(|| Error::corrupt("stored bytes are not a value of a typed state"))
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&flags, mut rest) = bytes.split_first()?;
        // A flag of a later format may change what follows.
        if flags & !FLAGS != 0 {
            return None;
        }
        let head = Head::take(flags, &mut rest)?;
        Some(Self { head, payload: rest })
    }
}

/// The elements of a list, oldest first. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(crate) fn new(list: &'a [u8]) -> Self {
        Self { rest: list }
    }

    /// The stored bytes of the elements that were not taken yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn parse(&mut self) -> Option<Cell<'a>> {
        let mut rest = self.rest;
        let start = take_varint(&mut rest)?;
        // Both bits of a u8 or less.
        let flags = (start & u64::from(FLAGS)) as u8;
        let head = Head::take(flags, &mut rest)?;
        let (payload, rest) = rest.split_at_checked(usize::try_from(start >> FLAG_BITS).ok()?)?;
        self.rest = rest;
        Some(Cell { head, payload })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Cell<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.parse();
        if element.is_none() {
            self.rest = &[];
        }
        Some(element.ok_or_else(|| Error::corrupt("stored bytes are not the elements of a list")))
    }
}

/// The elements of a list in pieces of whole ones that take at most `limit` bytes, or more for a
/// single one.
pub(crate) fn pieces(list: &[u8], limit: usize) -> Result<Vec<&[u8]>> {
    let (mut pieces, mut elements, mut rest) = (Vec::new(), Elements::new(list), list);
    let mut end = 0;
    while let Some(element) = elements.next() {
        element?;
        let next = rest.len() - elements.rest().len();
        if end > 0 && next > limit {
            let (piece, others) = rest.split_at(end);
            pieces.push(piece);
            rest = others;
        }
        end = rest.len() - elements.rest().len();
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    Ok(pieces)
}

fn push_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << shift;
        if shifted >> shift != bits {
            return None;
        }
        value |= shifted;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_head() -> impl Strategy<Value = Head> {
        let schema = prop_oneof![Just(0), any::<u32>()];
        (any::<Option<u64>>(), schema).prop_map(|(time, schema)| Head { time, schema })
    }

    #[test]
    fn a_list_is_cut_between_elements() {
        let list: Vec<u8> = [10, 20, 5, 5, 200, 1].iter().fold(Vec::new(), |mut list, length| {
            let start = list.len();
            list.resize(start + length, b'x');
            Head::default().frame(&mut list, start);
            list
        });
        let lengths = |limit| -> Vec<usize> {
            let pieces = pieces(&list, limit).unwrap();
            assert_eq!(pieces.concat(), list);
            pieces.iter().map(|piece| Elements::new(piece).map(Result::unwrap).count()).collect()
        };
        assert_eq!(lengths(usize::MAX), [6]);
        assert_eq!(lengths(33), [2, 2, 1, 1], "a larger element is a piece of its own");
        assert_eq!(lengths(0), [1; 6]);
        assert_eq!(pieces(&[], 10).unwrap(), Vec::<&[u8]>::new());
        assert!(pieces(&list[..list.len() - 1], 10).is_err(), "not a list");
    }

    #[test]
    fn the_layout_is_part_of_the_format() {
        let mut bytes = Vec::new();
        Head::default().push(&mut bytes);
        assert_eq!(bytes, [0]);

        bytes.clear();
        Head { time: Some(0x0102), schema: 300 }.push(&mut bytes);
        assert_eq!(bytes, [3, 2, 1, 0, 0, 0, 0, 0, 0, 0xac, 0x02]);

        bytes = b"ab".to_vec();
        Head::default().frame(&mut bytes, 0);
        assert_eq!(bytes, [8, b'a', b'b']);
        bytes.push(b'c');
        Head { time: None, schema: 1 }.frame(&mut bytes, 3);
        assert_eq!(bytes, [8, b'a', b'b', 6, 1, b'c']);
    }

    #[test]
    fn what_a_later_format_might_add_is_refused() {
        for bytes in [&[][..], &[4], &[0x80], &[1, 0, 0], &[2], &[2, 0], &[2, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
            assert!(Cell::decode(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&[4][..], &[0x80], &[1], &[8, 1], &[0xff; 11], &[2, 0]] {
            let mut elements = Elements::new(bytes);
            assert!(elements.next().unwrap().is_err(), "{bytes:?}");
            assert!(elements.next().is_none());
        }
    }

    proptest! {
        #[test]
        fn cells_come_back(head in any_head(), payload in any::<Vec<u8>>()) {
            let mut bytes = Vec::new();
            head.push(&mut bytes);
            bytes.extend_from_slice(&payload);
            prop_assert_eq!(Cell::decode(&bytes).unwrap(), Cell { head, payload: &payload });
        }

        #[test]
        fn elements_come_back(list in vec((any_head(), vec(any::<u8>(), 0..200)), 0..8)) {
            let mut bytes = Vec::new();
            for (head, payload) in &list {
                let start = bytes.len();
                bytes.extend_from_slice(payload);
                head.frame(&mut bytes, start);
            }
            let found: Vec<_> = Elements::new(&bytes).map(Result::unwrap).collect();
            let expected: Vec<_> = list.iter().map(|(head, payload)| Cell { head: *head, payload }).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn random_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = Cell::decode(&bytes);
            let _ = Elements::new(&bytes).count();
        }

        #[test]
        fn varints_come_back(value in any::<u64>()) {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
