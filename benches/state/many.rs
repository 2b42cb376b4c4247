//! Values with a TTL, many states, and many subtasks.

use std::hint::black_box;
use std::time::{Duration, Instant};

use alluvium::{MaxParallelism, StateStore, Ttl, TtlUpdate, ValueState};
use criterion::Criterion;

use super::{Quiet, number, splitmix64};

const KEYS: u64 = 50_000;

type Values = ValueState<u64>;

pub(crate) fn ttl(c: &mut Criterion) {
    let mut group = c.benchmark_group("ttl");
    group.sample_size(20);
    let hour = Ttl::new(Duration::from_secs(3600));
    let cases =
        [("none", None), ("writes", Some(hour)), ("reads", Some(hour.update(TtlUpdate::OnReadAndWrite)))];
    for (name, ttl) in cases {
        let mut quiet = Quiet::open();
        let mut descriptor = Values::descriptor("values");
        if let Some(ttl) = ttl {
            descriptor = descriptor.ttl(ttl);
        }
        let values = quiet.store.register(descriptor).unwrap();
        let put = |store: &mut StateStore, key: u64| {
            store.set_key(&key).unwrap();
            values.put(store, &number(key)).unwrap();
        };
        (0..KEYS).for_each(|key| put(&mut quiet.store, key));
        quiet.settle();
        let mut draw = 0;
        let mut random = move || {
            draw += 1;
            splitmix64(draw) % KEYS
        };
        group.bench_function(format!("{name}/get"), |b| {
            b.iter(|| {
                quiet.store.set_key(&random()).unwrap();
                black_box(values.get(&quiet.store).unwrap())
            });
        });
        group.bench_function(format!("{name}/put"), |b| b.iter(|| put(&mut quiet.store, random())));
    }
    group.finish();
}

fn register(store: &mut StateStore, states: u64) -> Vec<Values> {
    (0..states).map(|n| store.register(Values::descriptor(format!("state {n}"))).unwrap()).collect()
}

pub(crate) fn states(c: &mut Criterion) {
    let mut group = c.benchmark_group("states");
    group.sample_size(10);
    for states in [1, 1_000, 4_000] {
        group.bench_function(format!("register {states}, put once to each and cut"), |b| {
            b.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let mut quiet = Quiet::open();
                    let start = Instant::now();
                    let handles = register(&mut quiet.store, states);
                    quiet.store.set_key(&1_u64).unwrap();
                    handles.iter().for_each(|state| state.put(&mut quiet.store, &1).unwrap());
                    let pending = quiet.job.trigger([]).unwrap();
                    quiet.store.cut(pending.id(), []).unwrap();
                    total += start.elapsed();
                    pending.wait().unwrap();
                }
                total
            });
        });
        let mut quiet = Quiet::open();
        let handles = register(&mut quiet.store, states);
        let mut draw = 0;
        group.bench_function(format!("put to one of {states}"), |b| {
            b.iter(|| {
                draw += 1;
                let random = splitmix64(draw);
                quiet.store.set_key(&(random % (KEYS / states))).unwrap();
                handles[(random >> 32) as usize % handles.len()].put(&mut quiet.store, &draw).unwrap();
            });
        });
    }
    group.finish();
}

pub(crate) fn subtasks(c: &mut Criterion) {
    let mut group = c.benchmark_group("subtasks");
    group.sample_size(10);
    for subtasks in [1_u32, 64] {
        let groups = MaxParallelism::new(1_024).unwrap();
        let mut quiet = Quiet::open_with(|options| options.subtasks(subtasks).max_parallelism(groups));
        let mut stores: Vec<_> = std::iter::once(quiet.store).chain(quiet.others.drain(..)).collect();
        let handles: Vec<_> = stores.iter_mut().map(|store| register(store, 1).remove(0)).collect();
        let mut draw = 0;
        let mut put = |stores: &mut [StateStore]| {
            draw += 1;
            let key = splitmix64(draw) % KEYS;
            let owner = groups.group_of_key(&key);
            let at = stores.partition_point(|store| store.range().last < owner);
            stores[at].set_key(&key).unwrap();
            handles[at].put(&mut stores[at], &key).unwrap();
        };
        group.bench_function(format!("put to one of {subtasks}"), |b| b.iter(|| put(&mut stores)));
        group.bench_function(format!("checkpoint of {subtasks} after 1,000 puts"), |b| {
            b.iter(|| {
                (0..1_000).for_each(|_| put(&mut stores));
                let pending = quiet.job.trigger([]).unwrap();
                for store in &mut stores {
                    store.cut(pending.id(), []).unwrap();
                }
                pending.wait().unwrap()
            });
        });
    }
    group.finish();
}
