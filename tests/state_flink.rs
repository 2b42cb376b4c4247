//! What the tests of Flink's state backends check, for typed state here, in both checkpoint modes.
//! `docs/design/state.md` has the checklist.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use alluvium::state::{Codec, KeyCodec, Postcard, RawBytes, StartsWith};
use alluvium::{
    Aggregate, AggregatingState, CheckpointId, ErrorKind, ListState, MapState, Namespaced, ReducingState,
    StateDescriptor, StateStore, TimeDomain, TimerService, ValueState,
};

use alluvium_testkit::typed::{Attempt, all, assert_error, in_both_modes};

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
fn each_kind_restores_to_the_snapshot_that_is_asked_for() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        kinds.write(attempt.store(), "a", 1);
        kinds.write(attempt.store(), "b", 2);
        let first = attempt.checkpoint();
        kinds.write(attempt.store(), "a", 11);
        kinds.clear(attempt.store(), "b");
        kinds.write(attempt.store(), "c", 3);
        attempt.materialize();
        let second = attempt.checkpoint();
        kinds.write(attempt.store(), "c", 33);
        drop(attempt);

        let check = |id: CheckpointId, a: &[u64], b: &[u64], c: &[u64]| {
            let mut attempt = home.open_at(id);
            let store = attempt.store();
            let kinds = Kinds::register(store);
            assert_eq!(kinds.read(store, "a"), written(a));
            assert_eq!(kinds.read(store, "b"), written(b));
            assert_eq!(kinds.read(store, "c"), written(c));
        };
        check(first, &[1], &[2], &[]);
        check(second, &[1, 11], &[], &[3]);
    });
}

#[test]
fn writes_during_a_snapshot_are_not_in_it() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        kinds.write(attempt.store(), "a", 1);
        let pending = attempt.job.trigger("").unwrap();
        kinds.write(attempt.store(), "a", 2);
        attempt.store().cut(pending.id(), "").unwrap();
        // The snapshot is under way.
        kinds.write(attempt.store(), "a", 3);
        kinds.write(attempt.store(), "b", 4);
        pending.wait().unwrap();
        kinds.write(attempt.store(), "a", 5);
        assert_eq!(kinds.read(attempt.store(), "a"), written(&[1, 2, 3, 5]));
        drop(attempt);
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        assert_eq!(kinds.read(attempt.store(), "a"), written(&[1, 2]));
        assert_eq!(kinds.read(attempt.store(), "b"), Contents::default());
    });
}

#[test]
fn an_empty_snapshot_restores() {
    in_both_modes(|home| {
        // Without any state, and with states that nothing was written to.
        home.open().checkpoint();
        let mut attempt = home.open();
        Kinds::register(attempt.store());
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        assert_eq!(kinds.read(attempt.store(), "a"), Contents::default());
        kinds.write(attempt.store(), "a", 1);
        assert_eq!(kinds.read(attempt.store(), "a"), written(&[1]));
    });
}

#[test]
fn a_state_that_an_attempt_never_touches_survives_it() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        kinds.write(attempt.store(), "a", 1);
        attempt.checkpoint();
        drop(attempt);
        for _ in 0..2 {
            let mut attempt = home.open();
            attempt.checkpoint();
            attempt.materialize();
            attempt.checkpoint();
        }
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        assert_eq!(kinds.read(attempt.store(), "a"), written(&[1]));
    });
}

#[test]
fn without_a_current_key_every_operation_says_so() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let kinds = Kinds::register(store);
        let no_key = |result: alluvium::Result<()>, state: &str| {
            assert_error(result, ErrorKind::InvalidArgument, &["no current key", "set_key", state]);
        };
        no_key(kinds.value.put(store, &String::new()), "\"value\"");
        no_key(kinds.value.get(store).map(drop), "\"value\"");
        no_key(kinds.value.clear(store), "\"value\"");
        no_key(kinds.list.append(store, &1), "\"list\"");
        no_key(kinds.list.get(store).map(drop), "\"list\"");
        no_key(kinds.map.put(store, &1, &None), "\"map\"");
        no_key(kinds.map.iter(store).map(drop), "\"map\"");
        no_key(kinds.map.clear(store), "\"map\"");
        no_key(kinds.reducing.add(store, 1), "\"reducing\"");
        no_key(kinds.aggregating.add(store, 1), "\"aggregating\"");
        // A key that cannot be set leaves none behind.
        store.set_key("a").unwrap();
        assert_eq!(store.key::<str>().unwrap().as_deref(), Some("a"));
        assert_error(store.key::<u64>(), ErrorKind::InvalidArgument, &["\"str\"", "\"u64\""]);
        assert_error(store.set_key(&"k".repeat(70_000)), ErrorKind::InvalidArgument, &["too long"]);
        assert_eq!(store.key::<str>().unwrap(), None);
        no_key(kinds.value.get(store).map(drop), "\"value\"");
    });
}

