//! The cache of records within a whole store: whatever a read says is what a plain map says.
//!
//! A job in memory is driven by random steps: raw and typed states, with and without a TTL, reads
//! of every kind, checkpoints, deltas whose applying is held back and let go, crashes and restores.
//! The cache is as small as it may be, larger, or has room for everything, and looks at the states
//! after 1 to 1,024 operations, so that states come to be cached and cease to be.
//!
//! A failing seed prints the command that replays it. `ALLUVIUM_SEEDS=1000` runs that many.

mod attempt;
mod model;
mod raw;
mod typed;

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
use crate::{Job, JobOptions, MaterializationOptions, MaxParallelism, OpenMode, Opened};
use attempt::Attempt;
use model::{Key, Model, TTL};
use raw::users;

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
        let attempt = Attempt::new(job, stores.remove(0));
        assert_eq!(restored.checkpoint, self.committed.as_ref().map(|(id, _)| *id));
        self.live = self.committed.as_ref().map(|(_, model)| model.clone()).unwrap_or_default();
        attempt
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
            800..815 => attempt.hold(!attempt.is_held()),
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

fn pick<T: Copy>(rng: &mut StdRng, items: &[T]) -> T {
    items[rng.random_range(0..items.len())]
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
