//! Byte strings that mark their own end, and sort as the originals do.
//!
//! A zero byte becomes `00 ff`, and the end is `00 01`. No string's form is a prefix of another's,
//! and a string sorts before all its continuations. (FoundationDB's tuples escape in the same way.)

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::borrow::Cow;

const ZERO: u8 = 0x00;
const ESCAPED: u8 = 0xff;
const END: u8 = 0x01;

/// Escapes the bytes of `buffer` from `start` on, without an end: the form of a string's beginning.
pub(super) fn escape(buffer: &mut Vec<u8>, start: usize) {
    let end = buffer.len();
    let zeros = buffer.iter().skip(start).filter(|byte| **byte == ZERO).count();
    if zeros == 0 {
        return;
    }
    buffer.resize(end + zeros, ESCAPED);
    // Moves each byte to its place, from the back, until the rest stays in place.
    let mut to = buffer.len();
    for from in (start..end).rev() {
        if to == from + 1 {
            break;
        }
        let byte = buffer.get(from).copied().unwrap_or_default();
        if byte == ZERO {
            to -= 1;
            buffer.get_mut(to).into_iter().for_each(|place| *place = ESCAPED);
        }
        to -= 1;
        buffer.get_mut(to).into_iter().for_each(|place| *place = byte);
    }
}

/// Escapes the bytes of `buffer` from `start` on, and appends the end.
pub(super) fn close(buffer: &mut Vec<u8>, start: usize) {
    escape(buffer, start);
    buffer.extend_from_slice(&[ZERO, END]);
}

/// Takes a string off the front of `bytes`. None if there is none.
pub(super) fn take<'a>(bytes: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let mut taken = Cow::Borrowed(&[][..]);
    loop {
        let zero = bytes.iter().position(|byte| *byte == ZERO)?;
        let (plain, rest) = bytes.split_at_checked(zero)?;
        let (mark, rest) = rest.split_first_chunk::<2>()?;
        *bytes = rest;
        if taken.is_empty() {
            taken = Cow::Borrowed(plain);
        } else {
            taken.to_mut().extend_from_slice(plain);
        }
        match *mark {
            [ZERO, END] => return Some(taken),
            [ZERO, ESCAPED] => taken.to_mut().push(ZERO),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Bytes with many zeros and marks among them.
    fn any_string() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..12)
    }

    fn closed(string: &[u8]) -> Vec<u8> {
        let mut buffer = b"before".to_vec();
        buffer.extend_from_slice(string);
        close(&mut buffer, 6);
        assert_eq!(&buffer[..6], b"before");
        buffer.split_off(6)
    }

    #[test]
    fn the_form_is_part_of_the_format() {
        assert_eq!(closed(b""), [0, 1]);
        assert_eq!(closed(b"a\0b"), [b'a', 0, 0xff, b'b', 0, 1]);
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for bytes in [&[][..], &[1], &[0], &[b'a', 0], &[0, 0], &[0, 2], &[0, 0xff]] {
            assert_eq!(take(&mut &*bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn strings_come_back(string in any_string(), next in any::<Vec<u8>>()) {
            let mut bytes = closed(&string);
            bytes.extend_from_slice(&next);
            let mut rest = bytes.as_slice();
            let taken = take(&mut rest);
            prop_assert_eq!(taken.as_deref(), Some(string.as_slice()));
            prop_assert_eq!(rest, next);
        }

        #[test]
        fn order_stays_and_none_is_a_prefix(a in any_string(), b in any_string()) {
            prop_assert_eq!(closed(&a).cmp(&closed(&b)), a.cmp(&b));
            prop_assert!(a == b || !closed(&a).starts_with(&closed(&b)));
        }

        #[test]
        fn a_beginning_is_a_beginning(string in any_string(), cut in any::<proptest::sample::Index>()) {
            let mut beginning = string[..cut.index(string.len() + 1)].to_vec();
            escape(&mut beginning, 0);
            prop_assert!(closed(&string).starts_with(&beginning));
        }

        #[test]
        fn random_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = take(&mut bytes.as_slice());
        }
    }
}
