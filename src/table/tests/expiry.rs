//! Values that expire.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::env::Clock;
use crate::table::Expiry;

/// A clock that is set by hand.
#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_millis())
    }

    fn unix_millis(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Values whose first byte is their time, and that live for 10 milliseconds.
const EXPIRY: Expiry = Expiry {
    ttl_millis: 10,
    last_access: |value| value.first().copied().map(u64::from),
    first_element: |_| None,
};

fn table_with_clock() -> (TempDir, Table, Arc<ManualClock>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::<ManualClock>::default();
    let resources = resources().with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let table = Table::create(&dir.path().join("db"), RANGE, &resources).unwrap();
    (dir, table, clock)
}

#[test]
fn compaction_removes_what_has_expired_and_nothing_else() {
    let (_dir, table, clock) = table_with_clock();
    let mut other = Vec::new();
    key::encode_into(&mut other, KeyGroup(4), StateId(8), b"old");
    table.apply(DeltaSeq(1), NO_TOMBSTONES, [(other.as_slice(), Entry::Put(&[1]))]).unwrap();
    let values = [("never", &[][..]), ("old", &[5]), ("young", &[6])];
    apply(&table, 2, &values.map(|(key, value)| (key, Entry::Put(value)))).unwrap();
    clock.0.store(15, Ordering::Release);
    table.compact_all().unwrap();
    assert_eq!(scan(&table).len(), 4, "no TTL is registered yet");

    table.expire(STATE, EXPIRY).unwrap();
    // As if somebody had registered one for the reserved state: the marker must survive.
    table.expire(StateId::RESERVED, Expiry { ttl_millis: 0, last_access: |_| Some(0), ..EXPIRY }).unwrap();
    table.compact_all().unwrap();
    let left: Vec<_> = scan(&table).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [k("never"), k("young"), other.clone()]);
    assert_eq!(table.applied().unwrap(), DeltaSeq(2));

    clock.0.store(1000, Ordering::Release);
    table.compact_all().unwrap();
    assert_eq!(get(&table, "young"), None);
    assert_eq!(scan(&table).len(), 2);
}

/// What compaction removes from an upper level must go on hiding what lies below.
#[test]
fn an_older_value_does_not_show_through_where_a_newer_has_expired() {
    let (_dir, table, clock) = table_with_clock();
    // Without a time: it would never expire.
    apply(&table, 1, &[("a", Entry::Put(b"")), ("b", Entry::Put(b""))]).unwrap();
    table.compact_all().unwrap();
    table.expire(STATE, EXPIRY).unwrap();
    clock.0.store(100, Ordering::Release);
    // So many files in level 0 that RocksDB compacts them, into a level above that of the first.
    for _ in 0..50 {
        table.put(&k("a"), &[5]).unwrap();
        table.put(&k("b"), &[95]).unwrap();
        table.flush().unwrap();
    }
    assert!(table.wait_idle(Duration::from_secs(30)).unwrap());
    assert_ne!(get(&table, "a").as_deref(), Some(b"".as_slice()));
    table.compact_all().unwrap();
    assert_eq!(get(&table, "a"), None);
    assert_eq!(get(&table, "b").as_deref(), Some(&[95][..]));
    assert_eq!(scan(&table).len(), 1);
}

/// RocksDB does not show operands to the filter: a value that is appended to loses what has expired
/// only once it is a value again.
#[test]
fn operands_survive_the_filter() {
    let (_dir, table, clock) = table_with_clock();
    table.expire(STATE, EXPIRY).unwrap();
    clock.0.store(100, Ordering::Release);
    table.put(&k("base"), &[5]).unwrap();
    table.merge(MergeOp::ListAppend, &k("operands"), &[5]).unwrap();
    table.compact_all().unwrap();
    assert_eq!(get(&table, "base"), None);
    apply(&table, 2, &[("base", append(&[95])), ("operands", append(&[96]))]).unwrap();
    assert_eq!(get(&table, "base").as_deref(), Some(&[95][..]));
    assert_eq!(get(&table, "operands").as_deref(), Some(&[5, 96][..]));
    table.compact_all().unwrap();
    assert_eq!(get(&table, "base").as_deref(), Some(&[95][..]));
}

