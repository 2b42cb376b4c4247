//! TTL as a program sees it: what has expired is hidden from every read, vanishes from disk, and does not come back; and a TTL
//! may be given, changed and taken away.
#![allow(clippy::unwrap_used)]

mod cleanup;
mod merging;
mod model;
mod renewals;

use alluvium::state::KeyedState;
use alluvium::{
    Aggregate, AggregatingState, CheckpointMode, ErrorKind, KeyGroup, ListState, MapState, Opened,
    ReducingState, StateDescriptor, StateOptions, StateStore, TimeDomain, TimerService, Ttl, TtlUpdate,
    TtlVisibility, ValueState,
};
use alluvium_testkit::clock::{ClockedJob, MODES, owner};
use alluvium_testkit::drive::{checkpoint, materialize, noise};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

/// 10 milliseconds; the clock starts at 1,000.
fn ttl() -> Ttl {
    Ttl::new(Duration::from_millis(10))
}

fn on_read() -> Ttl {
    ttl().update(TtlUpdate::OnReadAndWrite)
}

fn value() -> StateDescriptor<ValueState<u64>> {
    ValueState::descriptor("value")
}

fn list() -> StateDescriptor<ListState<u64>> {
    ListState::descriptor("list")
}

fn map() -> StateDescriptor<MapState<String, u64>> {
    MapState::descriptor("map")
}

fn sum() -> StateDescriptor<ReducingState<u64>> {
    ReducingState::descriptor("sum", |a, b| a + b)
}

/// Counts what is added.
struct Count;

impl Aggregate<u64, u64, u64> for Count {
    fn create(&self) -> u64 {
        0
    }

    fn add(&self, count: &mut u64, _input: u64) {
        *count += 1;
    }

    fn merge(&self, count: &mut u64, other: u64) {
        *count += other;
    }

    fn result(&self, count: u64) -> u64 {
        count
    }
}

fn count() -> StateDescriptor<AggregatingState<u64, u64, u64>> {
    AggregatingState::descriptor("count", Count)
}

fn register<S: KeyedState>(opened: &mut Opened, descriptor: StateDescriptor<S>) -> S {
    opened.stores[0].register(descriptor).unwrap()
}

fn entries(map: &MapState<String, u64>, store: &StateStore) -> Vec<(String, u64)> {
    map.iter(store).unwrap().map(Result::unwrap).collect()
}

