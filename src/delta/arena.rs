//! Where a delta's keys and values lie: records one after the other in large chunks.
//!
//! One allocation serves thousands of records, freeing a delta is freeing a few chunks, and a walk
//! over all records is a walk through memory in order. A record never moves, so its [`Pos`] can
//! stand in any number of indexes; a value that outgrows its record moves out of it and leaves its
//! new position behind.
//!
//! A record is a header (key length and tag, value length, room for the value; 4 bytes each), the
//! key, and the room. Records begin at multiples of 8 bytes.

mod header;
#[cfg(test)]
mod tests;

use std::hint::black_box;

use super::entry::Entry;
pub(crate) use header::Pos;
use header::{HEADER, Header, KEY_LEN_MASK, Tag};

/// Bytes of a chunk. Records of more than a quarter of it get a chunk of their own, so at most a
/// quarter of a chunk is lost at its end.
pub(crate) const CHUNK: usize = 256 * 1024;
const OWN_CHUNK: usize = CHUNK / 4;

const CACHE_LINE: usize = 64;
const UNIT: usize = 8;
const UNITS_PER_CHUNK: u32 = (CHUNK / UNIT) as u32;
/// Every record has room for the position of a value that has moved out.
const MIN_ROOM: usize = 4;
/// Values above this size get no room to grow.
const MAX_SLACK: usize = 1 << 30;

/// Records in chunks. Memory of removed records and outgrown values is not used again before the
/// whole arena is dropped.
#[derive(Default)]
pub(crate) struct Arena {
    chunks: Vec<Vec<u8>>,
    /// The chunk that takes the next record; meaningless while there is none.
    current: usize,
    /// Empty chunks left over from earlier deltas.
    spare: Vec<Vec<u8>>,
    used: usize,
}

impl Arena {
    /// An arena that takes memory from `spare` before it asks the allocator. Each spare is an empty
    /// vector of capacity [`CHUNK`].
    pub(crate) fn with_spare(spare: Vec<Vec<u8>>) -> Self {
        Self { spare, ..Self::default() }
    }

    /// Bytes taken by records, garbage and lost ends of chunks included.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Memory in bytes: all of each chunk, and the spare chunks.
    pub(crate) fn memory(&self) -> usize {
        self.chunks.iter().chain(&self.spare).map(Vec::capacity).sum()
    }

    /// Number of chunks in use.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The chunks that another arena can use: all of standard size, emptied.
    pub(crate) fn into_spare(self) -> Vec<Vec<u8>> {
        let mut spare = self.spare;
        spare.extend(self.chunks.into_iter().filter(|chunk| chunk.capacity() == CHUNK).map(|mut chunk| {
            chunk.clear();
            chunk
        }));
        spare
    }

