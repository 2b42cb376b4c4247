//! The ring that the cache's records lie in.
//!
//! New records go behind the newest, and the oldest are given up. Memory is taken in chunks, and
//! the chunk of the oldest records becomes the chunk of the next ones. A record is a header of 12
//! bytes (key length, value length, room for the value, whether the key is absent: 2 bytes each;
//! its time: 4), the key, and the room. Records begin at multiples of 8 bytes.

use std::collections::VecDeque;

/// Bytes of a chunk.
pub(super) const CHUNK: usize = 64 << 10;
/// Larger records are not cached. At most a quarter of a chunk is lost at its end.
pub(super) const MAX_RECORD: usize = CHUNK / 4;

const UNIT: usize = 8;
const UNITS_PER_CHUNK: u32 = (CHUNK / UNIT) as u32;
const HEADER: usize = 12;

/// Most chunks of a log, so that a position fits in 32 bits: 32 GiB.
pub(super) const MOST_CHUNKS: usize = (u32::MAX / UNITS_PER_CHUNK) as usize;

/// Where a record is: the number of its chunk, and its place there in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pos(pub(super) u32);

impl Pos {
    #[inline]
    fn of(chunk: usize, offset: usize) -> Self {
        Self(chunk as u32 * UNITS_PER_CHUNK + (offset / UNIT) as u32)
    }

    #[inline]
    fn chunk(self) -> usize {
        (self.0 / UNITS_PER_CHUNK) as usize
    }

    #[inline]
    fn offset(self) -> usize {
        (self.0 % UNITS_PER_CHUNK) as usize * UNIT
    }
}

/// What the cache knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Value(&'a [u8]),
    /// The key has no value.
    Absent,
}

impl<'a> Content<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Value(value) => value,
            Self::Absent => &[],
        }
    }
}

/// A record without its key and value.
#[derive(Clone, Copy)]
struct Header {
    key_len: u16,
    value_len: u16,
    room: u16,
    absent: bool,
    time: u32,
}

impl Header {
    #[inline]
    fn read(record: &[u8]) -> Self {
        let header: &[u8; HEADER] = record.first_chunk().expect("a record has a header");
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let time = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        Self { key_len: short(0), value_len: short(2), room: short(4), absent: header[6] != 0, time }
    }

    #[inline]
    fn bytes(self) -> [u8; HEADER] {
        let ([a, b], [c, d], [e, f]) =
            (self.key_len.to_le_bytes(), self.value_len.to_le_bytes(), self.room.to_le_bytes());
        let [t, u, v, w] = self.time.to_le_bytes();
        [a, b, c, d, e, f, u8::from(self.absent), 0, t, u, v, w]
    }

    #[inline]
    fn record_len(self) -> usize {
        (HEADER + usize::from(self.key_len) + usize::from(self.room)).next_multiple_of(UNIT)
    }
}

/// The length of a record with room for `room` bytes of value. None if it is too large for the
/// cache.
#[inline]
pub(super) fn record_len(key: &[u8], room: usize) -> Option<usize> {
    let len = (HEADER + key.len() + room).next_multiple_of(UNIT);
    (len <= MAX_RECORD).then_some(len)
}

/// The oldest record, taken out of the ring. It can be read until the next record is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Oldest(pub(super) Pos);

/// Records in chunks, oldest first.
#[derive(Default)]
pub(super) struct Log {
    /// By number; empty where there is none.
    chunks: Vec<Box<[u8]>>,
    /// Numbers that no chunk has at the moment.
    unused: Vec<usize>,
    /// Numbers of the chunks, oldest first.
    order: VecDeque<usize>,
    /// Where the oldest record is in the first chunk.
    head: usize,
    /// Where the next one will be in the last chunk.
    tail: usize,
}