#[test]
fn a_key_belongs_to_the_subtask_that_owns_its_group() {
    in_both_modes(|home| {
        let home = home.with_subtasks(2);
        let mut attempt = home.open();
        let keys: Vec<String> = (0..40).map(|n| format!("key {n}")).collect();
        let mut refused = 0;
        for store in &mut attempt.stores {
            let state = store.register(value()).unwrap();
            for key in &keys {
                let group = store.max_parallelism().group_of_key(key);
                if store.range().contains(group) {
                    store.set_key(key).unwrap();
                    state.put(store, key).unwrap();
                } else {
                    assert_error(store.set_key(key), ErrorKind::InvalidArgument, &["key groups", "subtask"]);
                    assert_error(state.put(store, key), ErrorKind::InvalidArgument, &["no current key"]);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, keys.len());
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let mut found = BTreeSet::new();
        for store in &mut attempt.stores {
            let state = store.register(value()).unwrap();
            for group in store.range().groups() {
                for entry in state.entries::<str>(store, group).unwrap() {
                    let (key, value) = entry.unwrap();
                    assert_eq!(store.max_parallelism().group_of_key(&key), group);
                    assert_eq!(key, value);
                    assert!(found.insert(key));
                }
            }
        }
        assert_eq!(found, keys.into_iter().collect());
    });
}

/// Keys at the edges of what can be one.
#[test]
fn odd_keys_are_keys() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        let long = "k".repeat(65_000);
        let keys = ["", "\0", "\0\0", "a", "a\0", "a\0b", "a\u{1}", "ab", "\u{10ffff}", &long];
        for (n, key) in (1..).zip(keys) {
            kinds.write(attempt.store(), key, n);
        }
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        for (n, key) in (1..).zip(keys) {
            assert_eq!(kinds.read(attempt.store(), key), written(&[n]), "{key:?}");
        }
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

#[test]
fn changes_made_while_iterating_are_logged() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let (map_state, list_state) =
            (attempt.store().register(map()).unwrap(), attempt.store().register(list()).unwrap());
        attempt.store().set_key("a").unwrap();
        for n in 0..10 {
            map_state.put(attempt.store(), &n, &Some(n.to_string())).unwrap();
        }
        list_state.extend(attempt.store(), 0..10).unwrap();
        attempt.checkpoint();

        let store = attempt.store();
        for entry in map_state.iter(store).unwrap() {
            let (key, value) = entry.unwrap();
            match key % 3 {
                0 => map_state.remove(store, &key).unwrap(),
                1 => map_state.put(store, &key, &value.map(|value| value + "!")).unwrap(),
                // Not seen by this iteration.
                _ => map_state.put(store, &(key + 100), &None).unwrap(),
            }
        }
        list_state.retain(store, |n| n % 2 == 1).unwrap();
        let entries = all(map_state.iter(store).unwrap());
        assert_eq!(entries.len(), 6 + 3);
        assert_eq!(entries[0], (1, Some("1!".to_owned())));
        assert_eq!(list_state.get(store).unwrap(), [1, 3, 5, 7, 9]);
        // Nothing to remove, nothing to log.
        list_state.retain(store, |_| true).unwrap();
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let store = attempt.store();
        let (map_state, list_state) = (store.register(map()).unwrap(), store.register(list()).unwrap());
        store.set_key("a").unwrap();
        assert_eq!(all(map_state.iter(store).unwrap()), entries);
        assert_eq!(list_state.get(store).unwrap(), [1, 3, 5, 7, 9]);
        list_state.retain(store, |_| false).unwrap();
        assert!(!list_state.contains(store).unwrap());
    });
}

