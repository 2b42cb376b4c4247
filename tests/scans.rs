//! Scans are snapshots, whatever is written while they are open, from both ends, and lazy ones as well.
//!
//! Random writes, range deletes, cuts and merges go between any two steps of several open scans, which are held
//! against plain maps. A failing seed prints itself; `ALLUVIUM_SEEDS=1000` runs that many.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alluvium::state::MapIter;
use alluvium::{Job, KeyGroup, MapState, Namespaced, Scan, State, StateOptions, StateStore, TableKind, Ttl};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use alluvium_testkit::clock::{ClockedJob, MODES, ManualClock};
use alluvium_testkit::drive::checkpoint;
use alluvium_testkit::typed::all;

const GROUP: KeyGroup = KeyGroup(3);

type Entries = VecDeque<(Vec<u8>, Vec<u8>)>;
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Whether a key lies in a scan's range.
type Within = Box<dyn Fn(&[u8]) -> bool>;

fn seeds(ordinary: u64) -> std::ops::Range<u64> {
    0..std::env::var("ALLUVIUM_SEEDS").map_or(ordinary, |text| text.parse().unwrap())
}

fn key(rng: &mut StdRng) -> Vec<u8> {
    // Few enough to meet again, many enough that a range is not copied; some are prefixes of others.
    let number: u16 = rng.random_range(0..700);
    let mut key = number.to_be_bytes().to_vec();
    key.extend(std::iter::repeat_n(0xff, usize::from(number % 3)));
    key
}

/// One state, and what it must hold.
struct Subject {
    state: State,
    model: Model,
}

impl Subject {
    fn write(&mut self, store: &mut StateStore, rng: &mut StdRng) {
        let (key, value) = (key(rng), rng.random_range(0..u64::MAX).to_be_bytes());
        match rng.random_range(0..100) {
            0..60 => {
                store.put(self.state, GROUP, &key, &value).unwrap();
                self.model.insert(key, value.to_vec());
            }
            60..80 => {
                store.delete(self.state, GROUP, &key).unwrap();
                self.model.remove(&key);
            }
            80..98 => {
                store.append(self.state, GROUP, &key, &value[..2]).unwrap();
                self.model.entry(key).or_default().extend_from_slice(&value[..2]);
            }
            _ => {
                let prefix = &key[..rng.random_range(0..3)];
                store.delete_prefix(self.state, GROUP, prefix).unwrap();
                self.model.retain(|key, _| !key.starts_with(prefix));
            }
        }
    }

