//! [`RecordCache`]: the current values of keys, as many as fit.

mod room;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::deletions::Deletions;
use super::index::{Index, KeyHash, SlotIndex};
use super::log::{CHUNK, Content, Log, Pos, record_len};
use super::memory::{CacheLimits, CacheMemory};
use super::offers::Offers;
use super::reserve::Reserve;
use super::worth::{Standing, Worth};
use crate::ids::StateId;
use crate::key::state_of;

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
        let Some((at, pos)) = self.find(self.index.hash(key), key) else {
            self.misses.set(self.misses.get() + 1);
            return Cached::Unknown;
        };
        let (content, time) = self.log.content(pos);
        if !self.is_valid(standing, key, time) {
            self.misses.set(self.misses.get() + 1);
            return Cached::Unknown;
        }
        self.index.mark(at);
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
        let Some((at, pos)) = self.find(hash, key) else { return };
        let (content, time) = self.log.content(pos);
        // An operand that is folded into a stale value would make a value that never was.
        if !self.is_valid(self.worth.standing(state(key)), key, time) {
            self.index.remove(at);
            return;
        }
        let (keep, now) = (content.bytes().len(), self.now.get());
        if self.log.set(pos, keep, Content::Value(operand), now) {
            return;
        }
        self.index.remove(at);
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
        // What reads have offered is from before the deletion, and has to get the time from before it.
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
        if let Some((at, _)) = self.find(self.index.hash(key), key) {
            self.index.remove(at);
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
    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<(SlotIndex, Pos)> {
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
            Some((at, pos)) => {
                if self.log.set(pos, 0, content, self.now.get()) {
                    return;
                }
                // The record stays behind, and is passed over when its turn comes.
                self.index.remove(at);
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
        // In this order: growing the index may give up old chunks, but never the newest.
        if !self.make_room(len) {
            return;
        }
        if self.index.growth(hash) > 0 && !self.grow_index(hash) {
            return;
        }
        let pos = self.log.push(key, content, room, self.now.get());
        self.index.insert(hash, pos);
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