fn keys(opened: &Opened, of: impl Fn(&StateStore, KeyGroup) -> Vec<u64>) -> Vec<u64> {
    let groups =
        opened.stores.iter().flat_map(|store| store.range().groups().map(move |group| (store, group)));
    let mut keys: Vec<u64> = groups.flat_map(|(store, group)| of(store, group)).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn what_has_expired_is_hidden_in_every_kind() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let (value, list, map) = (
            register(&mut opened, value().ttl(ttl()).default_value(99)),
            register(&mut opened, list().ttl(ttl())),
            register(&mut opened, map().ttl(ttl())),
        );
        let (sum, count) =
            (register(&mut opened, sum().ttl(ttl())), register(&mut opened, count().ttl(ttl())));
        let store = &mut opened.stores[0];
        store.set_key(&1_u64).unwrap();
        value.put(store, &7).unwrap();
        list.extend(store, [1, 2]).unwrap();
        map.put(store, "old", &1).unwrap();
        sum.add(store, 5).unwrap();
        count.add(store, 5).unwrap();
        store.set_key(&2_u64).unwrap();
        list.append(store, &9).unwrap();

        place.clock.set(1_009);
        store.set_key(&1_u64).unwrap();
        list.append(store, &3).unwrap();
        map.put(store, "young", &2).unwrap();
        assert_eq!(value.get(store).unwrap(), Some(7));
        assert!(value.contains(store).unwrap());
        assert_eq!(list.get(store).unwrap(), [1, 2, 3]);
        assert_eq!(entries(&map, store), [("old".into(), 1), ("young".into(), 2)]);
        assert_eq!((sum.get(store).unwrap(), count.get(store).unwrap()), (Some(5), Some(1)));

        // Reads at 1,009 did not count.
        place.clock.set(1_010);
        assert_eq!(value.get(store).unwrap(), Some(99), "the default");
        assert!(!value.contains(store).unwrap());
        assert_eq!(list.get(store).unwrap(), [3]);
        assert!(list.contains(store).unwrap());
        assert_eq!(entries(&map, store), [("young".into(), 2)]);
        assert_eq!(map.get(store, "old").unwrap(), None);
        assert!(!map.contains(store, "old").unwrap() && map.contains(store, "young").unwrap());
        assert_eq!(map.range::<String, _>(store, "a".to_owned()..).unwrap().count(), 1);
        assert_eq!(map.prefix(store, "o").unwrap().count(), 0);
        assert!(!map.is_empty(store).unwrap());
        assert_eq!((sum.get(store).unwrap(), count.get(store).unwrap()), (None, None));
        // What is folded now begins anew.
        sum.add(store, 6).unwrap();
        count.add(store, 6).unwrap();
        assert_eq!((sum.get(store).unwrap(), count.get(store).unwrap()), (Some(6), Some(1)));

        let lists =
            |store: &StateStore, group| list.keys::<u64>(store, group).unwrap().map(Result::unwrap).collect();
        assert_eq!(keys(&opened, lists), [1], "the list of key 2 has nothing left");
        let values = |store: &StateStore, group| {
            value.entries::<u64>(store, group).unwrap().map(|entry| entry.unwrap().0).collect()
        };
        assert!(keys(&opened, values).is_empty());

        let store = &mut opened.stores[0];
        place.clock.set(1_019);
        assert!(map.is_empty(store).unwrap());
        assert!(!list.contains(store).unwrap());
        list.retain(store, |_| true).unwrap();
        list.append(store, &4).unwrap();
        place.clock.set(1_000);
        assert_eq!(list.get(store).unwrap(), [4], "what had expired was removed");
    }
}

#[test]
fn what_has_expired_may_be_shown_until_it_is_cleaned_up() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let mut opened = place.open();
        let shown = on_read().visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp);
        let (value, list) =
            (register(&mut opened, value().ttl(shown)), register(&mut opened, list().ttl(shown)));
        let store = &mut opened.stores[0];
        store.set_key(&1_u64).unwrap();
        value.put(store, &7).unwrap();
        list.append(store, &1).unwrap();
        // So that the deltas are applied before it expires.
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        opened.job.settle(Duration::from_secs(30)).unwrap();
        let store = &mut opened.stores[0];
        place.clock.set(1_010);
        for _ in 0..2 {
            // Shown, but not made young again.
            assert_eq!(value.get(store).unwrap(), Some(7));
            assert_eq!(list.get(store).unwrap(), [1]);
            store.set_key(&1_u64).unwrap();
        }
        opened.job.compact().unwrap();
        let store = &mut opened.stores[0];
        assert_eq!(value.get(store).unwrap(), None);
        assert!(list.get(store).unwrap().is_empty());
    }
}

