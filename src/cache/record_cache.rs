//! [`RecordCache`]: the current values of keys, as many as fit.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::deletions::Deletions;
use super::index::{Index, KeyHash, Place};
use super::log::{CHUNK, Content, Log, MOST_CHUNKS, Pos, record_len};
use super::memory::{CacheLimits, CacheMemory};
use super::offers::Offers;
use super::reserve::Reserve;
use super::worth::{Standing, Worth};
use crate::ids::StateId;
use crate::key::state_of;

/// Records that get a second chance before one write. More are given up, however often they were
/// used, so that no write takes long.
const SECOND_CHANCES: usize = 16;
/// Bytes that a write of one byte gives up while the cache holds too much. The deltas, which need the
/// memory, grow by less: a frozen delta is charged twice until it is sealed.
const SHED_PER_BYTE: usize = 4;
const LEAST_SHED: usize = 1 << 10;
/// The fewest chunks that a cache works with, ...
const FEWEST_CHUNKS: usize = 2;
/// ... and the least memory: as much again for the index of the smallest records in them.
const LEAST_BYTES: usize = 2 * FEWEST_CHUNKS * CHUNK;
/// What a value is given to grow when it has outgrown its record by appends, as a divisor of its
/// length.
const SLACK: usize = 2;

/// What the cache knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cached<'a> {
    /// Nothing.
    Unknown,
    /// Its current value.
    Value(&'a [u8]),
    /// That it has no value.
    Absent,
}

/// Numbers of one cache: sizes as of now, counts since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Reads that it has answered, ...
    pub(crate) hits: u64,
    /// ... and those of cached states that it has not.
    pub(crate) misses: u64,
    /// Records that have made room for others.
    pub(crate) evictions: u64,
    pub(crate) entries: u64,
    /// Memory held, with the index.
    pub(crate) bytes: u64,
}

/// The cache of one store. Owned by the operator's thread, which tells it of every change; what it
/// has of a key is therefore the key's current value. Keys are encoded keys.
pub(crate) struct RecordCache {
    log: Log,
    index: Index,
    index_bytes: usize,
    worth: Worth,
    deletions: Deletions,
    /// The time that records get. It moves on where earlier records have become stale.
    now: Cell<u32>,
    offers: Offers,
    memory: Arc<CacheMemory>,
    reserve: Reserve,
    /// Its share of the memory, and what it may hold at the moment.
    share: usize,
    /// Whether memory may be lent to it.
    lent: bool,
    limit: usize,
    hits: Cell<u64>,
    misses: Cell<u64>,
    evictions: u64,
}

impl RecordCache {
    /// An empty cache, which takes its memory from `memory` as it fills.
    pub(crate) fn new(memory: Arc<CacheMemory>) -> Self {
        let CacheLimits { bytes, window, lent, reserved } = memory.limits();
        let share = usize::try_from(bytes).unwrap_or(usize::MAX);
        let share = if share < LEAST_BYTES { 0 } else { share };
        let reserve = if reserved { Reserve::new(share) } else { Reserve::default() };
        memory.take(reserve.left() as u64);
        Self {
            log: Log::default(),
            index: Index::default(),
            index_bytes: 0,
            worth: Worth::new(window),
            deletions: Deletions::default(),
            now: Cell::new(0),
            offers: Offers::default(),
            memory,
            reserve,
            share,
            lent,
            limit: share,
            hits: Cell::new(0),
            misses: Cell::new(0),
            evictions: 0,
        }
    }

