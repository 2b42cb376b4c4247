//! Delta to bytes.

use bytes::Bytes;

use super::super::entry::Entry;
use super::super::frozen::FrozenDelta;
use super::super::range_set::RangeSet;
use super::block_writer::{BlockBuilder, Packer, write_tombstones};
use super::{DeltaHeader, HEADER_LEN, MAGIC, Sealed, Section, VERSION};

/// Encodes a frozen delta. `live` may drop or shorten an entry, for TTL. Sorts the delta if that
/// was not done yet, so it is for background threads.
pub(crate) fn seal<'a>(
    delta: &'a FrozenDelta,
    header: &DeltaHeader,
    mut live: impl FnMut(&[u8], Entry<'a>) -> Option<Entry<'a>>,
) -> Sealed {
    let entries = delta.iter().filter_map(|(key, entry)| live(key, entry).map(|entry| (key, entry)));
    encode(entries, delta.tombstones(), header)
}

/// The bytes of a delta with these entries, which come in ascending order of their keys.
pub(super) fn encode<'a>(
    entries: impl Iterator<Item = (&'a [u8], Entry<'a>)>,
    tombstones: &RangeSet,
    header: &DeltaHeader,
) -> Sealed {
    debug_assert!(header.first <= header.last, "deltas {:?} to {:?}", header.first, header.last);
    let mut out = header_bytes(header);
    let mut packer = Packer::default();
    let mut builder = BlockBuilder::default();
    let mut blocks = Vec::new();
    for (key, entry) in entries {
        if builder.push(key, entry) {
            blocks.push(builder.finish(&mut packer, &mut out));
        }
    }
    if !builder.is_empty() {
        blocks.push(builder.finish(&mut packer, &mut out));
    }
    let tombstones = write_tombstones(tombstones, &mut packer, &mut out);
    let index_start = out.len();
    for section in std::iter::once(&tombstones).chain(&blocks) {
        write_section(section, &mut out);
    }
    let index_crc = crc32c::crc32c(&out[index_start..]);
    let entries = blocks.iter().map(|block| u64::from(block.entries)).sum();
    let count = u32::try_from(blocks.len()).expect("the size limit cuts a delta long before 2^32 blocks");
    let footer_start = out.len();
    out.extend(count.to_le_bytes());
    out.extend(index_crc.to_le_bytes());
    out.extend(u64::to_le_bytes(entries));
    let footer_crc = crc32c::crc32c(&out[footer_start..]);
    out.extend(footer_crc.to_le_bytes());
    Sealed { crc32c: crc32c::crc32c(&out), entries, bytes: Bytes::from(out) }
}

fn header_bytes(header: &DeltaHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(0_u16.to_le_bytes());
    out.extend(header.epoch.0.to_le_bytes());
    out.extend(header.subtask.0.to_le_bytes());
    out.extend(header.range.first.0.to_le_bytes());
    out.extend(header.range.last.0.to_le_bytes());
    out.extend(header.first.0.to_le_bytes());
    out.extend(header.last.0.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend(crc.to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_LEN);
    out
}

pub(super) fn write_section(section: &Section, out: &mut Vec<u8>) {
    out.extend(section.stored_len.to_le_bytes());
    out.extend(section.raw_len.to_le_bytes());
    out.push(section.codec as u8);
    out.extend(section.crc32c.to_le_bytes());
    out.extend(section.entries.to_le_bytes());
    out.extend(section.first_group.to_le_bytes());
    out.extend(section.last_group.to_le_bytes());
}
