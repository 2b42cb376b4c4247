//! The cache beside a plain map: whatever it says of a key is true.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::log::{CHUNK, MAX_RECORD};
use super::{CacheLimits, CacheMemory, Cached, RecordCache};
use crate::ids::StateId;
use crate::key;
use crate::key_group::KeyGroup;

#[derive(Debug, Clone)]
enum Op {
    Put(u16, usize),
    Delete(u16),
    Append(u16, usize),
    /// All keys of a group and state that begin with this byte, or all of them.
    DeletePrefix(u16, Option<u8>),
    Get(u16),
    /// The value changes behind the cache's back, which is told.
    Forget(u16),
    /// So many bytes are lent beside the share.
    Lend(u64),
    /// Reads of one key, which make its state worth caching, or writes, which end that.
    ManyReads(u16),
    ManyWrites(u16),
}

const KEYS: u16 = 600;

/// Two states in two key groups.
fn key(number: u16) -> Vec<u8> {
    let mut encoded = Vec::new();
    let user = [(number / 4 % 3) as u8, (number >> 8) as u8, number as u8];
    key::encode_into(&mut encoded, KeyGroup(number & 1), StateId(u32::from(number >> 1 & 1)), &user);
    encoded
}

fn op() -> impl Strategy<Value = Op> {
    let number = || 0..KEYS;
    // Some values are too large for the cache, some fill a good part of a chunk.
    let len = || prop_oneof![20 => 0..300_usize, 3 => 300..9000_usize, 1 => MAX_RECORD - 40..MAX_RECORD + 10];
    prop_oneof![
        40 => (number(), len()).prop_map(|(key, len)| Op::Put(key, len)),
        10 => number().prop_map(Op::Delete),
        15 => (number(), len()).prop_map(|(key, len)| Op::Append(key, len)),
        2 => (number(), prop::option::of(0..3_u8)).prop_map(|(key, byte)| Op::DeletePrefix(key, byte)),
        40 => number().prop_map(Op::Get),
        3 => number().prop_map(Op::Forget),
        2 => (0..2_000_000_u64).prop_map(Op::Lend),
        2 => number().prop_map(Op::ManyReads),
        1 => number().prop_map(Op::ManyWrites),
    ]
}

/// A cache, and a map that stands for everything below it.
struct Both {
    cache: RecordCache,
    memory: Arc<CacheMemory>,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    written: u8,
}

impl Both {
    fn new(bytes: u64) -> Self {
        let memory = CacheMemory::new(CacheLimits::new(bytes), |_| ());
        let cache = RecordCache::new(Arc::clone(&memory));
        let mut both = Self { cache, memory, map: BTreeMap::new(), written: 0 };
        for state in 0..4 {
            both.run(&Op::ManyReads(state));
        }
        both
    }

    fn value(&mut self, len: usize) -> Vec<u8> {
        self.written = self.written.wrapping_add(1);
        vec![self.written; len]
    }

