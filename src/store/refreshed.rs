//! Values that reads have given a new time, until they can be written.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use crate::delta::{Entry, RangeSet, TableKind};

use super::scan::ScanBuilder;

/// A layer above the active delta, for reads that count as accesses (see `Ttl`): these have the store
/// shared and cannot write. It is emptied by the next call that can, of which there is one for each
/// key, so it holds what was read for one key. It is not under the budget of deltas: reads never wait.
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    values: RefCell<Values>,
    /// Of keys and values.
    bytes: Cell<u64>,
}

/// By encoded key.
type Values = BTreeMap<Vec<u8>, (TableKind, Vec<u8>)>;

impl Refreshed {
    pub(super) fn insert(&self, key: Vec<u8>, kind: TableKind, value: Vec<u8>) {
        let size = |key: u64, value: &[u8]| key + value.len() as u64;
        let (key_len, mut bytes) = (key.len() as u64, self.bytes.get());
        bytes += size(key_len, &value);
        if let Some((_, old)) = self.values.borrow_mut().insert(key, (kind, value)) {
            bytes -= size(key_len, &old);
        }
        self.bytes.set(bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.values.borrow().get(key).map(|(_, value)| value.clone())
    }

    /// Gives its part of the range to a scan, to which the newest layer comes first.
    pub(super) fn scan(&self, builder: &mut ScanBuilder) {
        let values = self.values.borrow();
        if values.is_empty() {
            return;
        }
        let (start, end) = builder.bounds();
        let range = values.range::<[u8], _>((Included(start), Excluded(end.max(start))));
        let puts = range.map(|(key, (_, value))| (key.as_slice(), Entry::Put(value)));
        builder.copied(None, puts, &RangeSet::new());
    }

    pub(super) fn take(&mut self) -> Values {
        self.bytes.set(0);
        std::mem::take(self.values.get_mut())
    }
}
