//! Typed reads of a checkpoint: by the descriptors that the program registers, with the same answers.
#![allow(clippy::unwrap_used)]

mod errors;
mod expiry;

use alluvium::state::{Codec, Postcard};
use alluvium::{
    Aggregate, AggregatingState, CheckpointReader, ErrorKind, KeyGroup, KeyGroupRange, ListState, MapState,
    ReaderOptions, ReducingState, StateDescriptor, StateStore, TimeDomain, TimerService, Ttl, TtlUpdate,
    TtlVisibility, ValueState,
};
use alluvium_testkit::clock::{ClockedJob, MODES, owner};
use alluvium_testkit::typed::{Home, all, assert_error, in_both_modes};
use std::collections::BTreeMap;
use std::time::Duration;

/// Number and sum, of which the mean is made.
struct Mean;

impl Aggregate<u32, (u64, u64), f64> for Mean {
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, accumulator: &mut (u64, u64), input: u32) {
        *accumulator = (accumulator.0 + 1, accumulator.1 + u64::from(input));
    }

    fn merge(&self, accumulator: &mut (u64, u64), other: (u64, u64)) {
        *accumulator = (accumulator.0 + other.0, accumulator.1 + other.1);
    }

    fn result(&self, (count, sum): (u64, u64)) -> f64 {
        sum as f64 / count as f64
    }
}

fn clicks() -> StateDescriptor<ValueState<u64>> {
    ValueState::descriptor("clicks").default_value(0)
}

fn visits() -> StateDescriptor<ListState<String>> {
    ListState::descriptor("visits")
}

fn routes() -> StateDescriptor<MapState<String, u32>> {
    MapState::descriptor("routes")
}

fn longest() -> StateDescriptor<ReducingState<u64>> {
    ReducingState::descriptor("longest", |a: u64, b| a.max(b))
}

fn mean() -> StateDescriptor<AggregatingState<u32, (u64, u64), f64>> {
    AggregatingState::descriptor("mean", Mean)
}

/// Writes something of every kind for key `n`; differently in each round, so that base and deltas both count.
fn write(store: &mut StateStore, n: u32, round: u32) {
    let (clicks, visits, routes) = (
        store.register(clicks()).unwrap(),
        store.register(visits()).unwrap(),
        store.register(routes()).unwrap(),
    );
    let (longest, mean) = (store.register(longest()).unwrap(), store.register(mean()).unwrap());
    let windows = store.register(ValueState::<u32>::descriptor("windows").namespaced::<u64>()).unwrap();
    store.set_key(&n).unwrap();
    if n % 3 == round {
        clicks.clear(store).unwrap();
        visits.clear(store).unwrap();
        routes.remove(store, "to/1").unwrap();
        windows.at(&u64::from(n)).clear(store).unwrap();
        return;
    }
    clicks.put(store, &u64::from(n + round)).unwrap();
    visits.append(store, &format!("page/{round}")).unwrap();
    longest.add(store, u64::from(n * (3 - round))).unwrap();
    mean.add(store, n + round).unwrap();
    for to in 0..=round {
        routes.put(store, format!("to/{to}").as_str(), &(n + to)).unwrap();
        windows.at(&u64::from(n + to)).put(store, &round).unwrap();
    }
    // A zero in it, as its part form escapes them.
    routes.put(store, "to\0", &round).unwrap();
}

fn group_of_each(reader: &CheckpointReader, keys: &[u32]) -> Vec<KeyGroup> {
    keys.iter().map(|key| reader.max_parallelism().group_of_key(key)).collect()
}

#[test]
fn i1_every_kind_reads_as_it_was_written() {
    in_both_modes(|home| {
        let home = home.with_subtasks(3);
        let mut attempt = home.open();
        for round in 0..3 {
            for n in 0..60 {
                write(owner(&mut attempt.stores, &n), n, round);
            }
            attempt.checkpoint();
            if round == 0 && home.is_changelog() {
                attempt.materialize();
            }
        }
        let reader = home.read();
        compare(&reader, &mut attempt.stores);
        reader.close().unwrap();
    });
}

