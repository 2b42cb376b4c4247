//! A delta as restore reads it back: sorted entries in one piece of memory.

use std::fmt;

use super::entry::{Entry, MergeOp};
use super::range_set::RangeSet;

/// Entries in ascending order of their keys, and the tombstones below them.
#[derive(Default)]
pub(crate) struct DecodedDelta {
    /// Keys and payloads, one after the other.
    data: Vec<u8>,
    items: Vec<Item>,
    tombstones: RangeSet,
}

#[derive(Clone, Copy)]
struct Item {
    start: usize,
    key_len: u32,
    payload_len: u32,
    change: Change,
}

#[derive(Clone, Copy)]
enum Change {
    Put,
    Delete,
    Merge(MergeOp),
}

impl DecodedDelta {
    /// Memory of an entry besides its key and payload, at most: lists grow by doubling, and a merge
    /// notes the place of each.
    pub(super) const OVERHEAD: usize = 2 * size_of::<Item>() + 8;
    /// The fewest bytes that a delta takes: a vector begins with room for 4 items, or 8 bytes.
    pub(super) const LEAST: usize = 4 * size_of::<Item>() + 8;

    pub(crate) fn new(tombstones: RangeSet) -> Self {
        Self { tombstones, ..Self::default() }
    }

    /// Adds an entry whose key is above all before it.
    pub(crate) fn push(&mut self, key: &[u8], entry: Entry<'_>) {
        let (change, payload) = match entry {
            Entry::Put(value) => (Change::Put, value),
            Entry::Delete => (Change::Delete, &[][..]),
            Entry::Merge { op, operand } => (Change::Merge(op), operand),
        };
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are below 4 GiB");
        let item = Item { start: self.data.len(), key_len: len(key), payload_len: len(payload), change };
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(payload);
        self.items.push(item);
    }

    /// Number of entries, tombstones not counted.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Memory held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.data.capacity() + self.items.capacity() * size_of::<Item>() + self.tombstones.bytes()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.tombstones.is_empty()
    }

    /// The ranges deleted. They lie below the entries.
    pub(crate) fn tombstones(&self) -> &RangeSet {
        &self.tombstones
    }

    /// The entries in ascending order of their keys.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Entry<'_>)> {
        self.items.iter().map(|item| self.resolve(*item))
    }

    pub(super) fn get(&self, index: usize) -> Option<(&[u8], Entry<'_>)> {
        self.items.get(index).map(|item| self.resolve(*item))
    }

    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.items.last().map(|item| self.resolve(*item).0)
    }

    fn resolve(&self, item: Item) -> (&[u8], Entry<'_>) {
        // Items are made by `push` alone, so they lie within the data.
        let (key, rest) = self.data[item.start..].split_at(item.key_len as usize);
        let payload = &rest[..item.payload_len as usize];
        let entry = match item.change {
            Change::Put => Entry::Put(payload),
            Change::Delete => Entry::Delete,
            Change::Merge(op) => Entry::Merge { op, operand: payload },
        };
        (key, entry)
    }
}

impl fmt::Debug for DecodedDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodedDelta")
            .field("entries", &self.items.len())
            .field("tombstones", &self.tombstones.len())
            .finish()
    }
}
