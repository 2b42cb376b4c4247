//! What cannot be seen from outside: how much is kept in memory, and when the table is read.

use crate::env::splitmix64;
use crate::store::{StateStore, scan_work};
use crate::{Job, JobOptions, MaxParallelism, OpenMode, Opened, ValueState};

use super::timer_key::TimeDomain;
use super::timers::TimerService;

type Timers = TimerService<u64>;

const DOMAIN: TimeDomain = TimeDomain::Event;

fn open(dir: &tempfile::TempDir) -> (Opened, Timers) {
    // Little memory, so that most timers are not in any delta.
    let options = JobOptions::new(dir.path(), OpenMode::Create).memory(16_000_000);
    let mut opened = Job::open("memory:///", options).unwrap();
    let timers = opened.stores[0].timer_service(Timers::descriptor("timers")).unwrap();
    (opened, timers)
}

fn kept(store: &mut StateStore, timers: &Timers) -> usize {
    store.heads(timers.state, DOMAIN.prefix()).kept()
}

fn reads(store: &mut StateStore, timers: &Timers) -> usize {
    store.heads(timers.state, DOMAIN.prefix()).reads()
}

#[test]
fn a_million_timers_with_few_in_memory() {
    const TIMERS: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (mut opened, timers) = open(&dir);
    let store = &mut opened.stores[0];
    let groups = store.range().groups().count();
    // Each timestamp once, in an order that has nothing to do with it.
    assert_eq!(timers.next_timestamp(store, DOMAIN).unwrap(), None);
    let time = |i: u64| (i * 7_919 % TIMERS) as i64;
    let mut most = 0;
    for i in 0..TIMERS {
        store.set_key(&splitmix64(i)).unwrap();
        timers.register(store, DOMAIN, time(i), &()).unwrap();
        if i % 10_000 == 0 {
            most = most.max(kept(store, &timers));
        }
    }
    let batch = store.heads(timers.state, DOMAIN.prefix()).batch().keys;
    assert!(store.stats().deltas_sealed > 10, "{:?}", store.stats());
    for expected in 0..TIMERS as i64 {
        let timer = timers.pop_due(store, DOMAIN, i64::MAX).unwrap().unwrap();
        assert_eq!(timer.timestamp, expected);
        if expected % 1_000 == 0 {
            most = most.max(kept(store, &timers));
        }
    }
    assert_eq!(timers.pop_due(store, DOMAIN, i64::MAX).unwrap(), None);
    assert_eq!(kept(store, &timers), 0);
    assert!(most > groups && most <= 2 * batch * groups, "{most} timers of {TIMERS} were in memory");
    // One read for a batch of timers, not for each.
    let reads = reads(store, &timers);
    assert!(reads < 2 * TIMERS as usize / batch, "{reads} reads for {TIMERS} timers, {batch} in a batch");
}

#[test]
fn nothing_is_read_where_nothing_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let (mut opened, timers) = open(&dir);
    let store = &mut opened.stores[0];
    let groups = store.range().groups().count();
    for key in 0..10_000_u64 {
        store.set_key(&key).unwrap();
        timers.register(store, DOMAIN, 100 + key as i64, &()).unwrap();
    }
    assert_eq!(reads(store, &timers), 0);
    assert_eq!(timers.pop_due(store, DOMAIN, 99).unwrap(), None);
    // Each group once, to see what a restore may have brought.
    assert_eq!(reads(store, &timers), groups);
    for watermark in 0..100 {
        assert_eq!(timers.pop_due(store, DOMAIN, watermark).unwrap(), None);
    }
    // One that is earlier than all others.
    store.set_key(&77_777_u64).unwrap();
    timers.register(store, DOMAIN, 50, &()).unwrap();
    assert_eq!(timers.pop_due(store, DOMAIN, 49).unwrap(), None);
    assert_eq!(timers.pop_due(store, DOMAIN, 50).unwrap().unwrap().key, 77_777);
    assert_eq!(timers.pop_due(store, DOMAIN, 50).unwrap(), None);
    assert_eq!(timers.next_timestamp(store, DOMAIN).unwrap(), Some(100));
    assert_eq!(reads(store, &timers), groups);
}

