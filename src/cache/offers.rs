//! Values that reads have fetched, until the cache can take them in.
//!
//! A read returns values that lie in the cache, so it must not move any. What it has fetched from
//! the table waits here for the next call that may change the cache.

use std::cell::{Cell, RefCell};

use super::log::Content;

/// Bytes that may wait. What a long series of reads fetches beyond that is not cached.
const MOST_BYTES: usize = 16 << 10;

#[derive(Default)]
pub(super) struct Offers {
    any: Cell<bool>,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    key_len: usize,
    /// None: the key is absent.
    value_len: Option<usize>,
    /// Whether it has become wrong since.
    wrong: bool,
}

impl Entry {
    fn len(&self) -> usize {
        self.key_len + self.value_len.unwrap_or_default()
    }
}

impl Offers {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any.get()
    }

    pub(super) fn add(&self, key: &[u8], value: Option<&[u8]>) {
        let mut waiting = self.waiting.borrow_mut();
        let more = key.len() + value.map_or(0, <[u8]>::len);
        if waiting.bytes.len() + more > MOST_BYTES {
            return;
        }
        waiting.bytes.extend_from_slice(key);
        waiting.bytes.extend_from_slice(value.unwrap_or_default());
        let value_len = value.map(<[u8]>::len);
        waiting.entries.push(Entry { key_len: key.len(), value_len, wrong: false });
        self.any.set(true);
    }

    /// Forgets those of a key. The others stay: a state whose reads renew its values must not keep
    /// every other state out of the cache.
    pub(super) fn forget(&self, key: &[u8]) {
        if self.is_empty() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        let Waiting { bytes, entries } = &mut *waiting;
        let mut rest = bytes.as_slice();
        for entry in entries.iter_mut() {
            let (offered, after) = rest.split_at(entry.len());
            entry.wrong |= &offered[..entry.key_len] == key;
            rest = after;
        }
        // Usually it is the last, and a long series of such reads leaves none behind.
        while let Some(last) = entries.pop_if(|last| last.wrong) {
            bytes.truncate(bytes.len() - last.len());
        }
    }

    fn clear(&self) {
        if self.any.replace(false) {
            let mut waiting = self.waiting.borrow_mut();
            waiting.bytes.clear();
            waiting.entries.clear();
        }
    }

    /// Calls `f` with each, oldest first, and forgets them.
    pub(super) fn drain(&self, mut f: impl FnMut(&[u8], Content<'_>)) {
        let waiting = self.waiting.borrow();
        let mut rest = waiting.bytes.as_slice();
        for entry in &waiting.entries {
            let (key, after) = rest.split_at(entry.key_len);
            let (value, after) = after.split_at(entry.value_len.unwrap_or_default());
            if !entry.wrong {
                f(key, entry.value_len.map_or(Content::Absent, |_| Content::Value(value)));
            }
            rest = after;
        }
        drop(waiting);
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_come_out_in_order_and_are_bounded() {
        let offers = Offers::default();
        assert!(offers.is_empty());
        offers.add(b"a", Some(b"1"));
        offers.add(b"bb", None);
        offers.add(b"c", Some(b""));
        offers.add(b"d", Some(&[0; MOST_BYTES]));
        assert!(!offers.is_empty());
        let mut drained = Vec::new();
        offers.drain(|key, content| drained.push((key.to_vec(), format!("{content:?}"))));
        let expected = [("a", "Value([49])"), ("bb", "Absent"), ("c", "Value([])")];
        assert_eq!(drained, expected.map(|(key, content)| (key.as_bytes().to_vec(), content.to_owned())));
        assert!(offers.is_empty());
        offers.add(b"a", None);
        offers.clear();
        offers.drain(|_, _| panic!("there is none"));
    }

    #[test]
    fn what_is_forgotten_of_a_key_leaves_the_others() {
        let offers = Offers::default();
        offers.forget(b"a");
        for key in [&b"a"[..], b"ab", b"a", b"b"] {
            offers.add(key, Some(b"value"));
        }
        offers.forget(b"a");
        offers.forget(b"absent");
        let mut drained = Vec::new();
        offers.drain(|key, _| drained.push(key.to_vec()));
        assert_eq!(drained, [&b"ab"[..], b"b"]);
        // A long series fills nothing.
        for _ in 0..1000 {
            offers.add(b"a", Some(&[0; 1000]));
            offers.forget(b"a");
        }
        assert!(offers.waiting.borrow().bytes.is_empty());
    }
}
