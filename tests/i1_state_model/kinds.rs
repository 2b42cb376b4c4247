//! One state of each kind, as a program uses them.

use std::time::Duration;

use alluvium::state::{At, KeyedState, Scope};
use alluvium::{
    Aggregate, AggregatingState, KeyGroup, ListState, MapState, Namespaced, ReducingState, StateDescriptor,
    StateStore, TableKind, TimerService, Ttl, ValueState,
};
use rand::RngExt;
use rand::rngs::StdRng;

use super::model::{Change, Kind, MapRead, Seen, Window, fold};
use alluvium_testkit::typed::all;

pub(crate) struct Kinds<S> {
    value: ValueState<String, S>,
    list: ListState<String, S>,
    map: MapState<String, String, S>,
    reducing: ReducingState<(u64, u64, u64), S>,
    aggregating: AggregatingState<u64, Vec<u64>, String, S>,
}

/// The handles of one subtask.
pub(crate) struct States {
    pub(crate) plain: Kinds<()>,
    /// Those that may have a TTL.
    pub(crate) windowed: Kinds<Namespaced<Window>>,
    pub(crate) timers: TimerService<str, Window>,
}

/// All inputs in order.
struct Joined;

impl Aggregate<u64, Vec<u64>, String> for Joined {
    fn create(&self) -> Vec<u64> {
        Vec::new()
    }

    fn add(&self, accumulator: &mut Vec<u64>, input: u64) {
        accumulator.push(input);
    }

    fn merge(&self, accumulator: &mut Vec<u64>, other: Vec<u64>) {
        accumulator.extend(other);
    }

