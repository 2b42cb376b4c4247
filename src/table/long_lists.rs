//! The lengths of lists, as far as folding has shown them.
//!
//! An append reads nothing, so the length of a list is unknown until its operands are folded: by a
//! flush, a compaction or a read, wherever RocksDB does it. Long lists are noted here, for the
//! operator's thread to read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes from which on a list is noted.
const LONG: usize = 16 << 20;
/// Keys that are held until they are read; of more, the longest.
const MOST_KEYS: usize = 1024;

/// Long lists by encoded key. See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct LongLists {
    /// Whether there is anything to take.
    noted: AtomicBool,
    totals: Mutex<BTreeMap<Vec<u8>, u64>>,
    /// The list that was too long to be folded, if there was one.
    refused: Mutex<Option<(Vec<u8>, u64)>>,
}

impl LongLists {
    /// What was stored for `key` comes to so many bytes at least.
    pub(super) fn note(&self, key: &[u8], bytes: usize) {
        if bytes < LONG {
            return;
        }
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let total = totals.entry(key.to_vec()).or_default();
        *total = (*total).max(bytes as u64);
        if totals.len() > MOST_KEYS {
            let shortest = totals.iter().min_by_key(|(_, bytes)| **bytes).map(|(key, _)| key.clone());
            shortest.into_iter().for_each(|key| _ = totals.remove(&key));
        }
        self.noted.store(true, Ordering::Release);
    }

    /// What is stored for `key` is too long to be folded.
    pub(super) fn refuse(&self, key: &[u8], bytes: u64) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((key.to_vec(), bytes));
    }

    /// The list that was refused last.
    pub(super) fn refused(&self) -> Option<(Vec<u8>, u64)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was noted since the last call. One load of an atomic where nothing was.
    pub(crate) fn take(&self) -> BTreeMap<Vec<u8>, u64> {
        if !self.noted.load(Ordering::Relaxed) {
            return BTreeMap::new();
        }
        self.noted.store(false, Ordering::Release);
        std::mem::take(&mut *self.totals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_held_until_they_are_taken() {
        let lists = LongLists::default();
        lists.note(b"short", LONG - 1);
        assert!(lists.take().is_empty());
        for n in 0..=MOST_KEYS {
            lists.note(&n.to_be_bytes(), LONG + n);
        }
        lists.note(&7_usize.to_be_bytes(), 2 * LONG);
        lists.note(&7_usize.to_be_bytes(), LONG);
        let taken = lists.take();
        assert_eq!(taken.len(), MOST_KEYS);
        assert!(!taken.contains_key(0_usize.to_be_bytes().as_slice()));
        assert_eq!(taken[7_usize.to_be_bytes().as_slice()], 2 * LONG as u64);
        assert!(lists.take().is_empty());
    }
}
