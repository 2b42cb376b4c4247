//! The cache of records within a whole store: whatever a read says is what a plain map says.
//!
//! A job in memory is driven by random steps: raw and typed states, with and without a TTL, reads
//! of every kind, checkpoints, deltas whose applying is held back and let go, crashes and restores.
//! The cache is as small as it may be, larger, or has room for everything, and looks at the states
//! after 1 to 1,024 operations, so that states come to be cached and cease to be.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cache::{CacheLimits, CacheStats};
use crate::env::{Clock, Env};
use crate::ids::CheckpointId;
use crate::key_group::KeyGroup;
use crate::{
    Job, JobOptions, ListState, MapState, MaterializationOptions, MaxParallelism, OpenMode, Opened, State,
    StateOptions, StateStore, TableKind, Ttl, TtlUpdate, ValueState,
};
use model::{Key, Model, TTL};

/// Seeds of an ordinary run, and steps of each.
const SEEDS: u64 = 8;
const STEPS: usize = 6_000;
const SOON: Duration = Duration::from_secs(60);
/// The smallest cache, one of a few chunks more, and one for everything.
const SIZES: [u64; 3] = [256 << 10, 450 << 10, 1 << 30];
const GROUPS: u16 = 4;
const ENTRIES: u16 = 150;

#[derive(Debug)]
struct SetClock {
    machine: Arc<dyn Clock>,
    millis: AtomicU64,
}

