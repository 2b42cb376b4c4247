//! Who makes room for whom: chunks of records, the index, and what goes back to others.

use crate::cache::index::{Index, KeyHash};
use crate::cache::log::{CHUNK, MOST_CHUNKS};

use super::{FEWEST_CHUNKS, RecordCache, state};

/// Records that get a second chance before one write. More are given up, however often they were
/// used, so that no write takes long.
pub(super) const SECOND_CHANCES: usize = 16;

impl RecordCache {
    /// A write of so many bytes while no state is cached.
    #[inline]
    pub(super) fn idle(&mut self, bytes: usize) {
        if self.log.chunks() > 0 {
            self.give_back();
        }
        let unused = self.reserve.unused(bytes);
        if unused > 0 {
            self.memory.give_back(unused as u64);
        }
    }

    pub(super) fn take(&mut self, bytes: usize) {
        let more = self.reserve.take(bytes);
        self.memory.take(more as u64);
    }

    /// Makes the newest chunk have room for `len` bytes. False if the cache has no memory.
    #[inline]
    pub(super) fn make_room(&mut self, len: usize) -> bool {
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
    pub(super) fn keep_pace(&mut self, len: usize) {
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
    pub(super) fn grow_index(&mut self, hash: KeyHash) -> bool {
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

    pub(super) fn may_grow(&self) -> bool {
        self.held() + CHUNK <= self.limit && self.log.chunks() < MOST_CHUNKS
    }

    #[cold]
    pub(super) fn next_chunk(&mut self) -> bool {
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
    pub(super) fn shed(&mut self, mut bytes: usize) {
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
    pub(super) fn give_up_chunk(&mut self) {
        while self.give_up_one(&mut 0) {}
    }

    /// Gives up the oldest record, or moves it to the newest chunk if it was used and has a chance
    /// left. False if the oldest chunk has none.
    pub(super) fn give_up_one(&mut self, chances: &mut usize) -> bool {
        let Some(oldest) = self.log.take_oldest() else { return false };
        let key = self.log.key(oldest.0);
        let Some((at, _)) = self.index.find(self.index.hash(key), |pos| pos == oldest.0) else {
            // The key has a newer record, or none.
            return true;
        };
        let (_, time) = self.log.content(oldest.0);
        let is_used = *chances > 0
            && self.index.is_marked(at)
            && self.is_valid(self.worth.standing(state(key)), key, time);
        let moved = if is_used { self.log.push_again(oldest) } else { None };
        match moved {
            Some(pos) => {
                *chances -= 1;
                self.index.moved(at, pos);
            }
            None => {
                self.index.remove(at);
                self.evictions += 1;
            }
        }
        true
    }

    /// Frees the oldest chunk, whose records the index no longer has.
    pub(super) fn free_chunk(&mut self) {
        self.log.shrink();
        self.memory.give_back(CHUNK as u64);
    }

    /// Gives memory back: all of the index, and one chunk a call, so that no write takes long.
    #[cold]
    pub(super) fn give_back(&mut self) {
        self.drop_index();
        self.free_chunk();
    }

    pub(super) fn drop_index(&mut self) {
        if self.index_bytes > 0 {
            self.memory.give_back(self.index_bytes as u64);
            (self.index, self.index_bytes) = (Index::default(), 0);
        }
    }
}
