//! The hash index of a delta: key to position of its record.
//!
//! Open addressing with linear probing, 8 bytes a slot: 32 bits of the key's hash, and the
//! position. A lookup in a delta of many megabytes is a matter of cache misses, and this takes two:
//! one for the slot, one for the record, which is read only when the hash makes it nearly sure to
//! be the right one. (A table with control bytes beside its slots, as hashbrown's, takes a third;
//! see docs/measurements/delta.md.) Growing reads no record at all.
//!
//! The index is cut into shards that grow one by one: growing a shard of a delta of a million
//! entries takes some 100 µs, growing one table of them all would stop the operator for tens of
//! milliseconds.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::arena::{Arena, Pos};

const SHARD_BITS: u32 = 7;
const SHARDS: usize = 1 << SHARD_BITS;

/// Memory of an entry in the index: 8 bytes at a load between 5/16 and 5/8, most of the time.
pub(crate) const BYTES_PER_ENTRY: usize = 20;

/// 32 bits of a key's hash. The highest ones choose the shard, the lowest the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u32);

impl KeyHash {
    #[inline]
    fn shard(self) -> usize {
        (self.0 >> (32 - SHARD_BITS)) as usize
    }
}

/// Hash and position in one word; 0 where the slot is free.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot(u64);

impl Slot {
    const FREE: Self = Self(0);

    #[inline]
    fn new(hash: KeyHash, pos: Pos) -> Self {
        Self(u64::from(hash.0) << 32 | u64::from(pos.to_bits()))
    }

    #[inline]
    fn hash(self) -> KeyHash {
        KeyHash((self.0 >> 32) as u32)
    }

    #[inline]
    fn pos(self) -> Pos {
        Pos::from_bits(self.0 as u32)
    }
}

#[derive(Default)]
struct Shard {
    /// A power of two of slots, or none.
    slots: Vec<Slot>,
    len: usize,
}

impl Shard {
    #[inline]
    fn find(&self, hash: KeyHash, is_key: impl Fn(Pos) -> bool) -> Option<usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash.0 as usize & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == Slot::FREE {
                return None;
            }
            // Different keys seldom share 32 bits of hash, so a record is read nearly always only
            // for the right key.
            if slot.hash() == hash && is_key(slot.pos()) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn insert(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash().0 as usize & mask;
        // Ends, because a shard grows before it is full.
        while self.slots[at] != Slot::FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    /// Whether one more entry would make probes long.
    #[inline]
    fn is_full(&self) -> bool {
        self.len * 8 >= self.slots.len() * 5
    }

    #[cold]
    fn grow(&mut self, entries: usize) {
        let slots = (entries * 8 / 5 + 1).next_power_of_two().max(8);
        let old = std::mem::replace(&mut self.slots, vec![Slot::FREE; slots]);
        self.len = 0;
        // The slot has the hash, so no record is read.
        for slot in old {
            if slot != Slot::FREE {
                self.insert(slot);
            }
        }
    }

    /// Frees the slot `at`, and moves up entries that were probed past it.
    fn remove(&mut self, mut at: usize) {
        let mask = self.slots.len() - 1;
        let mut next = at;
        self.len -= 1;
        loop {
            next = (next + 1) & mask;
            let slot = self.slots[next];
            if slot == Slot::FREE {
                break;
            }
            // It may move to `at` unless its first slot lies after `at`, up to `next`.
            let home = slot.hash().0 as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(at) & mask) {
                self.slots[at] = slot;
                at = next;
            }
        }
        self.slots[at] = Slot::FREE;
    }
}

/// Tables of an earlier delta, emptied.
pub(crate) struct SpareShards(Vec<Shard>);

impl SpareShards {
    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        memory(&self.0)
    }
}

fn memory(shards: &[Shard]) -> usize {
    shards.iter().map(|shard| shard.slots.capacity() * size_of::<Slot>()).sum()
}

/// Key to position. The keys themselves are in the arena.
pub(crate) struct HashIndex {
    hasher: RandomState,
    shards: Vec<Shard>,
    len: usize,
    /// Entries that a shard makes room for when it gets its first one.
    shard_hint: usize,
}