impl Clock for SetClock {
    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn unix_millis(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct States {
    raw: [State; 3],
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u16, Vec<u8>>,
}

impl States {
    fn register(store: &mut StateStore) -> Self {
        let ttl = Ttl::new(Duration::from_millis(TTL));
        let on_read = ttl.update(TtlUpdate::OnReadAndWrite);
        let tables = [("hash", TableKind::Hash), ("ordered", TableKind::Ordered), ("lists", TableKind::Hash)];
        Self {
            raw: tables.map(|(name, table)| store.state(&StateOptions::new(name).table(table)).unwrap()),
            value: store.register(ValueState::descriptor("value").ttl(on_read)).unwrap(),
            list: store.register(ListState::descriptor("list").ttl(ttl)).unwrap(),
            map: store.register(MapState::descriptor("map").ttl(on_read)).unwrap(),
        }
    }
}

struct World {
    rng: StdRng,
    remote: Arc<InMemory>,
    dir: tempfile::TempDir,
    clock: Arc<SetClock>,
    users: Vec<Vec<u8>>,
    live: Model,
    committed: Option<(CheckpointId, Model)>,
    /// Counted up, so that every value is another one.
    written: u64,
    /// By size of the cache.
    totals: [CacheStats; SIZES.len()],
    size: usize,
    /// Whether memory of the deltas is lent to the cache.
    lent: bool,
}

/// A job that runs.
struct Attempt {
    job: Job,
    store: StateStore,
    states: States,
    held: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = SetClock { machine: Env::default().clock, millis: AtomicU64::new(1_000) };
        Self {
            remote: Arc::new(InMemory::new()),
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(clock),
            users: users(&mut rng),
            live: Model::default(),
            committed: None,
            written: 0,
            totals: Default::default(),
            size: 0,
            lent: false,
            rng,
        }
    }

    fn run(mut self) -> [CacheStats; SIZES.len()] {
        let mut attempt = self.open();
        for _ in 0..STEPS {
            if self.rng.random_ratio(1, 900) {
                attempt = self.crash(attempt);
            }
            self.step(&mut attempt);
        }
        self.compare_everything(&mut attempt);
        drop(self.crash(attempt));
        self.totals
    }

    fn open(&mut self) -> Attempt {
        self.size = self.rng.random_range(0..SIZES.len());
        self.lent = self.rng.random_ratio(1, 4);
        let window = pick(&mut self.rng, &[1, 4, 50, 50, 1024]);
        let env = Env { clock: Arc::<SetClock>::clone(&self.clock), ..Env::default() };
        let mut options = JobOptions::new(self.dir.path(), OpenMode::CreateOrOpen)
            .memory(64_000_000)
            .max_parallelism(MaxParallelism::new(GROUPS).unwrap())
            .delta_bytes(pick(&mut self.rng, &[4096, 50_000, 500_000]))
            .inline_limit(pick(&mut self.rng, &[0, 100_000]))
            .materialization(MaterializationOptions::on_demand())
            .env(env);
        options.record_cache =
            Some(CacheLimits { bytes: SIZES[self.size], window, lent: self.lent, reserved: self.lent });
        let remote = Arc::clone(&self.remote) as Arc<dyn ObjectStore>;
        let Opened { job, mut stores, restored, .. } = Job::open((remote, "jobs/one"), options).unwrap();
        let mut store = stores.remove(0);
        let states = States::register(&mut store);
        assert_eq!(restored.checkpoint, self.committed.as_ref().map(|(id, _)| *id));
        self.live = self.committed.as_ref().map(|(_, model)| model.clone()).unwrap_or_default();
        Attempt { job, store, states, held: false }
    }

    fn crash(&mut self, attempt: Attempt) -> Attempt {
        let stats = attempt.store.stats();
        let total = &mut self.totals[self.size];
        total.hits += stats.cache_hits;
        total.misses += stats.cache_misses;
        total.evictions += stats.cache_evictions;
        assert!(stats.cache_bytes <= SIZES[self.size] || self.lent, "{stats:?}");
        drop(attempt);
        let mut attempt = self.open();
        self.compare_everything(&mut attempt);
        attempt
    }

    fn step(&mut self, attempt: &mut Attempt) {
        match self.rng.random_range(0..1000) {
            0..430 => self.write(attempt),
            430..435 => {
                let mut key = self.key();
                key.user.truncate(self.rng.random_range(0..3));
                let Key { state, group, user } = &key;
                attempt.store.delete_prefix(attempt.states.raw[*state], KeyGroup(*group), user).unwrap();
                self.live.delete_prefix(&key);
            }
            435..750 => self.get(attempt),
            750..790 => self.multi_get(attempt),
            790..800 => self.scan(attempt),
            800..815 => attempt.hold(!attempt.held),
            815..820 => self.burst(attempt),
            820..940 => self.typed(attempt),
            940..970 => self.borrow(attempt),
            970..982 => self.checkpoint(attempt),
            982..984 => {
                attempt.hold(false);
                attempt.job.compact().unwrap();
            }
            984..986 => {
                attempt.hold(false);
                attempt.job.materialize();
            }
            986..992 => {
                let more = self.rng.random_range(1..TTL);
                self.clock.millis.fetch_add(more, Ordering::Relaxed);
            }
            _ => {
                attempt.hold(false);
                attempt.job.settle(SOON).unwrap();
            }
        }
    }

    // Raw states.

    /// Half of all operations are on a few keys.
    fn key(&mut self) -> Key {
        let few = self.rng.random_bool(0.5);
        let user = self.rng.random_range(0..if few { 20 } else { self.users.len() });
        let group = (user % usize::from(GROUPS)) as u16;
        Key { state: self.rng.random_range(0..3), group, user: self.users[user].clone() }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..100) {
            0 => self.rng.random_range(15_000..18_000),
            1..4 => self.rng.random_range(1_000..6_000),
            4..10 => 0,
            _ => self.rng.random_range(3..400),
        };
        self.written += 1;
        self.written.to_le_bytes().into_iter().cycle().take(len).collect()
    }

    fn write(&mut self, attempt: &mut Attempt) {
        let key = self.key();
        self.write_at(attempt, key);
    }

    fn write_at(&mut self, attempt: &mut Attempt, key: Key) {
        attempt.make_room();
        let (state, group) = (attempt.states.raw[key.state], KeyGroup(key.group));
        let long = self.live.get(&key).is_some_and(|value| value.len() > 40_000);
        match self.rng.random_range(0..10) {
            0 => {
                attempt.store.delete(state, group, &key.user).unwrap();
                self.live.raw.remove(&key);
            }
            1..5 if !long => {
                let value = self.value();
                attempt.store.append(state, group, &key.user, &value).unwrap();
                self.live.raw.entry(key).or_default().extend_from_slice(&value);
            }
            _ => {
                let value = self.value();
                attempt.store.put(state, group, &key.user, &value).unwrap();
                self.live.raw.insert(key, value);
            }
        }
    }

    fn get(&mut self, attempt: &Attempt) {
        let key = self.key();
        attempt.get(&self.live, &key);
    }