    /// What is known of `key`.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Cached<'_> {
        let standing = self.worth.count(state(key), 1, &self.now);
        if !standing.cached {
            return Cached::Unknown;
        }
        let Some((place, pos)) = self.find(self.index.hash(key), key) else {
            self.misses.set(self.misses.get() + 1);
            return Cached::Unknown;
        };
        let (content, time) = self.log.content(pos);
        if !self.is_valid(standing, key, time) {
            self.misses.set(self.misses.get() + 1);
            return Cached::Unknown;
        }
        self.index.mark(place);
        self.hits.set(self.hits.get() + 1);
        match content {
            Content::Value(value) => Cached::Value(value),
            Content::Absent => Cached::Absent,
        }
    }

    /// The key has this value now.
    #[inline]
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        if self.begin(key, value.len()) {
            self.set(key, Content::Value(value), true);
        }
    }

    /// The key has no value now.
    #[inline]
    pub(crate) fn delete(&mut self, key: &[u8]) {
        if self.begin(key, 0) {
            // Most keys that are deleted are never asked for again.
            self.set(key, Content::Absent, false);
        }
    }

    /// `operand` was appended to the value of the key.
    #[inline]
    pub(crate) fn append(&mut self, key: &[u8], operand: &[u8]) {
        if !self.begin(key, operand.len()) {
            return;
        }
        let hash = self.index.hash(key);
        let Some((place, pos)) = self.find(hash, key) else { return };
        let (content, time) = self.log.content(pos);
        if !self.is_valid(self.worth.standing(state(key)), key, time) {
            self.index.remove(place);
            return;
        }
        let (keep, now) = (content.bytes().len(), self.now.get());
        if self.log.set(pos, keep, Content::Value(operand), now) {
            return;
        }
        self.index.remove(place);
        let len = keep + operand.len();
        let room = len + len / SLACK;
        // Looked at before anything is copied, because operands may have hundreds of MB.
        if record_len(key, room).is_none() {
            return;
        }
        let mut value = Vec::with_capacity(len);
        value.extend_from_slice(self.log.content(pos).0.bytes());
        value.extend_from_slice(operand);
        self.insert(hash, key, Content::Value(&value), room);
    }

    /// The keys from `start` up to but without `end` have no values now.
    pub(crate) fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.settle();
        match self.now.get().checked_add(1) {
            Some(now) => {
                self.now.set(now);
                self.deletions.note(start, end, now);
            }
            None => self.begin_anew(),
        }
    }

    /// A read has found this value below the cache.
    #[inline]
    pub(crate) fn offer(&self, key: &[u8], value: Option<&[u8]>) {
        if self.limit > 0 && self.worth.standing(state(key)).cached {
            self.offers.add(key, value);
        }
    }

    /// Lends the cache `bytes` beside its share, in place of what was lent before. What it holds
    /// beyond that is given up by the writes that follow, some records with each.
    pub(crate) fn lend(&mut self, bytes: u64) {
        if self.share > 0 && self.lent {
            self.limit = self.share.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }

    /// Takes in what reads have offered, as every write does.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if !self.offers.is_empty() {
            self.take_offers();
        }
    }

    /// The value of the key has changed otherwise.
    pub(crate) fn forget(&self, key: &[u8]) {
        self.offers.forget(key);
        if let Some((place, _)) = self.find(self.index.hash(key), key) {
            self.index.remove(place);
        }
    }

    /// Numbers as of now.
    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            evictions: self.evictions,
            entries: self.index.len() as u64,
            bytes: self.held() as u64,
        }
    }

    fn held(&self) -> usize {
        self.log.memory() + self.index_bytes
    }

    #[inline]
    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<(Place, Pos)> {
        self.index.find(hash, |pos| self.log.key(pos) == key)
    }

    /// Whether a record of this time says what is so now.
    #[inline]
    fn is_valid(&self, standing: Standing, key: &[u8], time: u32) -> bool {
        // Nearly always nothing has happened since.
        time == self.now.get() || time >= standing.valid_from && self.deletions.spare(key, time)
    }

    /// Counts a write of so many bytes. Returns whether the cache has to learn of it.
    #[inline]
    fn begin(&mut self, key: &[u8], bytes: usize) -> bool {
        self.settle();
        if self.held() > self.limit {
            self.shed((SHED_PER_BYTE * bytes).max(LEAST_SHED));
        }
        let standing = self.worth.count(state(key), 0, &self.now);
        if !standing.cached && !self.worth.any() {
            self.idle(key.len() + bytes);
        }
        standing.cached
    }

    /// A write of so many bytes while no state is cached.
    #[inline]
    fn idle(&mut self, bytes: usize) {
        if self.log.chunks() > 0 {
            self.give_back();
        }
        let unused = self.reserve.unused(bytes);
        if unused > 0 {
            self.memory.give_back(unused as u64);
        }
    }

    fn take(&mut self, bytes: usize) {
        let more = self.reserve.take(bytes);
        self.memory.take(more as u64);
    }

    /// Takes in what reads have found.
    #[cold]
    fn take_offers(&mut self) {
        let offers = std::mem::take(&mut self.offers);
        offers.drain(|key, content| {
            if self.worth.standing(state(key)).cached {
                self.set(key, content, true);
            }
        });
        // Its buffers are used again.
        self.offers = offers;
    }

    /// Sets the content of a key's record. `insert`: adds a record if there is none.
    #[inline]
    fn set(&mut self, key: &[u8], content: Content<'_>, insert: bool) {
        let hash = self.index.hash(key);
        match self.find(hash, key) {
            Some((place, pos)) => {
                if self.log.set(pos, 0, content, self.now.get()) {
                    return;
                }
                // The record stays behind, and is passed over when its turn comes.
                self.index.remove(place);
                self.insert(hash, key, content, content.bytes().len());
            }
            None if insert => self.insert(hash, key, content, content.bytes().len()),
            None => {}
        }
    }

    /// Adds a key that is not in the index.
    #[inline]
    fn insert(&mut self, hash: KeyHash, key: &[u8], content: Content<'_>, room: usize) {
        let Some(len) = record_len(key, room) else { return };
        if !self.make_room(len) {
            return;
        }
        if self.index.growth(hash) > 0 && !self.grow_index(hash) {
            return;
        }
        let pos = self.log.push(key, content, room, self.now.get());
        self.index.insert(hash, pos);
    }

    /// Makes the newest chunk have room for `len` bytes. False if the cache has no memory.
    #[inline]
    fn make_room(&mut self, len: usize) -> bool {
        if self.log.fits(len) {
            // Little by little, so that no write gives up a whole chunk.
            self.keep_pace(len);
        }
        // Second chances may have filled the chunk.
        self.log.fits(len) || self.next_chunk()
    }

    /// Gives up as much of the oldest chunk as the newest one has taken, if the next chunk will be
    /// the oldest one's memory.
    #[inline]
    fn keep_pace(&mut self, len: usize) {
        let mut chances = SECOND_CHANCES;
        loop {
            let (head, tail) = self.log.progress();
            if head >= tail + len || self.may_grow() || !self.give_up_one(&mut chances) {
                return;
            }
        }
    }

    /// Lets the index grow for one more entry, and gives up chunks for that. False if there is no
    /// memory, or if writes are giving some back.
    #[cold]
    fn grow_index(&mut self, hash: KeyHash) -> bool {
        if self.held() > self.limit {
            return false;
        }
        loop {
            // Entries that were given up may have made growing unnecessary.
            let growth = self.index.growth(hash);
            let chunks = self.log.memory().max(FEWEST_CHUNKS * CHUNK);
            // The old table is there until the new one is filled, which is twice as large.
            if growth == 0 || chunks + self.index_bytes + 2 * growth <= self.limit {
                self.index_bytes += growth;
                self.take(growth);
                return true;
            }
            if self.log.chunks() <= FEWEST_CHUNKS {
                return false;
            }
            self.give_up_chunk();
            self.free_chunk();
        }
    }

    fn may_grow(&self) -> bool {
        self.held() + CHUNK <= self.limit && self.log.chunks() < MOST_CHUNKS
    }

    #[cold]
    fn next_chunk(&mut self) -> bool {
        if self.may_grow() {
            self.log.grow();
            self.take(CHUNK);
            return true;
        }
        if self.log.chunks() < FEWEST_CHUNKS {
            return false;
        }
        self.give_up_chunk();
        self.log.turn();
        true
    }

    /// Gives up so many bytes of the oldest records, and the chunks whose last ones these are.
    #[cold]
    fn shed(&mut self, mut bytes: usize) {
        while bytes > 0 && self.held() > self.limit && self.log.chunks() > FEWEST_CHUNKS {
            let (before, _) = self.log.progress();
            if self.give_up_one(&mut 0) {
                bytes = bytes.saturating_sub(self.log.progress().0 - before);
            } else {
                self.free_chunk();
            }
        }
    }

    /// Gives up what is left of the oldest chunk.
    fn give_up_chunk(&mut self) {
        while self.give_up_one(&mut 0) {}
    }

    /// Gives up the oldest record, or moves it to the newest chunk if it was used and has a chance
    /// left. False if the oldest chunk has none.
    fn give_up_one(&mut self, chances: &mut usize) -> bool {
        let Some(oldest) = self.log.take_oldest() else { return false };
        let key = self.log.key(oldest.0);
        let Some((place, _)) = self.index.find(self.index.hash(key), |pos| pos == oldest.0) else {
            // The key has a newer record, or none.
            return true;
        };
        let (_, time) = self.log.content(oldest.0);
        let is_used = *chances > 0
            && self.index.is_marked(place)
            && self.is_valid(self.worth.standing(state(key)), key, time);
        let moved = if is_used { self.log.push_again(oldest) } else { None };
        match moved {
            Some(pos) => {
                *chances -= 1;
                self.index.moved(place, pos);
            }
            None => {
                self.index.remove(place);
                self.evictions += 1;
            }
        }
        true
    }

    /// Frees the oldest chunk, whose records nobody finds any more.
    fn free_chunk(&mut self) {
        self.log.shrink();
        self.memory.give_back(CHUNK as u64);
    }

    /// Gives memory back: all of the index, and one chunk a call, so that no write takes long.
    #[cold]
    fn give_back(&mut self) {
        self.drop_index();
        self.free_chunk();
    }

    fn drop_index(&mut self) {
        if self.index_bytes > 0 {
            self.memory.give_back(self.index_bytes as u64);
            (self.index, self.index_bytes) = (Index::default(), 0);
        }
    }

    /// Forgets everything at the end of time, which would go round. That comes after four billion
    /// deleted ranges.
    #[cold]
    fn begin_anew(&mut self) {
        self.drop_index();
        self.deletions = Deletions::default();
        self.worth.begin_anew();
        self.now.set(0);
    }
}

