//! The hash index of a delta: key to position of its record.
//!
//! A slot holds 32 bits of the key's hash beside the position, so that a lookup touches a record only
//! when it is nearly sure to be the right one, and growing touches none. The index is cut into shards
//! that grow one by one: growing a shard of a delta of a million entries takes some 100 µs, growing one
//! table of them all would stop the operator for tens of milliseconds.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::arena::{Arena, Pos};

const SHARD_BITS: u32 = 7;
const SHARDS: usize = 1 << SHARD_BITS;

/// Memory of an entry in the index: 9 bytes at a load between 7/16 and 7/8.
pub(crate) const BYTES_PER_ENTRY: usize = 16;

/// 32 bits of a key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u32);

impl KeyHash {
    /// A table takes the bucket from the lowest bits and a tag from the highest 7 of 64; the shard's
    /// bits lie between them.
    #[inline]
    fn table_hash(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }

    #[inline]
    fn shard(self) -> usize {
        (self.0 >> (32 - 7 - SHARD_BITS)) as usize % SHARDS
    }
}

#[derive(Clone, Copy)]
struct Slot {
    hash: KeyHash,
    pos: Pos,
}

/// Tables of an earlier delta, emptied.
pub(crate) struct SpareShards(Vec<HashTable<Slot>>);

/// Key to position. The keys themselves are in the arena.
pub(crate) struct HashIndex {
    hasher: DefaultHashBuilder,
    shards: Vec<HashTable<Slot>>,
    len: usize,
    /// Entries that a shard makes room for when it gets its first one.
    shard_hint: usize,
}

impl HashIndex {
    /// An index that holds about `entries` without growing.
    pub(crate) fn with_hint(entries: usize, spare: Option<SpareShards>) -> Self {
        let shards = match spare {
            Some(SpareShards(shards)) => shards,
            None => (0..SHARDS).map(|_| HashTable::new()).collect(),
        };
        // Keys do not spread evenly: an eighth more, and four standard deviations.
        let mean = entries / SHARDS;
        let shard_hint = if entries == 0 { 0 } else { mean + mean / 8 + 4 * mean.isqrt() };
        Self { hasher: DefaultHashBuilder::default(), shards, len: 0, shard_hint }
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
        let is_key = |slot: &Slot| slot.hash == hash && arena.key(slot.pos) == key;
        shard.find(hash.table_hash(), is_key).map(|slot| slot.pos)
    }

    /// Adds a key that is not in the index.
    #[inline]
    pub(crate) fn insert(&mut self, hash: KeyHash, pos: Pos) {
        let shard = &mut self.shards[hash.shard()];
        if shard.capacity() == 0 {
            shard.reserve(self.shard_hint, |slot| slot.hash.table_hash());
        }
        shard.insert_unique(hash.table_hash(), Slot { hash, pos }, |slot| slot.hash.table_hash());
        self.len += 1;
    }

    /// Takes out the key of the record at `pos`.
    pub(crate) fn remove(&mut self, pos: Pos, arena: &Arena) {
        let hash = self.hash(arena.key(pos));
        let shard = &mut self.shards[hash.shard()];
        if let Ok(slot) = shard.find_entry(hash.table_hash(), |slot| slot.pos == pos) {
            slot.remove();
            self.len -= 1;
        }
    }

    /// The tables, emptied, for another index to use; none if they are far too large for what they held.
    pub(crate) fn into_spare(mut self) -> Option<SpareShards> {
        let capacity: usize = self.shards.iter().map(HashTable::capacity).sum();
        if capacity > 8 * self.len.max(SHARDS) {
            return None;
        }
        self.shards.iter_mut().for_each(HashTable::clear);
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
            let before = index.shards[hash.shard()].capacity();
            let pos = arena.push(&key, Entry::Delete, false);
            index.insert(hash, pos);
            growths += usize::from(before > 0 && index.shards[hash.shard()].capacity() > before);
        }
        assert!(growths <= 2, "{growths} shards outgrew the hint");
    }
}
