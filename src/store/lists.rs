//! How long lists may become.
//!
//! The elements appended to a key are one value to RocksDB, whose lengths end at 4 GiB, and folding
//! that value needs its bytes twice. A list therefore has a limit far below 4 GiB, and an append
//! beyond the limit is refused, with the key named. An append reads nothing, so it does not know
//! how long the list is. Two sources give an estimate without a read: large appends are counted
//! here, and folds report long lists (`table/long_lists.rs`). Neither is exact, because a list may
//! have been cleared since. Before an append is refused, the list is therefore read once.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::key;
use crate::key_group::KeyGroup;

use super::state_options::State;
use super::state_store::StateStore;

/// Longest list of a key in bytes, as it is stored.
pub(crate) const MAX_LIST_LEN: u64 = 1 << 30;
/// An append of this size is worth being counted.
const LARGE_APPEND: usize = 64 << 10;
/// Keys that are counted; of more, the longest.
const MOST_KEYS: usize = 1024;

/// What is known of long lists: bytes by encoded key, a guess from both sides.
#[derive(Debug)]
pub(super) struct Lists {
    limit: u64,
    bytes: BTreeMap<Vec<u8>, u64>,
    longest: u64,
}

impl Default for Lists {
    fn default() -> Self {
        Self { limit: MAX_LIST_LEN, bytes: BTreeMap::new(), longest: 0 }
    }
}

/// What became of a list's length by an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grown {
    /// Nothing to report.
    Unremarkably,
    /// It exceeds half of the limit now.
    PastHalf,
}

impl Lists {
    fn of(&self, key: &[u8]) -> u64 {
        self.bytes.get(key).copied().unwrap_or_default()
    }

    /// A fold or an append has met a list of this many bytes.
    fn learn(&mut self, key: &[u8], bytes: u64) -> Grown {
        let before = self.of(key);
        self.set(key, before.max(bytes));
        if before <= self.limit / 2 && bytes > self.limit / 2 { Grown::PastHalf } else { Grown::Unremarkably }
    }

    fn set(&mut self, key: &[u8], bytes: u64) {
        self.longest = self.longest.max(bytes);
        match self.bytes.get_mut(key) {
            Some(known) => *known = bytes,
            None => _ = self.bytes.insert(key.to_vec(), bytes),
        }
        if self.bytes.len() > MOST_KEYS {
            // A short list is the least loss: it would be met again before it becomes too long.
            let shortest = self.bytes.iter().min_by_key(|(_, bytes)| **bytes).map(|(key, _)| key.clone());
            shortest.into_iter().for_each(|key| _ = self.bytes.remove(&key));
        }
    }
}

impl StateStore {
    /// Refuses an append that would make a list too long, before anything of it is written, or
    /// counts it.
    pub(super) fn reserve_list(
        &mut self,
        state: State,
        group: KeyGroup,
        key: &[u8],
        bytes: usize,
    ) -> Result<()> {
        let Some((encoded, after)) = self.check_room(state, group, key, bytes)? else { return Ok(()) };
        if self.lists.learn(&encoded, after) == Grown::PastHalf {
            self.warn_of_list(&encoded, after);
        }
        Ok(())
    }

    /// Refuses an append of this many bytes as [`StateStore::append`] would; counts nothing.
    pub(crate) fn check_list_room(
        &mut self,
        state: State,
        group: KeyGroup,
        key: &[u8],
        bytes: usize,
    ) -> Result<()> {
        self.check_room(state, group, key, bytes).map(drop)
    }