#[test]
fn keys_are_listed_while_they_change() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let kinds = Kinds::register(store);
        let keys: BTreeSet<String> = (0..50).map(|n| format!("key {n}")).collect();
        for key in &keys {
            kinds.write(store, key, 1);
            kinds.write(store, key, 2);
        }
        kinds.clear(store, "key 7");
        // Each key once, also where it has several entries, and none that was cleared.
        let without: BTreeSet<String> = keys.iter().filter(|key| *key != "key 7").cloned().collect();
        let groups = || store.range().groups();
        let found = |per_group: &dyn Fn(alluvium::KeyGroup) -> Vec<String>| {
            let found: Vec<String> = groups().flat_map(per_group).collect();
            assert_eq!(found.len(), without.len());
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), without);
        };
        found(&|group| all(kinds.value.keys::<str>(store, group).unwrap()));
        found(&|group| all(kinds.list.keys::<String>(store, group).unwrap()));
        found(&|group| all(kinds.map.keys::<str>(store, group).unwrap()));
        found(&|group| all(kinds.reducing.keys::<str>(store, group).unwrap()));
        found(&|group| all(kinds.aggregating.keys::<str>(store, group).unwrap()));

        // A function for every key may change the state that it goes through.
        for group in store.range().groups() {
            for key in kinds.reducing.keys::<str>(store, group).unwrap() {
                store.set_key(&key.unwrap()).unwrap();
                if kinds.reducing.get(store).unwrap() == Some(3) {
                    kinds.reducing.clear(store).unwrap();
                }
            }
            assert_eq!(kinds.reducing.keys::<str>(store, group).unwrap().count(), 0);
        }
        assert_error(
            kinds.value.keys::<u64>(store, store.range().first),
            ErrorKind::Incompatible,
            &["\"str\""],
        );
    });
}

/// A window, as a program would define one.
type Window = (u64, u64);

/// One state of each kind with windows.
struct Windows {
    value: ValueState<String, Namespaced<Window>>,
    list: ListState<u64, Namespaced<Window>>,
    map: MapState<i32, Option<String>, Namespaced<Window>>,
    reducing: ReducingState<u64, Namespaced<Window>>,
    aggregating: AggregatingState<u64, Vec<u64>, String, Namespaced<Window>>,
}

impl Windows {
    fn register(store: &mut StateStore) -> Self {
        Self {
            value: store.register(value().namespaced()).unwrap(),
            list: store.register(list().namespaced()).unwrap(),
            map: store.register(map().namespaced()).unwrap(),
            reducing: store.register(reducing().namespaced()).unwrap(),
            aggregating: store.register(aggregating().namespaced()).unwrap(),
        }
    }

    fn write(&self, store: &mut StateStore, window: Window, n: u64) {
        self.value.at(&window).put(store, &n.to_string()).unwrap();
        self.list.at(&window).append(store, &n).unwrap();
        self.map.at(&window).put(store, &(n as i32), &Some(n.to_string())).unwrap();
        self.reducing.at(&window).add(store, n).unwrap();
        self.aggregating.at(&window).add(store, n).unwrap();
    }

    fn read(&self, store: &StateStore, window: Window) -> Contents {
        Contents {
            value: self.value.at(&window).get(store).unwrap(),
            list: self.list.at(&window).get(store).unwrap(),
            map: all(self.map.at(&window).iter(store).unwrap()),
            reducing: self.reducing.at(&window).get(store).unwrap(),
            aggregating: self.aggregating.at(&window).get(store).unwrap(),
        }
    }

    fn merge(&self, store: &mut StateStore, into: Window, from: &[Window]) {
        self.value.merge(store, &into, from, Ord::max).unwrap();
        self.list.merge(store, &into, from).unwrap();
        self.map.merge(store, &into, from, |_, b| b).unwrap();
        self.reducing.merge(store, &into, from).unwrap();
        self.aggregating.merge(store, &into, from).unwrap();
    }

    /// The windows of the current key, the same in all kinds.
    fn windows(&self, store: &StateStore) -> Vec<Window> {
        let windows = all(self.value.namespaces(store).unwrap());
        assert_eq!(all(self.list.namespaces(store).unwrap()), windows);
        assert_eq!(all(self.map.namespaces(store).unwrap()), windows);
        assert_eq!(all(self.reducing.namespaces(store).unwrap()), windows);
        assert_eq!(all(self.aggregating.namespaces(store).unwrap()), windows);
        windows
    }
}

