//! Timers as a program sees them: order, deduplication, what happens while they fire, and that
//! they come through crashes and restores in both modes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use alluvium::{CheckpointMode, Error, ErrorKind, StateOptions, StateStore, TimeDomain, Timer, TimerService};
use alluvium_testkit::clock::{ClockedJob, MODES, owner};
use alluvium_testkit::drive::{checkpoint, materialize};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use TimeDomain::{Event, Processing};

type Timers = TimerService<str, u16>;

fn timers(store: &mut StateStore) -> Timers {
    store.timer_service(Timers::descriptor("timers")).unwrap()
}

fn register(store: &mut StateStore, key: &str, namespace: u16, time: i64) {
    let timers = timers(store);
    store.set_key(key).unwrap();
    timers.register(store, Event, time, &namespace).unwrap();
}

fn pop(store: &mut StateStore, time: i64) -> Option<(i64, String, u16)> {
    let timer = timers(store).pop_due(store, Event, time).unwrap()?;
    Some((timer.timestamp, timer.key, timer.namespace))
}

fn pop_all(store: &mut StateStore, time: i64) -> Vec<(i64, String, u16)> {
    std::iter::from_fn(|| pop(store, time)).collect()
}

fn fired(time: i64, key: &str, namespace: u16) -> (i64, String, u16) {
    (time, key.to_owned(), namespace)
}

#[test]
fn timers_fire_once_in_order_over_all_key_groups() {
    for mode in MODES {
        let mut opened = ClockedJob::new(mode).open();
        let store = &mut opened.stores[0];
        for (time, key, namespace) in [
            (30, "b", 1),
            (10, "z", 0),
            (-5, "m", 7),
            (10, "a", 2),
            (10, "a", 1),
            (10, "aa", 0),
            (30, "b", 1),
        ] {
            register(store, key, namespace, time);
        }
        assert_eq!(timers(store).next_timestamp(store, Event).unwrap(), Some(-5));
        assert_eq!(pop(store, -6), None);
        let expected =
            [fired(-5, "m", 7), fired(10, "a", 1), fired(10, "a", 2), fired(10, "aa", 0), fired(10, "z", 0)];
        assert_eq!(pop_all(store, 29), expected);
        assert_eq!(timers(store).next_timestamp(store, Event).unwrap(), Some(30));
        assert_eq!(pop_all(store, i64::MAX), [fired(30, "b", 1)]);
        assert_eq!(timers(store).next_timestamp(store, Event).unwrap(), None);
        // What has fired may be registered again.
        register(store, "b", 1, i64::MAX);
        register(store, "b", 1, i64::MIN);
        assert_eq!(pop_all(store, i64::MIN), [fired(i64::MIN, "b", 1)]);
        assert_eq!(pop_all(store, i64::MAX - 1), []);
        assert_eq!(pop_all(store, i64::MAX), [fired(i64::MAX, "b", 1)]);
    }
}

#[test]
fn what_is_registered_while_firing_fires_in_the_same_advance() {
    for mode in MODES {
        let mut opened = ClockedJob::new(mode).open();
        let store = &mut opened.stores[0];
        register(store, "a", 0, 10);
        register(store, "b", 0, 20);
        register(store, "c", 0, 30);
        let mut order = Vec::new();
        while let Some((time, key, namespace)) = pop(store, 30) {
            match (time, key.as_str(), namespace) {
                (10, "a", 0) => {
                    // Before the one that fires, between others, itself once more, and not yet due.
                    register(store, "x", 0, 5);
                    register(store, "y", 0, 15);
                    register(store, "a", 9, 10);
                    register(store, "z", 0, 31);
                }
                (20, "b", _) => {
                    store.set_key("c").unwrap();
                    timers(store).delete(store, Event, 30, &0).unwrap();
                    register(store, "c", 1, 30);
                }
                _ => {}
            }
            order.push((time, key));
        }
        let expected = [(10, "a"), (5, "x"), (10, "a"), (15, "y"), (20, "b"), (30, "c")];
        assert_eq!(order, expected.map(|(time, key)| (time, key.to_owned())));
        assert_eq!(pop_all(store, 31), [fired(31, "z", 0)]);
    }
}

#[test]
fn a_deleted_timer_does_not_fire() {
    for mode in MODES {
        let mut opened = ClockedJob::new(mode).open();
        let store = &mut opened.stores[0];
        register(store, "a", 0, 10);
        register(store, "a", 1, 10);
        register(store, "b", 0, 10);
        let timers = timers(store);
        assert_eq!(timers.next_timestamp(store, Event).unwrap(), Some(10));
        store.set_key("a").unwrap();
        timers.delete(store, Event, 10, &0).unwrap();
        // Another time, domain or key, or one that was never there.
        timers.delete(store, Event, 11, &1).unwrap();
        timers.delete(store, Processing, 10, &1).unwrap();
        store.set_key("c").unwrap();
        timers.delete(store, Event, 10, &0).unwrap();
        assert_eq!(pop_all(store, 10), [fired(10, "a", 1), fired(10, "b", 0)]);
    }
}

