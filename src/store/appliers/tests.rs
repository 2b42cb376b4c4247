//! Order, fairness and the end, with real threads and tables.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::super::applier::SnapshotOrder;
use super::super::applier::Taken;
use super::super::attempt::Attempt;
use super::super::layer::{ChargedLayer, Layer};
use super::*;
use crate::budget::Budget;
use crate::delta::{ActiveDelta, TableKind};
use crate::ids::{DeltaSeq, Epoch, StateId};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange};
use crate::table::TableResources;

const SOON: Duration = Duration::from_secs(60);
const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };

/// A store without an operator.
struct Store {
    table: Arc<Table>,
    shared: Arc<StoreShared>,
    applier: Applier,
    seq: DeltaSeq,
}

impl Store {
    fn new(appliers: &Appliers, dir: &std::path::Path, resources: &TableResources) -> Self {
        let table = Arc::new(Table::create(dir, RANGE, resources).unwrap());
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(1 << 20), DeltaSeq(0));
        let applier = appliers.add(Arc::clone(&table), Arc::clone(&shared));
        Self { table, shared, applier, seq: DeltaSeq(0) }
    }

    /// Has the key set to the number of the delta.
    fn put(&mut self) -> Arc<Layer> {
        self.seq = self.seq.next();
        let mut delta = ActiveDelta::new();
        delta.put(TableKind::Hash, &stored_key(), &self.seq.0.to_be_bytes());
        let layer = Layer::new(self.seq, delta.cut());
        self.shared.set_frozen(self.seq);
        let share = Arc::new(self.shared.budget.take(1));
        self.applier.send(Work::Apply(ChargedLayer { layer: Arc::clone(&layer), _share: share })).unwrap();
        layer
    }

    fn snapshot(&self, dir: &std::path::Path) -> std::sync::mpsc::Receiver<Taken> {
        let (done, taken) = channel();
        let done = Box::new(move |result| drop(done.send(result)));
        self.applier.send(Work::Snapshot(SnapshotOrder { dir: dir.to_owned(), done })).unwrap();
        taken
    }

    fn fill_level_0(&mut self, until: impl Fn(&Table) -> bool) {
        self.table.hold_compactions();
        while !until(&self.table) {
            self.add_file();
        }
    }

    fn add_file(&mut self) {
        self.seq = self.seq.next();
        self.table.set_applied(self.seq).unwrap();
        self.table.flush().unwrap();
    }

    fn value(&self) -> Option<u64> {
        let value = self.table.get(&stored_key()).unwrap()?;
        Some(u64::from_be_bytes(value.as_ref().try_into().unwrap()))
    }
}

fn stored_key() -> Vec<u8> {
    let mut key = Vec::new();
    key::encode_into(&mut key, KeyGroup(1), StateId::of("state"), b"key");
    key
}

/// Waits, for as long as a broken test may take.
fn comes_true(what: impl Fn() -> bool) -> bool {
    (0..SOON.as_millis()).any(|_| {
        thread::sleep(Duration::from_millis(1));
        what()
    })
}

#[test]
fn few_threads_serve_many_stores_each_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let resources = TableResources::new(16 << 20, 2).for_tables(12);
    let appliers = Appliers::start(12, 1).unwrap();
    assert_eq!(appliers.threads.len(), 4);
    let store = |number: usize| Store::new(&appliers, &dir.path().join(number.to_string()), &resources);
    let mut stores: Vec<_> = (0..12).map(store).collect();
    for _ in 0..50 {
        stores.iter_mut().for_each(|store| drop(store.put()));
    }
    assert!(comes_true(|| stores.iter().all(|store| store.shared.unapplied() == 0)));
    for store in &stores {
        store.shared.attempt.health().unwrap();
        assert_eq!(store.value(), Some(50));
        assert_eq!(store.shared.budget.held(), 0);
    }
}