    fn get(&mut self, key: &[u8]) {
        let expected = self.map.get(key).map(Vec::as_slice);
        match self.cache.get(key) {
            Cached::Value(value) => assert_eq!(Some(value), expected, "{key:?}"),
            Cached::Absent => assert_eq!(None, expected, "{key:?}"),
            Cached::Unknown => self.cache.offer(key, expected),
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Put(number, len) => {
                let (key, value) = (key(number), self.value(len));
                self.cache.put(&key, &value);
                self.map.insert(key, value);
            }
            Op::Delete(number) => {
                self.cache.delete(&key(number));
                self.map.remove(&key(number));
            }
            Op::Append(number, len) => {
                let (key, value) = (key(number), self.value(len));
                self.cache.append(&key, &value);
                self.map.entry(key).or_default().extend_from_slice(&value);
            }
            Op::DeletePrefix(number, byte) => {
                let mut start = key(number);
                start.truncate(key::PREFIX_LEN);
                start.extend(byte);
                let end = key::successor(&start).unwrap();
                self.cache.delete_range(&start, &end);
                self.map.retain(|key, _| !(start.as_slice()..end.as_slice()).contains(&key.as_slice()));
            }
            Op::Get(number) => self.get(&key(number)),
            Op::Forget(number) => {
                let (key, value) = (key(number), self.value(7));
                self.cache.forget(&key);
                self.map.insert(key, value);
            }
            Op::Lend(bytes) => self.cache.lend(bytes),
            Op::ManyReads(number) => (0..2000).for_each(|_| self.get(&key(number))),
            Op::ManyWrites(number) => (0..2000).for_each(|_| self.run(&Op::Put(number, 5))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_cache_says_is_true(
        ops in prop::collection::vec(op(), 1..1500),
        bytes in prop_oneof![Just(0), Just(4 * CHUNK), Just(5 * CHUNK), Just(1 << 20), Just(1 << 30)],
    ) {
        let mut both = Both::new(bytes as u64);
        for op in &ops {
            both.run(op);
        }
        (0..KEYS).for_each(|number| both.get(&key(number)));
        // What was lent goes back with the writes that follow.
        both.run(&Op::Lend(0));
        (0..5).for_each(|_| both.run(&Op::ManyWrites(0)));
        let held = both.cache.stats().bytes;
        prop_assert_eq!(held, both.memory.taken());
        prop_assert!(held <= bytes as u64, "{} of {} bytes", held, bytes);
        let Both { cache, memory, .. } = both;
        drop(cache);
        prop_assert_eq!(memory.taken(), 0);
    }
}

#[test]
fn with_room_for_all_every_read_is_a_hit() {
    let mut both = Both::new(1 << 30);
    (0..KEYS).for_each(|number| both.run(&Op::Put(number, 100)));
    let before = both.cache.stats();
    (0..KEYS).for_each(|number| both.get(&key(number)));
    let after = both.cache.stats();
    assert_eq!((after.hits - before.hits, after.misses - before.misses), (u64::from(KEYS), 0));
    assert_eq!(after.entries, u64::from(KEYS));
}

#[test]
fn what_is_used_stays_and_what_is_not_goes() {
    let mut both = Both::new(4 * CHUNK as u64);
    let start = both.cache.stats().misses;
    // Some are read again and again while a long stream of others passes through.
    for number in 0..20_000_u32 {
        let mut other = key(1);
        other.extend(number.to_be_bytes());
        both.cache.put(&other, &[1; 100]);
        for used in 4..14 {
            both.get(&key(used));
            both.cache.put(&key(used), &[2; 100]);
            both.map.insert(key(used), vec![2; 100]);
        }
    }
    let before = both.cache.stats();
    (4..14).for_each(|used| both.get(&key(used)));
    assert_eq!(both.cache.stats().hits - before.hits, 10);
    assert!(before.misses - start < 100, "{before:?}, {start} before");
}

#[test]
fn a_state_that_is_no_longer_read_gives_its_memory_back() {
    let mut both = Both::new(1 << 30);
    (0..KEYS).for_each(|number| both.run(&Op::Put(number, 100)));
    assert!(both.memory.taken() >= CHUNK as u64);
    (0..4).for_each(|number| both.run(&Op::ManyWrites(number)));
    assert_eq!((both.memory.taken(), both.cache.stats().entries), (0, 0));
}

#[test]
fn no_write_frees_more_than_a_chunk_and_the_index() {
    let mut both = Both::new(1 << 30);
    for number in 0..20_000_u32 {
        let mut other = key(1);
        other.extend(number.to_be_bytes());
        both.cache.put(&other, &[1; 100]);
        both.get(&key(1));
    }
    let (mut before, entries) = (both.memory.taken(), both.cache.stats().entries);
    let chunk = CHUNK as u64;
    assert!(before > 30 * chunk && entries > 20_000);
    // The index goes at once: it is 1.6 to 3.2 slots of 8 bytes an entry.
    let mut index = Some(26 * entries);
    for _ in 0..10_000 {
        both.cache.put(&key(1), b"x");
        both.cache.put(&key(0), b"x");
        (2..4).for_each(|number| both.cache.put(&key(number), b"x"));
        // A state that is still cached may have taken a little more.
        let freed = before.saturating_sub(both.memory.taken());
        assert!(freed <= 4 * chunk + index.unwrap_or_default(), "{freed} at once");
        if freed > 0 {
            index = None;
        }
        before = both.memory.taken();
    }
    assert_eq!(before, 0);
}

#[test]
fn what_a_deletion_has_made_stale_has_no_second_chance() {
    let mut both = Both::new(4 * CHUNK as u64);
    let put = |both: &mut Both, state: u16, number: u32| {
        let mut key = key(state);
        key.extend(number.to_be_bytes());
        both.cache.put(&key, &[1; 100]);
        assert!(matches!(both.cache.get(&key), Cached::Value(_)), "it is used");
    };
    (0..400).for_each(|number| put(&mut both, 0, number));
    let start = key::prefix(KeyGroup(0), StateId(0));
    both.cache.delete_range(&start, &key::successor(&start).unwrap());
    // As many as fill all chunks but for a few KB. The stale ones have had their turn.
    (0..1030).for_each(|number| put(&mut both, 2, number));
    let left = (0..1030_u32).filter(|number| {
        let mut key = key(2);
        key.extend(number.to_be_bytes());
        both.cache.get(&key) != Cached::Unknown
    });
    assert!(left.count() > 1020);
}
