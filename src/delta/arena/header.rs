//! Where a record lies, and what its header says.

use crate::delta::entry::{Entry, MergeOp};

pub(super) const HEADER: usize = 12;
pub(super) const KEY_LEN_MASK: u32 = 0x00ff_ffff;

/// Position of a record: number of the chunk, and offset in it in units of 8 bytes. 32 bits reach
/// 131,072 chunks, which is 32 GiB in small records and never less than 8 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pos(pub(super) u32);

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
pub(super) struct Tag(pub(super) u8);

impl Tag {
    pub(super) const REMOVED: u8 = 0;
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE: u8 = 2;
    pub(super) const MERGE: u8 = 3;
    /// No record but a value that has moved here.
    pub(super) const MOVED_VALUE: u8 = 4;
    pub(super) const KIND: u8 = 0b111;
    pub(super) const MOVED_OUT: u8 = 1 << 3;
    pub(super) const ORDERED: u8 = 1 << 4;
    pub(super) const OP_SHIFT: u8 = 5;

    #[inline]
    pub(super) fn of(entry: Entry<'_>, ordered: bool) -> Self {
        let change = match entry {
            Entry::Put(_) => Self::PUT,
            Entry::Delete => Self::DELETE,
            Entry::Merge { op, .. } => Self::MERGE | op.id() << Self::OP_SHIFT,
        };
        Self(change | if ordered { Self::ORDERED } else { 0 })
    }

    #[inline]
    pub(super) fn kind(self) -> u8 {
        self.0 & Self::KIND
    }

    #[inline]
    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// The entry of a live record whose value or operand is `payload`.
    #[inline]
    pub(super) fn entry(self, payload: &[u8]) -> Entry<'_> {
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
pub(super) struct Header {
    pub(super) key_len: u32,
    pub(super) tag: Tag,
    pub(super) value_len: u32,
    pub(super) room: u32,
}

impl Header {
    #[inline]
    pub(super) fn read(record: &[u8]) -> Self {
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
    pub(super) fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&(self.key_len | u32::from(self.tag.0) << 24).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.value_len.to_le_bytes());
        bytes[8..].copy_from_slice(&self.room.to_le_bytes());
        bytes
    }

    /// Length of the record, a multiple of 8.
    #[inline]
    pub(super) fn record_len(self) -> usize {
        HEADER + self.key_len as usize + self.room as usize
    }
}
