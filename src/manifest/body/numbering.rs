//! Numbers for values that repeat. A value is spelled out where it is met first.

use std::hash::Hash;

use crate::error::{Error, Result};

/// Numbers for what is met, in that order.
pub(super) struct Table<T, V> {
    list: Vec<(T, V)>,
    numbers: foldhash::HashMap<T, usize>,
    /// Most are met several times in a row.
    recent: usize,
}

impl<T, V> Default for Table<T, V> {
    fn default() -> Self {
        Self { list: Vec::new(), numbers: foldhash::HashMap::default(), recent: 0 }
    }
}

impl<T: Copy + Eq + Hash, V: Default> Table<T, V> {
    /// The number of `item`, and whether it is new.
    pub(super) fn number(&mut self, item: T) -> (usize, bool) {
        if self.list.get(self.recent).is_some_and(|(recent, _)| *recent == item) {
            return (self.recent, false);
        }
        let next = self.list.len();
        self.recent = *self.numbers.entry(item).or_insert(next);
        if self.recent == next {
            self.list.push((item, V::default()));
        }
        (self.recent, self.recent == next)
    }

    pub(super) fn value(&mut self, number: usize) -> Result<&mut V> {
        let value = self.list.get_mut(number).map(|(_, value)| value);
        value.ok_or_else(|| Error::internal("a manifest names a place that it does not know"))
    }
}
