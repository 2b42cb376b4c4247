//! Bytes to delta. Any bytes give a delta or an error, and no length in them is trusted before it
//! is checked against the bytes at hand.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ops::Range;

use bytes::Bytes;

use super::super::decoded::DecodedDelta;
use super::super::range_set::RangeSet;
use super::block_reader::{read_block, read_tombstones, unpack};
use super::cursor::Cursor;
use super::{Codec, DeltaHeader, FOOTER_LEN, HEADER_LEN, MAGIC, SECTION_LEN, Section, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, Epoch, SubtaskIndex};
use crate::key::bounds_of;
use crate::key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT};

/// A sealed delta, opened: header, index and tombstones are read and checked, blocks are not.
#[derive(Debug)]
pub(crate) struct DeltaReader {
    bytes: Bytes,
    header: DeltaHeader,
    tombstones: RangeSet,
    blocks: Vec<(Section, Range<usize>)>,
    entries: u64,
}

impl DeltaReader {
    /// # Errors
    /// `Corrupt` if the bytes are not a whole sealed delta, `UnsupportedVersion` if a newer build
    /// wrote them. The error does not name the object; the caller knows it.
    #[cfg(test)]
    pub(crate) fn open(bytes: Bytes) -> Result<Self> {
        match <[Self; 1]>::try_from(Self::open_all(bytes)?) {
            Ok([reader]) => Ok(reader),
            Err(readers) => Err(Error::corrupt(format!("these are {} deltas", readers.len()))),
        }
    }

    /// Opens deltas that lie one after the other: one, or a run that was packed. The oldest first,
    /// at least one.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not whole sealed deltas, `UnsupportedVersion` if a newer build
    /// wrote them. The error does not name the object; the caller knows it.
    pub(crate) fn open_all(mut bytes: Bytes) -> Result<Vec<Self>> {
        let mut readers = Vec::new();
        loop {
            // Checked before the footer of the last delta: if this format is unknown, that footer
            // is as well.
            read_header(&bytes)?;
            let end = End::read(&bytes)?;
            if bytes.get(end.start..).is_none_or(|delta| !delta.starts_with(&MAGIC)) {
                return Err(Error::corrupt("the index of a delta does not account for all bytes"));
            }
            readers.push(Self::new(bytes.split_off(end.start), end)?);
            if bytes.is_empty() {
                readers.reverse();
                return Ok(readers);
            }
        }
    }

    fn new(bytes: Bytes, end: End) -> Result<Self> {
        let header = read_header(&bytes)?;
        let mut at = HEADER_LEN;
        let mut place = |section: &Section| {
            let start = at;
            at += section.stored_len as usize;
            start..at
        };
        let corrupt = |problem| Err(Error::corrupt(format!("the index of a delta {problem}")));
        let mut blocks = Vec::with_capacity(end.blocks.len());
        for block in end.blocks {
            // A block outside of the range would bring back changes of groups that another subtask
            // owns.
            let owned =
                [block.first_group, block.last_group].map(|group| header.range.contains(KeyGroup(group)));
            if block.first_group > block.last_group || owned.contains(&false) {
                return corrupt("has key groups out of order or out of the subtask's range");
            }
            let place = place(&block);
            blocks.push((block, place));
        }
        if !blocks.is_sorted_by(|(a, _), (b, _)| a.last_group <= b.first_group) {
            return corrupt("has blocks out of order");
        }
        if end.entries != blocks.iter().map(|(block, _)| u64::from(block.entries)).sum::<u64>() {
            return corrupt("does not add up to the number of entries in the footer");
        }
        // The bytes are there, because the index accounts for all of them.
        let stored = bytes.get(place(&end.tombstones)).unwrap_or_default();
        let mut raw = Vec::new();
        let raw = unpack(&end.tombstones, stored, &mut raw, "the tombstones")?;
        let tombstones = read_tombstones(&end.tombstones, raw)?;
        Ok(Self { header, tombstones, blocks, entries: end.entries, bytes })
    }

