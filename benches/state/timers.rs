//! Timers: registered, registered again, fired; with few and with many key groups.

use std::hint::black_box;

use alluvium::{MaxParallelism, StateStore, TimeDomain, TimerService};
use criterion::Criterion;

use super::{Quiet, splitmix64};

const DOMAIN: TimeDomain = TimeDomain::Event;
const TIMERS: u64 = 50_000;

type Timers = TimerService<u64>;

fn register(store: &mut StateStore, timers: &Timers, key: u64, time: i64) {
    store.set_key(&key).unwrap();
    timers.register(store, DOMAIN, time, &()).unwrap();
}

pub(crate) fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    group.sample_size(20);
    for groups in [128_u16, 4_096, 32_768] {
        let groups_of = MaxParallelism::new(groups).unwrap();
        let mut quiet = Quiet::open_with(|options| options.max_parallelism(groups_of));
        let timers = quiet.store.timer_service(Timers::descriptor("timers")).unwrap();
        for key in 0..TIMERS {
            register(&mut quiet.store, &timers, splitmix64(key), key as i64);
        }
        quiet.settle();
        let mut services = 0_u64;
        group.bench_function(format!("{groups} groups/first look at a new service"), |b| {
            b.iter(|| {
                services += 1;
                let new = Timers::descriptor(format!("service {services}"));
                let new = quiet.store.timer_service(new).unwrap();
                black_box(new.next_timestamp(&mut quiet.store, DOMAIN).unwrap())
            });
        });
        let mut time = TIMERS as i64;
        group.bench_function(format!("{groups} groups/register"), |b| {
            b.iter(|| {
                time += 1;
                register(&mut quiet.store, &timers, splitmix64(time as u64), time);
            });
        });
        group.bench_function(format!("{groups} groups/pop and register"), |b| {
            b.iter(|| {
                time += 1;
                register(&mut quiet.store, &timers, splitmix64(time as u64), time);
                timers.pop_due(&mut quiet.store, DOMAIN, i64::MAX).unwrap().unwrap()
            });
        });
    }
    group.finish();
}
