//! An ordered map that knows, in tests, how many of its entries were looked at. A test can so hold
//! that a checkpoint does not walk over the whole changelog, without a clock.

#[cfg(test)]
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Has no way to an entry that does not count.
#[derive(Debug)]
pub(super) struct Counted<K, V> {
    map: BTreeMap<K, V>,
    #[cfg(test)]
    looks: Cell<u64>,
}

impl<K: Ord, V> Counted<K, V> {
    /// How many entries were looked at so far.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks.get()
    }

    #[inline]
    fn look(&self) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.look();
        self.map.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.look();
        self.map.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.look();
        self.map.insert(key, value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.look();
        self.map.remove(key)
    }

    /// Takes the first entry out if its key is at most `last`.
    pub(super) fn pop_through(&mut self, last: &K) -> Option<V> {
        self.look();
        let first = self.map.first_entry()?;
        (first.key() <= last).then(|| first.remove())
    }

    pub(super) fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.range(range).inspect(|_| self.look())
    }

    pub(super) fn range_mut(
        &mut self,
        range: impl RangeBounds<K>,
    ) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        #[cfg(test)]
        let looks = &self.looks;
        self.map.range_mut(range).inspect(move |_| {
            #[cfg(test)]
            looks.set(looks.get() + 1);
        })
    }

    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.range(..).map(|(_, value)| value)
    }
}

impl<K, V> Default for Counted<K, V> {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            #[cfg(test)]
            looks: Cell::new(0),
        }
    }
}