    fn scan(&self, store: &StateStore, rng: &mut StdRng) -> (Scan, Entries) {
        let (from, to) = (key(rng), key(rng));
        let (scan, within): (_, Within) = match rng.random_range(0..3) {
            0 => (store.scan_prefix(self.state, GROUP, &[]), Box::new(|_| true)),
            1 => {
                let prefix = from[..1].to_vec();
                let scan = store.scan_prefix(self.state, GROUP, &prefix);
                (scan, Box::new(move |key| key.starts_with(&prefix)))
            }
            _ => {
                let scan = store.scan_range(self.state, GROUP, &from, Some(&to));
                (scan, Box::new(move |key| from.as_slice() <= key && key < to.as_slice()))
            }
        };
        let expected = self.model.iter().filter(|(key, _)| within(key));
        (scan.unwrap(), expected.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn step(scan: &mut Scan, expected: &mut Entries, from_back: bool) {
    let (found, expected) =
        if from_back { (scan.next_back(), expected.pop_back()) } else { (scan.next(), expected.pop_front()) };
    assert_eq!(found.transpose().unwrap(), expected, "from the back: {from_back}");
}

fn run(seed: u64) {
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let clocked = ClockedJob::new(MODES[(seed % 2) as usize]);
    let mut opened = clocked.open();
    let store = &mut opened.stores[0];
    let mut subjects: Vec<_> = [("ordered", TableKind::Ordered), ("hashed", TableKind::Hash)]
        .map(|(name, table)| {
            let state = store.state(&StateOptions::new(name).table(table)).unwrap();
            Subject { state, model: Model::new() }
        })
        .into();
    let mut scans: Vec<(Scan, Entries)> = Vec::new();
    for _ in 0..600 {
        let subject = rng.random_range(0..2);
        match rng.random_range(0..100) {
            0..40 => {
                for _ in 0..rng.random_range(1..80) {
                    subjects[subject].write(&mut opened.stores[0], &mut rng);
                }
            }
            40..50 => scans.push(subjects[subject].scan(&opened.stores[0], &mut rng)),
            50..85 if !scans.is_empty() => {
                let at = rng.random_range(0..scans.len());
                let (scan, expected) = &mut scans[at];
                // Mostly in one direction.
                let back = rng.random_bool(0.5);
                for _ in 0..rng.random_range(1..60) {
                    step(scan, expected, back != rng.random_bool(0.1));
                }
            }
            85..93 if !scans.is_empty() => {
                // Ended early, or drained.
                let at = rng.random_range(0..scans.len());
                let (mut scan, mut expected) = scans.swap_remove(at);
                if rng.random_bool(0.5) {
                    while !expected.is_empty() {
                        step(&mut scan, &mut expected, false);
                    }
                    assert!(scan.next().is_none() && scan.next_back().is_none());
                }
            }
            93..96 => _ = checkpoint(&opened.job, &mut opened.stores, "").unwrap(),
            96 => opened.job.settle(Duration::from_secs(60)).unwrap(),
            97 => opened.job.compact().unwrap(),
            _ => {
                let (store, subject) = (&opened.stores[0], &subjects[subject]);
                let found = all(store.scan_prefix(subject.state, GROUP, &[]).unwrap().rev());
                assert!(found.into_iter().rev().eq(subject.model.clone()));
            }
        }
    }
    // They outlive the store and the job.
    drop(opened);
    for (scan, expected) in scans {
        assert!(all(scan).into_iter().eq(expected));
    }
}

#[test]
fn i1_scans_from_both_ends_are_snapshots_under_writes_and_cuts() {
    seeds(12).for_each(run);
}

// Maps.

type Map = MapState<u16, u64, Namespaced<u8>>;

/// Entries by namespace and key, with the time of their last write.
type Maps = BTreeMap<(u8, u16), (u64, u64)>;

const TTL: u64 = 400;

struct MapWorld {
    map: Map,
    model: Maps,
    ttl: Option<u64>,
    clock: std::sync::Arc<ManualClock>,
    now: u64,
}

impl MapWorld {
    fn lives(&self, time: u64) -> bool {
        self.ttl.is_none_or(|ttl| time + ttl > self.now)
    }

    fn of(&self, namespace: u8) -> Vec<(u16, u64)> {
        let of = self.model.range((namespace, 0)..=(namespace, u16::MAX));
        of.filter(|(_, (_, time))| self.lives(*time)).map(|((_, key), (value, _))| (*key, *value)).collect()
    }

    fn namespaces(&self) -> Vec<u8> {
        let mut all: Vec<_> = self
            .model
            .iter()
            .filter(|(_, (_, time))| self.lives(*time))
            .map(|((space, _), _)| *space)
            .collect();
        all.dedup();
        all
    }

    fn step(&mut self, store: &mut StateStore, rng: &mut StdRng) {
        let namespace = rng.random_range(0..6);
        let here = self.map.at(&namespace);
        match rng.random_range(0..100) {
            0..30 => {
                for _ in 0..rng.random_range(1..80) {
                    let (key, value) = (rng.random_range(0..300), rng.next_u64());
                    here.put(store, &key, &value).unwrap();
                    self.model.insert((namespace, key), (value, self.now));
                }
            }
            30..35 => {
                let key = rng.random_range(0..300);
                here.remove(store, &key).unwrap();
                self.model.remove(&(namespace, key));
            }
            35..60 => {
                // Enough in turn to make a range of them.
                let (first, count) = (rng.random_bool(0.5), rng.random_range(1..60));
                for _ in 0..count {
                    let entries = self.of(namespace);
                    let (expected, found) = if first {
                        (entries.first(), here.pop_first(store).unwrap())
                    } else {
                        (entries.last(), here.pop_last(store).unwrap())
                    };
                    assert_eq!(found.as_ref(), expected);
                    if let Some((key, _)) = found {
                        self.model.remove(&(namespace, key));
                    }
                }
            }
            60..65 => {
                here.clear(store).unwrap();
                self.model.retain(|(of, _), _| *of != namespace);
            }
            65..70 => {
                self.now += rng.random_range(1..TTL / 2);
                self.clock.set(self.now);
            }
            _ => self.check(store, namespace, rng),
        }
    }

    fn check(&self, store: &StateStore, namespace: u8, rng: &mut StdRng) {
        let (here, entries) = (self.map.at(&namespace), self.of(namespace));
        assert_eq!(here.is_empty(store).unwrap(), entries.is_empty());
        assert_eq!(here.first(store).unwrap().as_ref(), entries.first());
        assert_eq!(here.last(store).unwrap().as_ref(), entries.last());
        assert_eq!(all(here.iter(store).unwrap()), entries);
        let reverse: Vec<_> = entries.iter().rev().copied().collect();
        assert_eq!(all(here.iter(store).unwrap().rev()), reverse);
        let (from, to) = (rng.random_range(0..300), rng.random_range(0..300));
        let within: Vec<_> = entries.iter().filter(|(key, _)| (from..to).contains(key)).copied().collect();
        assert_eq!(all(here.range(store, from..to).unwrap()), within);
        let within: Vec<_> = reverse.into_iter().filter(|(key, _)| (from..to).contains(key)).collect();
        assert_eq!(all(here.range(store, from..to).unwrap().rev()), within);

        let spaces = self.namespaces();
        assert_eq!(all(self.map.namespaces(store).unwrap()), spaces);
        let reverse: Vec<_> = spaces.iter().rev().copied().collect();
        assert_eq!(all(self.map.namespaces(store).unwrap().rev()), reverse);
        let (from, to): (u8, u8) = (rng.random_range(0..7), rng.random_range(0..7));
        let within: Vec<_> = spaces.iter().copied().filter(|space| (from..=to).contains(space)).collect();
        assert_eq!(all(self.map.namespaces_in(store, from..=to).unwrap()), within);
        let within: Vec<_> =
            spaces.iter().copied().filter(|space| (from..to).contains(space)).rev().collect();
        assert_eq!(all(self.map.namespaces_in(store, from..to).unwrap().rev()), within);
        // From both ends to the middle.
        let mut spaces: VecDeque<_> = spaces.into();
        let mut found = self.map.namespaces(store).unwrap();
        while !spaces.is_empty() {
            let back = rng.random_bool(0.5);
            let (expected, found) = if back {
                (spaces.pop_back(), found.next_back())
            } else {
                (spaces.pop_front(), found.next())
            };
            assert_eq!(found.transpose().unwrap(), expected);
        }
        assert!(found.next().is_none() && found.next_back().is_none());
    }
}

fn run_map(seed: u64) {
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let clocked = ClockedJob::new(MODES[(seed % 2) as usize]);
    let ttl = rng.random_bool(0.5).then_some(TTL);
    let mut opened = clocked.open();
    let register = |store: &mut StateStore| {
        let mut descriptor = MapState::<u16, u64>::descriptor("map").namespaced::<u8>();
        if let Some(ttl) = ttl {
            descriptor = descriptor.ttl(Ttl::new(Duration::from_millis(ttl)));
        }
        let map = store.register(descriptor).unwrap();
        store.set_key("key").unwrap();
        map
    };
    let map = register(&mut opened.stores[0]);
    let clock = std::sync::Arc::clone(&clocked.clock);
    let mut world = MapWorld { map, model: Maps::new(), ttl, clock, now: 1_000 };
    let mut committed = world.model.clone();
    for _ in 0..250 {
        match rng.random_range(0..100) {
            0..4 => {
                checkpoint(&opened.job, &mut opened.stores, "").unwrap();
                committed = world.model.clone();
            }
            4 => opened.job.settle(Duration::from_secs(60)).unwrap(),
            5 => opened.job.compact().unwrap(),
            6 => {
                // A crash.
                drop(opened);
                opened = clocked.open();
                world.map = register(&mut opened.stores[0]);
                world.model = committed.clone();
            }
            _ => world.step(&mut opened.stores[0], &mut rng),
        }
    }
}

#[test]
fn i1_maps_are_read_popped_and_cleared_from_both_ends() {
    seeds(12).for_each(run_map);
}

/// As a queue is worked off by hand: the iterator is still open when the entry is removed.
#[test]
fn a_map_is_written_to_while_an_iterator_is_open() {
    for mode in MODES {
        let clocked = ClockedJob::new(mode);
        let mut opened = clocked.open();
        let store = &mut opened.stores[0];
        let map = store.register(MapState::<u32, u32>::descriptor("map")).unwrap();
        store.set_key("key").unwrap();
        (0..3_000).for_each(|key| map.put(store, &key, &key).unwrap());
        let all_the_time = map.iter(store).unwrap();
        for round in 0..200 {
            let mut iter: MapIter<u32, u32> = map.iter(store).unwrap();
            let (key, _) = iter.next().unwrap().unwrap();
            assert_eq!(key, round);
            map.remove(store, &key).unwrap();
            map.put(store, &(10_000 + round), &0).unwrap();
            assert_eq!(iter.next().unwrap().unwrap().0, round + 1);
            assert_eq!(iter.next_back().unwrap().unwrap().0, if round == 0 { 2_999 } else { 9_999 + round });
        }
        assert_eq!(all(all_the_time), (0..3_000).map(|key| (key, key)).collect::<Vec<_>>());
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        drop::<Job>(opened.job);
        drop(opened.stores);
        let mut opened = clocked.open();
        let store = &mut opened.stores[0];
        let map = store.register(MapState::<u32, u32>::descriptor("map")).unwrap();
        store.set_key("key").unwrap();
        let keys: Vec<_> = all(map.iter(store).unwrap()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, (200..3_000).chain(10_000..10_200).collect::<Vec<_>>());
    }
}

/// The table has lost what has expired, the changelog has not: a clear that removed only what can be seen would
/// let it come back.
#[test]
fn what_had_expired_before_a_clear_does_not_come_back_under_a_longer_ttl() {
    let clocked = ClockedJob::new(MODES[0]);
    let map = |store: &mut StateStore, millis| {
        let ttl = Ttl::new(Duration::from_millis(millis));
        let map = store.register(MapState::<u32, u32>::descriptor("map").ttl(ttl)).unwrap();
        store.set_key("key").unwrap();
        map
    };
    let mut opened = clocked.open();
    let expiring = map(&mut opened.stores[0], 100);
    expiring.put(&mut opened.stores[0], &1, &1).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    opened.job.settle(Duration::from_secs(60)).unwrap();
    clocked.clock.advance(100);
    opened.job.compact().unwrap();
    expiring.clear(&mut opened.stores[0]).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    let mut opened = clocked.open();
    let lasting = map(&mut opened.stores[0], 1_000_000);
    assert_eq!(all(lasting.iter(&opened.stores[0]).unwrap()), []);
}