#[test]
fn i1_a_restore_does_not_bring_back_what_has_expired() {
    for mode in MODES {
        for base in [false, true] {
            let place = ClockedJob::new(mode);
            let mut opened = place.open();
            let (value, map) =
                (register(&mut opened, value().ttl(ttl())), register(&mut opened, map().ttl(ttl())));
            let store = &mut opened.stores[0];
            for key in 0..100_u64 {
                store.set_key(&key).unwrap();
                value.put(store, &key).unwrap();
                map.put(store, "old", &key).unwrap();
            }
            place.clock.set(1_005);
            for key in 0..10_u64 {
                store.set_key(&key).unwrap();
                value.put(store, &key).unwrap();
            }
            if base {
                materialize(&opened.job);
            }
            checkpoint(&opened.job, &mut opened.stores, "").unwrap();
            drop(opened);

            for (now, left) in [(1_009, 100), (1_010, 10), (1_014, 10), (1_015, 0)] {
                place.clock.set(now);
                let mut opened = place.open();
                let (value, map) = (
                    register(&mut opened, self::value().ttl(ttl())),
                    register(&mut opened, self::map().ttl(ttl())),
                );
                for compacted in [false, true] {
                    let values = |store: &StateStore, group| {
                        value.keys::<u64>(store, group).unwrap().map(Result::unwrap).collect()
                    };
                    assert_eq!(keys(&opened, values).len(), left, "{mode:?} {now} {compacted}");
                    let store = &mut opened.stores[0];
                    store.set_key(&50_u64).unwrap();
                    assert_eq!(map.get(store, "old").unwrap().is_some(), now < 1_010);
                    opened.job.compact().unwrap();
                }
            }
        }
    }
}

#[test]
fn a_ttl_may_be_given_changed_and_taken_away() {
    for mode in MODES {
        let place = ClockedJob::new(mode);
        let with = |ttl: Option<u64>| {
            let mut descriptor = value();
            if let Some(millis) = ttl {
                descriptor = descriptor.ttl(Ttl::new(Duration::from_millis(millis)));
            }
            let mut opened = place.open();
            // Nothing may vanish before the program has said how long it lives.
            opened.job.compact().unwrap();
            let value = register(&mut opened, descriptor);
            (opened, value)
        };
        let shown = |opened: &Opened, value: &ValueState<u64>| {
            keys(opened, |store, group| {
                value.keys::<u64>(store, group).unwrap().map(Result::unwrap).collect()
            })
        };
        let put = |opened: &mut Opened, value: &ValueState<u64>, key: u64| {
            opened.stores[0].set_key(&key).unwrap();
            value.put(&mut opened.stores[0], &key).unwrap();
        };
        let done = |mut opened: Opened| _ = checkpoint(&opened.job, &mut opened.stores, "").unwrap();

        let (mut opened, value) = with(None);
        (0..4).for_each(|key| put(&mut opened, &value, key));
        done(opened);
        // Given: what has no time stays, until it is written.
        let (mut opened, value) = with(Some(10));
        (2..6).for_each(|key| put(&mut opened, &value, key));
        place.clock.set(1_010);
        assert_eq!(shown(&opened, &value), [0, 1]);
        place.clock.set(1_009);
        done(opened);
        // Longer: what is there is younger than it was, though it had expired meanwhile.
        place.clock.set(1_020);
        let (mut opened, value) = with(Some(100));
        assert_eq!(shown(&opened, &value), [0, 1, 2, 3, 4, 5]);
        put(&mut opened, &value, 5);
        done(opened);
        // Shorter.
        place.clock.set(1_024);
        let (opened, value) = with(Some(5));
        assert_eq!(shown(&opened, &value), [0, 1, 5]);
        done(opened);
        // Taken away.
        place.clock.set(99_999);
        let (opened, value) = with(None);
        let left = shown(&opened, &value);
        assert!(left.starts_with(&[0, 1]) && left.ends_with(&[5]), "{left:?}");
        done(opened);
    }
}

#[test]
fn misuse_is_an_error_that_says_so() {
    let place = ClockedJob::new(CheckpointMode::Changelog);
    let mut opened = place.open();
    let store = &mut opened.stores[0];
    let error = store.register(value().ttl(Ttl::new(Duration::ZERO))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    store.register(value().ttl(ttl())).unwrap();
    store.register(value().ttl(ttl())).unwrap();
    for other in [value(), value().ttl(on_read())] {
        let error = store.register(other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("\"value\"") && error.to_string().contains("TTL"), "{error}");
    }
}