    /// Adds a record; `ordered` is a mark that [`is_ordered`](Self::is_ordered) gives back.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], entry: Entry<'_>, ordered: bool) -> Pos {
        let payload = payload_of(entry);
        assert!(key.len() <= KEY_LEN_MASK as usize, "keys are checked to be short before they get here");
        let len = (HEADER + key.len() + payload.len().max(MIN_ROOM)).next_multiple_of(UNIT);
        let header = Header {
            key_len: key.len() as u32,
            tag: Tag::of(entry, ordered),
            value_len: value_len(payload),
            room: value_len(payload).max((len - HEADER - key.len()) as u32),
        };
        self.append_record(header, key, payload)
    }

    #[inline]
    fn append_record(&mut self, header: Header, key: &[u8], payload: &[u8]) -> Pos {
        let len = header.record_len();
        let (chunk_index, chunk) = self.chunk_for(len);
        let offset = chunk.len();
        chunk.extend_from_slice(&header.bytes());
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(payload);
        chunk.resize(offset + len, 0);
        self.used += len;
        let first = u32::try_from(chunk_index).ok().and_then(|index| index.checked_mul(UNITS_PER_CHUNK));
        Pos(first.expect("the size limit cuts a delta long before 8 GiB") + (offset / UNIT) as u32)
    }

    /// A chunk with room for `len` bytes, and its number.
    #[inline]
    fn chunk_for(&mut self, len: usize) -> (usize, &mut Vec<u8>) {
        let fits = self.chunks.get(self.current).is_some_and(|chunk| chunk.capacity() - chunk.len() >= len);
        if !fits {
            self.add_chunk(len);
        }
        let index = if len > OWN_CHUNK && !fits { self.chunks.len() - 1 } else { self.current };
        (index, &mut self.chunks[index])
    }

    #[cold]
    fn add_chunk(&mut self, len: usize) {
        if len > OWN_CHUNK {
            // The current chunk stays the current one, unless there is none yet. The capacity is
            // one that does not look like a standard chunk's to `into_spare`.
            self.chunks.push(Vec::with_capacity(if len == CHUNK { len + UNIT } else { len }));
            if self.chunks.len() > 1 {
                return;
            }
        } else {
            if let Some(full) = self.chunks.get(self.current) {
                self.used += full.capacity() - full.len();
            }
            self.chunks.push(self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK)));
        }
        self.current = self.chunks.len() - 1;
    }

    #[inline]
    fn record(&self, pos: Pos) -> &[u8] {
        let chunk = &self.chunks[(pos.0 / UNITS_PER_CHUNK) as usize];
        &chunk[(pos.0 % UNITS_PER_CHUNK) as usize * UNIT..]
    }

    #[inline]
    fn record_mut(&mut self, pos: Pos) -> &mut [u8] {
        let chunk = &mut self.chunks[(pos.0 / UNITS_PER_CHUNK) as usize];
        &mut chunk[(pos.0 % UNITS_PER_CHUNK) as usize * UNIT..]
    }

    /// Fetches the records at `positions` into the cache. The cache misses overlap, which they
    /// would not if each record were processed before the next one is read.
    pub(crate) fn fetch(&self, positions: &[Pos]) {
        let mut sum = 0_u8;
        for pos in positions {
            let record = self.record(*pos);
            // As far as a record of some hundred bytes goes.
            for at in [0, CACHE_LINE, 2 * CACHE_LINE] {
                sum ^= record.get(at).copied().unwrap_or_default();
            }
        }
        black_box(sum);
    }

    /// The key of the record at `pos`.
    #[inline]
    pub(crate) fn key(&self, pos: Pos) -> &[u8] {
        let record = self.record(pos);
        &record[HEADER..HEADER + Header::read(record).key_len as usize]
    }

    /// Whether the record at `pos` was pushed with the mark `ordered`.
    pub(crate) fn is_ordered(&self, pos: Pos) -> bool {
        Header::read(self.record(pos)).tag.has(Tag::ORDERED)
    }

    /// What the live record at `pos` says.
    #[inline]
    pub(crate) fn entry(&self, pos: Pos) -> Entry<'_> {
        let record = self.record(pos);
        let header = Header::read(record);
        header.tag.entry(self.payload(record, header))
    }

    #[inline]
    fn payload<'a>(&'a self, record: &'a [u8], header: Header) -> &'a [u8] {
        let room = &record[HEADER + header.key_len as usize..];
        let len = header.value_len as usize;
        if header.tag.has(Tag::MOVED_OUT) {
            let moved = self.record(moved_to(room));
            &moved[HEADER..HEADER + len]
        } else {
            &room[..len]
        }
    }

    /// Makes the record at `pos` say `entry`, in place where it fits.
    #[inline]
    pub(crate) fn set(&mut self, pos: Pos, entry: Entry<'_>) {
        let payload = payload_of(entry);
        let header = Header::read(self.record(pos));
        let tag = Tag::of(entry, header.tag.has(Tag::ORDERED));
        self.write(pos, header, tag, 0, payload);
    }

    /// Appends `bytes` to the value or operand of the live record at `pos`.
    pub(crate) fn append(&mut self, pos: Pos, bytes: &[u8]) {
        let header = Header::read(self.record(pos));
        self.write(pos, header, header.tag, header.value_len as usize, bytes);
    }

    /// Sets the payload to its first `keep` bytes followed by `bytes`.
    #[inline]
    fn write(&mut self, pos: Pos, header: Header, tag: Tag, keep: usize, bytes: &[u8]) {
        let key_end = HEADER + header.key_len as usize;
        let len = keep + bytes.len();
        // Where the payload is now, and how much fits there.
        let record = self.record(pos);
        let (place, start, room) = if header.tag.has(Tag::MOVED_OUT) {
            let place = moved_to(&record[key_end..]);
            (place, HEADER, Header::read(self.record(place)).room)
        } else {
            (pos, key_end, header.room)
        };
        let mut tag = Tag(tag.0 & !Tag::MOVED_OUT | header.tag.0 & Tag::MOVED_OUT);
        if len <= room as usize {
            self.record_mut(place)[start + keep..start + len].copy_from_slice(bytes);
        } else {
            let new = self.move_out(place, start, keep, bytes);
            self.record_mut(pos)[key_end..key_end + MIN_ROOM].copy_from_slice(&new.0.to_le_bytes());
            tag.0 |= Tag::MOVED_OUT;
        }
        let header = Header { tag, value_len: checked_len(len), ..header };
        self.record_mut(pos)[..HEADER].copy_from_slice(&header.bytes());
    }

    /// Writes the first `keep` bytes that lie at `start` of the record `place`, then `bytes`, to a
    /// new place with room to grow.
    #[cold]
    fn move_out(&mut self, place: Pos, start: usize, keep: usize, bytes: &[u8]) -> Pos {
        let mut payload = Vec::with_capacity(keep + bytes.len());
        payload.extend_from_slice(&self.record(place)[start..start + keep]);
        payload.extend_from_slice(bytes);
        // What grew by an operand will grow by many: doubling makes the copying linear. A value
        // that is put anew grows by its digits.
        let slack = match payload.len() {
            len if len > MAX_SLACK => 0,
            len if keep > 0 => len,
            len => len / 4,
        };
        let len = (HEADER + payload.len() + slack).next_multiple_of(UNIT);
        let header = Header {
            key_len: 0,
            tag: Tag(Tag::MOVED_VALUE),
            value_len: value_len(&payload),
            room: checked_len(len - HEADER),
        };
        self.append_record(header, &[], &payload)
    }

    /// Marks the record at `pos` as gone, so that [`positions`](Self::positions) skips it.
    pub(crate) fn remove(&mut self, pos: Pos) {
        let header = Header { tag: Tag(Tag::REMOVED), ..Header::read(self.record(pos)) };
        self.record_mut(pos)[..HEADER].copy_from_slice(&header.bytes());
    }

    /// The live records, in the order in which they were pushed (nearly: large ones come early).
    pub(crate) fn positions(&self) -> impl Iterator<Item = Pos> {
        self.chunks.iter().zip((0..).step_by(UNITS_PER_CHUNK as usize)).flat_map(|(chunk, first)| {
            let mut offset = 0;
            std::iter::from_fn(move || {
                while offset < chunk.len() {
                    let header = Header::read(&chunk[offset..]);
                    let pos = Pos(first + (offset / UNIT) as u32);
                    offset += header.record_len();
                    if !matches!(header.tag.kind(), Tag::REMOVED | Tag::MOVED_VALUE) {
                        return Some(pos);
                    }
                }
                None
            })
        })
    }
}

#[inline]
fn payload_of(entry: Entry<'_>) -> &[u8] {
    match entry {
        Entry::Put(payload) | Entry::Merge { operand: payload, .. } => payload,
        Entry::Delete => &[],
    }
}

#[inline]
fn value_len(payload: &[u8]) -> u32 {
    checked_len(payload.len())
}

#[inline]
fn checked_len(len: usize) -> u32 {
    u32::try_from(len).expect("values are checked to be below 4 GiB before they get here")
}

/// The position that a value left behind when it moved out of its record.
#[inline]
fn moved_to(room: &[u8]) -> Pos {
    Pos(u32::from_le_bytes(*room.first_chunk().expect("every record has room for a position")))
}