impl Log {
    /// Memory held, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.order.len() * CHUNK
    }

    pub(super) fn chunks(&self) -> usize {
        self.order.len()
    }

    /// Whether the newest chunk has room for `len` bytes.
    #[inline]
    pub(super) fn fits(&self, len: usize) -> bool {
        !self.order.is_empty() && self.tail + len <= CHUNK
    }

    /// How far the oldest chunk was given up, and how far the newest is filled. What is given up
    /// little by little need not be given up at once when the newest chunk is full.
    #[inline]
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.head, self.tail)
    }

    /// Begins a new chunk with new memory.
    pub(super) fn grow(&mut self) {
        self.close();
        let chunk = vec![0; CHUNK].into_boxed_slice();
        let number = self.unused.pop().unwrap_or_else(|| {
            self.chunks.push(Box::default());
            self.chunks.len() - 1
        });
        self.chunks[number] = chunk;
        self.order.push_back(number);
        self.tail = 0;
    }

    /// Begins a new chunk with the memory of the oldest one, whose records were all taken.
    pub(super) fn turn(&mut self) {
        self.close();
        if let Some(oldest) = self.order.pop_front() {
            self.order.push_back(oldest);
        }
        (self.head, self.tail) = (0, 0);
    }

    /// Frees the oldest chunk, whose records were all taken.
    pub(super) fn shrink(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.chunks[oldest] = Box::default();
            self.unused.push(oldest);
        }
        self.head = 0;
    }

    /// Marks the end of the newest chunk.
    fn close(&mut self) {
        if let Some(newest) = self.order.back() {
            // A key of length 0 is none.
            if let Some(rest) = self.chunks[*newest].get_mut(self.tail..self.tail + UNIT) {
                rest.fill(0);
            }
        }
    }

    /// Takes out the oldest record, if it is not in the newest chunk.
    pub(super) fn take_oldest(&mut self) -> Option<Oldest> {
        if self.order.len() < 2 {
            return None;
        }
        let number = *self.order.front()?;
        let record = self.chunks[number].get(self.head..).filter(|record| record.len() >= HEADER)?;
        let header = Header::read(record);
        if header.key_len == 0 {
            return None;
        }
        let pos = Pos::of(number, self.head);
        self.head += header.record_len();
        Some(Oldest(pos))
    }

    /// Adds a record to the newest chunk, which [has room](Self::fits) for it.
    #[inline]
    pub(super) fn push(&mut self, key: &[u8], content: Content<'_>, room: usize, time: u32) -> Pos {
        let value = content.bytes();
        // All lengths are below `MAX_RECORD`.
        let len = (HEADER + key.len() + room).next_multiple_of(UNIT);
        let header = Header {
            key_len: key.len() as u16,
            value_len: value.len() as u16,
            room: (len - HEADER - key.len()) as u16,
            absent: content == Content::Absent,
            time,
        };
        let (pos, record) = self.next(len);
        record[..HEADER].copy_from_slice(&header.bytes());
        record[HEADER..HEADER + key.len()].copy_from_slice(key);
        record[HEADER + key.len()..][..value.len()].copy_from_slice(value);
        pos
    }

    /// The place of the next record.
    #[inline]
    fn next(&mut self, len: usize) -> (Pos, &mut [u8]) {
        let number = *self.order.back().expect("there is a chunk, because the record fits");
        let offset = self.tail;
        self.tail += len;
        (Pos::of(number, offset), &mut self.chunks[number][offset..offset + len])
    }

    /// Adds the oldest record again, to the newest chunk. None if that has no room for it.
    pub(super) fn push_again(&mut self, oldest: Oldest) -> Option<Pos> {
        let len = Header::read(self.record(oldest.0)).record_len();
        let (from, offset) = (oldest.0.chunk(), oldest.0.offset());
        let to = *self.order.back()?;
        if !self.fits(len) {
            return None;
        }
        let [source, target] = self.chunks.get_disjoint_mut([from, to]).ok()?;
        target[self.tail..self.tail + len].copy_from_slice(&source[offset..offset + len]);
        let pos = Pos::of(to, self.tail);
        self.tail += len;
        Some(pos)
    }

    #[inline]
    fn record(&self, pos: Pos) -> &[u8] {
        &self.chunks[pos.chunk()][pos.offset()..]
    }

    #[inline]
    pub(super) fn key(&self, pos: Pos) -> &[u8] {
        let record = self.record(pos);
        &record[HEADER..HEADER + usize::from(Header::read(record).key_len)]
    }

    /// What the record says, and its time.
    #[inline]
    pub(super) fn content(&self, pos: Pos) -> (Content<'_>, u32) {
        let record = self.record(pos);
        let header = Header::read(record);
        if header.absent {
            return (Content::Absent, header.time);
        }
        let value = &record[HEADER + usize::from(header.key_len)..][..usize::from(header.value_len)];
        (Content::Value(value), header.time)
    }

    /// Sets the record to its first `keep` bytes of value and `content`, in place. False if it has
    /// no room for that.
    #[inline]
    pub(super) fn set(&mut self, pos: Pos, keep: usize, content: Content<'_>, time: u32) -> bool {
        let record = &mut self.chunks[pos.chunk()][pos.offset()..];
        let header = Header::read(record);
        let value = content.bytes();
        if keep + value.len() > usize::from(header.room) {
            return false;
        }
        let start = HEADER + usize::from(header.key_len) + keep;
        record[start..start + value.len()].copy_from_slice(value);
        let header = Header {
            value_len: (keep + value.len()) as u16,
            absent: content == Content::Absent,
            time,
            ..header
        };
        record[..HEADER].copy_from_slice(&header.bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_round_and_come_out_in_their_order() {
        let mut log = Log::default();
        assert!(!log.fits(8) && log.take_oldest().is_none());
        log.grow();
        log.grow();
        let (mut pushed, mut taken) = (0_u32, 0);
        let mut value = vec![7; 3000];
        // Values of many lengths, three times round.
        while pushed < 400 {
            let key = pushed.to_be_bytes();
            value.truncate(1 + (pushed as usize * 37) % 3000);
            value.resize(1 + (pushed as usize * 37) % 3000, pushed as u8);
            let len = record_len(&key, value.len()).unwrap();
            if !log.fits(len) {
                while let Some(oldest) = log.take_oldest() {
                    assert_eq!(log.key(oldest.0), u32::to_be_bytes(taken));
                    taken += 1;
                }
                log.turn();
            }
            let pos = log.push(&key, Content::Value(&value), value.len(), pushed);
            assert_eq!(log.key(pos), key);
            assert_eq!(log.content(pos), (Content::Value(&value), pushed));
            pushed += 1;
        }
        assert!(taken > 100, "{taken}");
        assert_eq!((log.memory(), log.chunks()), (2 * CHUNK, 2));
    }

    #[test]
    fn a_record_changes_within_its_room() {
        let mut log = Log::default();
        log.grow();
        let pos = log.push(b"key", Content::Value(b"abc"), 3, 1);
        // 12 + 3 + 3 bytes are filled up to 24.
        assert!(log.set(pos, 0, Content::Value(b"123456789"), 2));
        assert_eq!(log.content(pos), (Content::Value(b"123456789"), 2));
        assert!(!log.set(pos, 9, Content::Value(b"x"), 3));
        assert!(log.set(pos, 2, Content::Value(b"xyz"), 3));
        assert_eq!(log.content(pos), (Content::Value(b"12xyz"), 3));
        assert!(log.set(pos, 0, Content::Absent, 4));
        assert_eq!(log.content(pos), (Content::Absent, 4));
        assert!(log.set(pos, 0, Content::Value(b""), 5));
        assert_eq!(log.content(pos), (Content::Value(b""), 5));
        assert_eq!(log.key(pos), b"key");
    }

    #[test]
    fn the_oldest_record_can_be_pushed_again_while_the_newest_chunk_has_room() {
        let mut log = Log::default();
        log.grow();
        let large = vec![1; MAX_RECORD - 64];
        log.push(b"old", Content::Value(&large), large.len(), 9);
        assert_eq!(log.take_oldest(), None, "it is in the newest chunk");
        log.grow();
        let oldest = log.take_oldest().unwrap();
        let again = log.push_again(oldest).unwrap();
        assert_ne!(again, oldest.0);
        assert_eq!((log.key(again), log.content(again)), (&b"old"[..], (Content::Value(&large), 9)));
        assert_eq!(log.take_oldest(), None);
        while log.fits(MAX_RECORD) {
            log.push(b"new", Content::Value(&large), large.len(), 9);
        }
        log.shrink();
        log.grow();
        let oldest = log.take_oldest().unwrap();
        while log.push_again(oldest).is_some() {}
        assert!(!log.fits(MAX_RECORD));
    }

    #[test]
    fn a_record_too_large_for_the_cache_has_no_length() {
        assert_eq!(record_len(b"key", 5), Some(24));
        assert_eq!(record_len(&[0; 4], MAX_RECORD - 16), Some(MAX_RECORD));
        assert_eq!(record_len(&[0; 4], MAX_RECORD - 15), None);
        assert_eq!(MOST_CHUNKS * CHUNK, (32 << 30) - CHUNK);
    }
}
