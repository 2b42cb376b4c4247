//! What the tests of Flink's state backends check, for typed state here, in both checkpoint modes.
//! `docs/design/state.md` has the checklist.
#![allow(clippy::unwrap_used)]

mod keys;
mod namespaces;
mod schemas;
mod snapshots;

use alluvium::state::{Codec, KeyCodec, Postcard, RawBytes, StartsWith};
use alluvium::{
    Aggregate, AggregatingState, CheckpointId, ErrorKind, ListState, MapState, Namespaced, ReducingState,
    StateDescriptor, StateStore, TimeDomain, TimerService, ValueState,
};
use alluvium_testkit::typed::{Attempt, all, assert_error, in_both_modes};
use std::collections::BTreeSet;

fn value() -> StateDescriptor<ValueState<String>> {
    ValueState::descriptor("value")
}

fn list() -> StateDescriptor<ListState<u64>> {
    ListState::descriptor("list")
}

fn map() -> StateDescriptor<MapState<i32, Option<String>>> {
    MapState::descriptor("map")
}

fn reducing() -> StateDescriptor<ReducingState<u64>> {
    ReducingState::descriptor("reducing", |a, b| a + b)
}

fn aggregating() -> StateDescriptor<AggregatingState<u64, Vec<u64>, String>> {
    AggregatingState::descriptor("aggregating", Joined)
}

/// All inputs in order, which shows any that is lost, doubled or out of place.
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

/// One state of each kind, without namespaces.
struct Kinds {
    value: ValueState<String>,
    list: ListState<u64>,
    map: MapState<i32, Option<String>>,
    reducing: ReducingState<u64>,
    aggregating: AggregatingState<u64, Vec<u64>, String>,
}

/// What one key has in each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Contents {
    value: Option<String>,
    list: Vec<u64>,
    map: Vec<(i32, Option<String>)>,
    reducing: Option<u64>,
    aggregating: Option<String>,
}

impl Kinds {
    fn register(store: &mut StateStore) -> Self {
        Self {
            value: store.register(value()).unwrap(),
            list: store.register(list()).unwrap(),
            map: store.register(map()).unwrap(),
            reducing: store.register(reducing()).unwrap(),
            aggregating: store.register(aggregating()).unwrap(),
        }
    }

    /// Writes `n` into all of them.
    fn write(&self, store: &mut StateStore, key: &str, n: u64) {
        store.set_key(key).unwrap();
        self.value.put(store, &n.to_string()).unwrap();
        self.list.append(store, &n).unwrap();
        self.map.put(store, &(n as i32), &Some(n.to_string())).unwrap();
        self.reducing.add(store, n).unwrap();
        self.aggregating.add(store, n).unwrap();
    }

    fn read(&self, store: &mut StateStore, key: &str) -> Contents {
        store.set_key(key).unwrap();
        let contents = Contents {
            value: self.value.get(store).unwrap(),
            list: self.list.get(store).unwrap(),
            map: all(self.map.iter(store).unwrap()),
            reducing: self.reducing.get(store).unwrap(),
            aggregating: self.aggregating.get(store).unwrap(),
        };
        assert_eq!(self.value.contains(store).unwrap(), contents.value.is_some());
        assert_eq!(self.list.contains(store).unwrap(), !contents.list.is_empty());
        assert_eq!(self.map.is_empty(store).unwrap(), contents.map.is_empty());
        assert_eq!(self.reducing.contains(store).unwrap(), contents.reducing.is_some());
        assert_eq!(self.aggregating.contains(store).unwrap(), contents.aggregating.is_some());
        contents
    }

    fn clear(&self, store: &mut StateStore, key: &str) {
        store.set_key(key).unwrap();
        self.value.clear(store).unwrap();
        self.list.clear(store).unwrap();
        self.map.clear(store).unwrap();
        self.reducing.clear(store).unwrap();
        self.aggregating.clear(store).unwrap();
    }
}