impl HashIndex {
    /// An index that holds about `entries` without growing.
    pub(crate) fn with_hint(entries: usize, spare: Option<SpareShards>) -> Self {
        let shards = match spare {
            Some(SpareShards(shards)) => shards,
            None => (0..SHARDS).map(|_| Shard::default()).collect(),
        };
        // Keys do not spread evenly: an eighth more, and four standard deviations.
        let mean = entries / SHARDS;
        let shard_hint = mean + mean / 8 + 4 * mean.isqrt();
        Self { hasher: RandomState::default(), shards, len: 0, shard_hint }
    }

    /// An index without memory, in which nothing may be searched.
    pub(crate) fn hollow() -> Self {
        Self::with_hint(0, Some(SpareShards(Vec::new())))
    }

    pub(crate) fn is_hollow(&self) -> bool {
        self.shards.is_empty()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        memory(&self.shards)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish() as u32)
    }

    #[inline]
    pub(crate) fn find(&self, hash: KeyHash, key: &[u8], arena: &Arena) -> Option<Pos> {
        let shard = &self.shards[hash.shard()];
        shard.find(hash, |pos| arena.key(pos) == key).map(|at| shard.slots[at].pos())
    }

    /// Adds a key that is not in the index.
    #[inline]
    pub(crate) fn insert(&mut self, hash: KeyHash, pos: Pos) {
        let shard = &mut self.shards[hash.shard()];
        if shard.is_full() {
            shard.grow(self.shard_hint.max(shard.len + 1));
        }
        shard.insert(Slot::new(hash, pos));
        self.len += 1;
    }

    /// Removes the key of the record at `pos`.
    pub(crate) fn remove(&mut self, pos: Pos, arena: &Arena) {
        let hash = self.hash(arena.key(pos));
        let shard = &mut self.shards[hash.shard()];
        if let Some(at) = shard.find(hash, |other| other == pos) {
            shard.remove(at);
            self.len -= 1;
        }
    }

    /// The emptied tables, for another index to use. None if they are far too large for the entries
    /// that they held.
    pub(crate) fn into_spare(mut self) -> Option<SpareShards> {
        let slots: usize = self.shards.iter().map(|shard| shard.slots.len()).sum();
        // Clearing them would cost more than a small delta, and they would stay large for ever.
        if slots > 16 * self.len.max(SHARDS) {
            return None;
        }
        for shard in &mut self.shards {
            shard.slots.fill(Slot::FREE);
            shard.len = 0;
        }
        Some(SpareShards(self.shards))
    }
}
#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::*;

    #[test]
    fn finds_what_was_inserted_and_not_what_was_removed() {
        let mut arena = Arena::default();
        let mut spare = None;
        for entries in [0_u32, 1, 1000, 50_000, 10] {
            let mut index = HashIndex::with_hint(entries as usize / 2, spare);
            let positions: Vec<_> = (0..entries)
                .map(|i| {
                    let key = i.to_be_bytes();
                    let hash = index.hash(&key);
                    assert_eq!(index.find(hash, &key, &arena), None);
                    let pos = arena.push(&key, Entry::Delete, false);
                    index.insert(hash, pos);
                    pos
                })
                .collect();
            assert_eq!(index.len(), entries as usize);
            for pos in positions.iter().step_by(2) {
                index.remove(*pos, &arena);
            }
            for (i, pos) in (0_u32..).zip(&positions) {
                let found = index.find(index.hash(&i.to_be_bytes()), &i.to_be_bytes(), &arena);
                assert_eq!(found, (i % 2 == 1).then_some(*pos));
            }
            spare = index.into_spare();
        }
    }

    #[test]
    fn a_hint_makes_growing_rare() {
        let mut arena = Arena::default();
        let mut index = HashIndex::with_hint(100_000, None);
        let mut growths = 0;
        for i in 0..100_000_u32 {
            let key = i.to_be_bytes();
            let hash = index.hash(&key);
            let before = index.shards[hash.shard()].slots.len();
            let pos = arena.push(&key, Entry::Delete, false);
            index.insert(hash, pos);
            growths += usize::from(before > 0 && index.shards[hash.shard()].slots.len() > before);
        }
        assert!(growths <= 2, "{growths} shards outgrew the hint");
    }
}
