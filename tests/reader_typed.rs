//! Typed reads of a checkpoint: by the descriptors that the program registers, with the same answers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use alluvium::state::{Codec, Postcard};
use alluvium::{
    Aggregate, AggregatingState, CheckpointReader, ErrorKind, KeyGroup, KeyGroupRange, ListState, MapState,
    ReaderOptions, ReducingState, StateDescriptor, StateStore, TimeDomain, TimerService, Ttl, TtlUpdate,
    TtlVisibility, ValueState,
};

use alluvium_testkit::clock::{ClockedJob, MODES, owner};
use alluvium_testkit::typed::{Home, all, assert_error, in_both_modes};

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
fn what_does_not_fit_is_an_error_that_names_the_state() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        write(attempt.store(), 7, 0);
        let named = ValueState::<u32>::descriptor("named").type_name("count");
        let state = attempt.store().register(named).unwrap();
        state.put(attempt.store(), &1).unwrap();
        attempt.store().register(ValueState::<u32>::descriptor("never written")).unwrap();
        attempt.checkpoint();
        let reader = home.read();
        let unknown = reader.state(ValueState::<u64>::descriptor("click"));
        assert_error(unknown, ErrorKind::NotFound, &["\"click\"", "clicks", "longest", "windows"]);
        let kind = reader.state(ListState::<u64>::descriptor("clicks"));
        assert_error(kind, ErrorKind::Incompatible, &["\"clicks\"", "value", "list"]);
        let spaces = reader.state(ValueState::<u64>::descriptor("clicks").namespaced::<u32>());
        assert_error(spaces, ErrorKind::Incompatible, &["\"clicks\"", "namespaces"]);
        let map_key = reader.state(MapState::<u64, u32>::descriptor("routes"));
        assert_error(map_key, ErrorKind::Incompatible, &["\"routes\"", "map keys", "\"str\"", "\"u64\""]);
        let name = reader.state(ValueState::<u32>::descriptor("named").type_name("sum"));
        assert_error(name, ErrorKind::Incompatible, &["\"named\"", "\"count\"", "\"sum\""]);
        let older = reader.state(ValueState::<u64>::descriptor("clicks").schema(1));
        assert_error(older, ErrorKind::Incompatible, &["\"clicks\"", "schema 0", "migrate"]);
        let ttl = reader.state(clicks().ttl(Ttl::new(Duration::ZERO)));
        assert_error(ttl, ErrorKind::InvalidArgument, &["TTL of 0"]);

        let state = reader.state(clicks()).unwrap();
        let wrong_key = &["\"clicks\"", "\"u32\"", "\"str\""];
        assert_error(state.get("7"), ErrorKind::Incompatible, wrong_key);
        assert_error(state.keys::<str>().map(|_| ()), ErrorKind::Incompatible, wrong_key);
        assert_error(state.entries::<str>().map(|_| ()), ErrorKind::Incompatible, wrong_key);
        assert_error(
            reader.timers(TimerService::<u32>::descriptor("clicks"), TimeDomain::Event).map(|_| ()),
            ErrorKind::Incompatible,
            &["\"clicks\"", "value", "timers"],
        );
        // The compiler's names of types are not compared, their shapes are.
        let other = reader.state(ValueState::<String>::descriptor("clicks")).map(drop);
        assert_error(other, ErrorKind::Incompatible, &["\"clicks\"", "u64", "str", "migrate"]);
        // No key was written, so any type of key is as good.
        let never = reader.state(ValueState::<u32>::descriptor("never written")).unwrap();
        assert_eq!(never.get("7").unwrap(), None);
        assert!(all(never.keys::<u64>().unwrap()).is_empty());
        reader.close().unwrap();
    });
}

