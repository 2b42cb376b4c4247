//! Namespaces, and merging them.

use super::*;

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