/// A list of bytes, each of which is its own time.
const PARTS: Expiry = Expiry {
    last_access: |value| Some(value.iter().max().copied().map_or(0, u64::from)),
    first_element: |value| value.first().map(|time| (Some(u64::from(*time)), 1)),
    ..EXPIRY
};

/// What is appended to again and again must not grow for ever.
#[test]
fn folds_leave_out_what_has_expired_at_the_front() {
    let (_dir, table, clock) = table_with_clock();
    table.expire(STATE, PARTS).unwrap();
    for time in 1..=60_u8 {
        clock.0.store(time.into(), Ordering::Release);
        let operand = append(std::slice::from_ref(&time));
        apply(&table, time.into(), &[("list", operand), ("never read", operand)]).unwrap();
        if time % 5 == 0 {
            table.compact_all().unwrap();
            let list = get(&table, "list").unwrap();
            assert!(list.len() <= 10 && list.ends_with(&[time]), "{list:?}");
        }
    }
    assert!(scan(&table).iter().all(|(_, value)| value.len() <= 10), "{:?}", scan(&table));
    // Lists that only consist of operands as well, in the first compaction.
    let mut bytes = Vec::new();
    clock.0.store(100, Ordering::Release);
    table.put(&k("put"), &[99]).unwrap();
    for time in 80..=89_u8 {
        bytes.extend_from_slice(&[time; 1000]);
        table.merge(MergeOp::ListAppend, &k("expired"), &[time; 1000]).unwrap();
    }
    table.merge(MergeOp::ListAppend, &k("expired"), &[91]).unwrap();
    table.merge(MergeOp::ListAppend, &k("gone"), &bytes).unwrap();
    table.compact_all().unwrap();
    let left: Vec<_> = scan(&table).into_iter().filter(|(_, value)| !value.is_empty()).collect();
    assert_eq!(left, [(k("expired"), vec![91]), (k("put"), vec![99])]);
    // What is left of a list without elements goes with the next compaction.
    table.compact_all().unwrap();
    assert_eq!(scan(&table).len(), 2);
}

#[test]
fn a_delta_loses_what_has_expired_when_it_is_applied() {
    let (_dir, table, clock) = table_with_clock();
    // Without a time: these never expire, and must not show through either.
    apply(&table, 1, &[("put", Entry::Put(b"")), ("list", Entry::Put(b""))]).unwrap();
    table.expire(STATE, EXPIRY).unwrap();
    clock.0.store(100, Ordering::Release);
    let entries = [("list", append(&[90])), ("put", Entry::Put(&[90])), ("young", Entry::Put(&[91]))];
    apply(&table, 2, &entries).unwrap();
    assert_eq!(get(&table, "put"), None);
    assert_eq!(get(&table, "list").as_deref(), Some(b"".as_slice()), "what lies below an operand stays");
    assert_eq!(get(&table, "young").as_deref(), Some(&[91][..]));
    assert_eq!(table.applied().unwrap(), DeltaSeq(2));
}

/// The newest of RocksDB's files with the options in use.
fn options_file(table: &Table) -> String {
    let files = fs::read_dir(&table.dir).unwrap().map(|entry| entry.unwrap().path());
    let options = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS-"));
    fs::read_to_string(options.max().unwrap()).unwrap()
}

#[test]
fn files_are_rewritten_by_age_only_where_entries_expire() {
    let (_dir, table) = table();
    assert!(options_file(&table).contains("periodic_compaction_seconds=0\n"));
    table.expire(STATE, EXPIRY).unwrap();
    table.expire(StateId(8), EXPIRY).unwrap();
    assert!(options_file(&table).contains("periodic_compaction_seconds=2592000\n"));
}