    fn multi_get(&mut self, attempt: &Attempt) {
        let first = self.key();
        let keys: Vec<Key> =
            (0..self.rng.random_range(1..12)).map(|_| Key { state: first.state, ..self.key() }).collect();
        let asked: Vec<_> = keys.iter().map(|key| (KeyGroup(key.group), key.user.as_slice())).collect();
        let values = attempt.store.multi_get(attempt.states.raw[first.state], &asked).unwrap();
        for (key, value) in keys.iter().zip(values) {
            assert_eq!(value.as_deref(), self.live.get(key), "{key:?}");
        }
    }

    /// A value that lies in the cache stays what it is while others are read.
    fn borrow(&mut self, attempt: &Attempt) {
        let key = self.key();
        let (state, group) = (attempt.states.raw[key.state], KeyGroup(key.group));
        let value = attempt.store.get(state, group, &key.user).unwrap();
        (0..20).for_each(|_| self.get(attempt));
        assert_eq!(value.as_deref(), self.live.get(&key), "{key:?}");
    }

    fn scan(&mut self, attempt: &Attempt) {
        let mut key = self.key();
        key.user.truncate(self.rng.random_range(0..3));
        attempt.scan(&self.live, &key);
    }

    /// Many writes to one state, or many reads of it.
    fn burst(&mut self, attempt: &mut Attempt) {
        let (state, writes) = (self.rng.random_range(0..3), self.rng.random_bool(0.5));
        for _ in 0..self.rng.random_range(1..400) {
            let key = Key { state, ..self.key() };
            if writes {
                self.write_at(attempt, key);
            } else {
                attempt.get(&self.live, &key);
            }
        }
    }

    // Typed states, with a TTL.

    fn typed(&mut self, attempt: &mut Attempt) {
        attempt.make_room();
        let (now, key) = (self.clock.unix_millis(), self.rng.random_range(0..6_u64));
        let Attempt { store, states, .. } = attempt;
        store.set_key(&key).unwrap();
        self.written += 1;
        let written = self.written;
        let entry = self.rng.random_range(0..ENTRIES);
        match self.rng.random_range(0..100) {
            0..15 => {
                states.value.put(store, &written).unwrap();
                self.live.values.insert(key, (written, now));
            }
            15..20 => {
                states.value.clear(store).unwrap();
                self.live.values.remove(&key);
            }
            20..40 => assert_eq!(states.value.get(store).unwrap(), self.live.read_value(key, now), "{key}"),
            40..50 => {
                states.list.append(store, &written).unwrap();
                self.live.lists.entry(key).or_default().push((written, now));
            }
            50..60 => assert_eq!(states.list.get(store).unwrap(), self.live.read_list(key, now), "{key}"),
            60..62 => {
                states.list.clear(store).unwrap();
                self.live.lists.remove(&key);
            }
            62..80 => {
                let value = vec![written as u8; self.rng.random_range(1..300)];
                states.map.put(store, &entry, &value).unwrap();
                self.live.entries.insert((key, entry), (value, now));
            }
            80..82 => {
                states.map.clear(store).unwrap();
                self.live.entries.retain(|(owner, _), _| *owner != key);
            }
            82..87 => {
                states.map.remove(store, &entry).unwrap();
                self.live.entries.remove(&(key, entry));
            }
            87..92 => self.renew(attempt, key),
            _ => {
                let expected = self.live.read_entry((key, entry), now);
                assert_eq!(states.map.get(store, &entry).unwrap(), expected, "{key}, {entry}");
            }
        }
    }

    /// Fills a map, and reads all its entries, again and again before they expire: so many that the reads
    /// themselves hand over what they renew.
    fn renew(&mut self, attempt: &mut Attempt, key: u64) {
        let Attempt { store, states, .. } = attempt;
        let now = self.clock.unix_millis();
        for entry in 0..ENTRIES {
            let value = vec![entry as u8; self.rng.random_range(1..200)];
            states.map.put(store, &entry, &value).unwrap();
            self.live.entries.insert((key, entry), (value, now));
        }
        for _ in 0..self.rng.random_range(1..5) {
            // What reads have left behind is written or taken in.
            store.set_key(&key).unwrap();
            let now = self.clock.unix_millis();
            for entry in 0..ENTRIES {
                let expected = self.live.read_entry((key, entry), now);
                assert_eq!(states.map.get(store, &entry).unwrap(), expected, "{key}, {entry}");
            }
            let more = self.rng.random_range(1..TTL);
            self.clock.millis.fetch_add(more, Ordering::Relaxed);
        }
    }

    // Everything.

