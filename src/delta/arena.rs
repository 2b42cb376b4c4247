//! Where a delta's keys and values lie: records one after the other in large chunks.
//!
//! One allocation serves thousands of records, freeing a delta is freeing a few chunks, and a walk
//! over all records is a walk through memory in order. A record never moves, so its [`Pos`] can stand
//! in any number of indexes; a value that outgrows its record moves out of it and leaves its new
//! position behind.
//!
//! A record is a header (key length and tag, value length, room for the value; 4 bytes each), the key,
//! and the room. Records begin at multiples of 8 bytes.

use std::hint::black_box;

use super::entry::{Entry, MergeOp};

/// Bytes of a chunk. Records of more than a quarter of it get a chunk of their own, so at most a
/// quarter of a chunk is lost at its end.
pub(crate) const CHUNK: usize = 256 * 1024;
const OWN_CHUNK: usize = CHUNK / 4;

const CACHE_LINE: usize = 64;
const UNIT: usize = 8;
const UNITS_PER_CHUNK: u32 = (CHUNK / UNIT) as u32;
const HEADER: usize = 12;
/// Every record has room for the position of a value that has moved out.
const MIN_ROOM: usize = 4;
/// Values above this size get no room to grow.
const MAX_SLACK: usize = 1 << 30;
const KEY_LEN_MASK: u32 = 0x00ff_ffff;

/// Position of a record: number of the chunk, and offset in it in units of 8 bytes. 32 bits reach
/// 131,072 chunks, which is 32 GiB in small records and never less than 8 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pos(u32);

impl Pos {
    /// A number for an index to keep; never 0.
    #[inline]
    pub(crate) fn to_bits(self) -> u32 {
        !self.0
    }

    /// The position with these [`bits`](Self::to_bits).
    #[inline]
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(!bits)
    }
}

/// First byte of a header, in the highest byte of its first word.
///
/// Bits 0 to 2: kind. Bit 3: the value has moved out. Bit 4: listed in the ordered index.
/// Bits 5 to 7: merge operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag(u8);

impl Tag {
    const REMOVED: u8 = 0;
    const PUT: u8 = 1;
    const DELETE: u8 = 2;
    const MERGE: u8 = 3;
    /// No record but a value that has moved here.
    const MOVED_VALUE: u8 = 4;
    const KIND: u8 = 0b111;
    const MOVED_OUT: u8 = 1 << 3;
    const ORDERED: u8 = 1 << 4;
    const OP_SHIFT: u8 = 5;

    fn of(entry: Entry<'_>, ordered: bool) -> Self {
        let change = match entry {
            Entry::Put(_) => Self::PUT,
            Entry::Delete => Self::DELETE,
            Entry::Merge { op, .. } => Self::MERGE | op.id() << Self::OP_SHIFT,
        };
        Self(change | if ordered { Self::ORDERED } else { 0 })
    }

    fn kind(self) -> u8 {
        self.0 & Self::KIND
    }

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// The entry of a live record whose value or operand is `payload`.
    fn entry(self, payload: &[u8]) -> Entry<'_> {
        match self.kind() {
            Self::PUT => Entry::Put(payload),
            Self::DELETE => Entry::Delete,
            _ => {
                let op =
                    MergeOp::from_id(self.0 >> Self::OP_SHIFT).expect("the tag was made from an operator");
                Entry::Merge { op, operand: payload }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Header {
    key_len: u32,
    tag: Tag,
    value_len: u32,
    room: u32,
}

impl Header {
    #[inline]
    fn read(record: &[u8]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes(*record[at..].first_chunk().expect("a record begins with a whole header"))
        };
        let first = word(0);
        Self {
            key_len: first & KEY_LEN_MASK,
            tag: Tag((first >> 24) as u8),
            value_len: word(4),
            room: word(8),
        }
    }

    #[inline]
    fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&(self.key_len | u32::from(self.tag.0) << 24).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.value_len.to_le_bytes());
        bytes[8..].copy_from_slice(&self.room.to_le_bytes());
        bytes
    }

