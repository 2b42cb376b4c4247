//! The first keys of one key group, as far as they are known.

use std::collections::BTreeSet;

/// Memory of a key beside its bytes: the vector, and its part of a tree node.
pub(super) const OVERHEAD: usize = 64;

/// The known keys of one group. They are complete below `unread`, and there are none above.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) known: BTreeSet<Vec<u8>>,
    /// Keys from here on were not read. None: all keys are known.
    pub(super) unread: Option<Vec<u8>>,
    /// Of the known keys.
    pub(super) bytes: usize,
}

impl Group {
    /// No key of the group is below this; None if it has none.
    pub(super) fn bound(&self) -> Option<&Vec<u8>> {
        self.known.first().or(self.unread.as_ref())
    }

    pub(super) fn knows(&self, key: &[u8]) -> bool {
        self.unread.as_ref().is_none_or(|unread| key < unread.as_slice())
    }

    pub(super) fn insert(&mut self, key: Vec<u8>) {
        let bytes = key.len() + OVERHEAD;
        if self.known.insert(key) {
            self.bytes += bytes;
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.known.remove(key) {
            self.bytes -= key.len() + OVERHEAD;
        }
    }

    /// Forgets the last known key. It is read again when its turn comes.
    pub(super) fn forget_last(&mut self) {
        if let Some(key) = self.known.pop_last() {
            self.bytes -= key.len() + OVERHEAD;
            self.unread = Some(key);
        }
    }

    /// Bytes of the group, with the copy of its bound in the order.
    pub(super) fn weight(&self) -> usize {
        let len = |key: Option<&Vec<u8>>| key.map_or(0, Vec::len);
        self.bytes + len(self.unread.as_ref()) + len(self.bound())
    }

    /// The next key must stay known, or it would be read and forgotten again and again.
    pub(super) fn shrink(&mut self, head: &[u8], short: usize) {
        let shortened = |key: &Vec<u8>| key.get(..short).map(<[u8]>::to_vec);
        let Some(bound) = self.bound() else { return };
        let about = shortened(bound).unwrap_or_else(|| bound.clone());
        // The group's turn does not come next, so none of its keys is needed now.
        if about.as_slice() > head {
            self.known.clear();
            self.bytes = 0;
            self.unread = Some(about);
            return;
        }
        // The turn may come next: one key stays.
        while self.known.len() > 1 {
            self.forget_last();
        }
        let about = self.unread.as_ref().and_then(shortened);
        if let Some(about) = about.filter(|about| self.known.last().is_some_and(|last| last < about)) {
            self.unread = Some(about);
        }
    }
}