/// What [`Kinds::write`] with each of `numbers` leaves.
fn written(numbers: &[u64]) -> Contents {
    let mut map: Vec<_> = numbers.iter().map(|n| (*n as i32, Some(n.to_string()))).collect();
    map.sort();
    map.dedup();
    let text: Vec<_> = numbers.iter().map(u64::to_string).collect();
    Contents {
        value: text.last().cloned(),
        list: numbers.to_vec(),
        map,
        reducing: (!numbers.is_empty()).then(|| numbers.iter().sum()),
        aggregating: (!numbers.is_empty()).then(|| text.join(",")),
    }
}

#[test]
fn absent_until_written_and_absent_again_after_clear() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let kinds = Kinds::register(store);
        assert_eq!(kinds.read(store, "a"), Contents::default());
        kinds.write(store, "a", 1);
        kinds.write(store, "b", 2);
        kinds.write(store, "a", 3);
        assert_eq!(kinds.read(store, "a"), written(&[1, 3]));
        kinds.clear(store, "a");
        assert_eq!(kinds.read(store, "a"), Contents::default());
        assert_eq!(kinds.read(store, "b"), written(&[2]));
        // What is absent can be cleared.
        kinds.clear(store, "a");
        kinds.clear(store, "never written");
        kinds.write(store, "a", 5);
        assert_eq!(kinds.read(store, "a"), written(&[5]));
    });
}

#[test]
fn a_default_is_read_where_there_is_no_value_and_is_not_stored() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let state = store.register(value().default_value("none yet".to_owned())).unwrap();
        store.set_key("a").unwrap();
        let mut found = state.get(store).unwrap().unwrap();
        // What is done to a copy of the default stays with the copy.
        found.push_str(", changed");
        assert_eq!(state.get(store).unwrap().as_deref(), Some("none yet"));
        assert!(!state.contains(store).unwrap());
        state.put(store, &"there".to_owned()).unwrap();
        assert_eq!(state.get(store).unwrap().as_deref(), Some("there"));
        state.clear(store).unwrap();
        assert_eq!(state.get(store).unwrap().as_deref(), Some("none yet"));
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let store = attempt.store();
        let other = store.register(value()).unwrap();
        store.set_key("a").unwrap();
        assert_eq!(other.get(store).unwrap(), None);
    });
}

#[test]
fn a_list_keeps_its_order_and_nothing_is_nothing() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let state = store.register(list()).unwrap();
        store.set_key("a").unwrap();
        state.extend(store, [0_u64; 0]).unwrap();
        assert!(!state.contains(store).unwrap());
        state.append(store, &3).unwrap();
        state.extend(store, [1, 2]).unwrap();
        state.extend(store, [0_u64; 0]).unwrap();
        assert_eq!(state.get(store).unwrap(), [3, 1, 2]);
        state.set(store, [9, 8]).unwrap();
        state.append(store, &7).unwrap();
        assert_eq!(state.get(store).unwrap(), [9, 8, 7]);
        // An empty list is none.
        state.set(store, [0_u64; 0]).unwrap();
        assert!(!state.contains(store).unwrap());
        let group = store.group_of(b"a");
        assert_eq!(all(state.keys::<str>(store, group).unwrap()), [""; 0]);
        state.extend(store, 0..1000).unwrap();
        assert!(state.get(store).unwrap().into_iter().eq(0..1000));
        // Elements are decoded one by one, as far as they are asked for.
        assert_eq!(all(state.iter(store).unwrap().take(2)), [0, 1]);
    });
}