const A: Window = (0, 10);
const B: Window = (5, 15);
const C: Window = (12, 30);

#[test]
fn namespaces_are_apart() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let windows = Windows::register(attempt.store());
        let store = attempt.store();
        for (key, add) in [("a", 0), ("b", 100)] {
            store.set_key(key).unwrap();
            for (window, n) in [(C, 3), (A, 1), (B, 2)] {
                windows.write(store, window, n + add);
            }
        }
        assert_eq!(windows.windows(store), [A, B, C]);
        windows.value.at(&B).clear(store).unwrap();
        windows.list.at(&B).clear(store).unwrap();
        windows.map.at(&B).clear(store).unwrap();
        windows.reducing.at(&B).clear(store).unwrap();
        windows.aggregating.at(&B).clear(store).unwrap();
        assert_eq!(windows.windows(store), [A, C]);
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let windows = Windows::register(attempt.store());
        let store = attempt.store();
        let mut pairs = Vec::new();
        for group in store.range().groups() {
            pairs.extend(all(windows.map.keys_and_namespaces::<str>(store, group).unwrap()));
        }
        pairs.sort();
        let pair = |key: &str, window| (key.to_owned(), window);
        assert_eq!(pairs, [pair("a", A), pair("a", B), pair("a", C), pair("b", A), pair("b", C)]);
        store.set_key("b").unwrap();
        assert_eq!(windows.read(store, A), written(&[101]));
        assert_eq!(windows.read(store, B), Contents::default());
        store.set_key("a").unwrap();
        assert_eq!(windows.read(store, B), written(&[2]));
    });
}

/// What was written before, into which window, from which, and what that one has then.
type Merge<'a> = (&'a [(Window, u64)], Window, &'a [Window], &'a [u64]);

/// Into a namespace that is among the merged ones or not, that has something or not; from namespaces of which
/// some, one or all are empty; restored and not.
#[test]
fn merging_namespaces() {
    in_both_modes(|home| {
        let cases: [Merge<'_>; 8] = [
            (&[(A, 1), (B, 2), (C, 3)], A, &[B, C], &[1, 2, 3]),
            (&[(A, 1), (B, 2), (C, 3)], A, &[C, B], &[1, 3, 2]),
            (&[(A, 1), (B, 2), (C, 3)], A, &[A, B, C], &[1, 2, 3]),
            (&[(A, 1), (B, 2)], C, &[A, B], &[1, 2]),
            (&[(B, 1), (B, 2)], A, &[B, C, B], &[1, 2]),
            (&[(A, 1), (A, 2)], A, &[B, C], &[1, 2]),
            (&[], A, &[B, C], &[]),
            (&[(A, 4)], A, &[], &[4]),
        ];
        let mut attempt = home.open();
        let windows = Windows::register(attempt.store());
        for (n, (before, ..)) in cases.iter().enumerate() {
            attempt.store().set_key(&n.to_string()).unwrap();
            for (window, n) in *before {
                windows.write(attempt.store(), *window, *n);
            }
        }
        attempt.checkpoint();
        let merge = |attempt: &mut Attempt| {
            let store = attempt.store();
            let windows = Windows::register(store);
            for (n, (_, into, from, _)) in cases.iter().enumerate() {
                store.set_key(&n.to_string()).unwrap();
                windows.merge(store, *into, from);
            }
        };
        let check = |attempt: &mut Attempt| {
            let store = attempt.store();
            let windows = Windows::register(store);
            for (n, (_, into, _, after)) in cases.iter().enumerate() {
                store.set_key(&n.to_string()).unwrap();
                // The largest value is what `merge` keeps.
                let value = after.iter().max().map(u64::to_string);
                assert_eq!(windows.read(store, *into), Contents { value, ..written(after) }, "case {n}");
                let left: &[Window] = if after.is_empty() { &[] } else { &[*into] };
                assert_eq!(windows.windows(store), left, "case {n}");
            }
        };
        merge(&mut attempt);
        check(&mut attempt);
        // The same after a restore of what was not merged.
        drop(attempt);
        let mut attempt = home.open();
        merge(&mut attempt);
        check(&mut attempt);
        attempt.checkpoint();
        drop(attempt);
        check(&mut home.open());
    });
}

