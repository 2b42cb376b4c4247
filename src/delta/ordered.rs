//! The ordered index of a delta: positions of records in the order of their keys.
//!
//! A tree of two levels: a `BTreeMap` from separator keys to leaves of up to 128 positions. Beside
//! each position a leaf keeps 8 bytes of the key, those after a prefix that all keys of the leaf
//! share, so that a search reads records, which are not in the cache, only where these 8 bytes are
//! equal. Keys of one state and key group, or of one map of a user's, share long prefixes; without
//! the cut the 8 bytes would often be equal. `docs/measurements/delta.md` compares it with a
//! `BTreeMap` from keys to positions.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::arena::{Arena, Pos};

const LEAF: usize = 128;

/// Bytes of a key that a leaf keeps beside its position.
const HEAD: usize = 8;

/// Memory of an entry in the index: 12 bytes in leaves that are half full at worst, and its share
/// of the leaf and the upper level.
pub(crate) const BYTES_PER_ENTRY: usize = 24;

/// Positions in the order of their keys. The keys themselves are in the arena.
#[derive(Default)]
pub(crate) struct OrderedIndex {
    /// A leaf holds the keys from its separator up to the next one's.
    leaves: BTreeMap<Box<[u8]>, Leaf>,
    len: usize,
}

impl OrderedIndex {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds the record at `pos`, whose key is not in the index.
    pub(crate) fn insert(&mut self, key: &[u8], pos: Pos, arena: &Arena) {
        self.len += 1;
        let mut at_or_before = self.leaves.range_mut::<[u8], _>((Unbounded, Included(key)));
        let Some((_, leaf)) = at_or_before.next_back() else {
            // The first leaf, for all keys.
            self.leaves.insert(Box::default(), Leaf::of(key, pos));
            return;
        };
        let at = leaf.insert(key, pos, arena);
        if leaf.positions.len() == LEAF {
            // Keys that come in ascending order, as times do, leave full leaves behind.
            let half = if at == LEAF - 1 { at } else { LEAF / 2 };
            let (separator, upper) = leaf.split(half, arena);
            self.leaves.insert(separator, upper);
        }
    }

    /// Removes all keys from `start` up to but without `end`, and returns their positions.
    pub(crate) fn remove_range(&mut self, start: &[u8], end: &[u8], arena: &Arena) -> Vec<Pos> {
        let mut removed = Vec::new();
        if start >= end {
            return removed;
        }
        let mut emptied = Vec::new();
        // The first leaf may begin before `start`.
        let first = self.separator_of(start).to_vec();
        for (separator, leaf) in self.leaves.range_mut::<[u8], _>((Included(&*first), Excluded(end))) {
            let (from, to) = (leaf.search(start, arena), leaf.search(end, arena));
            removed.extend(leaf.positions.drain(from..to));
            leaf.heads.drain(from..to);
            // The leaf at the empty separator stays: every key needs a leaf at or before it.
            if leaf.positions.is_empty() && !separator.is_empty() {
                emptied.push(separator.clone());
            }
        }
        for separator in emptied {
            self.leaves.remove(&separator);
        }
        self.len -= removed.len();
        removed
    }

    /// The positions of all keys from `start` on, in order.
    pub(crate) fn range_from<'a>(
        &'a self,
        start: &[u8],
        arena: &'a Arena,
    ) -> impl Iterator<Item = Pos> + use<'a> {
        let mut leaves = self.leaves.range::<[u8], _>((Included(self.separator_of(start)), Unbounded));
        let first = leaves.next().map_or(&[][..], |(_, leaf)| &leaf.positions[leaf.search(start, arena)..]);
        first.iter().chain(leaves.flat_map(|(_, leaf)| &leaf.positions)).copied()
    }

    /// The first leaf with keys from `start` on: its separator, and the positions of these keys.
    pub(crate) fn leaf_from(&self, start: &[u8], arena: &Arena) -> Option<(&[u8], &[Pos])> {
        let mut leaves = self.leaves.range::<[u8], _>((Included(self.separator_of(start)), Unbounded));
        let (separator, leaf) = leaves.next()?;
        let rest = &leaf.positions[leaf.search(start, arena)..];
        if rest.is_empty() { self.leaf_after(separator) } else { Some((separator, rest)) }
    }

    /// The first leaf behind the one of this separator that has keys.
    pub(crate) fn leaf_after(&self, separator: &[u8]) -> Option<(&[u8], &[Pos])> {
        let leaves = self.leaves.range::<[u8], _>((Excluded(separator), Unbounded));
        with_keys(leaves)
    }

    /// The last leaf with keys below `end`: its separator, and the positions of these keys.
    pub(crate) fn leaf_below(&self, end: &[u8], arena: &Arena) -> Option<(&[u8], &[Pos])> {
        let mut leaves = self.leaves.range::<[u8], _>((Unbounded, Included(end)));
        let (separator, leaf) = leaves.next_back()?;
        let rest = &leaf.positions[..leaf.search(end, arena)];
        if rest.is_empty() { self.leaf_before(separator) } else { Some((separator, rest)) }
    }

    /// The last leaf before the one of this separator that has keys.
    pub(crate) fn leaf_before(&self, separator: &[u8]) -> Option<(&[u8], &[Pos])> {
        let leaves = self.leaves.range::<[u8], _>((Unbounded, Excluded(separator)));
        with_keys(leaves.rev())
    }

    /// The separator of the leaf that `key` belongs to.
    fn separator_of(&self, key: &[u8]) -> &[u8] {
        let mut at_or_before = self.leaves.range::<[u8], _>((Unbounded, Included(key)));
        at_or_before.next_back().map_or(&[], |(separator, _)| separator)
    }
}

