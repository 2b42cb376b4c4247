//! The index of the cache: key to position of its record.
//!
//! Open addressing with linear probing, as the index of a delta (`delta/hash.rs`), in shards that
//! grow one by one, so that no operation waits for a large table to be copied. A slot is one word:
//! a mark for entries that were used lately, 31 bits of the key's hash, and the position. The mark
//! stands here and not in the record, because a read has the slot at hand and may then change no
//! record. Slots are cells: reads mark entries, and forget them, through a shared reference.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::log::Pos;

const SHARD_BITS: u32 = 7;
const SHARDS: usize = 1 << SHARD_BITS;
const FEWEST_SLOTS: usize = 8;

/// 31 bits of a key's hash. The highest ones choose the shard, the lowest the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHash(u32);

impl KeyHash {
    #[inline]
    fn shard(self) -> usize {
        (self.0 >> (31 - SHARD_BITS)) as usize
    }
}

/// Mark, hash and position in one word; 0 where the slot is free.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot(u64);

impl Slot {
    const FREE: Self = Self(0);
    const USED: u64 = 1 << 63;

    #[inline]
    fn new(hash: KeyHash, pos: Pos) -> Self {
        // One more than the position, so that no slot in use is 0.
        Self(u64::from(hash.0) << 32 | u64::from(pos.0 + 1))
    }

    #[inline]
    fn hash(self) -> KeyHash {
        KeyHash((self.0 >> 32) as u32 & (u32::MAX >> 1))
    }

    #[inline]
    fn pos(self) -> Pos {
        Pos(self.0 as u32 - 1)
    }

    #[inline]
    fn is_used(self) -> bool {
        self.0 & Self::USED != 0
    }
}

#[derive(Default)]
struct Shard {
    /// A power of two of slots, or none.
    slots: Vec<Cell<Slot>>,
    len: Cell<usize>,
}

/// Where a key's slot is, until the index changes.
#[derive(Clone, Copy)]
pub(super) struct SlotIndex {
    shard: usize,
    slot: usize,
}

/// Key to position. The keys themselves are in the log.
pub(super) struct Index {
    hasher: RandomState,
    shards: Vec<Shard>,
}

impl Default for Index {
    fn default() -> Self {
        Self { hasher: RandomState::default(), shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Index {
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish() as u32 & (u32::MAX >> 1))
    }

    /// The entry with this hash whose position `is_key` accepts.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash, is_key: impl Fn(Pos) -> bool) -> Option<(SlotIndex, Pos)> {
        let index = hash.shard();
        let slots = &self.shards[index].slots;
        let mask = slots.len().wrapping_sub(1);
        let mut at = hash.0 as usize & mask;
        loop {
            let slot = slots.get(at)?.get();
            if slot == Slot::FREE {
                return None;
            }
            if slot.hash() == hash && is_key(slot.pos()) {
                return Some((SlotIndex { shard: index, slot: at }, slot.pos()));
            }
            at = (at + 1) & mask;
        }
    }

    /// Notes that the entry was used.
    #[inline]
    pub(super) fn mark(&self, at: SlotIndex) {
        let cell = &self.shards[at.shard].slots[at.slot];
        let slot = cell.get();
        if !slot.is_used() {
            cell.set(Slot(slot.0 | Slot::USED));
        }
    }

    /// Whether the entry was used since it came, or since it was moved.
    pub(super) fn is_marked(&self, at: SlotIndex) -> bool {
        self.shards[at.shard].slots[at.slot].get().is_used()
    }

    /// The entry's record lies elsewhere now. Takes the mark away.
    pub(super) fn moved(&self, at: SlotIndex, pos: Pos) {
        let cell = &self.shards[at.shard].slots[at.slot];
        cell.set(Slot::new(cell.get().hash(), pos));
    }

    /// By how many bytes the next entry would make the index grow.
    pub(super) fn growth(&self, hash: KeyHash) -> usize {
        let shard = &self.shards[hash.shard()];
        if shard.is_full() { shard.slots.len().max(FEWEST_SLOTS) * size_of::<Slot>() } else { 0 }
    }

    /// Adds a key that is not in the index.
    #[inline]
    pub(super) fn insert(&mut self, hash: KeyHash, pos: Pos) {
        let shard = &mut self.shards[hash.shard()];
        if shard.is_full() {
            shard.grow();
        }
        shard.insert(Slot::new(hash, pos));
    }

    /// Takes an entry out.
    pub(super) fn remove(&self, at: SlotIndex) {
        self.shards[at.shard].remove(at.slot);
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len.get()).sum()
    }
}

impl Shard {
    /// Whether one more entry would make probes long.
    #[inline]
    fn is_full(&self) -> bool {
        self.len.get() * 8 >= self.slots.len() * 5
    }

    #[inline]
    fn insert(&self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash().0 as usize & mask;
        // Ends, because a shard grows before it is full.
        while self.slots[at].get() != Slot::FREE {
            at = (at + 1) & mask;
        }
        self.slots[at].set(slot);
        self.len.set(self.len.get() + 1);
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (2 * self.slots.len()).max(FEWEST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![Cell::new(Slot::FREE); slots]);
        self.len.set(0);
        // The slot has the hash, so no record is read.
        old.iter().map(Cell::get).filter(|slot| *slot != Slot::FREE).for_each(|slot| self.insert(slot));
    }

    /// Frees the slot `at`, and moves up entries that were probed past it.
    fn remove(&self, mut at: usize) {
        let mask = self.slots.len() - 1;
        let mut next = at;
        self.len.set(self.len.get() - 1);
        loop {
            next = (next + 1) & mask;
            let slot = self.slots[next].get();
            if slot == Slot::FREE {
                break;
            }
            // It may move to `at` unless its first slot lies after `at`, up to `next`.
            let home = slot.hash().0 as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(at) & mask) {
                self.slots[at].set(slot);
                at = next;
            }
        }
        self.slots[at].set(Slot::FREE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec((0..300_u32, any::<bool>()), 0..2000)) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            // A position stands for the key itself.
            for (key, insert) in ops {
                let hash = index.hash(&key.to_be_bytes());
                let found = index.find(hash, |pos| pos.0 == key);
                prop_assert_eq!(found.is_some(), model.contains_key(&key));
                match found {
                    Some((at, _)) if insert => {
                        prop_assert_eq!(index.is_marked(at), model[&key]);
                        index.mark(at);
                        model.insert(key, true);
                    }
                    Some((at, _)) => {
                        index.remove(at);
                        model.remove(&key);
                    }
                    None if insert => {
                        index.insert(hash, Pos(key));
                        model.insert(key, false);
                    }
                    None => {}
                }
                prop_assert_eq!(index.len(), model.len());
            }
        }
    }

    #[test]
    fn a_moved_entry_has_lost_its_mark_and_growth_is_told_in_advance() {
        let mut index = Index::default();
        let mut bytes = 0;
        for key in 0..5000_u32 {
            let hash = index.hash(&key.to_be_bytes());
            bytes += index.growth(hash);
            index.insert(hash, Pos(key));
        }
        let slots: usize = index.shards.iter().map(|shard| shard.slots.len()).sum();
        assert_eq!(bytes, slots * size_of::<Slot>());
        let hash = index.hash(&7_u32.to_be_bytes());
        let (at, _) = index.find(hash, |pos| pos == Pos(7)).unwrap();
        index.mark(at);
        index.moved(at, Pos(1 << 31));
        assert!(!index.is_marked(at));
        assert!(index.find(hash, |pos| pos == Pos(7)).is_none());
        assert!(index.find(hash, |pos| pos == Pos(1 << 31)).is_some());
    }
}