#[test]
fn a_map_merges_entry_by_entry() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let state = store.register(MapState::<u8, u64>::descriptor("m").namespaced::<Window>()).unwrap();
        store.set_key("a").unwrap();
        for (window, key, value) in [(A, 1, 1), (A, 2, 2), (B, 2, 20), (B, 3, 30), (C, 2, 200)] {
            state.at(&window).put(store, &key, &value).unwrap();
        }
        state.merge(store, &A, &[B, C], |a, b| a + b).unwrap();
        assert_eq!(all(state.at(&A).iter(store).unwrap()), [(1, 1), (2, 222), (3, 30)]);
        assert_eq!(all(state.namespaces(store).unwrap()), [A]);
    });
}

/// Registers each kind with something else than it was written with.
#[test]
fn a_wrong_codec_or_type_is_refused_by_name() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let kinds = Kinds::register(attempt.store());
        kinds.write(attempt.store(), "a", 1);
        let named =
            attempt.store().register(ValueState::<u64>::descriptor("named").type_name("Count")).unwrap();
        named.put(attempt.store(), &1).unwrap();
        let check = |attempt: &mut Attempt| {
            let store = attempt.store();
            let refused = |result: alluvium::Result<()>, words: &[&str]| {
                assert_error(result, ErrorKind::Incompatible, words);
            };
            // The key.
            let kinds = Kinds::register(store);
            store.set_key(&7_u64).unwrap();
            refused(kinds.value.get(store).map(drop), &["\"value\"", "\"str\"", "\"u64\""]);
            refused(kinds.list.append(store, &1), &["\"list\"", "\"str\"", "\"u64\""]);
            refused(kinds.map.iter(store).map(drop), &["\"map\"", "\"str\"", "\"u64\""]);
            refused(kinds.reducing.add(store, 1), &["\"reducing\"", "\"str\"", "\"u64\""]);
            refused(kinds.aggregating.get(store).map(drop), &["\"aggregating\"", "\"str\"", "\"u64\""]);
            // The codec.
            let raw = ValueState::<Vec<u8>>::descriptor_with("value", RawBytes);
            refused(store.register(raw).map(drop), &["\"value\"", "\"postcard\"", "\"raw\""]);
            let raw = ListState::<Vec<u8>>::descriptor_with("list", RawBytes);
            refused(store.register(raw).map(drop), &["\"list\"", "codec"]);
            let raw = MapState::<i32, Vec<u8>>::descriptor_with("map", RawBytes);
            refused(store.register(raw).map(drop), &["\"map\"", "codec"]);
            let raw = ReducingState::<Vec<u8>>::descriptor_with("reducing", |a, _| a, RawBytes);
            refused(store.register(raw).map(drop), &["\"reducing\"", "codec"]);
            // The map's key, the namespace, the kind, the type's name, the schema.
            let other = MapState::<u32, Option<String>>::descriptor("map");
            refused(store.register(other).map(drop), &["\"map\"", "\"i32\"", "\"u32\""]);
            refused(
                store.register(value().namespaced::<u8>()).map(drop),
                &["\"value\"", "namespaces", "\"u8\""],
            );
            let other = ListState::<String>::descriptor("value");
            refused(store.register(other).map(drop), &["\"value\"", "list"]);
            let other = ReducingState::descriptor("value", |a: u64, b| a + b);
            refused(store.register(other).map(drop), &["\"value\"", "reducing"]);
            let other = ValueState::<u64>::descriptor("named").type_name("Total");
            refused(store.register(other).map(drop), &["\"named\"", "\"Count\"", "\"Total\""]);
            refused(store.register(value().schema(1)).map(drop), &["\"value\"", "schema", "migrate"]);
            // A type that was not named is known by its shape, or is found out when it is read.
            let other = ValueState::<(u64, u64, u64)>::descriptor("value");
            refused(store.register(other).map(drop), &["\"value\"", "str", "(u64; 3)", "migrate"]);
            let other = ValueState::<(u64, u64, u64)>::descriptor_with("value", Shapeless);
            let other = store.register(other).unwrap();
            store.set_key("a").unwrap();
            assert_error(other.get(store), ErrorKind::Corrupt, &["\"value\"", "type", "migrate", "\"a\""]);
        };
        check(&mut attempt);
        attempt.checkpoint();
        drop(attempt);
        check(&mut home.open());
    });
}

/// Postcard under its own name, that does not say what it stores.
struct Shapeless;