    fn result(&self, accumulator: Vec<u64>) -> String {
        accumulator.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Associative, and shows its order.
fn reduce(a: (u64, u64, u64), b: (u64, u64, u64)) -> (u64, u64, u64) {
    (a.0, a.1 + b.1, b.2)
}

impl States {
    pub(crate) fn register(store: &mut StateStore, rng: &mut StdRng, ttl: Option<Duration>) -> Self {
        Self {
            plain: Kinds {
                value: state(store, rng, None, ValueState::descriptor("value")),
                list: state(store, rng, None, ListState::descriptor("list")),
                map: state(store, rng, None, MapState::descriptor("map")),
                reducing: state(store, rng, None, ReducingState::descriptor("reducing", reduce)),
                aggregating: state(store, rng, None, AggregatingState::descriptor("aggregating", Joined)),
            },
            windowed: Kinds {
                value: state(store, rng, ttl, ValueState::descriptor("values").namespaced()),
                list: state(store, rng, ttl, ListState::descriptor("lists").namespaced()),
                map: state(store, rng, ttl, MapState::descriptor("maps").namespaced()),
                reducing: state(store, rng, ttl, ReducingState::descriptor("reduced", reduce).namespaced()),
                aggregating: state(
                    store,
                    rng,
                    ttl,
                    AggregatingState::descriptor("aggregated", Joined).namespaced(),
                ),
            },
            timers: store.timer_service(TimerService::descriptor("timers")).unwrap(),
        }
    }
}

fn state<S: KeyedState>(
    store: &mut StateStore,
    rng: &mut StdRng,
    ttl: Option<Duration>,
    mut descriptor: StateDescriptor<S>,
) -> S {
    // The kind of table is no property of what is stored: it may change at a restart.
    match rng.random_range(0..3) {
        0 => descriptor = descriptor.table(TableKind::Hash),
        1 => descriptor = descriptor.table(TableKind::Ordered),
        _ => {}
    }
    if let Some(ttl) = ttl {
        descriptor = descriptor.ttl(Ttl::new(ttl));
    }
    store.register(descriptor).unwrap()
}

impl<S: Scope> Kinds<S> {
    /// Changes what the current key has.
    pub(crate) fn apply(&self, store: &mut StateStore, change: &Change) {
        let changed = match change {
            Change::Put(value) => self.value.put(store, value),
            Change::Extend(elements) if elements.len() == 1 => self.list.append(store, &elements[0]),
            Change::Extend(elements) => self.list.extend(store, elements),
            Change::Set(elements) => self.list.set(store, elements),
            Change::RetainLonger(length) => self.list.retain(store, |element| element.len() > *length),
            Change::PutEntry(key, value) => self.map.put(store, key, value),
            Change::RemoveEntry(key) => self.map.remove(store, key),
            Change::Reduce(input) => self.reducing.add(store, (*input, *input, *input)),
            Change::Aggregate(input) => self.aggregating.add(store, *input),
            Change::Clear(Kind::Value) => self.value.clear(store),
            Change::Clear(Kind::List) => self.list.clear(store),
            Change::Clear(Kind::Map) => self.map.clear(store),
            Change::Clear(Kind::Reducing) => self.reducing.clear(store),
            Change::Clear(Kind::Aggregating) => self.aggregating.clear(store),
        };
        changed.unwrap();
    }

    /// What the current key has.
    pub(crate) fn seen(&self, store: &StateStore) -> Seen {
        let seen = Seen {
            value: self.value.get(store).unwrap(),
            list: self.list.get(store).unwrap(),
            map: all(self.map.iter(store).unwrap()),
            reducing: self.reducing.get(store).unwrap(),
            aggregating: self.aggregating.get(store).unwrap(),
        };
        assert_eq!(self.value.contains(store).unwrap(), seen.value.is_some());
        assert_eq!(self.list.contains(store).unwrap(), !seen.list.is_empty());
        assert_eq!(self.map.is_empty(store).unwrap(), seen.map.is_empty());
        assert_eq!(self.reducing.contains(store).unwrap(), seen.reducing.is_some());
        assert_eq!(self.aggregating.contains(store).unwrap(), seen.aggregating.is_some());
        for (key, value) in &seen.map {
            assert_eq!(self.map.get(store, key).unwrap().as_ref(), Some(value), "scan and get differ");
        }
        seen
    }

    pub(crate) fn map_read(&self, store: &StateStore, read: &MapRead) -> Vec<(String, String)> {
        match read {
            MapRead::Get(key) => {
                let value = self.map.get(store, key).unwrap();
                assert_eq!(self.map.contains(store, key).unwrap(), value.is_some());
                value.into_iter().map(|value| (key.clone(), value)).collect()
            }
            MapRead::Prefix(prefix) => all(self.map.prefix(store, prefix.as_str()).unwrap()),
            MapRead::Range(start, end) => {
                all(self.map.range::<String, _>(store, (start.as_ref(), end.as_ref())).unwrap())
            }
        }
    }
}

/// Calls a method of the state of one kind.
macro_rules! of_kind {
    ($kinds:expr, $kind:expr, $state:ident => $call:expr) => {
        match $kind {
            Kind::Value => {
                let $state = &$kinds.value;
                $call
            }
            Kind::List => {
                let $state = &$kinds.list;
                $call
            }
            Kind::Map => {
                let $state = &$kinds.map;
                $call
            }
            Kind::Reducing => {
                let $state = &$kinds.reducing;
                $call
            }
            Kind::Aggregating => {
                let $state = &$kinds.aggregating;
                $call
            }
        }
    };
}

impl Kinds<()> {
    pub(crate) fn keys(&self, store: &StateStore, kind: Kind, group: KeyGroup) -> Vec<String> {
        of_kind!(self, kind, state => all(state.keys::<str>(store, group).unwrap()))
    }

    /// Keys and values of a group, as the value state lists them.
    pub(crate) fn entries(&self, store: &StateStore, group: KeyGroup) -> Vec<(String, String)> {
        all(self.value.entries::<str>(store, group).unwrap())
    }
}

impl Kinds<Namespaced<Window>> {
    pub(crate) fn at<'w>(&self, window: &'w Window) -> Kinds<At<'w, Window>> {
        Kinds {
            value: self.value.at(window),
            list: self.list.at(window),
            map: self.map.at(window),
            reducing: self.reducing.at(window),
            aggregating: self.aggregating.at(window),
        }
    }

    pub(crate) fn merge(&self, store: &mut StateStore, kind: Kind, into: Window, from: &[Window]) {
        let merged = match kind {
            Kind::Value => self.value.merge(store, &into, from, fold),
            Kind::List => self.list.merge(store, &into, from),
            Kind::Map => self.map.merge(store, &into, from, fold),
            Kind::Reducing => self.reducing.merge(store, &into, from),
            Kind::Aggregating => self.aggregating.merge(store, &into, from),
        };
        merged.unwrap();
    }

    pub(crate) fn windows(&self, store: &StateStore, kind: Kind) -> Vec<Window> {
        of_kind!(self, kind, state => all(state.namespaces(store).unwrap()))
    }

    pub(crate) fn keys(&self, store: &StateStore, kind: Kind, group: KeyGroup) -> Vec<String> {
        of_kind!(self, kind, state => all(state.keys::<str>(store, group).unwrap()))
    }

    pub(crate) fn keys_and_windows(
        &self,
        store: &StateStore,
        kind: Kind,
        group: KeyGroup,
    ) -> Vec<(String, Window)> {
        of_kind!(self, kind, state => all(state.keys_and_namespaces::<str>(store, group).unwrap()))
    }
}