#[test]
fn the_timers_of_a_key_are_listed_and_deleted() {
    for mode in MODES {
        let clocked = ClockedJob::new(mode);
        let mut opened = clocked.open();
        let store = &mut opened.stores[0];
        // Keys of one group, of which one is the beginning of another, and some of other groups.
        let group = store.max_parallelism().group_of_key("user");
        let beside = (0..).map(|n| format!("user{n}"));
        let beside: Vec<_> =
            beside.filter(|key| store.max_parallelism().group_of_key(key) == group).take(3).collect();
        for time in [30, 10, 20, -4] {
            register(store, "user", 1, time);
            for key in &beside {
                register(store, key, 1, time + 1);
            }
            register(store, "elsewhere", 1, time);
        }
        register(store, "user", 0, 20);
        let timers = timers(store);
        store.set_key("user").unwrap();
        timers.register(store, Processing, 7, &9).unwrap();
        let listed = |store: &StateStore, domain| -> Vec<_> {
            let timers = timers.of_key(store, domain).unwrap().map(Result::unwrap);
            timers.map(|timer| (timer.timestamp, timer.namespace)).collect()
        };
        let expected = [(-4, 1), (10, 1), (20, 0), (20, 1), (30, 1)];
        assert_eq!(listed(store, Event), expected);
        assert_eq!(listed(store, Processing), [(7, 9)]);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        let store = &mut opened.stores[0];
        assert_eq!(listed(store, Event), expected);
        // A listing is a snapshot.
        let before = timers.of_key(store, Event).unwrap();
        assert_eq!(timers.delete_all(store, Event).unwrap(), 5);
        assert_eq!(before.count(), 5);
        assert_eq!((listed(store, Event), timers.delete_all(store, Event).unwrap()), (vec![], 0));
        assert_eq!(listed(store, Processing), [(7, 9)]);
        store.set_key(beside[0].as_str()).unwrap();
        assert_eq!(listed(store, Event).len(), 4);
        assert!(pop_all(store, i64::MAX).iter().all(|(_, key, _)| key != "user"));
    }
}

#[test]
fn domains_and_services_are_apart() {
    let place = ClockedJob::new(CheckpointMode::Changelog);
    let mut opened = place.open();
    let store = &mut opened.stores[0];
    let timers = timers(store);
    let others = store.timer_service(TimerService::<str>::descriptor("others")).unwrap();
    store.set_key("a").unwrap();
    timers.register(store, Event, 1, &0).unwrap();
    timers.register(store, Processing, 1_500, &0).unwrap();
    others.register(store, Event, 2, &()).unwrap();

    assert_eq!(store.processing_time(), 1_000);
    assert_eq!(timers.pop_due(store, Processing, store.processing_time()).unwrap(), None);
    place.clock.set(1_500);
    let due = timers.pop_due(store, Processing, store.processing_time()).unwrap();
    assert_eq!(due, Some(Timer { timestamp: 1_500, key: "a".to_owned(), namespace: 0 }));
    assert_eq!(timers.next_timestamp(store, Processing).unwrap(), None);
    assert_eq!(timers.next_timestamp(store, Event).unwrap(), Some(1));
    assert_eq!(others.next_timestamp(store, Event).unwrap(), Some(2));
}

#[test]
fn handles_of_one_name_see_the_same_timers() {
    let mut opened = ClockedJob::new(CheckpointMode::Changelog).open();
    let store = &mut opened.stores[0];
    let (one, two) = (timers(store), timers(store));
    store.set_key("a").unwrap();
    assert_eq!(two.next_timestamp(store, Event).unwrap(), None);
    one.register(store, Event, 5, &0).unwrap();
    assert_eq!(two.next_timestamp(store, Event).unwrap(), Some(5));
    two.register(store, Event, 3, &0).unwrap();
    one.delete(store, Event, 5, &0).unwrap();
    assert_eq!(one.pop_due(store, Event, 9).unwrap().unwrap().timestamp, 3);
    assert_eq!(two.pop_due(store, Event, 9).unwrap(), None);
}

#[test]
fn misuse_is_an_error_that_says_so() {
    let place = ClockedJob::new(CheckpointMode::Changelog);
    let mut opened = place.open();
    let store = &mut opened.stores[0];
    let timers = timers(store);
    let error = timers.register(store, Event, 1, &0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("\"timers\"") && error.to_string().contains("set_key"), "{error}");
    store.set_key(&7_u64).unwrap();
    let error = timers.register(store, Event, 1, &0).unwrap_err();
    assert!(error.to_string().contains("\"u64\"") && error.to_string().contains("\"str\""), "{error}");

    store.set_key("a").unwrap();
    timers.register(store, Event, 1, &0).unwrap();
    let incompatible = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains("\"timers\""), "{error}");
    };
    for _restored in [false, true] {
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        let store = &mut opened.stores[0];
        incompatible(store.state(&StateOptions::new("timers")).unwrap_err());
        let descriptor = TimerService::<str, u32>::descriptor("timers");
        incompatible(store.timer_service(descriptor).unwrap_err());
        let descriptor = TimerService::<u64, u16>::descriptor("timers");
        incompatible(store.timer_service(descriptor).unwrap_err());
        drop(opened);
        opened = place.open();
    }
}