impl Codec<(u64, u64, u64)> for Shapeless {
    fn id(&self) -> &str {
        "postcard"
    }

    fn encode(
        &self,
        value: &(u64, u64, u64),
        out: &mut Vec<u8>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Postcard.encode(value, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<(u64, u64, u64), Box<dyn std::error::Error + Send + Sync>> {
        Postcard.decode(bytes)
    }
}

/// The version before: what counts were once.
fn old<S: alluvium::state::KeyedState>(descriptor: StateDescriptor<S>) -> StateDescriptor<S> {
    descriptor.schema(1)
}

#[test]
fn values_of_an_earlier_schema_are_migrated_when_they_are_read() {
    in_both_modes(|home| {
        // Version 1 is a u8 as text, version 2 a u64.
        let upgrade = |version: u32, bytes: &[u8]| {
            assert_eq!(version, 1);
            let text: String = Postcard.decode(bytes)?;
            Ok(text.parse::<u64>()?)
        };
        let mut attempt = home.open();
        let store = attempt.store();
        let value = store.register(old(ValueState::<String>::descriptor("value"))).unwrap();
        let list = store.register(old(ListState::<String>::descriptor("list"))).unwrap();
        let map = store.register(old(MapState::<u8, String>::descriptor("map"))).unwrap();
        let sum = old(ReducingState::<String>::descriptor("sum", |a, _| a));
        let sum = store.register(sum).unwrap();
        for key in ["a", "b"] {
            store.set_key(key).unwrap();
            value.put(store, &"7".to_owned()).unwrap();
            list.extend(store, ["1".to_owned(), "2".to_owned()]).unwrap();
            map.put(store, &1, &"10".to_owned()).unwrap();
            sum.add(store, "5".to_owned()).unwrap();
        }
        store.set_key("c").unwrap();
        value.put(store, &"not a number".to_owned()).unwrap();
        attempt.checkpoint();
        drop(attempt);

        // Twice: what the second finds was in part written by the first.
        for round in 0..2 {
            let mut attempt = home.open();
            let store = attempt.store();
            let schema = |state: &str| format!("\"{state}\"");
            let without = ValueState::<u64>::descriptor("value").schema(2);
            assert_error(store.register(without), ErrorKind::Incompatible, &[&schema("value"), "migrate"]);
            let value = ValueState::<u64>::descriptor("value").schema(2).migrate(upgrade);
            let value = store.register(value).unwrap();
            let list = ListState::<u64>::descriptor("list").schema(2).migrate(upgrade);
            let list = store.register(list).unwrap();
            let map = MapState::<u8, u64>::descriptor("map").schema(2).migrate(upgrade);
            let map = store.register(map).unwrap();
            let sum = ReducingState::<u64>::descriptor("sum", |a, b| a + b).schema(2).migrate(upgrade);
            let sum = store.register(sum).unwrap();

            // Never written again: still the old bytes.
            store.set_key("b").unwrap();
            assert_eq!(value.get(store).unwrap(), Some(7));
            assert_eq!(list.get(store).unwrap(), [1, 2]);
            assert_eq!(all(map.iter(store).unwrap()), [(1, 10)]);
            assert_eq!(sum.get(store).unwrap(), Some(5));

            store.set_key("a").unwrap();
            assert_eq!(value.get(store).unwrap(), Some(7 + round));
            value.put(store, &(8 + round)).unwrap();
            list.append(store, &300).unwrap();
            map.put(store, &2, &400).unwrap();
            sum.add(store, 500).unwrap();
            assert_eq!(list.get(store).unwrap()[..3], [1, 2, 300]);
            assert_eq!(list.get(store).unwrap().len() as u64, 3 + round);
            assert_eq!(all(map.iter(store).unwrap()), [(1, 10), (2, 400)]);
            assert_eq!(sum.get(store).unwrap(), Some(505 + 500 * round));
            // Elements of both versions stay as they are.
            list.retain(store, |n| *n != 2 || round == 0).unwrap();

            store.set_key("c").unwrap();
            assert_error(value.get(store), ErrorKind::Corrupt, &["\"value\"", "schema 1", "migrated"]);
            attempt.checkpoint();
        }

        // And never back.
        let mut attempt = home.open();
        let old = attempt.store().register(old(ValueState::<String>::descriptor("value")));
        assert_error(old, ErrorKind::Incompatible, &["\"value\"", "schema 2", "newer"]);
    });
}

/// A key type of a program's own, with the default part form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Flight(String);

impl KeyCodec for Flight {
    type Owned = Self;
    const NAME: &'static str = "flight";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(Self)
    }
}

#[test]
fn own_types_are_keys_namespaces_and_map_keys() {
    in_both_modes(|home| {
        let flight = |name: &str| Flight(name.to_owned());
        let mut attempt = home.open();
        let store = attempt.store();
        let descriptor = || MapState::<Flight, u64>::descriptor("map").namespaced::<Flight>();
        let map = store.register(descriptor()).unwrap();
        store.set_key(&flight("UA 1")).unwrap();
        let group = store.max_parallelism().group_of_key(&flight("UA 1"));
        map.at(&flight("n\0")).put(store, &flight("z"), &1).unwrap();
        map.at(&flight("n")).put(store, &flight("y\0"), &2).unwrap();
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let store = attempt.store();
        let map = store.register(descriptor()).unwrap();
        let pairs = all(map.keys_and_namespaces::<Flight>(store, group).unwrap());
        assert_eq!(pairs, [(flight("UA 1"), flight("n")), (flight("UA 1"), flight("n\0"))]);
        store.set_key(&flight("UA 1")).unwrap();
        assert_eq!(store.key::<Flight>().unwrap(), Some(flight("UA 1")));
        assert_eq!(all(map.at(&flight("n")).iter(store).unwrap()), [(flight("y\0"), 2)]);
    });
}

/// 64 KiB of the user's own bytes, whatever it takes to store them.
#[test]
fn keys_may_be_as_long_as_they_say() {
    const LONGEST: usize = 64 << 10;
    in_both_modes(|home| {
        let mut attempt = home.open();
        let register = |store: &mut StateStore| {
            let values =
                store.register(ValueState::<u32>::descriptor("values").namespaced::<String>()).unwrap();
            let maps = MapState::<Vec<u8>, u32>::descriptor("maps").namespaced::<Vec<u8>>();
            let timers = store.timer_service(TimerService::<str, String>::descriptor("timers")).unwrap();
            (values, store.register(maps).unwrap(), timers)
        };
        let keys = ["a".repeat(LONGEST), "\0".repeat(LONGEST), "a\0".repeat(LONGEST / 2)];
        let (namespace, half) = ("\0".repeat(LONGEST), vec![0; LONGEST / 2]);
        let (values, maps, timers) = register(attempt.store());
        for key in &keys {
            let store = attempt.store();
            store.set_key(key.as_str()).unwrap();
            values.at(&namespace).put(store, &7).unwrap();
            maps.at(&half).put(store, &half, &8).unwrap();
            timers.register(store, TimeDomain::Event, 1, &namespace).unwrap();
            // Too long for a namespace and a map's key together, which harms nothing.
            let more = [&half[..], &[7]].concat();
            assert_error(
                maps.at(&half).put(store, &more, &8),
                ErrorKind::InvalidArgument,
                &["65537", "65536"],
            );
            assert_eq!(maps.at(&half).iter(store).unwrap().count(), 1);
        }
        for key in ["a".repeat(LONGEST + 1), "\0".repeat(LONGEST + 1)] {
            let store = attempt.store();
            assert_error(store.set_key(key.as_str()), ErrorKind::InvalidArgument, &["65537", "65536"]);
            assert_eq!(store.key::<str>().unwrap(), None);
        }
        attempt.checkpoint();
        attempt.materialize();
        attempt.checkpoint();
        drop(attempt);
        let mut attempt = home.open();
        let (values, maps, timers) = register(attempt.store());
        let store = attempt.store();
        for key in &keys {
            store.set_key(key.as_str()).unwrap();
            assert_eq!(values.at(&namespace).get(store).unwrap(), Some(7));
            assert_eq!(all(maps.at(&half).iter(store).unwrap()), [(half.clone(), 8)]);
        }
        let mut fired = Vec::new();
        while let Some(timer) = timers.pop_due(store, TimeDomain::Event, 1).unwrap() {
            assert_eq!(timer.namespace, namespace);
            fired.push(timer.key);
        }
        fired.sort();
        let mut keys = keys.to_vec();
        keys.sort();
        assert!(fired == keys);
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