/// The first of some leaves that is not empty. Only the one at the empty separator may be.
fn with_keys<'a>(
    mut leaves: impl Iterator<Item = (&'a Box<[u8]>, &'a Leaf)>,
) -> Option<(&'a [u8], &'a [Pos])> {
    let (separator, leaf) = leaves.find(|(_, leaf)| !leaf.positions.is_empty())?;
    Some((separator, &leaf.positions))
}

/// Up to 128 positions in the order of their keys.
struct Leaf {
    /// A prefix that all keys of the leaf share. A copy, because the records are not in the cache.
    prefix: Box<[u8]>,
    /// The 8 bytes of each key after the prefix.
    heads: Vec<u64>,
    positions: Vec<Pos>,
}

impl Leaf {
    fn of(key: &[u8], pos: Pos) -> Self {
        let mut leaf = Self::with_prefix(key);
        leaf.heads.push(head(&[]));
        leaf.positions.push(pos);
        leaf
    }

    fn with_prefix(prefix: &[u8]) -> Self {
        Self { prefix: prefix.into(), heads: Vec::with_capacity(LEAF), positions: Vec::with_capacity(LEAF) }
    }

    /// Makes the prefix longer if all heads share a long beginning. It reads every key of the leaf,
    /// so it is done seldom.
    fn lengthen_prefix(&mut self, arena: &Arena) {
        let (Some(first), Some(last)) = (self.positions.first(), self.positions.last()) else { return };
        let first = arena.key(*first);
        let shared = common_prefix(first, arena.key(*last));
        if shared >= self.prefix.len() + HEAD / 2 {
            self.set_prefix(first[..shared].into(), arena);
        }
    }

    fn set_prefix(&mut self, prefix: Box<[u8]>, arena: &Arena) {
        self.heads.clear();
        self.heads.extend(self.positions.iter().map(|pos| head(&arena.key(*pos)[prefix.len()..])));
        self.prefix = prefix;
    }

    /// Number of keys in the leaf below `key`.
    fn search(&self, key: &[u8], arena: &Arena) -> usize {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if key < &*self.prefix { 0 } else { self.positions.len() };
        };
        // The heads lie together in memory, so a binary search over them reads few cache lines.
        let head = head(rest);
        let below = self.heads.partition_point(|other| *other < head);
        // Only keys with the same head need their records.
        let equal = self.heads[below..].iter().take_while(|other| **other == head).count();
        below + self.positions[below..below + equal].partition_point(|pos| arena.key(*pos) < key)
    }

    /// Adds a key and says where in the leaf.
    fn insert(&mut self, key: &[u8], pos: Pos, arena: &Arena) -> usize {
        if self.positions.is_empty() {
            // The longest prefix there can be. The next key shortens it.
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            let shared = common_prefix(&self.prefix, key);
            self.set_prefix(key[..shared].into(), arena);
        }
        let at = self.search(key, arena);
        self.heads.insert(at, head(&key[self.prefix.len()..]));
        self.positions.insert(at, pos);
        at
    }

    /// Splits off the part from `at` on, with the separator it begins at.
    fn split(&mut self, at: usize, arena: &Arena) -> (Box<[u8]>, Self) {
        let mut upper = Self::with_prefix(&self.prefix);
        upper.heads.extend(self.heads.drain(at..));
        upper.positions.extend(self.positions.drain(at..));
        self.lengthen_prefix(arena);
        upper.lengthen_prefix(arena);
        let (below, above) = match (self.positions.last(), upper.positions.first()) {
            (Some(below), Some(above)) => (arena.key(*below), arena.key(*above)),
            _ => unreachable!("both parts of a full leaf hold something"),
        };
        // The shortest key that tells the parts apart.
        let separator = &above[..=common_prefix(below, above)];
        (separator.into(), upper)
    }
}

/// The first 8 bytes of `bytes` as a number that compares as they do; shorter ones are filled up
/// with 0.
#[inline]
fn head(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; HEAD];
    first[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(first)
}

/// Length of the longest prefix that both share.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, btree_map};

    use proptest::prelude::*;

    use super::super::entry::Entry;
    use super::*;

    /// Keys with long shared prefixes, with zeros at the end, and prefixes of each other.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            b"".to_vec(),
            b"\0".to_vec(),
            b"\0\0".to_vec(),
            b"a".to_vec(),
            b"a long prefix of many".to_vec(),
            b"\xff".to_vec(),
        ]);
        prop::collection::vec(prop_oneof![3 => part, 2 => prop::collection::vec(any::<u8>(), 0..3)], 0..5)
            .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(
            steps in prop::collection::vec(
                prop_oneof![20 => keys().prop_map(|key| (key, None)), 1 => (keys(), keys().prop_map(Some))],
                0..1500,
            ),
            start in keys(),
        ) {
            let (mut arena, mut index, mut model) = (Arena::default(), OrderedIndex::default(), BTreeMap::new());
            for (key, end) in steps {
                if let Some(end) = end {
                    let mut expected = Vec::new();
                    model.retain(|k: &Vec<u8>, pos| {
                        let covered = key <= *k && *k < end;
                        if covered { expected.push(*pos); }
                        !covered
                    });
                    prop_assert_eq!(index.remove_range(&key, &end, &arena), expected);
                } else if let btree_map::Entry::Vacant(vacant) = model.entry(key) {
                    let pos = arena.push(vacant.key(), Entry::Delete, true);
                    index.insert(vacant.key(), pos, &arena);
                    vacant.insert(pos);
                }
            }
            prop_assert_eq!(index.len(), model.len());
            let listed: Vec<_> = index.range_from(&start, &arena).collect();
            prop_assert_eq!(listed, model.range(start..).map(|(_, pos)| *pos).collect::<Vec<_>>());
        }
    }
}