/// Everything, key by key, with what the program itself reads.
fn compare(reader: &CheckpointReader, stores: &mut [StateStore]) {
    let read =
        (reader.state(clicks()).unwrap(), reader.state(visits()).unwrap(), reader.state(routes()).unwrap());
    let folded = (reader.state(longest()).unwrap(), reader.state(mean()).unwrap());
    let windows_read = reader.state(ValueState::<u32>::descriptor("windows").namespaced::<u64>()).unwrap();
    let mut seen = Seen::default();
    for n in 0..65_u32 {
        let store = owner(stores, &n);
        let clicks = store.register(clicks()).unwrap();
        let visits = store.register(visits()).unwrap();
        let routes = store.register(routes()).unwrap();
        let (longest, mean) = (store.register(longest()).unwrap(), store.register(mean()).unwrap());
        let windows = store.register(ValueState::<u32>::descriptor("windows").namespaced::<u64>()).unwrap();
        store.set_key(&n).unwrap();

        assert_eq!(read.0.get(&n).unwrap(), clicks.get(store).unwrap(), "clicks of {n}");
        assert_eq!(read.0.contains(&n).unwrap(), clicks.contains(store).unwrap(), "clicks of {n}");
        seen.clicks.extend(clicks.contains(store).unwrap().then(|| (n, clicks.get(store).unwrap().unwrap())));

        assert_eq!(read.1.get(&n).unwrap(), visits.get(store).unwrap(), "visits of {n}");
        assert_eq!(read.1.contains(&n).unwrap(), visits.contains(store).unwrap(), "visits of {n}");
        seen.visits.extend(visits.contains(store).unwrap().then(|| (n, visits.get(store).unwrap())));

        let map = all(routes.iter(store).unwrap());
        assert_eq!(all(read.2.iter(&n).unwrap()), map, "routes of {n}");
        assert_eq!(read.2.is_empty(&n).unwrap(), map.is_empty());
        assert_eq!(read.2.get(&n, "to/1").unwrap(), routes.get(store, "to/1").unwrap());
        assert_eq!(read.2.contains(&n, "to\0").unwrap(), routes.contains(store, "to\0").unwrap());
        assert_eq!(all(read.2.prefix(&n, "to/").unwrap()), all(routes.prefix(store, "to/").unwrap()));
        let range = "to/1".to_owned().."to/2".to_owned();
        assert_eq!(all(read.2.range(&n, range.clone()).unwrap()), all(routes.range(store, range).unwrap()));
        seen.routes.extend(map.into_iter().map(|(to, count)| ((n, to), count)));

        assert_eq!(folded.0.get(&n).unwrap(), longest.get(store).unwrap(), "longest of {n}");
        assert_eq!(folded.0.contains(&n).unwrap(), longest.contains(store).unwrap());
        seen.longest.extend(longest.get(store).unwrap().map(|value| (n, value)));
        assert_eq!(folded.1.get(&n).unwrap(), mean.get(store).unwrap(), "mean of {n}");
        assert_eq!(folded.1.contains(&n).unwrap(), mean.contains(store).unwrap());
        seen.mean.extend(mean.get(store).unwrap().map(|value| (n, value.to_bits())));

        let spaces = all(windows.namespaces(store).unwrap());
        assert_eq!(all(windows_read.namespaces(&n).unwrap()), spaces, "windows of {n}");
        for space in spaces {
            let value = windows.at(&space).get(store).unwrap();
            assert_eq!(windows_read.at(&space).get(&n).unwrap(), value, "window {space} of {n}");
            seen.windows.insert((n, space), value.unwrap());
        }
        assert_eq!(windows_read.at(&1_000).get(&n).unwrap(), None);
    }

    let entries: Vec<_> = all(read.0.entries::<u32>().unwrap());
    let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
    let places: Vec<_> = group_of_each(reader, &keys).into_iter().zip(keys.clone()).collect();
    assert!(places.is_sorted(), "by group, then by key");
    assert_eq!(all(read.0.keys::<u32>().unwrap()), keys);
    assert_eq!(entries.into_iter().collect::<BTreeMap<_, _>>(), seen.clicks);
    assert_eq!(all(read.1.entries::<u32>().unwrap()).into_iter().collect::<BTreeMap<_, _>>(), seen.visits);
    let maps = all(read.2.entries::<u32>().unwrap()).into_iter().map(|(key, (to, count))| ((key, to), count));
    assert_eq!(maps.collect::<BTreeMap<_, _>>(), seen.routes);
    assert_eq!(all(folded.0.entries::<u32>().unwrap()).into_iter().collect::<BTreeMap<_, _>>(), seen.longest);
    let means = all(folded.1.entries::<u32>().unwrap()).into_iter().map(|(key, mean)| (key, mean.to_bits()));
    assert_eq!(means.collect::<BTreeMap<_, _>>(), seen.mean);
    let windows = all(windows_read.entries::<u32>().unwrap());
    let spaces: Vec<_> = windows.iter().map(|(place, _)| *place).collect();
    assert_eq!(all(windows_read.keys_and_namespaces::<u32>().unwrap()), spaces);
    assert_eq!(windows.into_iter().collect::<BTreeMap<_, _>>(), seen.windows);

    // The parts of two halves are the whole.
    let half = |first, last| {
        let here = KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) };
        all(read.0.clone().within(here).unwrap().keys::<u32>().unwrap())
    };
    assert_eq!([half(0, 63), half(64, 127)].concat(), keys);
    let beyond = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(128) };
    assert_error(read.0.clone().within(beyond), ErrorKind::InvalidArgument, &["key group 128"]);
}