    /// Length of the record, a multiple of [`UNIT`].
    fn record_len(self) -> usize {
        HEADER + self.key_len as usize + self.room as usize
    }
}

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

    /// Memory held, in bytes: all of each chunk, and what is there for the next ones.
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
            // The current chunk stays the current one, unless there is none yet. The capacity is one
            // that does not look like a standard chunk's to `into_spare`.
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

    /// Brings the records at `positions` into the cache. The misses overlap, as they would not if each
    /// record were worked on before the next one is looked at.
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

    /// Writes the first `keep` bytes that lie at `start` of the record `place`, then `bytes`, to a new
    /// place with room to grow.
    #[cold]
    fn move_out(&mut self, place: Pos, start: usize, keep: usize, bytes: &[u8]) -> Pos {
        let mut payload = Vec::with_capacity(keep + bytes.len());
        payload.extend_from_slice(&self.record(place)[start..start + keep]);
        payload.extend_from_slice(bytes);
        // What grew by an operand will grow by many: doubling makes the copying linear. A value that
        // is put anew grows by its digits.
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

#[cfg(test)]
mod tests {
    use super::*;

    const APPEND: MergeOp = MergeOp::ListAppend;

    #[test]
    fn records_change_in_place_and_move_when_they_outgrow_their_room() {
        let mut arena = Arena::default();
        let a = arena.push(b"a", Entry::Put(b"12345678"), false);
        let b = arena.push(b"b", Entry::Delete, true);
        let used = arena.used();
        arena.set(a, Entry::Put(b"xy"));
        arena.set(b, Entry::Merge { op: APPEND, operand: b"z" });
        assert_eq!(arena.used(), used, "both fit");
        arena.append(b, &[b'w'; 100]);
        assert!(arena.used() > used);
        assert_eq!(arena.entry(a), Entry::Put(b"xy"));
        let operand = [b"z".as_slice(), &[b'w'; 100]].concat();
        assert_eq!(arena.entry(b), Entry::Merge { op: APPEND, operand: &operand });
        assert!(arena.is_ordered(b) && !arena.is_ordered(a));
        assert_eq!((arena.key(a), arena.key(b)), (b"a".as_slice(), b"b".as_slice()));
        assert_eq!(arena.positions().collect::<Vec<_>>(), [a, b]);
        arena.remove(a);
        assert_eq!(arena.positions().collect::<Vec<_>>(), [b]);
        arena.set(b, Entry::Delete);
        assert_eq!(arena.entry(b), Entry::Delete);
        arena.set(b, Entry::Put(&[7; 50]));
        assert_eq!(arena.entry(b), Entry::Put(&[7; 50]));
    }

    #[test]
    fn appending_copies_a_linear_number_of_bytes() {
        let mut arena = Arena::default();
        let pos = arena.push(b"list", Entry::Put(b""), false);
        for round in 0..100_000_u32 {
            arena.append(pos, &round.to_be_bytes());
        }
        let Entry::Put(value) = arena.entry(pos) else { panic!("still a put") };
        assert_eq!(value.len(), 400_000);
        assert!(value.chunks(4).zip(0_u32..).all(|(bytes, round)| bytes == round.to_be_bytes()));
        assert!(arena.used() < 5 * value.len(), "{} bytes", arena.used());
    }

    #[test]
    fn chunks_hold_records_of_all_sizes_and_are_used_again() {
        let mut arena = Arena::default();
        let sizes = [0, 1, 100, OWN_CHUNK - 30, CHUNK / 3, CHUNK - HEADER - 4, CHUNK, 3 * CHUNK, 7];
        for round in 0..3_u8 {
            let pushed: Vec<_> = sizes
                .iter()
                .cycle()
                .take(100)
                .map(|&size| (size, arena.push(&[round; 4], Entry::Put(&vec![size as u8; size]), false)))
                .collect();
            for (size, pos) in pushed {
                assert_eq!(arena.key(pos), [round; 4]);
                assert_eq!(arena.entry(pos), Entry::Put(&vec![size as u8; size]));
            }
            assert_eq!(arena.positions().count(), 100);
            let spare = arena.into_spare();
            assert!(spare.iter().all(|chunk| chunk.capacity() == CHUNK && chunk.is_empty()));
            assert!(!spare.is_empty());
            arena = Arena::with_spare(spare);
            assert_eq!(arena.used(), 0);
        }
    }
}
