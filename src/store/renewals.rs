//! Values whose access time a read has renewed, until they can be written.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use crate::delta::{ActiveDelta, Entry, FrozenDelta, Lookup, RangeSet, TableKind};

use super::layer::Layer;
use super::scan::ScanBuilder;

/// A layer above the active delta, for reads that count as accesses (see `Ttl`). Such reads borrow
/// the store shared and cannot write. The next call that can write empties the layer, at the latest
/// the call that sets the next key.
///
/// A key may have a map of millions of entries, and one iteration renews them all. The reading call
/// itself therefore *hands over* what exceeds a bound, as a delta of its own that goes to the
/// background like any other ([`Renewals::portion`]). Keys that the active delta knows stay,
/// because the handed-over delta is numbered before it. They are at most as many as the active
/// delta holds.
#[derive(Debug)]
pub(super) struct Renewals {
    values: RefCell<Values>,
    /// Deltas that were handed over, oldest first, until the layers take them in.
    handed: RefCell<Vec<Arc<Layer>>>,
    /// Of keys and values.
    bytes: Cell<u64>,
    /// At how many bytes a portion is due.
    due: Cell<u64>,
    /// Bytes of a portion.
    portion: u64,
    /// Whether there is anything at all: looked at by every operation.
    any: Cell<bool>,
}

/// By encoded key.
pub(super) type Values = BTreeMap<Vec<u8>, (TableKind, Vec<u8>)>;

impl Renewals {
    /// Gathers about `portion` bytes at a time.
    pub(super) fn new(portion: u64) -> Self {
        Self {
            values: RefCell::default(),
            handed: RefCell::default(),
            bytes: Cell::new(0),
            due: Cell::new(portion),
            portion,
            any: Cell::new(false),
        }
    }

    /// True once a portion is to be handed over.
    pub(super) fn insert(&self, key: Vec<u8>, kind: TableKind, value: Vec<u8>) -> bool {
        let size = |key: u64, value: &[u8]| key + value.len() as u64;
        let (key_len, mut bytes) = (key.len() as u64, self.bytes.get());
        bytes += size(key_len, &value);
        if let Some((_, old)) = self.values.borrow_mut().insert(key, (kind, value)) {
            bytes -= size(key_len, &old);
        }
        self.bytes.set(bytes);
        self.any.set(true);
        bytes >= self.due.get()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any.get()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        if let Some((_, value)) = self.values.borrow().get(key) {
            return Some(value.clone());
        }
        self.handed.borrow().iter().rev().find_map(|layer| match layer.delta.get(key) {
            Lookup::Value(value) => Some(value.to_vec()),
            _ => None,
        })
    }

    /// Gives its part of the range to a scan, to which the newest layer comes first.
    pub(super) fn scan(&self, builder: &mut ScanBuilder) {
        let values = self.values.borrow();
        if !values.is_empty() {
            let (start, end) = builder.bounds();
            let range = values.range::<[u8], _>((Included(start), Excluded(end.max(start))));
            let puts = range.map(|(key, (_, value))| (key.as_slice(), Entry::Put(value)));
            builder.copied(None, puts, &RangeSet::new());
        }
        self.handed.borrow().iter().rev().for_each(|layer| builder.frozen(layer));
    }

    /// Takes out the values of keys that the active delta does not know, by `touches`, as a delta
    /// that comes before the active one.
    pub(super) fn portion(&self, touches: impl Fn(&[u8]) -> bool) -> Option<FrozenDelta> {
        let values = self.values.take();
        let (mut delta, mut stay, mut bytes) = (ActiveDelta::new(), Values::new(), 0);
        for (key, (kind, value)) in values {
            if touches(&key) {
                bytes += (key.len() + value.len()) as u64;
                stay.insert(key, (kind, value));
            } else {
                delta.put(kind, &key, &value);
            }
        }
        self.values.replace(stay);
        self.bytes.set(bytes);
        // Otherwise every read would go through the values that stay.
        self.due.set(bytes + self.portion);
        (!delta.is_empty()).then(|| delta.cut())
    }

    /// A portion is on its way, as this layer.
    pub(super) fn handed(&self, layer: Arc<Layer>) {
        let mut handed = self.handed.borrow_mut();
        handed.retain(|layer| !layer.is_applied());
        handed.push(layer);
    }

    /// Drops layers that the table holds.
    pub(super) fn purge(&self) {
        self.handed.borrow_mut().retain(|layer| !layer.is_applied());
    }

    /// All of it, to be written: the layers on their way, oldest first, and the values.
    pub(super) fn take(&mut self) -> (Vec<Arc<Layer>>, Values) {
        self.bytes.set(0);
        self.due.set(self.portion);
        self.any.set(false);
        (std::mem::take(self.handed.get_mut()), std::mem::take(self.values.get_mut()))
    }

    /// The values alone, to be written by a call that has the store shared.
    pub(super) fn take_values(&self) -> Values {
        self.bytes.set(0);
        self.due.set(self.portion);
        self.values.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeltaSeq;

    fn insert(renewals: &Renewals, key: &str, len: usize) -> bool {
        renewals.insert(key.into(), TableKind::Ordered, vec![7; len])
    }

    #[test]
    fn a_portion_has_what_the_active_delta_does_not_know() {
        let mut renewals = Renewals::new(100);
        assert!(renewals.is_empty());
        assert!(!insert(&renewals, "both", 40) && !insert(&renewals, "one", 20));
        assert!(insert(&renewals, "two", 40));
        let portion = renewals.portion(|key| key == b"both").unwrap();
        assert_eq!(portion.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(renewals.bytes(), 44);
        renewals.handed(Layer::new(DeltaSeq(5), portion));
        // What was handed over is read until the table has it.
        for key in ["both", "one", "two"] {
            assert!(renewals.get(key.as_bytes()).is_some(), "{key}");
        }
        assert_eq!(renewals.get(b"three"), None);
        // The next portion is due when as much has gathered again.
        assert!(!insert(&renewals, "both", 41) && !insert(&renewals, "three", 93));
        assert!(insert(&renewals, "four", 0) && renewals.portion(|_| true).is_none());
        let (layers, values) = renewals.take();
        assert_eq!((layers.len(), values.len()), (1, 3));
        assert!(renewals.is_empty() && renewals.bytes() == 0 && renewals.get(b"one").is_none());
    }
}