#[derive(Default)]
struct Seen {
    clicks: BTreeMap<u32, u64>,
    visits: BTreeMap<u32, Vec<String>>,
    routes: BTreeMap<(u32, String), u32>,
    longest: BTreeMap<u32, u64>,
    mean: BTreeMap<u32, u64>,
    windows: BTreeMap<(u32, u64), u32>,
}

#[test]
fn pending_timers_are_listed_as_they_would_fire() {
    in_both_modes(|home| {
        let home: Home = home.with_subtasks(2);
        let mut attempt = home.open();
        let descriptor = || TimerService::<u32, u8>::descriptor("timers");
        let mut expected = Vec::new();
        for n in 0..40_u32 {
            let store = owner(&mut attempt.stores, &n);
            let timers = store.timer_service(descriptor()).unwrap();
            store.set_key(&n).unwrap();
            for time in [-5, i64::from(n % 7), 100] {
                timers.register(store, TimeDomain::Event, time, &1).unwrap();
            }
            timers.register(store, TimeDomain::Processing, 3, &2).unwrap();
            timers.delete(store, TimeDomain::Event, 100, &1).unwrap();
            let group = store.max_parallelism().group_of_key(&n);
            expected.extend([(group, -5, n, 1), (group, i64::from(n % 7), n, 1)]);
        }
        expected.sort_unstable();
        attempt.checkpoint();
        let reader = home.read();
        let read = all(reader.timers(descriptor(), TimeDomain::Event).unwrap());
        let read = read.into_iter().map(|timer| {
            let group = reader.max_parallelism().group_of_key(&timer.key);
            (group, timer.timestamp, timer.key, timer.namespace)
        });
        assert_eq!(read.collect::<Vec<_>>(), expected);
        let processing = all(reader.timers(descriptor(), TimeDomain::Processing).unwrap());
        assert_eq!(processing.len(), 40);
        assert!(processing.iter().all(|timer| (timer.timestamp, timer.namespace) == (3, 2)));
        let wrong = reader.timers(TimerService::<u64, u8>::descriptor("timers"), TimeDomain::Event);
        assert_error(wrong.map(|_| ()), ErrorKind::Incompatible, &["\"timers\"", "\"u32\"", "\"u64\""]);
        let wrong = reader.timers(TimerService::<u32, u16>::descriptor("timers"), TimeDomain::Event);
        assert_error(wrong.map(|_| ()), ErrorKind::Incompatible, &["\"timers\"", "namespaces"]);
        reader.close().unwrap();
    });
}

#[test]
fn a_typed_read_fetches_only_what_it_needs() {
    in_both_modes(|home| {
        let home = home.with_subtasks(3);
        let mut attempt = home.open();
        for n in 0..60 {
            write(owner(&mut attempt.stores, &n), n, 1);
        }
        attempt.checkpoint();
        let dir = tempfile::tempdir().unwrap();
        let reader = home.read_with(ReaderOptions::new().dir(dir.path()));
        let fetched = || {
            let of_reader = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
            std::fs::read_dir(of_reader).unwrap().count()
        };
        let state = reader.state(clicks()).unwrap();
        assert_eq!(fetched(), 0, "nothing before the first read");
        assert!(state.contains(&3_u32).unwrap());
        assert_eq!(fetched(), 1);
        let own = attempt
            .stores
            .iter()
            .find(|store| store.range().contains(store.max_parallelism().group_of_key(&3_u32)));
        let here = state.clone().within(own.unwrap().range()).unwrap();
        assert!(!all(here.keys::<u32>().unwrap()).is_empty());
        assert_eq!(fetched(), 1);
        assert_eq!(all(state.keys::<u32>().unwrap()).len(), 40);
        assert_eq!(fetched(), 3);
        reader.close().unwrap();
    });
}
