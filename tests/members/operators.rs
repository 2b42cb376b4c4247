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