    /// The encoded key and the length of the list after the append. None if the length is unknown
    /// and the append is small.
    fn check_room(
        &mut self,
        state: State,
        group: KeyGroup,
        key: &[u8],
        bytes: usize,
    ) -> Result<Option<(Vec<u8>, u64)>> {
        // Folds since the last append may have met long lists.
        for (key, bytes) in self.table().long_lists().take() {
            if self.lists.learn(&key, bytes) == Grown::PastHalf {
                self.warn_of_list(&key, bytes);
            }
        }
        // The usual case, in which no key is encoded for this.
        if bytes < LARGE_APPEND && self.lists.bytes.is_empty() {
            return Ok(None);
        }
        let mut encoded = Vec::with_capacity(key::PREFIX_LEN + key.len());
        key::encode_into(&mut encoded, group, state.id, key);
        let (known, bytes) = (self.lists.of(&encoded), bytes as u64);
        if known == 0 && bytes < LARGE_APPEND as u64 {
            return Ok(None);
        }
        let mut after = known.saturating_add(bytes);
        if after > self.lists.limit {
            // The estimate may be of a list that was cleared since, so the list is read before the
            // append is refused.
            let exact = self.read_list(&encoded)?;
            self.lists.set(&encoded, exact);
            after = exact.saturating_add(bytes);
            if after > self.lists.limit {
                return Err(self.too_long(&encoded, after));
            }
        }
        Ok(Some((encoded, after)))
    }

    /// A list was replaced by one of this many bytes.
    pub(crate) fn replaced_list(&mut self, state: State, group: KeyGroup, key: &[u8], bytes: usize) {
        let mut encoded = Vec::with_capacity(key::PREFIX_LEN + key.len());
        key::encode_into(&mut encoded, group, state.id, key);
        self.lists.set(&encoded, bytes as u64);
    }

    /// Refuses a list that is to be put as a whole.
    pub(crate) fn check_list(&self, state: State, group: KeyGroup, key: &[u8], bytes: usize) -> Result<()> {
        if bytes as u64 <= self.lists.limit {
            return Ok(());
        }
        let mut encoded = Vec::new();
        key::encode_into(&mut encoded, group, state.id, key);
        Err(self.too_long(&encoded, bytes as u64))
    }

    /// Bytes of the longest list that is known of.
    pub(super) fn longest_list(&self) -> u64 {
        self.lists.longest
    }

    fn too_long(&self, key: &[u8], bytes: u64) -> Error {
        Error::invalid(format!("the list would come to {bytes} bytes, more than {}", self.lists.limit))
            .object(self.registry.name_encoded_key(key))
            .advise("remove elements (`retain`, `set`, `clear`), give the state a TTL, or spread them over several keys")
    }

    fn warn_of_list(&self, key: &[u8], bytes: u64) {
        let (key_name, limit) = (self.registry.name_encoded_key(key), self.lists.limit);
        tracing::warn!(list = %key_name, bytes, limit, "a list has grown long; appends beyond the limit are refused");
    }

    #[cfg(test)]
    pub(crate) fn limit_lists(&mut self, limit: u64) {
        self.lists.limit = limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Job, JobOptions, ListState, OpenMode, Opened};

    const LIMIT: u64 = 1 << 20;

    fn open(dir: &tempfile::TempDir) -> Opened {
        let options = JobOptions::new(dir.path(), OpenMode::Create).memory(64_000_000);
        let mut opened = Job::open("memory:///", options).unwrap();
        opened.stores[0].limit_lists(LIMIT);
        opened.stores[0].set_key("user/1").unwrap();
        opened
    }

    #[test]
    fn an_append_beyond_the_limit_is_refused_and_the_key_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(&dir);
        let store = &mut opened.stores[0];
        let list = store.register(ListState::<Vec<u8>>::descriptor("visits")).unwrap();
        let element = vec![7; 100 << 10];
        for _ in 0..10 {
            list.append(store, &element).unwrap();
        }
        for elements in [1, 5] {
            let error = list.extend(store, vec![&element; elements]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            for word in ["\"visits\"", "key \"user/1\"", "1048576", "retain"] {
                assert!(error.to_string().contains(word), "{word}: {error}");
            }
        }
        assert_eq!(list.get(store).unwrap().len(), 10, "nothing of what was refused is there");
        assert!(store.stats().longest_list_bytes > LIMIT * 9 / 10, "{:?}", store.stats());
        // Small ones count as well, because the list is known to be long.
        list.append(store, &vec![7; 20 << 10]).unwrap();
        assert!(list.append(store, &vec![7; 10 << 10]).is_err());
        // Other keys are free, and so is this one once it is shorter.
        store.set_key("user/2").unwrap();
        list.append(store, &element).unwrap();
        store.set_key("user/1").unwrap();
        let mut left = 0;
        list.retain(store, |_| {
            left += 1;
            left <= 3
        })
        .unwrap();
        for _ in 0..7 {
            list.append(store, &element).unwrap();
        }
        assert!(list.append(store, &element).is_err());
        list.clear(store).unwrap();
        for _ in 0..10 {
            list.append(store, &element).unwrap();
        }
        // A whole list as well.
        let error = list.set(store, vec![&element; 11]).unwrap_err();
        assert!(error.to_string().contains("user/1"), "{error}");
        assert_eq!(list.get(store).unwrap().len(), 10);
        list.set(store, vec![&element; 10]).unwrap();
    }