#[test]
fn threads_come_from_cores_and_stores() {
    assert_eq!(threads_for(1, 64), 1);
    assert_eq!(threads_for(3, 1), 3);
    assert_eq!(threads_for(256, 2), 4);
    assert_eq!(threads_for(256, 8), 16);
    assert_eq!(threads_for(256, 1000), 32);
    assert_eq!(threads_for(0, 1), 1);
}

#[test]
fn i6_stores_whose_tables_take_no_writes_hold_up_no_other_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let resources = TableResources::new(16 << 20, 2).for_tables(6);
    let appliers = Appliers::start(6, 1).unwrap();
    let store = |number: usize| Store::new(&appliers, &dir.path().join(number.to_string()), &resources);
    let mut stores: Vec<_> = (0..6).map(store).collect();
    // As many as there are threads, and one more.
    for store in &mut stores[..5] {
        (0..2).for_each(|_| store.add_file());
        store.table.stop_writes(true);
        assert!(store.table.is_stopped());
    }
    let held: Vec<_> = stores[..5].iter_mut().map(Store::put).collect();
    for _ in 0..20 {
        stores[5].put();
    }
    assert!(comes_true(|| stores[5].shared.unapplied() == 0), "there is a thread for it");
    assert!(held.iter().all(|layer| !layer.is_applied()));
    stores[0].table.stop_writes(false);
    assert!(comes_true(|| held[0].is_applied()), "it goes on once it can");
    // It would wait for ever for a thread that RocksDB holds.
    drop(appliers);
    assert!(!held[1].is_applied());
    assert!(
        stores[0]
            .applier
            .send(Work::Snapshot(SnapshotOrder { dir: dir.path().join("never"), done: Box::new(|_| {}) }))
            .is_err()
    );
}

#[test]
fn a_store_that_fails_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let resources = TableResources::new(16 << 20, 2).for_tables(2);
    let appliers = Appliers::start(2, 1).unwrap();
    let mut stores =
        [0, 1].map(|n: usize| Store::new(&appliers, &dir.path().join(n.to_string()), &resources));
    let share = Arc::new(stores[0].shared.budget.take(1));
    // A number that the table has already.
    let layer = Layer::new(DeltaSeq(0), ActiveDelta::new().cut());
    stores[0].applier.send(Work::Apply(ChargedLayer { layer, _share: share })).unwrap();
    assert!(comes_true(|| stores[0].shared.attempt.health().is_err()));
    let layer = stores[1].put();
    assert!(comes_true(|| layer.is_applied()));
    let lost = stores[0].put();
    assert!(comes_true(|| stores[0].shared.budget.held() == 0), "it is thrown away");
    assert!(!lost.is_applied());
}

#[test]
fn i6_a_snapshot_waits_for_level_0_and_deltas_do_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let resources = TableResources::new(8 << 20, 1);
    let appliers = Appliers::start(1, 1).unwrap();
    let mut store = Store::new(&appliers, &dir.path().join("table"), &resources);
    store.fill_level_0(Table::is_crowded);
    let taken = store.snapshot(&dir.path().join("base"));
    let layer = store.put();
    assert!(comes_true(|| layer.is_applied()), "the delta went past the waiting snapshot");
    assert!(taken.try_recv().is_err(), "no snapshot while level 0 is crowded");

    store.table.compact_all().unwrap();
    let (stands_at, _) = taken.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(stands_at, store.seq, "it stands at what was applied meanwhile");
    let base = Table::open(&dir.path().join("base"), RANGE, &resources).unwrap();
    assert!(base.get(&stored_key()).unwrap().is_some());
}

#[test]
fn i1_a_snapshot_stands_at_what_was_sent_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let appliers = Appliers::start(1, 1).unwrap();
    let resources = TableResources::new(8 << 20, 1);
    let mut store = Store::new(&appliers, &dir.path().join("table"), &resources);
    let taken: Vec<_> = (0..5)
        .map(|number| {
            store.put();
            (store.seq, store.snapshot(&dir.path().join(format!("base-{number}"))))
        })
        .collect();
    for (seq, taken) in taken {
        assert_eq!(taken.recv_timeout(SOON).unwrap().unwrap().0, seq);
    }
}
