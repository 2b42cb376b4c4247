//! The bytes of a sealed delta, version 1. All integers are little-endian.
//!
//! ```text
//! header      "ALVD" · version u16 · flags u16 (0) · epoch u64 · subtask u32
//!             · first key group u16 · last key group u16 · first seq u64 · last seq u64 · CRC u32
//! block*      entries, LZ4 or raw
//! tombstones  the same kind of section, absent (0 bytes) if there are none
//! index       for the tombstones, then for each block: stored bytes u32 · raw bytes u32 · codec u8
//!             · CRC u32 of the stored bytes · entries u32 · first key group u16 · last key group u16
//! footer      number of blocks u32 · CRC u32 of the index · entries u64 · CRC u32 of the footer so far
//! ```
//!
//! CRC is CRC32C. Sections follow one another without gaps, so every byte is under one of the CRCs.
//!
//! An entry is: length of the prefix shared with the key before it in the block · length of the
//! rest · tag · length of value or operand (all but the tag LEB128), rest of the key, value or
//! operand. Tags: 0 delete (no length), 1 put, 2 merge followed by the operator's number. A block
//! ends with the entry that brings its keys and values, prefixes counted, to 32 KiB or more. Keys
//! ascend strictly throughout.
//!
//! A tombstone is: length of the start · start · length of the end · end. Ranges ascend and neither
//! overlap nor touch.
//!
//! The index tells the key groups of each block, so a subtask that takes over some of the groups
//! reads only their blocks.

mod block_reader;
mod block_writer;
mod cursor;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use bytes::Bytes;

use super::decoded::DecodedDelta;
use crate::ids::{DeltaSeq, Epoch, SubtaskIndex};
use crate::key_group::KeyGroupRange;

pub(crate) use reader::DeltaReader;
pub(crate) use writer::seal;

const MAGIC: [u8; 4] = *b"ALVD";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 44;
const SECTION_LEN: usize = 21;
const FOOTER_LEN: usize = 20;

/// Keys and values of a block.
const BLOCK: usize = 32 * 1024;

/// Fewest bytes of an entry: two lengths and a tag.
const MIN_ENTRY: usize = 3;

const TAG_DELETE: u8 = 0;
const TAG_PUT: u8 = 1;
const TAG_MERGE: u8 = 2;

/// Who wrote a delta, and which deltas it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaHeader {
    /// The attempt that wrote it.
    pub(crate) epoch: Epoch,
    /// The subtask that it belongs to.
    pub(crate) subtask: SubtaskIndex,
    /// The key groups that the subtask owned.
    pub(crate) range: KeyGroupRange,
    /// The first delta in it.
    pub(crate) first: DeltaSeq,
    /// The last delta in it; more than `first` if several were merged.
    pub(crate) last: DeltaSeq,
}

/// A delta as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    /// The whole object.
    pub(crate) bytes: Bytes,
    /// CRC32C of `bytes`.
    pub(crate) crc32c: u32,
    /// Number of entries, tombstones not counted.
    pub(crate) entries: u64,
}

/// The index entry of a block or of the tombstones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Section {
    stored_len: u32,
    raw_len: u32,
    codec: Codec,
    crc32c: u32,
    entries: u32,
    first_group: u16,
    last_group: u16,
}

impl Section {
    /// Memory that a block's entries may take once they are decoded: a block that shares prefixes
    /// or compresses well says little of it by its stored length.
    fn decoded_len(&self) -> u64 {
        let (raw, entries) = (u64::from(self.raw_len), u64::from(self.entries));
        // No key is longer than the block, the first shares nothing, and all but the last entry end
        // before `BLOCK`.
        let shared = raw.saturating_mul(entries.saturating_sub(1)).min(BLOCK as u64);
        // Twice, because the lists grow by doubling.
        2 * (raw + shared) + entries * DecodedDelta::OVERHEAD as u64
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    #[default]
    Raw = 0,
    Lz4 = 1,
}
