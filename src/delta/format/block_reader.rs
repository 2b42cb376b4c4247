//! Blocks and tombstones back to entries.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use lz4_flex::block::decompress_into;

use super::super::decoded::DecodedDelta;
use super::super::entry::{Entry, MergeOp};
use super::super::range_set::RangeSet;
use super::cursor::Cursor;
use super::{BLOCK, Codec, MIN_ENTRY, Section, TAG_DELETE, TAG_MERGE, TAG_PUT};
use crate::error::{Error, Result};
use crate::key::group_of;
use crate::key_group::KeyGroupRange;

/// Checks the stored bytes of a section against its CRC and puts the raw ones into `raw`.
pub(super) fn unpack<'a>(
    section: &Section,
    stored: &'a [u8],
    raw: &'a mut Vec<u8>,
    what: &str,
) -> Result<&'a [u8]> {
    let corrupt = |problem| Error::corrupt(format!("{what} of a delta {problem}"));
    if crc32c::crc32c(stored) != section.crc32c {
        return Err(corrupt("does not match its checksum"));
    }
    let raw_len = section.raw_len as usize;
    match section.codec {
        Codec::Raw if raw_len == stored.len() => Ok(stored),
        Codec::Raw => Err(corrupt("has a wrong length")),
        Codec::Lz4 => {
            // LZ4 shrinks to no less than a 255th. A larger length is a lie, and is not allocated.
            if raw_len / 255 > stored.len() {
                return Err(corrupt("has a length out of bounds"));
            }
            raw.clear();
            raw.resize(raw_len, 0);
            match decompress_into(stored, raw) {
                Ok(len) if len == raw_len => Ok(raw),
                _ => Err(corrupt("cannot be decompressed")),
            }
        }
    }
}

/// Adds the entries of a block whose key groups are in `wanted` to `into`.
pub(super) fn read_block(
    section: &Section,
    raw: &[u8],
    wanted: KeyGroupRange,
    into: &mut DecodedDelta,
) -> Result<()> {
    let mut cursor = Cursor::new(raw, "a block");
    if section.entries == 0 || section.entries as usize > raw.len() / MIN_ENTRY {
        return Err(cursor.corrupt("has a wrong number of entries"));
    }
    let mut key = Vec::new();
    let mut full_len = 0;
    for number in 0..section.entries {
        if full_len >= BLOCK {
            return Err(cursor.corrupt("is too long"));
        }
        let shared = cursor.varint()?;
        let rest = cursor.varint()?;
        let tag = cursor.u8()?;
        let op = match tag {
            TAG_MERGE => {
                let id = cursor.u8()?;
                let unknown =
                    || cursor.corrupt(&format!("has merge operator {id}, which this build does not know"));
                Some(MergeOp::from_id(id).ok_or_else(unknown)?)
            }
            TAG_DELETE | TAG_PUT => None,
            _ => return Err(cursor.corrupt("has an unknown tag")),
        };
        let payload_len = if tag == TAG_DELETE { 0 } else { cursor.varint()? };
        let rest = cursor.bytes(rest)?;
        let payload = cursor.bytes(payload_len)?;
        // The new key is above the one before it exactly if its rest is above the part that it
        // replaces.
        let replaced =
            key.get(shared..).ok_or_else(|| cursor.corrupt("shares more of a key than there is"))?;
        if number > 0 && rest <= replaced {
            return Err(cursor.corrupt("has keys out of order"));
        }
        key.truncate(shared);
        key.extend_from_slice(rest);
        full_len += key.len() + payload_len;
        let group = group_of(&key).ok_or_else(|| cursor.corrupt("has a key that is too short"))?;
        if number == 0 {
            if group.0 != section.first_group {
                return Err(cursor.corrupt("begins with another key group than the index says"));
            }
            if into.last_key().is_some_and(|last| key.as_slice() <= last) {
                return Err(cursor.corrupt("has keys out of order"));
            }
        }
        if number + 1 == section.entries && group.0 != section.last_group {
            return Err(cursor.corrupt("ends with another key group than the index says"));
        }
        if wanted.contains(group) {
            let entry = match (tag, op) {
                (TAG_DELETE, _) => Entry::Delete,
                (_, Some(op)) => Entry::Merge { op, operand: payload },
                _ => Entry::Put(payload),
            };
            into.push(&key, entry);
        }
    }
    if cursor.is_empty() { Ok(()) } else { Err(cursor.corrupt("has bytes after its last entry")) }
}

pub(super) fn read_tombstones(section: &Section, raw: &[u8]) -> Result<RangeSet> {
    let mut cursor = Cursor::new(raw, "the tombstones");
    let mut tombstones = RangeSet::new();
    let mut last: Option<&[u8]> = None;
    for _ in 0..section.entries {
        let mut bound = || cursor.varint().and_then(|len| cursor.bytes(len));
        let (start, end) = (bound()?, bound()?);
        if start >= end || last.is_some_and(|last| start <= last) {
            return Err(cursor.corrupt("are out of order"));
        }
        tombstones.insert(start, end);
        last = Some(end);
    }
    if cursor.is_empty() { Ok(tombstones) } else { Err(cursor.corrupt("go on after the last one")) }
}
