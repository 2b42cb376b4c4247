//! Which records a deleted range has made stale.
//!
//! Records of a range cannot be found by the hash index. So each record has a time, and a deletion
//! notes the time from which on records of its key group and state are right. That gives up more
//! than the range, but only of one key group, and only what is read again is fetched again.

use std::collections::BTreeMap;

use crate::key::{PREFIX_LEN, successor};

/// Key groups of states with their own time. With more, all records become stale at once. The
/// times then take some 100 KB, which is not counted as the cache's memory.
const MOST_PREFIXES: usize = 1 << 12;

/// The times from which on records are right.
#[derive(Default)]
pub(super) struct Deletions {
    /// By key group and state.
    since: BTreeMap<[u8; PREFIX_LEN], u32>,
    /// For all.
    all_since: u32,
}

impl Deletions {
    /// Notes that keys from `start` up to but without `end` were deleted. `now` is a time that no
    /// record has yet.
    pub(super) fn note(&mut self, start: &[u8], end: &[u8], now: u32) {
        let prefix = start.first_chunk::<PREFIX_LEN>();
        let within = prefix.filter(|prefix| successor(&prefix[..]).is_none_or(|after| end <= &*after));
        match within {
            Some(prefix) if self.since.len() < MOST_PREFIXES => _ = self.since.insert(*prefix, now),
            _ => {
                self.since.clear();
                self.all_since = now;
            }
        }
    }

    /// Whether a record of this key and time is right.
    #[inline]
    pub(super) fn spare(&self, key: &[u8], time: u32) -> bool {
        time >= self.all_since && (self.since.is_empty() || self.spares_prefix(key, time))
    }

    fn spares_prefix(&self, key: &[u8], time: u32) -> bool {
        let since = key.first_chunk::<PREFIX_LEN>().and_then(|prefix| self.since.get(prefix));
        since.is_none_or(|since| time >= *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_reaches_its_key_group_and_state_alone() {
        let mut deletions = Deletions::default();
        assert!(deletions.spare(b"0aaaa1key", 0));
        deletions.note(b"0aaaa1ka", b"0aaaa1kz", 5);
        assert!(!deletions.spare(b"0aaaa1key", 4) && deletions.spare(b"0aaaa1key", 5));
        assert!(deletions.spare(b"0aaaa2key", 4) && deletions.spare(b"0baaa1key", 4));
        deletions.note(b"0aaaa2", b"0aaaa3", 6);
        assert!(!deletions.spare(b"0aaaa2key", 5) && deletions.spare(b"0aaaa3key", 5));
    }

    #[test]
    fn a_deletion_over_several_states_or_of_too_many_reaches_everything() {
        let mut deletions = Deletions::default();
        deletions.note(b"0aaaa1", b"0aaaa3", 1);
        assert!(!deletions.spare(b"zzzzzz", 0) && deletions.spare(b"zzzzzz", 1));
        for state in 0..=MOST_PREFIXES as u32 {
            let start = [&[0, 7][..], &state.to_be_bytes()].concat();
            let end = successor(&start).unwrap();
            deletions.note(&start, &end, 2);
        }
        assert!(!deletions.spare(b"zzzzzz", 1) && deletions.since.len() < MOST_PREFIXES);
    }
}
