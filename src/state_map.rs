//! [`StateMap`]: something small for each of any number of states, found in a few instructions.

use crate::ids::StateId;

/// Values by state. Ids are checksums, so their lowest bits spread well enough to be the slot.
#[derive(Debug)]
pub(crate) struct StateMap<V> {
    /// A power of two, at least twice as many as are taken, or none.
    slots: Vec<Option<(StateId, V)>>,
    len: usize,
}

impl<V> Default for StateMap<V> {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }
}

impl<V: Copy> StateMap<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn get(&self, state: StateId) -> Option<V> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = state.0 as usize & mask;
        loop {
            match self.slots.get(at)? {
                Some((found, value)) if *found == state => return Some(*value),
                Some(_) => at = (at + 1) & mask,
                None => return None,
            }
        }
    }

    /// Sets the value of a state.
    pub(crate) fn insert(&mut self, state: StateId, value: V) {
        if 2 * (self.len + 1) > self.slots.len() {
            let larger = (2 * self.slots.len()).max(8);
            let old = std::mem::replace(&mut self.slots, vec![None; larger]);
            self.len = 0;
            for (state, value) in old.into_iter().flatten() {
                self.insert(state, value);
            }
        }
        let mask = self.slots.len() - 1;
        let mut at = state.0 as usize & mask;
        while self.slots[at].is_some_and(|(found, _)| found != state) {
            at = (at + 1) & mask;
        }
        self.len += usize::from(self.slots[at].is_none());
        self.slots[at] = Some((state, value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(entries in prop::collection::vec((0..200_u32, any::<u8>()), 0..300), spread in 1..64_u32) {
            let (mut map, mut model) = (StateMap::default(), BTreeMap::new());
            for (id, value) in entries {
                // Some share their lowest bits.
                map.insert(StateId(id * spread), value);
                model.insert(id, value);
                prop_assert_eq!((map.len, map.is_empty()), (model.len(), false));
                prop_assert!(map.slots.len() >= 2 * map.len);
            }
            for id in 0..201 {
                prop_assert_eq!(map.get(StateId(id * spread)), model.get(&id).copied());
            }
        }
    }
}
