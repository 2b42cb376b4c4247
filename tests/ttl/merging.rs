//! Namespaces that are merged: what moves keeps its time, and what had expired stays gone.

use super::*;

#[test]
fn what_had_expired_when_namespaces_were_merged_does_not_show_again() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let long = || Ttl::new(Duration::from_secs(3600));
        let mut opened = place.open();
        let (values, maps) = (
            register(&mut opened, value().ttl(ttl()).namespaced::<u16>()),
            register(&mut opened, map().ttl(ttl()).namespaced::<u16>()),
        );
        let store = &mut opened.stores[0];
        store.set_key("k").unwrap();
        values.at(&1).put(store, &1).unwrap();
        maps.at(&1).put(store, "old", &1).unwrap();
        values.at(&5).put(store, &5).unwrap();
        // What expires before it is cut would not be stored at all.
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        let store = &mut opened.stores[0];
        place.clock.set(1_020);
        values.at(&2).put(store, &2).unwrap();
        maps.at(&2).put(store, "new", &2).unwrap();
        values.merge(store, &3, &[1, 2], |a, b| a + b).unwrap();
        maps.merge(store, &3, &[1, 2], |a, b| a + b).unwrap();
        assert_eq!(values.at(&3).get(store).unwrap(), Some(2));
        // Nothing but what has expired.
        values.merge(store, &6, &[5, 7], |a, b| a + b).unwrap();
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        drop(opened);
        let mut opened = place.open();
        let (values, maps) = (
            register(&mut opened, value().ttl(long()).namespaced::<u16>()),
            register(&mut opened, map().ttl(long()).namespaced::<u16>()),
        );
        let store = &mut opened.stores[0];
        store.set_key("k").unwrap();
        let shown = |namespace| values.at(&namespace).get(store).unwrap();
        assert_eq!([1, 2, 3, 5, 6, 7].map(shown), [None, None, Some(2), None, None, None], "{mode:?}");
        let entries =
            |namespace| -> Vec<_> { maps.at(&namespace).iter(store).unwrap().map(Result::unwrap).collect() };
        assert_eq!(entries(1), []);
        assert_eq!(entries(3), [("new".to_owned(), 2)]);
    }
}

/// Compaction removes from the table what the changelog still holds.
#[test]
fn i1_what_compaction_removed_before_a_merge_does_not_show_after_a_crash() {
    let place = ClockedJob::new(CheckpointMode::Changelog);
    let long = || Ttl::new(Duration::from_secs(3600));
    let mut opened = place.open();
    let (values, maps) = (
        register(&mut opened, value().ttl(ttl()).namespaced::<u16>()),
        register(&mut opened, map().ttl(ttl()).namespaced::<u16>()),
    );
    let (lists, sums) = (
        register(&mut opened, list().ttl(ttl()).namespaced::<u16>()),
        register(&mut opened, sum().ttl(ttl()).namespaced::<u16>()),
    );
    let store = &mut opened.stores[0];
    store.set_key("k").unwrap();
    values.at(&1).put(store, &1).unwrap();
    maps.at(&1).put(store, "old", &1).unwrap();
    lists.at(&1).append(store, &1).unwrap();
    sums.at(&1).add(store, 1).unwrap();
    // One that is to be merged where nothing lives.
    values.at(&5).put(store, &5).unwrap();
    maps.at(&5).put(store, "old", &5).unwrap();
    lists.at(&5).append(store, &5).unwrap();
    sums.at(&5).add(store, 5).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    opened.job.settle(Duration::from_secs(30)).unwrap();
    place.clock.set(1_020);
    opened.job.compact().unwrap();
    opened.job.compact().unwrap();
    assert!(opened.stores[0].stats().table.keys <= 1, "nothing but the marker is left in the table");

    let store = &mut opened.stores[0];
    values.at(&2).put(store, &2).unwrap();
    maps.at(&2).put(store, "new", &2).unwrap();
    lists.at(&2).append(store, &2).unwrap();
    sums.at(&2).add(store, 2).unwrap();
    values.merge(store, &3, &[1, 2], |a, b| a + b).unwrap();
    maps.merge(store, &3, &[1, 2], |a, b| a + b).unwrap();
    lists.merge(store, &3, &[1, 2]).unwrap();
    sums.merge(store, &3, &[1, 2]).unwrap();
    values.merge(store, &6, &[5], |a, b| a + b).unwrap();
    maps.merge(store, &6, &[5], |a, b| a + b).unwrap();
    lists.merge(store, &6, &[5]).unwrap();
    sums.merge(store, &6, &[5]).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);

    let mut opened = place.open();
    let (values, maps) = (
        register(&mut opened, value().ttl(long()).namespaced::<u16>()),
        register(&mut opened, map().ttl(long()).namespaced::<u16>()),
    );
    let (lists, sums) = (
        register(&mut opened, list().ttl(long()).namespaced::<u16>()),
        register(&mut opened, sum().ttl(long()).namespaced::<u16>()),
    );
    let store = &mut opened.stores[0];
    store.set_key("k").unwrap();
    let shown = |namespace: u16| {
        (
            values.at(&namespace).get(store).unwrap(),
            maps.at(&namespace).iter(store).unwrap().map(|entry| entry.unwrap().1).collect::<Vec<_>>(),
            lists.at(&namespace).get(store).unwrap(),
            sums.at(&namespace).get(store).unwrap(),
        )
    };
    assert_eq!(shown(1), (None, vec![], vec![], None));
    assert_eq!(shown(2), (None, vec![], vec![], None));
    assert_eq!(shown(3), (Some(2), vec![2], vec![2], Some(2)));
    assert_eq!((shown(5), shown(6)), ((None, vec![], vec![], None), (None, vec![], vec![], None)));
}

