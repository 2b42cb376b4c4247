//! Typed state beside the raw store below it: what each kind costs per read and per write. Then
//! what depends on how much there is: fresh entries, clears, timers, states, subtasks, some of it
//! beside raw RocksDB.
//!
//! `cargo bench --profile dev --all-features --bench state -- [FILTER]`. The object store is in
//! memory. Reads are of the settled table, at keys in no order; writes include what the background
//! makes them wait.

#![allow(missing_docs, reason = "a benchmark")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark measures time, and may stop")]

#[path = "state/fresh.rs"]
mod fresh;
#[path = "state/many.rs"]
mod many;
#[path = "state/timers.rs"]
mod timers;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    Aggregate, AggregatingState, CheckpointMode, Job, JobOptions, ListState, MapState,
    MaterializationOptions, Namespaced, OpenMode, Opened, ReducingState, State, StateOptions, StateStore,
    TableKind, ValueState,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use object_store::memory::InMemory;

const KEYS: u64 = 50_000;
/// Elements of each list, entries of each map.
const ELEMENTS: u64 = 8;
const SETTLE: Duration = Duration::from_secs(300);

fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Large enough that postcard writes as many bytes as the raw states hold, or more.
fn number(seed: u64) -> u64 {
    splitmix64(seed) | 1 << 63
}

/// Folds numbers into their sum.
struct Sum;

impl Aggregate<u64, u64, u64> for Sum {
    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, input: u64) {
        *sum = sum.wrapping_add(input);
    }

    fn merge(&self, sum: &mut u64, other: u64) {
        *sum = sum.wrapping_add(other);
    }

    fn result(&self, sum: u64) -> u64 {
        sum
    }
}

/// A window: its begin and its end.
type Window = (u64, u64);

const WINDOW: Window = (0, 60_000);

/// A job that does nothing by itself, and its first store.
struct Quiet {
    store: StateStore,
    others: Vec<StateStore>,
    job: Job,
    _dir: tempfile::TempDir,
}

impl Quiet {
    fn open() -> Self {
        Self::open_with(|options| options)
    }

    fn open_with(change: impl FnOnce(JobOptions) -> JobOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let never = MaterializationOptions::on_demand();
        let options = JobOptions::new(dir.path(), OpenMode::Create)
            .mode(CheckpointMode::Changelog)
            .materialization(never)
            .memory(1 << 30)
            .delta_bytes(16 << 20);
        let opened = Job::open((Arc::new(InMemory::new()), "job"), change(options)).unwrap();
        let Opened { job, mut stores, .. } = opened;
        let store = stores.remove(0);
        Self { store, others: stores, job, _dir: dir }
    }

    /// Brings all there is into the table.
    fn settle(&mut self) {
        let pending = self.job.trigger([]).unwrap();
        self.store.cut(pending.id(), []).unwrap();
        pending.wait().unwrap();
        self.job.settle(SETTLE).unwrap();
    }
}

/// A job with one subtask, with a state of each kind, and what a program without them would do
/// instead.
struct Subject {
    job: Job,
    store: StateStore,
    /// One value, or a list, per key.
    raw: State,
    raw_lists: State,
    /// Entries at the key and a number behind it.
    raw_maps: State,
    value: ValueState<u64>,
    windowed: ValueState<u64, Namespaced<Window>>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
    reducing: ReducingState<u64>,
    aggregating: AggregatingState<u64, u64, u64>,
    draw: u64,
}

impl Subject {
    /// With all keys in a settled table.
    fn loaded(dir: &Path) -> Self {
        let never = MaterializationOptions::on_demand();
        let options =
            JobOptions::new(dir, OpenMode::Create).mode(CheckpointMode::Changelog).materialization(never);
        let Opened { job, mut stores, .. } = Job::open((Arc::new(InMemory::new()), "job"), options).unwrap();
        let mut store = stores.pop().unwrap();
        let mut subject = Self {
            raw: store.state(&StateOptions::new("raw")).unwrap(),
            raw_lists: store.state(&StateOptions::new("raw lists")).unwrap(),
            raw_maps: store.state(&StateOptions::new("raw maps").table(TableKind::Ordered)).unwrap(),
            value: store.register(ValueState::descriptor("value")).unwrap(),
            windowed: store.register(ValueState::descriptor("windowed").namespaced()).unwrap(),
            list: store.register(ListState::descriptor("list")).unwrap(),
            map: store.register(MapState::descriptor("map")).unwrap(),
            reducing: store.register(ReducingState::descriptor("reducing", u64::wrapping_add)).unwrap(),
            aggregating: store.register(AggregatingState::descriptor("aggregating", Sum)).unwrap(),
            job,
            store,
            draw: 0,
        };
        for key in 0..KEYS {
            subject.raw_put(key);
            subject.value_put(key);
            subject.windowed_put(key);
            subject.reducing_add(key);
            subject.aggregating_add(key);
            for element in 0..ELEMENTS {
                subject.raw_append(key);
                subject.raw_put_entry(key, element);
                subject.list_append(key);
                subject.map_put(key, element);
            }
        }
        let pending = subject.job.trigger([]).unwrap();
        subject.store.cut(pending.id(), []).unwrap();
        pending.wait().unwrap();
        subject.job.settle(SETTLE).unwrap();
        subject
    }

