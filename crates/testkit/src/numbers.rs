//! Value states that have a number for each of a few hundred keys.

use alluvium::{Error, StateStore, ValueState};

use crate::clock::owner;

/// The keys are 0 up to this.
pub const KEYS: u64 = 300;

pub fn register(store: &mut StateStore, name: &str) -> Result<ValueState<u64>, Error> {
    store.register(ValueState::<u64>::descriptor(name))
}

/// Puts each key's `factor`-fold.
pub fn fill(stores: &mut [StateStore], name: &str, factor: u64) {
    for key in 0..KEYS {
        let store = owner(stores, &key);
        let state = register(store, name).unwrap();
        store.set_key(&key).unwrap();
        state.put(store, &(key * factor)).unwrap();
    }
}

/// What the keys have. None if none of them has anything; that only some have something is a failure.
pub fn all(stores: &mut [StateStore], name: &str) -> Option<Vec<u64>> {
    let values = (0..KEYS).map(|key| {
        let store = owner(stores, &key);
        let state = register(store, name).unwrap();
        store.set_key(&key).unwrap();
        state.get(store).unwrap()
    });
    let values: Vec<_> = values.flatten().collect();
    assert!(values.is_empty() || values.len() as u64 == KEYS, "{} of them", values.len());
    (!values.is_empty()).then_some(values)
}

/// What [`all`] gives after a [`fill`] with this factor.
pub fn times(factor: u64) -> Option<Vec<u64>> {
    Some((0..KEYS).map(|key| key * factor).collect())
}
