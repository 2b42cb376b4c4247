//! How errors name a key: the state, the key group, and the key as far as it can be read.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write;

use crate::key;
use crate::manifest::StateInfo;

use super::kind::StateKind;

/// Bytes of a key that are shown.
const SHOWN: usize = 64;

/// Where an encoded key lies; `info` describes its state, if that is known.
pub(crate) fn name_encoded_key(info: Option<&StateInfo>, encoded: &[u8]) -> String {
    let mut name = match (info, key::state_of(encoded)) {
        (Some(info), _) => format!("state {:?}", info.name),
        (None, Some(id)) => format!("state {id}"),
        (None, None) => return format!("key {}", hex(encoded)),
    };
    if let Some(group) = key::group_of(encoded) {
        let _ = write!(name, ", key group {group}");
    }
    let _ = write!(name, ", {}", name_key(info, key::user_key(encoded)));
    name
}

/// A stored key, without its group and state.
pub(crate) fn name_key(info: Option<&StateInfo>, stored: &[u8]) -> String {
    let whole = || format!("key {}", hex(stored));
    let Some(info) = info else { return whole() };
    let offset = StateKind::of(info.kind).map_or(0, StateKind::key_offset);
    let Some((head, rest)) = stored.split_at_checked(offset) else { return whole() };
    let Some((mut shown, rest)) = part(&info.key, rest) else { return whole() };
    shown.insert_str(0, "key ");
    if let Some(time) = head.get(1..).and_then(|time| number("i64", time)) {
        let _ = write!(shown, ", timer at {time}");
    }
    if !rest.is_empty() {
        let _ = write!(shown, ", then {}", hex(rest));
    }
    shown
}

/// A key in part form as its type has it, and what follows it. None if the type is one that is not
/// known here.
fn part<'a>(key_type: &str, bytes: &'a [u8]) -> Option<(String, &'a [u8])> {
    if key_type == "str" {
        let end = bytes.windows(2).position(|pair| pair == [0, 1])?;
        let (text, rest) = bytes.split_at_checked(end)?;
        let text = String::from_utf8(unescaped(text)).ok()?;
        let cut: String = text.chars().take(SHOWN).collect();
        let dots = if cut.len() < text.len() { "…" } else { "" };
        return Some((format!("{cut:?}{dots}"), rest.get(2..)?));
    }
    let size = match key_type {
        "u8" | "i8" => 1,
        "u16" | "i16" => 2,
        "u32" | "i32" => 4,
        "u64" | "i64" => 8,
        _ => return None,
    };
    let (mine, rest) = bytes.split_at_checked(size)?;
    Some((number(key_type, mine)?.to_string(), rest))
}

/// A big-endian number; of signed ones the sign is turned.
fn number(key_type: &str, bytes: &[u8]) -> Option<i128> {
    let bits = u32::try_from(8 * bytes.len()).ok().filter(|bits| (1..=64).contains(bits))?;
    let number = bytes.iter().fold(0_i128, |number, byte| number << 8 | i128::from(*byte));
    Some(if key_type.starts_with('i') { number - (1_i128 << (bits - 1)) } else { number })
}

/// Zero bytes are stored as `00 ff`.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut after_zero = false;
    for byte in bytes {
        if !(after_zero && *byte == 0xff) {
            plain.push(*byte);
        }
        after_zero = *byte == 0;
    }
    plain
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "0x".to_owned();
    bytes.iter().take(SHOWN).for_each(|byte| _ = write!(text, "{byte:02x}"));
    if bytes.len() > SHOWN {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::StateId;
    use crate::key_group::KeyGroup;
    use crate::store::{Registry, StateOptions};

    fn info(kind: StateKind, key: &str) -> StateInfo {
        let mut registry = Registry::new(&[]);
        let options = StateOptions { kind, key: key.to_owned(), ..StateOptions::new("clicks") };
        registry.register(&options).unwrap();
        registry.list().first().unwrap().clone()
    }

    #[test]
    fn keys_are_shown_as_their_type_has_them() {
        for (kind, key, stored, shown) in [
            (StateKind::Value, "str", b"a\0\xffb\0\x01".as_slice(), "key \"a\\0b\""),
            (StateKind::Value, "str", b"page\0\x01\0\x07", "key \"page\", then 0x0007"),
            (StateKind::Value, "str", b"page", "key 0x70616765"),
            (StateKind::Value, "str", b"\xfe\0\x01", "key 0xfe0001"),
            (StateKind::Value, "u16", &[1, 2], "key 258"),
            (StateKind::Value, "i16", &[0x7f, 0xff], "key -1"),
            (StateKind::Value, "u64", &[7], "key 0x07"),
            (StateKind::Value, "window", &[7], "key 0x07"),
            (StateKind::Timers, "u8", &[0, 0x80, 0, 0, 0, 0, 0, 0, 5, 9], "key 9, timer at 5"),
            (StateKind::Timers, "u8", &[0, 0x80], "key 0x0080"),
        ] {
            assert_eq!(name_key(Some(&info(kind, key)), stored), shown);
        }
        assert_eq!(name_key(None, &[0xab; 65]), format!("key 0x{}… (65 bytes)", "ab".repeat(64)));
        let mut encoded = Vec::new();
        key::encode_into(&mut encoded, KeyGroup(5), StateId::of("clicks"), &[0, 1]);
        let name = name_encoded_key(Some(&info(StateKind::Value, "u16")), &encoded);
        assert_eq!(name, "state \"clicks\", key group 5, key 1");
        assert!(name_encoded_key(None, &encoded).ends_with(", key group 5, key 0x0001"));
        assert_eq!(name_encoded_key(None, &[1]), "key 0x01");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, key in "(str|u8|i64|other)", timers: bool) {
            let kind = if timers { StateKind::Timers } else { StateKind::Value };
            let _ = name_encoded_key(Some(&info(kind, &key)), &bytes);
            let _ = name_key(Some(&info(kind, &key)), &bytes);
        }
    }
}