#[test]
fn a_map_holds_absent_values_and_iterates_in_order() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let state = store.register(map()).unwrap();
        store.set_key("a").unwrap();
        assert!(state.is_empty(store).unwrap());
        for key in [5, -7, 0, i32::MAX, i32::MIN] {
            state.put(store, &key, &None).unwrap();
        }
        state.put(store, &0, &Some("zero".into())).unwrap();
        // A value that is None is one.
        assert_eq!(state.get(store, &5).unwrap(), Some(None));
        assert!(state.contains(store, &5).unwrap() && !state.contains(store, &6).unwrap());
        let keys =
            |entries: Vec<(i32, Option<String>)>| entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(all(state.iter(store).unwrap())), [i32::MIN, -7, 0, 5, i32::MAX]);
        assert_eq!(keys(all(state.range(store, -7..5).unwrap())), [-7, 0]);
        assert_eq!(keys(all(state.range(store, -7..=5).unwrap())), [-7, 0, 5]);
        assert_eq!(keys(all(state.range(store, ..0).unwrap())), [i32::MIN, -7]);
        assert_eq!(keys(all(state.range(store, 1..).unwrap())), [5, i32::MAX]);
        #[expect(clippy::reversed_empty_ranges, reason = "the wrong way round")]
        let reversed = state.range(store, 5..-7).unwrap();
        assert_eq!(reversed.count(), 0);
        // The next key's map is another one.
        store.set_key("b").unwrap();
        state.put(store, &1, &None).unwrap();
        store.set_key("a").unwrap();
        state.remove(store, &5).unwrap();
        state.remove(store, &5).unwrap();
        assert_eq!(all(state.iter(store).unwrap()).len(), 4);
        state.clear(store).unwrap();
        assert!(state.is_empty(store).unwrap());
        store.set_key("b").unwrap();
        assert_eq!(keys(all(state.iter(store).unwrap())), [1]);
    });
}

#[test]
fn maps_are_read_by_prefix() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let words = store.register(MapState::<String, ()>::descriptor("words")).unwrap();
        let pairs = store.register(MapState::<(String, u64), ()>::descriptor("pairs")).unwrap();
        store.set_key(&1_u8).unwrap();
        for word in ["", "a", "a\0", "ab", "abc", "b"] {
            words.put(store, word, &()).unwrap();
            pairs.put(store, &(word.to_owned(), 1), &()).unwrap();
            pairs.put(store, &(word.to_owned(), 0), &()).unwrap();
        }
        assert_eq!(words.prefix(store, "a").unwrap().count(), 4);
        assert_eq!(words.prefix(store, "ab").unwrap().count(), 2);
        assert_eq!(words.prefix(store, "").unwrap().count(), 6);
        assert_eq!(words.prefix(store, "c").unwrap().count(), 0);
        assert_eq!(words.range(store, "a".to_owned().."b".to_owned()).unwrap().count(), 4);
        // By a beginning of the first component, and by all of it.
        assert_eq!(pairs.prefix(store, &StartsWith("a")).unwrap().count(), 8);
        assert_eq!(words.prefix(store, &"ab".to_owned()).unwrap().count(), 2);
        assert_eq!(words.prefix(store, &StartsWith("ab")).unwrap().count(), 2);
        let of_a = all(pairs.prefix(store, &"a".to_owned()).unwrap());
        assert_eq!(of_a, [(("a".to_owned(), 0), ()), (("a".to_owned(), 1), ())]);
    });
}

/// Longer than what may be put at a time.
#[test]
fn a_long_list_can_be_trimmed_and_replaced() {
    const ELEMENT: usize = 16 << 20;
    in_both_modes(|home| {
        let mut attempt = home.open();
        let list = || ListState::<Vec<u8>>::descriptor("list").codec(RawBytes);
        let state = attempt.store().register(list()).unwrap();
        attempt.store().set_key("k").unwrap();
        for n in 0..18_u8 {
            state.append(attempt.store(), &vec![n; ELEMENT]).unwrap();
        }
        let numbers = |store: &StateStore| -> Vec<u8> {
            state.iter(store).unwrap().map(|element| element.unwrap()[0]).collect()
        };
        // 272 MiB, and then 64 in the order in which they are given.
        state.retain(attempt.store(), |element| element[0] != 3).unwrap();
        assert_eq!(numbers(attempt.store()), [&[0, 1, 2][..], &(4..18).collect::<Vec<_>>()].concat());
        let elements = (0..5_u8).rev().map(|n| vec![n; ELEMENT]);
        state.set(attempt.store(), elements).unwrap();
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let state = attempt.store().register(list()).unwrap();
        attempt.store().set_key("k").unwrap();
        let found: Vec<_> = state.iter(attempt.store()).unwrap().map(|element| element.unwrap()[0]).collect();
        assert_eq!(found, [4, 3, 2, 1, 0]);
    });
}