#[test]
fn older_values_are_migrated_as_they_are_read() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let old = store.register(ValueState::<u32>::descriptor("seen")).unwrap();
        store.set_key("old").unwrap();
        old.put(store, &7).unwrap();
        let anew = || {
            ValueState::<(u64, u64)>::descriptor("seen").schema(2).migrate(|version, bytes| {
                let count: u32 = Postcard.decode(bytes)?;
                Ok((count.into(), version.into()))
            })
        };
        let new = store.register(anew()).unwrap();
        store.set_key("new").unwrap();
        new.put(store, &(8, 9)).unwrap();
        attempt.checkpoint();

        let reader = home.read();
        let seen = reader.state(anew()).unwrap();
        assert_eq!(seen.get("old").unwrap(), Some((7, 0)));
        assert_eq!(seen.get("new").unwrap(), Some((8, 9)));
        let entries: BTreeMap<_, _> = all(seen.entries::<str>().unwrap()).into_iter().collect();
        assert_eq!(entries, BTreeMap::from([("new".to_owned(), (8, 9)), ("old".to_owned(), (7, 0))]));
        let without = reader.state(ValueState::<(u64, u64)>::descriptor("seen").schema(2));
        assert_error(without, ErrorKind::Incompatible, &["\"seen\"", "migrate"]);
        let before = reader.state(ValueState::<u32>::descriptor("seen"));
        assert_error(before, ErrorKind::Incompatible, &["\"seen\"", "newer"]);
        reader.close().unwrap();
    });
}

#[test]
fn what_has_expired_is_hidden_by_the_descriptor_and_the_readers_clock() {
    let ttl = Ttl::new(Duration::from_millis(100)).update(TtlUpdate::OnReadAndWrite);
    for mode in MODES {
        let job = ClockedJob::new(mode);
        let mut opened = job.open();
        let store = &mut opened.stores[0];
        let clicks = store.register(clicks().ttl(ttl)).unwrap();
        let (visits, routes) =
            (store.register(visits().ttl(ttl)).unwrap(), store.register(routes().ttl(ttl)).unwrap());
        for (key, millis) in [(1_u32, 1_000), (2, 1_050)] {
            job.clock.set(millis);
            store.set_key(&key).unwrap();
            clicks.put(store, &u64::from(key)).unwrap();
            visits.append(store, &"a".to_owned()).unwrap();
            routes.put(store, "a", &key).unwrap();
        }
        store.set_key(&1_u32).unwrap();
        visits.append(store, &"b".to_owned()).unwrap();
        routes.put(store, "b", &1).unwrap();
        let pending = opened.job.trigger("").unwrap();
        opened.stores[0].cut(pending.id(), "").unwrap();
        pending.wait().unwrap();

        let reader = job.read();
        let state = (reader.state(clicks_with(ttl)).unwrap(), reader.state(visits_with(ttl)).unwrap());
        let map = reader.state(self::routes().ttl(ttl)).unwrap();
        let seen = || {
            (
                all(state.0.keys::<u32>().unwrap()),
                all(state.0.entries::<u32>().unwrap()).len(),
                state.1.get(&1_u32).unwrap(),
                all(map.iter(&1_u32).unwrap()).len(),
            )
        };
        let both = vec!["a".to_owned(), "b".to_owned()];
        job.clock.set(1_099);
        for _ in 0..2 {
            // Reading makes nothing young.
            let (keys, entries, list, map) = seen();
            assert_eq!((keys.len(), entries, list, map), (2, 2, both.clone(), 2));
        }
        job.clock.set(1_100);
        assert_eq!(seen(), (vec![2], 1, vec!["b".to_owned()], 1));
        assert_eq!(state.0.get(&1_u32).unwrap(), Some(0), "the default");
        assert!(!state.0.contains(&1_u32).unwrap() && state.0.contains(&2_u32).unwrap());
        assert_eq!((map.get(&1_u32, "a").unwrap(), map.get(&1_u32, "b").unwrap()), (None, Some(1)));
        job.clock.set(1_150);
        assert_eq!(seen(), (vec![], 0, vec![], 0));
        assert!(!state.1.contains(&1_u32).unwrap() && map.is_empty(&1_u32).unwrap());

        // By the descriptor at hand, not by the one that it was written with.
        let shown =
            reader.state(clicks_with(ttl.visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp))).unwrap();
        assert_eq!(shown.get(&1_u32).unwrap(), Some(1));
        let longer = reader.state(clicks_with(Ttl::new(Duration::from_secs(1)))).unwrap();
        assert_eq!(all(longer.keys::<u32>().unwrap()).len(), 2);
        assert_eq!(reader.state(self::clicks()).unwrap().get(&1_u32).unwrap(), Some(1));
        reader.close().unwrap();
    }
}