    fn checkpoint(&mut self, attempt: &mut Attempt) {
        let pending = attempt.job.trigger("").unwrap();
        attempt.store.cut(pending.id(), "").unwrap();
        let snapshot = self.live.clone();
        // Reads and writes go on while the checkpoint does.
        (0..20).for_each(|_| self.get(attempt));
        (0..20).for_each(|_| self.write(attempt));
        let id = pending.wait().unwrap().id;
        self.committed = Some((id, snapshot));
    }

    fn compare_everything(&mut self, attempt: &mut Attempt) {
        for state in 0..3 {
            for (number, user) in self.users.iter().enumerate() {
                let group = (number % usize::from(GROUPS)) as u16;
                attempt.get(&self.live, &Key { state, group, user: user.clone() });
            }
            for group in 0..GROUPS {
                attempt.scan(&self.live, &Key { state, group, user: Vec::new() });
            }
        }
        let now = self.clock.unix_millis();
        let Attempt { store, states, .. } = attempt;
        for key in 0..6 {
            store.set_key(&key).unwrap();
            assert_eq!(states.value.get(store).unwrap(), self.live.read_value(key, now));
            assert_eq!(states.list.get(store).unwrap(), self.live.read_list(key, now));
            for entry in 0..ENTRIES {
                let expected = self.live.read_entry((key, entry), now);
                assert_eq!(states.map.get(store, &entry).unwrap(), expected, "{key}, {entry}");
            }
        }
    }
}

impl Attempt {
    fn hold(&mut self, held: bool) {
        self.held = held;
        self.store.hold_applies(held);
    }

    /// Lets held deltas go before a write would wait for them.
    fn make_room(&mut self) {
        if self.held && self.store.try_reserve().is_err() {
            self.hold(false);
        }
    }

    fn get(&self, model: &Model, key: &Key) {
        let value = self.store.get(self.states.raw[key.state], KeyGroup(key.group), &key.user).unwrap();
        assert_eq!(value.as_deref(), model.get(key), "{key:?}");
    }

    fn scan(&self, model: &Model, prefix: &Key) {
        let (state, group) = (self.states.raw[prefix.state], KeyGroup(prefix.group));
        let found: Vec<_> =
            self.store.scan_prefix(state, group, &prefix.user).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, model.with_prefix(prefix), "{prefix:?}");
    }
}

fn pick<T: Copy>(rng: &mut StdRng, items: &[T]) -> T {
    items[rng.random_range(0..items.len())]
}

/// Keys with much in common, a few of them odd: empty, long, and too long for the cache.
fn users(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let mut users = vec![vec![], vec![0xff], vec![7; 300], vec![0xff; 300], vec![8; 17_000]];
    let bytes = [0, 1, 0xfe, 0xff];
    while users.len() < 500 {
        let len = rng.random_range(1..30);
        users.push((0..len).map(|at| if at < 4 { pick(rng, &bytes) } else { rng.random() }).collect());
    }
    users.sort();
    users.dedup();
    for at in (1..users.len()).rev() {
        users.swap(at, rng.random_range(0..=at));
    }
    users
}

fn run_printing_seed(seed: u64) -> [CacheStats; SIZES.len()] {
    std::panic::catch_unwind(|| World::new(seed).run()).unwrap_or_else(|payload| {
        eprintln!("replay: ALLUVIUM_SEED={seed} cargo test --all-features --lib store::cache_tests::replay");
        std::panic::resume_unwind(payload)
    })
}

#[test]
fn i1_reads_through_the_cache_of_records_are_what_a_plain_map_says() {
    let seeds = std::env::var("ALLUVIUM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let next = AtomicU64::new(0);
    let mut totals = [CacheStats::default(); SIZES.len()];
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut all = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return all;
                    }
                    all.push(run_printing_seed(seed));
                }
            })
        });
        for of_seed in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            for (total, more) in totals.iter_mut().zip(of_seed) {
                total.hits += more.hits;
                total.misses += more.misses;
                total.evictions += more.evictions;
            }
        }
    });
    println!("{totals:#?}");
    for (size, total) in SIZES.iter().zip(totals) {
        assert!(total.hits > 1_000 && total.misses > 1_000, "{size} bytes: {total:?}");
    }
    assert!(totals[0].evictions > 1_000 && totals[2].evictions == 0, "{totals:?}");
}

/// Runs the one seed in `ALLUVIUM_SEED`, if it is set.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("ALLUVIUM_SEED") {
        run_printing_seed(seed.parse().unwrap());
    }
}
