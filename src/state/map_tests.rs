//! What cannot be seen from outside: how much is looked at, and what is written.

use std::time::Duration;

use crate::store::{StateStore, scan_work};
use crate::{Job, JobOptions, MapState, MaterializationOptions, Namespaced, OpenMode, Opened, Ttl};

/// Work that does not depend on how much there is.
const LITTLE: usize = 60;

fn open(dir: &tempfile::TempDir) -> Opened {
    let never = MaterializationOptions::on_demand();
    // So much memory that nothing is cut by itself.
    let options = JobOptions::new(dir.path(), OpenMode::Create).memory(64_000_000).materialization(never);
    Job::open("memory:///", options).unwrap()
}

fn settle(opened: &mut Opened) {
    let pending = opened.job.trigger("").unwrap();
    opened.stores[0].cut(pending.id(), "").unwrap();
    pending.wait().unwrap();
    opened.job.settle(Duration::from_secs(60)).unwrap();
}

#[track_caller]
fn little<R>(what: &str, f: impl FnOnce() -> R) -> R {
    let (work, result) = scan_work::of(f);
    assert!((1..=LITTLE).contains(&work), "{what}: {work} steps, searches and copies");
    result
}

fn peek(map: &MapState<u32, u32>, store: &mut StateStore, last: u32) {
    let shared = &*store;
    assert!(!little("is_empty", || map.is_empty(shared)).unwrap());
    assert_eq!(little("first", || map.first(shared)).unwrap(), Some((0, 0)));
    assert_eq!(little("last", || map.last(shared)).unwrap(), Some((last, last)));
    assert_eq!(little("iter", || map.iter(shared).unwrap().next()).unwrap().unwrap().0, 0);
    assert_eq!(little("rev", || map.iter(shared).unwrap().next_back()).unwrap().unwrap().0, last);
    assert_eq!(little("range", || map.range(shared, 5..).unwrap().next()).unwrap().unwrap().0, 5);
}

#[test]
fn a_peek_costs_the_same_however_much_is_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&dir);
    let map = opened.stores[0].register(MapState::<u32, u32>::descriptor("map")).unwrap();
    for (key, count) in [("a few", 10), ("many", 10_000), ("more", 40_000)] {
        let store = &mut opened.stores[0];
        store.set_key(key).unwrap();
        (0..count).for_each(|n| map.put(store, &n, &n).unwrap());
        peek(&map, store, count - 1);
    }
    // Frozen, and then in the table.
    let pending = opened.job.trigger("").unwrap();
    opened.stores[0].cut(pending.id(), "").unwrap();
    peek(&map, &mut opened.stores[0], 39_999);
    pending.wait().unwrap();
    opened.job.settle(Duration::from_secs(60)).unwrap();
    peek(&map, &mut opened.stores[0], 39_999);
    // Deleted as a range, which lies above the table.
    map.clear(&mut opened.stores[0]).unwrap();
    assert!(little("is_empty after a clear", || map.is_empty(&opened.stores[0])).unwrap());
    assert_eq!(little("last after a clear", || map.last(&opened.stores[0])).unwrap(), None);
}

#[test]
fn a_queue_is_worked_off_without_passing_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&dir);
    let map = opened.stores[0].register(MapState::<u32, u32>::descriptor("map")).unwrap();
    opened.stores[0].set_key("queue").unwrap();
    (0..20_000).for_each(|n| map.put(&mut opened.stores[0], &n, &n).unwrap());
    settle(&mut opened);
    (20_000..30_000).for_each(|n| map.put(&mut opened.stores[0], &n, &n).unwrap());
    let store = &mut opened.stores[0];
    for n in 0..5_000 {
        let (least, greatest) = (n, 29_999 - n);
        let first = little("pop_first", || map.pop_first(store)).unwrap();
        assert_eq!(first, Some((least, least)));
        let last = little("pop_last", || map.pop_last(store)).unwrap();
        assert_eq!(last, Some((greatest, greatest)));
    }
    assert_eq!(store.active_tombstones(), 2, "one range from either end");
    assert_eq!(map.iter(store).unwrap().count(), 20_000);
}

#[test]
fn namespaces_are_listed_without_reading_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&dir);
    let map: MapState<u32, u32, Namespaced<u32>> =
        opened.stores[0].register(MapState::descriptor("map").namespaced()).unwrap();
    opened.stores[0].set_key("key").unwrap();
    for namespace in 0..3_u32 {
        (0..8_000).for_each(|n| map.at(&namespace).put(&mut opened.stores[0], &n, &n).unwrap());
    }
    let store = &opened.stores[0];
    assert_eq!(little("first", || map.namespaces(store).unwrap().next()).unwrap().unwrap(), 0);
    assert_eq!(little("last", || map.namespaces(store).unwrap().next_back()).unwrap().unwrap(), 2);
    let found = little("all", || map.namespaces(store).unwrap().collect::<Result<Vec<_>, _>>());
    assert_eq!(found.unwrap(), [0, 1, 2]);
    let keys = little("keys", || map.keys::<str>(store, store.group_of(b"key")).unwrap().count());
    assert_eq!(keys, 1);
}

#[test]
fn a_small_map_is_cleared_entry_by_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(&dir);
    let store = &mut opened.stores[0];
    let map = store.register(MapState::<u32, u32>::descriptor("map")).unwrap();
    let expiring = MapState::<u32, u32>::descriptor("expiring").ttl(Ttl::new(Duration::from_secs(1)));
    let expiring = store.register(expiring).unwrap();
    store.set_key("key").unwrap();
    map.clear(store).unwrap();
    assert_eq!((store.stats().active_entries, store.active_tombstones()), (0, 0), "nothing to remove");
    (0..32).for_each(|n| map.put(store, &n, &n).unwrap());
    settle(&mut opened);
    let store = &mut opened.stores[0];
    map.clear(store).unwrap();
    assert_eq!((store.stats().active_entries, store.active_tombstones()), (32, 0));
    assert!(map.is_empty(store).unwrap());
    // What is removed already does not count for ever: it is not passed without end.
    (0..100).for_each(|n| map.put(store, &n, &n).unwrap());
    (0..99).for_each(|n| map.remove(store, &n).unwrap());
    little("clear", || map.clear(store)).unwrap();
    assert_eq!(store.active_tombstones(), 1);
    assert!(map.is_empty(store).unwrap());
    // Expired entries may be gone from the table and not from the changelog.
    store.set_key("another").unwrap();
    expiring.clear(store).unwrap();
    assert_eq!(store.active_tombstones(), 2);
}
