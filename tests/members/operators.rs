//! A job of several operators whose subtasks live in several processes.

use std::collections::BTreeMap;

use alluvium::{BroadcastState, OperatorListState, OperatorSpec, StateStore};

use super::*;

/// Of each operator: what its keyed state has, and its elements in the order of the subtasks.
type Found = BTreeMap<String, (Vec<Vec<u8>>, Vec<u32>)>;

fn found(stores: &mut [StateStore]) -> Found {
    let mut found = Found::new();
    for store in stores {
        let id = store.operator().unwrap().to_owned();
        let (values, elements) = found.entry(id).or_default();
        values.extend(contents(std::slice::from_mut(store), "words").into_values());
        let list = store.register(OperatorListState::<u32>::descriptor("places")).unwrap();
        elements.extend(list.get(store).unwrap());
        let rules = store.register(BroadcastState::<String, u32>::descriptor("rules")).unwrap();
        assert_eq!(
            rules.entries(store).unwrap().len(),
            usize::from(!elements.is_empty() || !values.is_empty())
        );
    }
    for (values, _) in found.values_mut() {
        values.sort();
    }
    found
}

/// Members hold parts of operators, and parts of two at once.
#[test]
fn i9_operators_are_rescaled_over_any_members() {
    let place = Place::new();
    let layouts: &[(u32, u32, &[Range<u32>])] =
        &[(2, 2, &[1..3]), (2, 2, &[1..3]), (1, 3, &[0..2, 2..4]), (3, 1, &[]), (2, 1, &[0..3])];
    let mut expected: Option<Found> = None;
    for (attempt, (first, second, members)) in (0..).zip(layouts) {
        let operators = [OperatorSpec::new("first", *first), OperatorSpec::new("second", *second)];
        let mut cluster =
            place.start_with(first + second, members, |options| options.operators(operators.to_vec()));
        if let Some(expected) = &expected {
            assert_eq!(found(&mut cluster.stores), *expected, "attempt {attempt}");
        }
        let at = *first as usize;
        for (stores, id) in [(0..at, "first"), (at..cluster.stores.len(), "second")] {
            let stores = &mut cluster.stores[stores];
            for key in 0..20 {
                put_any(stores, &format!("key {key}"), format!("of {id} {attempt} {key}").as_bytes());
            }
            for store in stores.iter_mut() {
                let rules = store.register(BroadcastState::<String, u32>::descriptor("rules")).unwrap();
                rules.put(store, "limit", &attempt).unwrap();
            }
            let last = stores.last_mut().unwrap();
            let list = last.register(OperatorListState::<u32>::descriptor("places")).unwrap();
            list.add(last, &attempt).unwrap();
        }
        cluster.checkpoint().unwrap();
        expected = Some(found(&mut cluster.stores));
        cluster.stores.iter_mut().for_each(|store| {
            put(store, "in no checkpoint", b"").ok();
        });
        drop(cluster);
        assert_intact(&place);
    }
    let all = expected.unwrap();
    assert_eq!((all["first"].0.len(), &all["second"].1), (20, &vec![0, 1, 2, 3, 4]));
}

type Offsets = OperatorListState<u64>;
type Rules = BroadcastState<String, u64>;

fn set_rule(store: &mut StateStore, value: u64) {
    let rules = store.register(Rules::descriptor("rules")).unwrap();
    rules.put(store, "limit", &value).unwrap();
}

fn rule(store: &mut StateStore) -> Option<u64> {
    let rules = store.register(Rules::descriptor("rules")).unwrap();
    rules.get(store, "limit").unwrap()
}

#[test]
fn i1_copies_of_a_broadcast_state_are_compared_wherever_they_are() {
    let place = Place::new();
    let layout = |sources, counts| {
        move |options: JobOptions| {
            options.operators([OperatorSpec::new("source", sources), OperatorSpec::new("counts", counts)])
        }
    };
    // A member has subtasks of both operators, and the committer the others.
    let mut cluster = place.start_with(4, &[1..3], layout(2, 2));
    for (n, store) in (0..).zip(&mut cluster.stores[..2]) {
        let offsets = store.register(Offsets::descriptor("offsets")).unwrap();
        offsets.set(store, &[10 * n + 1, 10 * n + 2]).unwrap();
        set_rule(store, 1);
    }
    for key in 0..20 {
        put_any(&mut cluster.stores[2..], &format!("key {key}"), &noise(key, 200));
    }
    cluster.checkpoint().unwrap();
    // One that has finished misses a change, which is no contradiction.
    cluster.stores.remove(1).finish("").unwrap();
    set_rule(&mut cluster.stores[0], 2);
    cluster.checkpoint().unwrap();
    let expected = contents(&mut cluster.stores[1..], "words");
    assert_eq!(expected.len(), 20);
    drop(cluster);
    let mut cluster = place.start_with(4, &[0..2, 2..4], layout(3, 1));
    let mut offsets = Vec::new();
    for store in &mut cluster.stores[..3] {
        assert_eq!(store.operator(), Some("source"));
        assert_eq!(rule(store), Some(2));
        let own = store.register(Offsets::descriptor("offsets")).unwrap();
        offsets.extend(own.get(store).unwrap());
    }
    assert_eq!(offsets, [1, 2, 11, 12]);
    assert_eq!(cluster.stores[3].operator(), Some("counts"));
    assert!(contents(&mut cluster.stores[3..], "words") == expected);
    // Copies that differ are found out wherever they are.
    set_rule(&mut cluster.stores[2], 3);
    let error = cluster.checkpoint().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
}