    fn random(&mut self) -> u64 {
        self.draw += 1;
        splitmix64(self.draw)
    }

    // What a program without typed state does.

    fn raw_get(&self, key: u64) -> Option<u64> {
        let key = key.to_be_bytes();
        let value = self.store.get(self.raw, self.store.group_of(&key), &key).unwrap()?;
        Some(u64::from_le_bytes(value[..].try_into().unwrap()))
    }

    fn raw_put(&mut self, key: u64) {
        let (key, value) = (key.to_be_bytes(), number(self.draw));
        self.store.put(self.raw, self.store.group_of(&key), &key, &value.to_le_bytes()).unwrap();
    }

    fn raw_add(&mut self, key: u64) {
        let sum = self.raw_get(key).unwrap_or(0).wrapping_add(number(self.draw));
        let key = key.to_be_bytes();
        self.store.put(self.raw, self.store.group_of(&key), &key, &sum.to_le_bytes()).unwrap();
    }

    fn raw_append(&mut self, key: u64) {
        let (key, element) = (key.to_be_bytes(), number(self.draw));
        self.store.append(self.raw_lists, self.store.group_of(&key), &key, &element.to_le_bytes()).unwrap();
    }

    fn raw_list(&self, key: u64) -> u64 {
        let key = key.to_be_bytes();
        let list = self.store.get(self.raw_lists, self.store.group_of(&key), &key).unwrap().unwrap();
        let elements = list.as_chunks().0.iter();
        elements.fold(0, |sum, element| sum ^ u64::from_le_bytes(*element))
    }

    fn entry(key: u64, element: u64) -> [u8; 16] {
        let mut entry = [0; 16];
        entry[..8].copy_from_slice(&key.to_be_bytes());
        entry[8..].copy_from_slice(&element.to_be_bytes());
        entry
    }

    fn raw_entry(&self, key: u64, element: u64) -> Option<u64> {
        let group = self.store.group_of(&key.to_be_bytes());
        let value = self.store.get(self.raw_maps, group, &Self::entry(key, element)).unwrap()?;
        Some(u64::from_le_bytes(value[..].try_into().unwrap()))
    }

    fn raw_put_entry(&mut self, key: u64, element: u64) {
        let (group, value) = (self.store.group_of(&key.to_be_bytes()), number(self.draw));
        let entry = Self::entry(key, element);
        self.store.put(self.raw_maps, group, &entry, &value.to_le_bytes()).unwrap();
    }

    fn raw_map(&self, key: u64) -> u64 {
        let key = key.to_be_bytes();
        let entries = self.store.scan_prefix(self.raw_maps, self.store.group_of(&key), &key).unwrap();
        entries.fold(0, |sum, entry| sum ^ u64::from_le_bytes(entry.unwrap().1[..].try_into().unwrap()))
    }

    // The same by typed state.

    fn value_get(&mut self, key: u64) -> Option<u64> {
        self.store.set_key(&key).unwrap();
        self.value.get(&self.store).unwrap()
    }

    fn value_put(&mut self, key: u64) {
        self.store.set_key(&key).unwrap();
        self.value.put(&mut self.store, &number(self.draw)).unwrap();
    }

    fn windowed_get(&mut self, key: u64) -> Option<u64> {
        self.store.set_key(&key).unwrap();
        self.windowed.at(&WINDOW).get(&self.store).unwrap()
    }

    fn windowed_put(&mut self, key: u64) {
        self.store.set_key(&key).unwrap();
        self.windowed.at(&WINDOW).put(&mut self.store, &number(self.draw)).unwrap();
    }

