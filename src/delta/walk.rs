//! [`Walk`]: a position among the ordered keys of a table that is no longer written to.
//!
//! It borrows nothing, so that a scan can hold the table and the place side by side: it copies the
//! positions of a leaf at a time, which are 4 bytes a key, and finds the next leaf by the separator
//! of the last one.

use super::Direction;
use super::arena::Pos;
use super::memtable::Memtable;

/// Stands at an ordered key of a table, or behind the last one.
#[derive(Debug)]
pub(crate) struct Walk {
    direction: Direction,
    separator: Box<[u8]>,
    positions: Vec<Pos>,
    /// How many positions were passed: from the front when walking forward, from the back when
    /// walking backward.
    passed: usize,
}

impl Walk {
    /// Behind the last key of any table.
    pub(crate) fn nowhere() -> Self {
        Self { direction: Direction::Forward, separator: Box::default(), positions: Vec::new(), passed: 0 }
    }

    /// At the first key from `bound` on, or at the last one below it.
    pub(crate) fn new(table: &Memtable, direction: Direction, bound: &[u8]) -> Self {
        let mut walk = Self { direction, ..Self::nowhere() };
        let (index, arena) = table.ordered();
        walk.enter(match direction {
            Direction::Forward => index.leaf_from(bound, arena),
            Direction::Backward => index.leaf_below(bound, arena),
        });
        walk
    }

    /// The position of the key that it stands at.
    pub(crate) fn position(&self) -> Option<Pos> {
        let at = match self.direction {
            Direction::Forward => self.passed,
            Direction::Backward => self.positions.len().checked_sub(self.passed + 1)?,
        };
        self.positions.get(at).copied()
    }

    /// Steps to the next key of the same table.
    pub(crate) fn advance(&mut self, table: &Memtable) {
        self.passed += 1;
        if self.passed < self.positions.len() || self.positions.is_empty() {
            return;
        }
        let (index, _) = table.ordered();
        self.enter(match self.direction {
            Direction::Forward => index.leaf_after(&self.separator),
            Direction::Backward => index.leaf_before(&self.separator),
        });
    }

    fn enter(&mut self, leaf: Option<(&[u8], &[Pos])>) {
        self.positions.clear();
        self.passed = 0;
        if let Some((separator, positions)) = leaf {
            self.separator = separator.into();
            self.positions.extend_from_slice(positions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::TableKind;
    use super::super::arena::Arena;
    use super::super::hash::HashIndex;
    use super::*;

    fn walked(table: &Memtable, direction: Direction, bound: &[u8]) -> Vec<Vec<u8>> {
        let mut walk = Walk::new(table, direction, bound);
        let mut keys = Vec::new();
        while let Some(pos) = walk.position() {
            keys.push(table.point(pos).0.to_vec());
            walk.advance(table);
        }
        walk.advance(table);
        assert_eq!(walk.position(), None, "nothing follows the end");
        keys
    }

    proptest! {
        #[test]
        fn walks_over_all_leaves_in_both_directions(
            keys in prop::collection::vec(any::<u16>(), 0..1500),
            removed in prop::collection::vec((any::<u16>(), 0..4000_u16), 0..4),
            bounds in prop::collection::vec(any::<u16>(), 1..8),
        ) {
            let mut table = Memtable::new(Arena::default(), HashIndex::with_hint(0, None));
            let mut model = BTreeSet::new();
            for key in keys {
                table.put(TableKind::Ordered, &key.to_be_bytes(), b"");
                model.insert(key);
            }
            for (start, len) in removed {
                let end = start.saturating_add(len);
                table.delete_range(&start.to_be_bytes(), &end.to_be_bytes());
                model.retain(|key| !(start..end).contains(key));
            }
            // Not in the walk.
            table.put(TableKind::Hash, &[0, 1, 2], b"");
            for bound in bounds {
                let bytes = bound.to_be_bytes();
                let up: Vec<_> = model.range(bound..).map(|key| key.to_be_bytes().to_vec()).collect();
                let down: Vec<_> = model.range(..bound).rev().map(|key| key.to_be_bytes().to_vec()).collect();
                prop_assert_eq!(walked(&table, Direction::Forward, &bytes), up);
                prop_assert_eq!(walked(&table, Direction::Backward, &bytes), down);
            }
        }
    }
}
