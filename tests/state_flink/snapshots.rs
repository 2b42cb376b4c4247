//! Snapshots: what is in them, and what a restore gives back.

use super::*;

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