    /// The header: who wrote the delta, and which deltas it holds.
    pub(crate) fn header(&self) -> &DeltaHeader {
        &self.header
    }

    #[cfg(test)]
    pub(super) fn tombstones(&self) -> &RangeSet {
        &self.tombstones
    }

    /// Number of entries, tombstones not counted.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    #[cfg(test)]
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Section> {
        self.blocks.iter().map(|(block, _)| block)
    }

    /// About the most memory that [`DeltaReader::entries_in`] takes.
    pub(crate) fn decoded_len(&self, range: KeyGroupRange) -> u64 {
        let blocks = self.blocks_in(range).map(|(block, _)| block.decoded_len());
        blocks.fold((self.tombstones.bytes() + DecodedDelta::LEAST) as u64, u64::saturating_add)
    }

    fn blocks_in(&self, range: KeyGroupRange) -> impl Iterator<Item = &(Section, Range<usize>)> {
        let apart =
            move |block: &Section| block.last_group < range.first.0 || block.first_group > range.last.0;
        self.blocks.iter().filter(move |(block, _)| !apart(block))
    }

    /// The entries and tombstones of the key groups in `range`. Blocks without such entries are
    /// neither read nor checked.
    ///
    /// # Errors
    /// `Corrupt` if one of the blocks is.
    pub(crate) fn entries_in(&self, range: KeyGroupRange) -> Result<DecodedDelta> {
        self.parts(range, u64::MAX).next().unwrap_or_else(|| Ok(DecodedDelta::default()))
    }

    /// As [`DeltaReader::entries_in`], but in parts that take at most `limit` bytes of memory, or
    /// more for a single block: the first with all tombstones, which lie below the entries of all.
    /// Ends at the first error.
    pub(crate) fn parts(
        &self,
        range: KeyGroupRange,
        limit: u64,
    ) -> impl Iterator<Item = Result<DecodedDelta>> {
        let (start, end) = bounds_of(range);
        // At least one block for each part, or the iteration would not end.
        let limit = limit.max(1);
        let mut blocks = self.blocks_in(range).peekable();
        let mut tombstones = Some(self.tombstones.clipped(&start, &end));
        let (mut buffer, mut last, mut failed) = (Vec::new(), Vec::new(), false);
        std::iter::from_fn(move || {
            let first = tombstones.take();
            if failed || (first.is_none() && blocks.peek().is_none()) {
                return None;
            }
            let mut decoded = DecodedDelta::new(first.unwrap_or_default());
            let mut room = limit;
            let mut read = || {
                while let Some((block, place)) =
                    blocks.next_if(|(block, _)| room == limit || block.decoded_len() <= room)
                {
                    // As above: the bytes are there.
                    let stored = self.bytes.get(place.clone()).unwrap_or_default();
                    let raw = unpack(block, stored, &mut buffer, "a block")?;
                    read_block(block, raw, range, &mut decoded)?;
                    room = room.saturating_sub(block.decoded_len());
                }
                // Within a part, the blocks are compared as they are read.
                if decoded.get(0).is_some_and(|(key, _)| !last.is_empty() && key <= last.as_slice()) {
                    return Err(Error::corrupt("a block of a delta has keys out of order"));
                }
                Ok(())
            };
            if let Err(error) = read() {
                failed = true;
                return Some(Err(error));
            }
            if let Some(key) = decoded.last_key() {
                key.clone_into(&mut last);
            }
            Some(Ok(decoded))
        })
    }
}

/// Footer and index of the delta that bytes end with.
struct End {
    /// Where it begins.
    start: usize,
    tombstones: Section,
    blocks: Vec<Section>,
    entries: u64,
}

