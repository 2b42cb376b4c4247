//! The encoded key: key group (2 bytes, big-endian) ‖ state id (4 bytes, big-endian) ‖ user key.
//!
//! The group comes first so that a range of groups is one range of keys for all states: that is
//! what a rescale moves.

use crate::error::Error;
use crate::ids::StateId;
use crate::key_group::{KeyGroup, KeyGroupRange};

/// Bytes that come before the user's key.
pub(crate) const PREFIX_LEN: usize = 6;

/// Longest key in bytes, as the user has it; of a typed state also namespace and map key together.
/// Keys are copied into deltas and index blocks; longer ones belong into values.
pub(crate) const MAX_USER_KEY_LEN: usize = 64 * 1024;

/// Longest key in bytes as it is stored: key, namespace and map key of a typed state, in which
/// every byte may be escaped, their ends, and what a timer has in front.
pub(crate) const MAX_STORED_KEY_LEN: usize = 5 * MAX_USER_KEY_LEN;

/// Bytes of a key in plain or part form as its user counts them: a zero byte that is escaped (`00
/// ff`) is one, and an end (`00 01`) is none.
pub(crate) fn user_len(form: &[u8]) -> usize {
    if form.len() <= MAX_USER_KEY_LEN {
        return form.len();
    }
    let (mut len, mut rest) = (0, form);
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        let (mark, after) = match rest.get(zero + 1) {
            Some(0xff) => (1, zero + 2),
            Some(1) => (0, zero + 2),
            _ => (1, zero + 1),
        };
        len += zero + mark;
        rest = rest.get(after..).unwrap_or_default();
    }
    len + rest.len()
}

pub(crate) fn too_long(len: usize, longest: usize) -> Error {
    Error::invalid(format!("a key of {len} bytes is too long"))
        .advise(format!("keys may have up to {longest} bytes"))
}

pub(crate) fn prefix(group: KeyGroup, state: StateId) -> [u8; PREFIX_LEN] {
    let mut bytes = [0; PREFIX_LEN];
    let (head, tail) = bytes.split_at_mut(2);
    head.copy_from_slice(&group.0.to_be_bytes());
    tail.copy_from_slice(&state.0.to_be_bytes());
    bytes
}

/// Overwrites `buffer` with the encoded key.
pub(crate) fn encode_into(buffer: &mut Vec<u8>, group: KeyGroup, state: StateId, user_key: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&prefix(group, state));
    buffer.extend_from_slice(user_key);
}

/// The group of an encoded key; None if it is too short to be one.
pub(crate) fn group_of(key: &[u8]) -> Option<KeyGroup> {
    key.first_chunk::<2>().map(|bytes| KeyGroup(u16::from_be_bytes(*bytes)))
}

/// The state of an encoded key; None if it is too short to be one.
pub(crate) fn state_of(key: &[u8]) -> Option<StateId> {
    key.get(2..PREFIX_LEN)?.first_chunk().map(|bytes| StateId(u32::from_be_bytes(*bytes)))
}

/// The user's part of an encoded key; empty if the key is too short.
pub(crate) fn user_key(key: &[u8]) -> &[u8] {
    key.get(PREFIX_LEN..).unwrap_or_default()
}

/// First key above every key that starts with `prefix`; None where there is none (all bytes 0xff).
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The half-open range of encoded keys of `range`: start, end.
pub(crate) fn bounds_of(range: KeyGroupRange) -> (Vec<u8>, Vec<u8>) {
    let start = range.first.0.to_be_bytes().to_vec();
    // Groups end below 32,768, so one more fits.
    let end = (range.last.0 + 1).to_be_bytes().to_vec();
    (start, end)
}

/// Where a table keeps the sequence number of the last delta it holds. It lies inside the owned
/// range, so that whatever moves or trims the range treats it like any other key.
pub(crate) fn marker(range: KeyGroupRange) -> [u8; PREFIX_LEN] {
    prefix(range.first, StateId::RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_skips_trailing_ff() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn escapes_do_not_count() {
        let long = vec![b'k'; MAX_USER_KEY_LEN];
        for (form, len) in [
            (b"a\0\xffb\0\x01".to_vec(), 6),
            ([&long[..], b"\0\x01"].concat(), long.len()),
            ([&long[..], b"\0\xff\0\x01"].concat(), long.len() + 1),
            (b"\0\xff".repeat(long.len()), long.len()),
            ([&long[..], b"\0\0\0"].concat(), long.len() + 3),
            ([&long[..], b"\0"].concat(), long.len() + 1),
        ] {
            assert_eq!(user_len(&form), len);
        }
    }

    #[test]
    fn order_is_group_then_state_then_key() {
        let mut keys = Vec::new();
        for (group, state, key) in [(1, 9, b"z".as_slice()), (1, 10, b"a"), (1, 10, b"ab"), (256, 1, b"")] {
            let mut buffer = Vec::new();
            encode_into(&mut buffer, KeyGroup(group), StateId(state), key);
            assert_eq!(user_key(&buffer), key);
            assert_eq!(group_of(&buffer), Some(KeyGroup(group)));
            assert_eq!(state_of(&buffer), Some(StateId(state)));
            keys.push(buffer);
        }
        assert!(keys.is_sorted());
    }
}
