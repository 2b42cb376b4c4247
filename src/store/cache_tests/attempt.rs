//! A job that runs, and what is asked of its store directly.

use std::time::Duration;

use super::model::{Key, Model, TTL};
use crate::key_group::KeyGroup;
use crate::{
    Job, ListState, MapState, State, StateOptions, StateStore, TableKind, Ttl, TtlUpdate, ValueState,
};

#[derive(Clone)]
pub(super) struct States {
    pub(super) raw: [State; 3],
    pub(super) value: ValueState<u64>,
    pub(super) list: ListState<u64>,
    pub(super) map: MapState<u16, Vec<u8>>,
}

impl States {
    fn register(store: &mut StateStore) -> Self {
        let ttl = Ttl::new(Duration::from_millis(TTL));
        let on_read = ttl.update(TtlUpdate::OnReadAndWrite);
        let tables = [("hash", TableKind::Hash), ("ordered", TableKind::Ordered), ("lists", TableKind::Hash)];
        Self {
            raw: tables.map(|(name, table)| store.state(&StateOptions::new(name).table(table)).unwrap()),
            value: store.register(ValueState::descriptor("value").ttl(on_read)).unwrap(),
            list: store.register(ListState::descriptor("list").ttl(ttl)).unwrap(),
            map: store.register(MapState::descriptor("map").ttl(on_read)).unwrap(),
        }
    }
}

/// A job that runs.
pub(super) struct Attempt {
    pub(super) job: Job,
    pub(super) store: StateStore,
    pub(super) states: States,
    held: bool,
}

impl Attempt {
    pub(super) fn new(job: Job, mut store: StateStore) -> Self {
        let states = States::register(&mut store);
        Self { job, store, states, held: false }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
        self.store.hold_applies(held);
    }

    /// Lets held deltas go before a write would wait for them.
    pub(super) fn make_room(&mut self) {
        if self.held && self.store.try_reserve().is_err() {
            self.hold(false);
        }
    }

    pub(super) fn get(&self, model: &Model, key: &Key) {
        let value = self.store.get(self.states.raw[key.state], KeyGroup(key.group), &key.user).unwrap();
        assert_eq!(value.as_deref(), model.get(key), "{key:?}");
    }

    pub(super) fn scan(&self, model: &Model, prefix: &Key) {
        let (state, group) = (self.states.raw[prefix.state], KeyGroup(prefix.group));
        let found: Vec<_> =
            self.store.scan_prefix(state, group, &prefix.user).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, model.with_prefix(prefix), "{prefix:?}");
    }
}