#[test]
fn i1_timers_come_through_a_crash_as_of_the_checkpoint() {
    for mode in MODES {
        for base in [false, true] {
            let place = ClockedJob::new(mode);
            let mut opened = place.open();
            let store = &mut opened.stores[0];
            (0..500).for_each(|i| register(store, &format!("key/{i}"), 0, 100 + i64::from(i % 50)));
            assert_eq!(pop_all(store, 109).len(), 100);
            if base {
                materialize(&opened.job);
            }
            checkpoint(&opened.job, &mut opened.stores, "").unwrap();
            // Of what follows nothing is in the checkpoint.
            let store = &mut opened.stores[0];
            register(store, "late", 0, 1);
            assert_eq!(pop_all(store, 119).len(), 101);
            drop(opened);

            let mut opened = place.open();
            let store = &mut opened.stores[0];
            assert_eq!(timers(store).next_timestamp(store, Event).unwrap(), Some(110));
            assert_eq!(pop_all(store, 119).len(), 100);
            register(store, "early", 3, 50);
            assert_eq!(pop(store, 119), Some(fired(50, "early", 3)));
            assert_eq!(pop_all(store, i64::MAX).len(), 300);
        }
    }
}

/// Timers by (time, key, namespace): the order in which they fire.
type Model = BTreeSet<(i64, String, u16)>;

/// Which of them a store owns.
fn owned<'m>(store: &StateStore, model: &'m Model) -> impl Iterator<Item = &'m (i64, String, u16)> {
    let (range, groups) = (store.range(), store.max_parallelism());
    model.iter().filter(move |(_, key, _)| range.contains(groups.group_of_key(key.as_str())))
}

fn model_run(seed: u64, steps: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let place = ClockedJob::new(MODES[0]);
    let mut opened = place.open_as(MODES[seed as usize % 2], 1);
    let (mut live, mut committed) = (Model::new(), Model::new());
    for step in 0..steps {
        let time = rng.random_range(-50..50_i64);
        let (key, namespace) = (format!("k{}", rng.random_range(0..20)), rng.random_range(0..3_u16));
        let any = rng.random_range(0..opened.stores.len());
        match rng.random_range(0..100) {
            0..50 => {
                register(owner(&mut opened.stores, key.as_str()), &key, namespace, time);
                live.insert((time, key, namespace));
            }
            50..65 => {
                // Mostly one that is there.
                let at = rng.random_range(0..=live.len());
                let (time, key, namespace) = live.iter().nth(at).cloned().unwrap_or((time, key, namespace));
                let store = owner(&mut opened.stores, key.as_str());
                store.set_key(key.as_str()).unwrap();
                timers(store).delete(store, Event, time, &namespace).unwrap();
                live.remove(&(time, key, namespace));
            }
            65..85 => {
                let (store, until) = (&mut opened.stores[any], time - 30);
                for _ in 0..rng.random_range(1..30) {
                    let expected = owned(store, &live).next().filter(|(time, ..)| *time <= until).cloned();
                    assert_eq!(pop(store, until), expected, "step {step}");
                    let Some(fired) = expected else { break };
                    live.remove(&fired);
                    // While firing.
                    if rng.random_bool(0.3) {
                        let again = (until - rng.random_range(-2..5), fired.1, rng.random_range(0..3));
                        register(store, &again.1, again.2, again.0);
                        live.insert(again);
                    }
                }
            }
            85..92 => {
                let store = &mut opened.stores[any];
                let next = timers(store).next_timestamp(store, Event).unwrap();
                assert_eq!(next, owned(store, &live).next().map(|(time, ..)| *time), "step {step}");
            }
            92..96 => {
                checkpoint(&opened.job, &mut opened.stores, "").unwrap();
                committed = live.clone();
            }
            96..97 => materialize(&opened.job),
            97..98 => opened.job.compact().unwrap(),
            _ => {
                drop(opened);
                opened = place.open_as(MODES[rng.random_range(0..2)], rng.random_range(1..5));
                live = committed.clone();
            }
        }
    }
    for store in &mut opened.stores {
        let expected: Vec<_> = owned(store, &live).cloned().collect();
        assert_eq!(pop_all(store, i64::MAX), expected);
    }
}

/// Crashes, restores at another parallelism and changes of mode among the steps. A failing seed is run again with
/// `ALLUVIUM_SEED=…`.
#[test]
fn i9_timers_behave_as_a_sorted_set() {
    let seeds = std::env::var("ALLUVIUM_SEED").map(|seed| seed.parse().unwrap());
    for seed in seeds.map_or(0..6, |seed| seed..seed + 1) {
        println!("seed {seed}");
        model_run(seed, 600);
    }
}
