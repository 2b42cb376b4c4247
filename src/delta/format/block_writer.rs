//! Entries to blocks, tombstones, and their compression.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::super::entry::Entry;
use super::super::ordered::common_prefix;
use super::super::range_set::RangeSet;
use super::cursor::write_varint;
use super::{BLOCK, Codec, Section, TAG_DELETE, TAG_MERGE, TAG_PUT};
use crate::key::group_of;

/// Collects entries until they make a block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    raw: Vec<u8>,
    last_key: Vec<u8>,
    /// Bytes of keys and values, shared prefixes counted.
    full_len: usize,
    entries: u32,
    first_group: u16,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry and says whether the block is full.
    pub(super) fn push(&mut self, key: &[u8], entry: Entry<'_>) -> bool {
        let shared = if self.is_empty() {
            self.first_group = group(key);
            0
        } else {
            common_prefix(&self.last_key, key)
        };
        let rest = &key[shared..];
        write_varint(&mut self.raw, shared);
        write_varint(&mut self.raw, rest.len());
        let payload = match entry {
            Entry::Delete => {
                self.raw.push(TAG_DELETE);
                None
            }
            Entry::Put(value) => {
                self.raw.push(TAG_PUT);
                Some(value)
            }
            Entry::Merge { op, operand } => {
                self.raw.extend([TAG_MERGE, op.id()]);
                Some(operand)
            }
        };
        if let Some(payload) = payload {
            write_varint(&mut self.raw, payload.len());
        }
        self.raw.extend_from_slice(rest);
        self.raw.extend_from_slice(payload.unwrap_or_default());
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(rest);
        self.full_len += key.len() + entry.payload_len();
        self.entries += 1;
        self.full_len >= BLOCK
    }

    /// Appends the block to `out` and begins a new one.
    pub(super) fn finish(&mut self, packer: &mut Packer, out: &mut Vec<u8>) -> Section {
        let section = Section {
            entries: self.entries,
            first_group: self.first_group,
            last_group: group(&self.last_key),
            ..packer.pack(&self.raw, out)
        };
        self.raw.clear();
        self.full_len = 0;
        self.entries = 0;
        section
    }
}

fn group(key: &[u8]) -> u16 {
    group_of(key).expect("encoded keys begin with a key group").0
}

/// Appends the tombstones to `out`.
pub(super) fn write_tombstones(tombstones: &RangeSet, packer: &mut Packer, out: &mut Vec<u8>) -> Section {
    let mut raw = Vec::new();
    for (start, end) in tombstones.iter() {
        for bound in [start, end] {
            write_varint(&mut raw, bound.len());
            raw.extend_from_slice(bound);
        }
    }
    let entries =
        u32::try_from(tombstones.len()).expect("the size limit cuts a delta long before 2^32 ranges");
    Section { entries, ..packer.pack(&raw, out) }
}

/// Compresses sections one after the other with one table.
#[derive(Default)]
pub(super) struct Packer {
    table: CompressTable,
}

impl Packer {
    /// Appends `raw` to `out`, compressed where that makes it smaller.
    fn pack(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Section {
        let start = out.len();
        out.resize(start + get_maximum_output_size(raw.len()), 0);
        // The output has room for the worst case; should compression fail all the same, raw is
        // right.
        let packed = compress_into_with_table(raw, &mut out[start..], &mut self.table).ok();
        let codec = match packed.filter(|len| *len < raw.len()) {
            Some(len) => {
                out.truncate(start + len);
                Codec::Lz4
            }
            None => {
                out.truncate(start);
                out.extend_from_slice(raw);
                Codec::Raw
            }
        };
        let stored = &out[start..];
        let len =
            |bytes: &[u8]| u32::try_from(bytes.len()).expect("a block holds one value below 4 GiB at most");
        Section {
            stored_len: len(stored),
            raw_len: len(raw),
            codec,
            crc32c: crc32c::crc32c(stored),
            ..Section::default()
        }
    }
}