fn clicks_with(ttl: Ttl) -> StateDescriptor<ValueState<u64>> {
    clicks().ttl(ttl)
}

fn visits_with(ttl: Ttl) -> StateDescriptor<ListState<String>> {
    visits().ttl(ttl)
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

#[test]
fn an_entry_that_cannot_be_read_is_named_and_iteration_goes_on() {
    in_both_modes(|home| {
        let mut attempt = home.open();
        let store = attempt.store();
        let values = store.register(ValueState::<u64>::descriptor("values")).unwrap();
        let timers = store.timer_service(TimerService::<u32>::descriptor("timers")).unwrap();
        for n in 0..100_u32 {
            store.set_key(&n).unwrap();
            values.put(store, &u64::from(n)).unwrap();
            timers.register(store, TimeDomain::Event, 5, &()).unwrap();
        }
        attempt.checkpoint();
        let described = home.read().states();
        let store = attempt.store();
        let raw = |name: &str, store: &mut StateStore| {
            let description = described.iter().find(|state| state.name() == name).unwrap();
            store.described_state(description).unwrap()
        };
        let (values, timers) = (raw("values", store), raw("timers", store));
        let group = store.max_parallelism().group_of_key(&7_u32);
        // A value that is none, a key that is none, and a timer with such a key.
        store.put(values, group, &7_u32.to_be_bytes(), &[0, 0xff]).unwrap();
        store.put(values, group, &[1, 2], &[0, 1]).unwrap();
        store.put(timers, group, &[0, 0x80, 0, 0, 0, 0, 0, 0, 5, 1], &[]).unwrap();
        attempt.checkpoint();
        let reader = home.read();
        let place = format!("key group {group}, ");
        let check = |errors: Vec<String>, name: &str, keys: &[&str]| {
            assert_eq!(errors.len(), keys.len(), "{errors:?}");
            for key in keys {
                let named = |error: &String| error.contains(name) && error.contains(&format!("{place}{key}"));
                assert!(errors.iter().any(named), "{key}: {errors:?}");
            }
        };
        let values = reader.state(ValueState::<u64>::descriptor("values")).unwrap();
        let (entries, errors): (Vec<_>, Vec<_>) = values.entries::<u32>().unwrap().partition(Result::is_ok);
        assert_eq!(entries.len(), 99);
        let text = |error: Result<_, alluvium::Error>| error.unwrap_err().to_string();
        check(errors.into_iter().map(text).collect(), "\"values\"", &["key 7)", "key 0x0102"]);
        let (keys, errors): (Vec<_>, Vec<_>) = values.keys::<u32>().unwrap().partition(Result::is_ok);
        assert_eq!((keys.len(), errors.len()), (100, 1));
        let timers = reader.timers(TimerService::<u32>::descriptor("timers"), TimeDomain::Event).unwrap();
        let (timers, errors): (Vec<_>, Vec<_>) = timers.partition(Result::is_ok);
        assert_eq!(timers.len(), 100);
        let errors = errors.into_iter().map(|error| error.unwrap_err().to_string()).collect();
        check(errors, "\"timers\"", &["key 0x0080000000000000"]);
        // The live state names it as well.
        let store = attempt.store();
        let live = store.register(ValueState::<u64>::descriptor("values")).unwrap();
        store.set_key(&7_u32).unwrap();
        assert_error(
            live.get(store),
            ErrorKind::Corrupt,
            &["\"values\"", &format!("{place}key 7"), "migrate"],
        );
    });
}