    fn list_append(&mut self, key: u64) {
        self.store.set_key(&key).unwrap();
        self.list.append(&mut self.store, &number(self.draw)).unwrap();
    }

    fn list_get(&mut self, key: u64) -> u64 {
        self.store.set_key(&key).unwrap();
        self.list.iter(&self.store).unwrap().fold(0, |sum, element| sum ^ element.unwrap())
    }

    fn map_get(&mut self, key: u64, element: u64) -> Option<u64> {
        self.store.set_key(&key).unwrap();
        self.map.get(&self.store, &element).unwrap()
    }

    fn map_put(&mut self, key: u64, element: u64) {
        self.store.set_key(&key).unwrap();
        self.map.put(&mut self.store, &element, &number(self.draw)).unwrap();
    }

    fn map_iterate(&mut self, key: u64) -> u64 {
        self.store.set_key(&key).unwrap();
        self.map.iter(&self.store).unwrap().fold(0, |sum, entry| sum ^ entry.unwrap().1)
    }

    fn reducing_get(&mut self, key: u64) -> Option<u64> {
        self.store.set_key(&key).unwrap();
        self.reducing.get(&self.store).unwrap()
    }

    fn reducing_add(&mut self, key: u64) {
        self.store.set_key(&key).unwrap();
        self.reducing.add(&mut self.store, number(self.draw)).unwrap();
    }

    fn aggregating_get(&mut self, key: u64) -> Option<u64> {
        self.store.set_key(&key).unwrap();
        self.aggregating.get(&self.store).unwrap()
    }

    fn aggregating_add(&mut self, key: u64) {
        self.store.set_key(&key).unwrap();
        self.aggregating.add(&mut self.store, number(self.draw)).unwrap();
    }
}

/// An operation at a key and, of lists and maps, one of its elements.
type Operation = fn(&mut Subject, u64, u64);

/// Reads first: the writes put a delta over the table.
const OPERATIONS: [(&str, Operation); 21] = [
    ("raw/get", |subject, key, _| _ = black_box(subject.raw_get(key))),
    ("value/get", |subject, key, _| _ = black_box(subject.value_get(key))),
    ("value of a window/get", |subject, key, _| _ = black_box(subject.windowed_get(key))),
    ("reducing/get", |subject, key, _| _ = black_box(subject.reducing_get(key))),
    ("aggregating/get", |subject, key, _| _ = black_box(subject.aggregating_get(key))),
    ("raw/read a list of 8", |subject, key, _| _ = black_box(subject.raw_list(key))),
    ("list/read 8", |subject, key, _| _ = black_box(subject.list_get(key))),
    ("raw/get an entry", |subject, key, element| _ = black_box(subject.raw_entry(key, element))),
    ("map/get", |subject, key, element| _ = black_box(subject.map_get(key, element))),
    ("raw/scan 8 entries", |subject, key, _| _ = black_box(subject.raw_map(key))),
    ("map/iterate 8", |subject, key, _| _ = black_box(subject.map_iterate(key))),
    ("raw/put", |subject, key, _| subject.raw_put(key)),
    ("value/put", |subject, key, _| subject.value_put(key)),
    ("value of a window/put", |subject, key, _| subject.windowed_put(key)),
    ("raw/append", |subject, key, _| subject.raw_append(key)),
    ("list/append", |subject, key, _| subject.list_append(key)),
    ("raw/put an entry", |subject, key, element| subject.raw_put_entry(key, element)),
    ("map/put", |subject, key, element| subject.map_put(key, element)),
    // All keys are soon in the delta, so what these read is there and not in the table.
    ("raw/get and put", |subject, key, _| subject.raw_add(key)),
    ("reducing/add", |subject, key, _| subject.reducing_add(key)),
    ("aggregating/add", |subject, key, _| subject.aggregating_add(key)),
];

fn operations(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut subject = Subject::loaded(&dir.path().join("db"));
    let mut group = c.benchmark_group("state");
    group
        .throughput(Throughput::Elements(1))
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    for (name, operation) in OPERATIONS {
        group.bench_function(name, |b| {
            b.iter(|| {
                let random = subject.random();
                operation(&mut subject, random % KEYS, random >> 32 & (ELEMENTS - 1));
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    operations,
    fresh::peeks,
    fresh::queue,
    fresh::clears,
    timers::timers,
    many::ttl,
    many::states,
    many::subtasks
);
criterion_main!(benches);