    /// Appends too small to be counted, until a fold has reported their sum.
    #[test]
    fn a_list_of_small_appends_is_known_once_it_was_folded() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(&dir);
        let store = &mut opened.stores[0];
        store.limit_lists(17 << 20);
        let list = store.register(ListState::<Vec<u8>>::descriptor("visits")).unwrap();
        let element = vec![7; LARGE_APPEND - 100];
        for _ in 0..280 {
            list.append(store, &element).unwrap();
        }
        assert_eq!(store.longest_list(), 0, "nothing was counted");
        assert_eq!(list.get(store).unwrap().len(), 280);
        // A fold by whomever tells of it, and appends are counted from the next one on.
        opened.job.trigger("").and_then(|cut| store.cut(cut.id(), "")).unwrap();
        opened.job.settle(std::time::Duration::from_secs(60)).unwrap();
        opened.job.compact().unwrap();
        store.set_key("user/1").unwrap();
        assert_eq!(list.get(store).unwrap().len(), 280);
        assert!(list.append(store, &element).is_err());
        assert!(store.longest_list() > 16 << 20);
    }

    #[test]
    fn what_is_appended_in_pieces_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(&dir);
        let store = &mut opened.stores[0];
        store.limit_lists(70 << 20);
        let list = store.register(ListState::<Vec<u8>>::descriptor("visits")).unwrap();
        // Three pieces, of which two would fit.
        let element = vec![7; 33 << 20];
        assert!(list.extend(store, [&element, &element, &element]).is_err());
        assert!(!list.contains(store).unwrap());
    }

    #[test]
    fn a_merge_of_namespaces_that_would_be_too_long_moves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(&dir);
        let store = &mut opened.stores[0];
        let list = store.register(ListState::<Vec<u8>>::descriptor("visits").namespaced::<u8>()).unwrap();
        let element = vec![7; 100 << 10];
        list.at(&1).extend(store, vec![&element; 6]).unwrap();
        list.at(&2).extend(store, vec![&element; 6]).unwrap();
        assert!(list.merge(store, &1, &[2]).is_err());
        let lengths =
            |store: &StateStore| [1, 2].map(|namespace| list.at(&namespace).get(store).unwrap().len());
        assert_eq!(lengths(store), [6, 6]);
        list.at(&2).retain(store, |_| false).unwrap();
        list.at(&2).append(store, &element).unwrap();
        list.merge(store, &1, &[2]).unwrap();
        assert_eq!(lengths(store), [7, 0]);
    }

    #[test]
    fn what_folds_tell_counts_and_the_longest_are_kept() {
        let mut lists = Lists { limit: 100, ..Lists::default() };
        assert_eq!(lists.learn(b"a", 50), Grown::Unremarkably);
        assert_eq!(lists.learn(b"a", 51), Grown::PastHalf);
        assert_eq!(lists.learn(b"a", 60), Grown::Unremarkably);
        assert_eq!(lists.learn(b"a", 20), Grown::Unremarkably, "of an older fold");
        assert_eq!(lists.of(b"a"), 60);
        for n in 0..=MOST_KEYS as u64 {
            lists.learn(&n.to_be_bytes(), n);
        }
        assert_eq!(lists.bytes.len(), MOST_KEYS);
        assert_eq!((lists.of(b"a"), lists.longest), (60, MOST_KEYS as u64));
    }
}
