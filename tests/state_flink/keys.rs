//! Keys: who owns them, odd ones, own types, the longest.

use super::*;

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