impl Drop for RecordCache {
    fn drop(&mut self) {
        self.memory.give_back((self.held() + self.reserve.left()) as u64);
    }
}

impl fmt::Debug for RecordCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The state of an encoded key. Keys too short to name one share the reserved state.
#[inline]
fn state(key: &[u8]) -> StateId {
    state_of(key).unwrap_or(StateId(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::worth::WINDOW;

    fn cache(bytes: u64) -> RecordCache {
        let mut cache = RecordCache::new(CacheMemory::new(CacheLimits::new(bytes), |_| ()));
        (0..WINDOW).for_each(|_| _ = cache.get(b"key of a group"));
        cache.put(b"key of a group", b"old");
        cache
    }

    #[test]
    fn after_the_last_moment_nothing_old_is_right_again() {
        let mut cache = cache(1 << 20);
        // Of the first moment, which comes again.
        assert_eq!(cache.get(b"key of a group"), Cached::Value(b"old"));
        cache.now.set(u32::MAX - 1);
        for _ in 0..3 {
            cache.delete_range(b"key of a group", b"key of a grouq");
            assert_eq!(cache.get(b"key of a group"), Cached::Unknown, "at {}", cache.now.get());
            cache.put(b"key of another", b"new");
            assert_eq!(cache.get(b"key of another"), Cached::Value(b"new"));
        }
        assert_eq!(cache.now.get(), 1, "time has begun anew");
    }

    /// With little memory as well, the index leaves the chunks theirs.
    #[test]
    fn the_smallest_cache_takes_in_small_records_and_large_ones() {
        for len in [0, 100, 10_000] {
            let mut cache = cache(LEAST_BYTES as u64);
            let mut hits = 0;
            for number in 0..20_000_u32 {
                let key = [b"key of".as_slice(), &number.to_be_bytes()].concat();
                cache.get(&key);
                cache.put(&key, &vec![7; len]);
                hits += u32::from(cache.get(&key) != Cached::Unknown);
                assert!(cache.held() <= LEAST_BYTES, "{} bytes", cache.held());
            }
            assert_eq!(cache.log.chunks(), if len == 0 { FEWEST_CHUNKS } else { 3 }, "{len}");
            assert!(hits > 19_000, "{hits} records of {len} bytes were taken in");
        }
    }

    #[test]
    fn a_value_that_reads_renew_keeps_no_other_out() {
        let mut cache = cache(1 << 20);
        let keys = [b"key of state 1", b"key of state 2"];
        keys.iter().for_each(|key| cache.offer(*key, Some(b"value")));
        cache.forget(keys[1]);
        cache.settle();
        assert_eq!(cache.get(keys[0]), Cached::Value(b"value"));
        assert_eq!(cache.get(keys[1]), Cached::Unknown);
    }

    #[test]
    fn what_was_lent_is_given_up_little_by_little() {
        // More records than a chunk has are never given up by one write.
        let most = (CHUNK / 128 + LEAST_SHED / 128 + SECOND_CHANCES) as u64;
        let key = |number: u32| [b"key of".as_slice(), &number.to_be_bytes()].concat();
        let put = |cache: &mut RecordCache, number| {
            let before = cache.stats().evictions;
            cache.get(&key(number));
            cache.put(&key(number), &[7; 100]);
            assert!(cache.stats().evictions - before <= most, "of {before} at {number}");
        };
        let share = 8 << 20;
        let mut cache = cache(share);
        cache.lend(share / 2);
        let mut next = 72_000;
        (0..next).for_each(|number| put(&mut cache, number));
        // The next key would make the index grow.
        while cache.index.growth(cache.index.hash(&key(next))) == 0 {
            put(&mut cache, next);
            next += 1;
        }
        let before = cache.stats();
        assert!(before.bytes > share / 5 * 6 && before.evictions == 0, "{before:?}");
        cache.lend(0);
        // Nor does the index grow now, at the expense of many chunks.
        assert!(!cache.grow_index(cache.index.hash(&key(next))));
        assert_eq!(cache.stats().evictions, 0);
        let mut writes = 0;
        while cache.stats().bytes > share {
            put(&mut cache, next + writes);
            writes += 1;
            assert!(writes < 10_000, "{:?}", cache.stats());
        }
        assert!(writes > 500, "{writes} writes have given it back");
    }

    #[test]
    fn an_index_that_grows_takes_the_memory_from_the_records() {
        let limit = 8 << 20;
        let mut cache = cache(limit as u64);
        let (mut most_freed, mut before) = (0, 0);
        for number in 0..200_000_u32 {
            let key = [b"key of".as_slice(), &number.to_be_bytes()].concat();
            cache.put(&key, &[7; 10]);
            cache.get(&key);
            assert!(cache.held() <= limit, "{} of {limit} bytes", cache.held());
            most_freed = most_freed.max(before.max(cache.log.chunks()) - cache.log.chunks());
            before = cache.log.chunks();
        }
        assert!(most_freed <= 2, "one write has given up {most_freed} chunks");
        assert!(cache.held() > limit / 10 * 9);
    }
}