#[test]
fn the_first_look_searches_only_where_there_is_something() {
    let dir = tempfile::tempdir().unwrap();
    let options = JobOptions::new(dir.path(), OpenMode::Create)
        .memory(16_000_000)
        .max_parallelism(MaxParallelism::new(8_192).unwrap());
    let mut opened = Job::open("memory:///", options).unwrap();
    let store = &mut opened.stores[0];
    let timers = store.timer_service(Timers::descriptor("timers")).unwrap();
    let none = store.timer_service(Timers::descriptor("none")).unwrap();
    let values = store.register(ValueState::<u64>::descriptor("values")).unwrap();
    for key in 0..40_u64 {
        store.set_key(&key).unwrap();
        timers.register(store, DOMAIN, 1_000 - key as i64, &()).unwrap();
        timers.register(store, TimeDomain::Processing, 5, &()).unwrap();
        // Some in the same groups, most in others.
        store.set_key(&(key * 3)).unwrap();
        values.put(store, &key).unwrap();
    }
    for settled in [false, true] {
        // Another look from the start, as after a restore.
        store.forget_heads();
        let (work, next) = scan_work::of(|| timers.next_timestamp(store, DOMAIN));
        assert_eq!(next.unwrap(), Some(961));
        // A step, a search and a look behind for each of some 100 groups, not for each of 8,192.
        assert!((40..400).contains(&work), "{work} steps and searches");
        let (work, next) = scan_work::of(|| none.next_timestamp(store, DOMAIN));
        assert_eq!(next.unwrap(), None);
        assert!(work < 400, "{work} steps and searches");
        if !settled {
            opened.job.trigger("").and_then(|cut| store.cut(cut.id(), "")).unwrap();
            opened.job.settle(std::time::Duration::from_secs(60)).unwrap();
        }
    }
    for time in 961..=1_000 {
        assert_eq!(timers.pop_due(store, DOMAIN, i64::MAX).unwrap().unwrap().timestamp, time);
    }
    assert_eq!(timers.pop_due(store, DOMAIN, i64::MAX).unwrap(), None);
}

#[test]
fn a_timer_that_is_registered_again_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut opened, timers) = open(&dir);
    let store = &mut opened.stores[0];
    assert_eq!(timers.next_timestamp(store, DOMAIN).unwrap(), None);
    store.set_key(&1_u64).unwrap();
    timers.register(store, DOMAIN, 5, &()).unwrap();
    opened.job.trigger("").and_then(|cut| store.cut(cut.id(), "")).unwrap();
    timers.register(store, DOMAIN, 5, &()).unwrap();
    timers.delete(store, DOMAIN, 6, &()).unwrap();
    assert_eq!(store.stats().active_entries, 0);
    timers.delete(store, DOMAIN, 5, &()).unwrap();
    assert_eq!(store.stats().active_entries, 1);
    assert_eq!(timers.next_timestamp(store, DOMAIN).unwrap(), None);
}

#[test]
fn a_timer_that_cannot_be_read_is_named_and_can_be_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut opened, timers) = open(&dir);
    let store = &mut opened.stores[0];
    store.set_key(&7_u64).unwrap();
    timers.register(store, DOMAIN, 5, &()).unwrap();
    timers.register(store, DOMAIN, 9, &()).unwrap();
    let group = store.max_parallelism().group_of_key(&7_u64);
    // A key of 2 bytes, at 6 and without any time.
    let mut unreadable = vec![0, 0x80, 0, 0, 0, 0, 0, 0, 6];
    unreadable.extend([1, 2]);
    store.put(timers.state, group, &unreadable, &[]).unwrap();
    store.put(timers.state, group, &[0, 0xff, 0xff], &[]).unwrap();
    assert_eq!(timers.discard_unreadable(store, DOMAIN).unwrap(), None, "the first one can be read");
    assert_eq!(timers.pop_due(store, DOMAIN, 100).unwrap().unwrap().timestamp, 5);
    assert_eq!(timers.next_timestamp(store, DOMAIN).unwrap(), Some(6));
    for _ in 0..2 {
        let error = timers.pop_due(store, DOMAIN, 100).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        let group = format!("key group {group}");
        for word in ["\"timers\"", &group, "0x0080000000000000060102", "discard_unreadable"] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }
    assert_eq!(timers.pop_due(store, DOMAIN, 5).unwrap(), None, "it is not due");
    assert_eq!(timers.discard_unreadable(store, DOMAIN).unwrap(), Some(unreadable));
    assert_eq!(timers.pop_due(store, DOMAIN, 100).unwrap().unwrap().timestamp, 9);
    assert!(timers.next_timestamp(store, DOMAIN).unwrap_err().to_string().contains("0x00ffff"));
    assert_eq!(timers.discard_unreadable(store, DOMAIN).unwrap(), Some(vec![0, 0xff, 0xff]));
    assert_eq!(timers.next_timestamp(store, DOMAIN).unwrap(), None);
    assert_eq!(timers.discard_unreadable(store, DOMAIN).unwrap(), None);
}