impl End {
    fn read(bytes: &[u8]) -> Result<Self> {
        let footer_start = bytes.len().checked_sub(FOOTER_LEN).filter(|start| *start >= HEADER_LEN);
        let footer = footer_start.and_then(|start| bytes.get(start..)).unwrap_or_default();
        let mut cursor = Cursor::new(footer, "the footer");
        let (count, index_crc, entries) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
        check_crc(footer, &mut cursor)?;

        let index_len = (count as usize).checked_add(1).and_then(|count| count.checked_mul(SECTION_LEN));
        let index_end = footer_start.unwrap_or_default();
        let index_start =
            index_len.and_then(|len| index_end.checked_sub(len)).filter(|start| *start >= HEADER_LEN);
        let index = index_start.and_then(|start| bytes.get(start..index_end)).unwrap_or_default();
        if crc32c::crc32c(index) != index_crc {
            return Err(Error::corrupt("the index of a delta does not match its checksum"));
        }
        let mut cursor = Cursor::new(index, "the index");
        let tombstones = read_section(&mut cursor)?;
        let mut stored = u64::from(tombstones.stored_len);
        // The index has passed its checksum and has this many entries, so the count is no made-up
        // length.
        let mut blocks = Vec::with_capacity(count as usize);
        while !cursor.is_empty() {
            let block = read_section(&mut cursor)?;
            stored = stored.saturating_add(block.stored_len.into());
            blocks.push(block);
        }
        let start = usize::try_from(stored)
            .ok()
            .and_then(|stored| index_start?.checked_sub(stored)?.checked_sub(HEADER_LEN))
            .ok_or_else(|| cursor.corrupt("speaks of more bytes than there are"))?;
        Ok(Self { start, tombstones, blocks, entries })
    }
}

fn read_header(bytes: &[u8]) -> Result<DeltaHeader> {
    let header = bytes.get(..HEADER_LEN).unwrap_or(bytes);
    let mut cursor = Cursor::new(header, "the header");
    if cursor.array()? != MAGIC {
        return Err(Error::corrupt("these bytes are not a delta"));
    }
    let version = cursor.u16()?;
    // Checked before the checksum, because a newer format may have a longer header.
    if version > VERSION {
        let message = format!("a delta has format version {version}, this build reads up to {VERSION}");
        return Err(
            Error::new(ErrorKind::UnsupportedVersion, message).advise("use a newer version of Alluvium")
        );
    }
    let flags = cursor.u16()?;
    let header_fields = DeltaHeader {
        epoch: Epoch(cursor.u64()?),
        subtask: SubtaskIndex(cursor.u32()?),
        range: KeyGroupRange { first: KeyGroup(cursor.u16()?), last: KeyGroup(cursor.u16()?) },
        first: DeltaSeq(cursor.u64()?),
        last: DeltaSeq(cursor.u64()?),
    };
    check_crc(header, &mut cursor)?;
    let KeyGroupRange { first, last } = header_fields.range;
    let in_order =
        first <= last && last.0 < MAX_PARALLELISM_LIMIT && header_fields.first <= header_fields.last;
    if version == 0 || flags != 0 || !in_order {
        return Err(cursor.corrupt("has values out of bounds"));
    }
    Ok(header_fields)
}

/// Compares the CRC that `cursor`, at the end of `bytes`, reads next with that of the bytes before
/// it.
fn check_crc(bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<()> {
    let expected = cursor.u32()?;
    let covered = bytes.len().checked_sub(4).and_then(|len| bytes.get(..len)).unwrap_or_default();
    if crc32c::crc32c(covered) == expected {
        Ok(())
    } else {
        Err(cursor.corrupt("does not match its checksum"))
    }
}

fn read_section(cursor: &mut Cursor<'_>) -> Result<Section> {
    let (stored_len, raw_len) = (cursor.u32()?, cursor.u32()?);
    let codec = match cursor.u8()? {
        0 => Codec::Raw,
        1 => Codec::Lz4,
        _ => return Err(cursor.corrupt("has an unknown codec")),
    };
    Ok(Section {
        stored_len,
        raw_len,
        codec,
        crc32c: cursor.u32()?,
        entries: cursor.u32()?,
        first_group: cursor.u16()?,
        last_group: cursor.u16()?,
    })
}