#[test]
fn a_merge_makes_nothing_young_that_only_moves() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let (values, maps) = (
            register(&mut opened, value().ttl(on_read()).namespaced::<u16>()),
            register(&mut opened, map().ttl(on_read()).namespaced::<u16>()),
        );
        let (lists, counts) = (
            register(&mut opened, list().ttl(on_read()).namespaced::<u16>()),
            register(&mut opened, count().ttl(on_read()).namespaced::<u16>()),
        );
        let store = &mut opened.stores[0];
        store.set_key("k").unwrap();
        let write = |store: &mut StateStore, namespace: u16, entry: &str| {
            values.at(&namespace).put(store, &1).unwrap();
            maps.at(&namespace).put(store, entry, &1).unwrap();
            lists.at(&namespace).append(store, &1).unwrap();
            counts.at(&namespace).add(store, 1).unwrap();
        };
        let merge = |store: &mut StateStore, into: u16, from: &[u16]| {
            values.merge(store, &into, from, |a, b| a + b).unwrap();
            maps.merge(store, &into, from, |a, b| a + b).unwrap();
            lists.merge(store, &into, from).unwrap();
            counts.merge(store, &into, from).unwrap();
        };
        // What `contains` and scans see, for they are no accesses.
        let shown = |store: &StateStore, namespace: u16| {
            let entries = maps.at(&namespace).iter(store).unwrap().map(|entry| entry.unwrap().0);
            (
                values.at(&namespace).contains(store).unwrap(),
                entries.collect::<Vec<_>>(),
                lists.at(&namespace).contains(store).unwrap(),
                counts.at(&namespace).contains(store).unwrap(),
            )
        };
        write(store, 1, "a");
        place.clock.set(1_008);
        merge(store, 9, &[1, 2]);
        assert_eq!(shown(store, 9), (true, vec!["a".to_owned()], true, true));
        place.clock.set(1_010);
        assert_eq!(shown(store, 9), (false, vec![], false, false), "{mode:?}: all of it only moved");

        // Values that are folded are written; elements and entries that both do not have still only move.
        place.clock.set(2_000);
        write(store, 1, "a");
        write(store, 2, "b");
        place.clock.set(2_005);
        write(store, 3, "b");
        merge(store, 4, &[1, 2, 3]);
        place.clock.set(2_010);
        assert_eq!(shown(store, 4), (true, vec!["b".to_owned()], true, true), "{mode:?}");
        place.clock.set(2_015);
        assert_eq!(shown(store, 4), (false, vec![], false, false), "{mode:?}");
    }
}

#[test]
fn namespaces_expire_by_themselves() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let windows = register(&mut opened, list().ttl(ttl()).namespaced::<u16>());
        let store = &mut opened.stores[0];
        store.set_key("k").unwrap();
        windows.at(&1).append(store, &1).unwrap();
        place.clock.set(1_005);
        windows.at(&2).append(store, &2).unwrap();
        // Moved with their times.
        windows.merge(store, &3, &[1, 2]).unwrap();
        windows.at(&1).append(store, &3).unwrap();
        assert_eq!(windows.at(&3).get(store).unwrap(), [1, 2]);
        place.clock.set(1_010);
        assert_eq!(windows.at(&3).get(store).unwrap(), [2]);
        place.clock.set(1_014);
        windows.at(&1).append(store, &4).unwrap();
        place.clock.set(1_015);
        let namespaces: Vec<_> = windows.namespaces(store).unwrap().map(Result::unwrap).collect();
        assert_eq!(namespaces, [1]);
    }
}
