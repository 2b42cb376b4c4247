//! The threads that apply deltas: a few for all stores of a job, because of hundreds of stores only
//! a few have something to apply at a time. Each store's work is done in order, by one thread at a
//! time, one step per turn.
//!
//! A thread must not wait for one store while other stores could proceed. A store whose table takes
//! no writes, or whose snapshot has to wait for level 0, therefore gives its turn back and is
//! looked at again a moment later. Slow steps (snapshots, and writes that RocksDB slows down) never
//! occupy all threads.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::table::Table;

use super::applier::{Look, SnapshotOrder, Step, Work, apply, next};
use super::shared::{Held, StoreShared};

/// How often a store that gave its turn back is looked at again, if nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The threads; dropping this ends them.
pub(crate) struct Appliers {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

/// A store's handle to the pool.
#[derive(Clone)]
pub(crate) struct Applier {
    pool: Arc<Pool>,
    store: usize,
}

/// The pool has ended.
#[derive(Debug)]
pub(crate) struct Gone;

struct Pool {
    state: Mutex<State>,
    /// There is something to do, or to look at.
    woken: Condvar,
    /// Threads that may do slow steps at a time.
    most_slow: usize,
}

#[derive(Default)]
struct State {
    stores: Vec<Queue>,
    /// Whose turn it is next, in this order.
    ready: VecDeque<usize>,
    /// Stores that have given their turn back.
    parked: Vec<usize>,
    /// Threads that are doing slow steps.
    slow: usize,
    stopping: bool,
    #[cfg(test)]
    swallows: bool,
}

/// What one store has to apply.
struct Queue {
    table: Arc<Table>,
    shared: Arc<StoreShared>,
    work: VecDeque<Work>,
    /// Waits for level 0; deltas go past it.
    snapshot: Option<SnapshotOrder>,
    turn: Turn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is nothing to do.
    Idle,
    Ready,
    Running,
    Parked,
}

/// What a thread does with a turn, with all that it takes.
enum Task {
    Apply(Held),
    Snapshot(SnapshotOrder),
}

impl Appliers {
    /// Threads for so many stores, as fits so many cores.
    pub(crate) fn start(stores: usize, cores: usize) -> Result<Self> {
        let count = threads_for(stores, cores);
        let pool = Pool {
            state: Mutex::default(),
            woken: Condvar::new(),
            // With a thread for each store, no store delays another.
            most_slow: if count < stores { count - 1 } else { count },
        };
        let mut appliers = Self { pool: Arc::new(pool), threads: Vec::new() };
        for number in 0..count {
            let pool = Arc::clone(&appliers.pool);
            let thread = thread::Builder::new().name(format!("apply-{number}")).spawn(move || pool.run());
            appliers.threads.push(
                thread.map_err(|error| Error::internal("cannot start an applier's thread").source(error))?,
            );
        }
        Ok(appliers)
    }

    /// One more store, with nothing to do yet.
    pub(crate) fn add(&self, table: Arc<Table>, shared: Arc<StoreShared>) -> Applier {
        let mut state = self.pool.lock();
        state.stores.push(Queue::new(table, shared));
        Applier { pool: Arc::clone(&self.pool), store: state.stores.len() - 1 }
    }
}

impl Drop for Appliers {
    fn drop(&mut self) {
        let tables: Vec<_> = {
            let mut state = self.pool.lock();
            state.stopping = true;
            state.stores.iter().map(|queue| Arc::clone(&queue.table)).collect()
        };
        self.pool.woken.notify_all();
        // A thread may stand in a write that RocksDB holds back until compaction has caught up.
        tables.iter().for_each(|table| table.abandon());
        drop(tables);
        // Joined, and the tables let go of here, so that RocksDB is closed by whoever drops the job: a process
        // that exits while another thread closes it runs into RocksDB's own destructors.
        for thread in self.threads.drain(..) {
            // A panic was recorded where it happened.
            let _ = thread.join();
        }
        let left = std::mem::take(&mut self.pool.lock().stores);
        drop(left);
    }
}

impl Applier {
    /// Adds to the store's work.
    pub(crate) fn send(&self, work: Work) -> Result<(), Gone> {
        let mut state = self.pool.lock();
        if state.stopping {
            return Err(Gone);
        }
        #[cfg(test)]
        if state.swallows {
            return Ok(());
        }
        let Some(queue) = state.stores.get_mut(self.store) else { return Err(Gone) };
        queue.work.push_back(work);
        if matches!(queue.turn, Turn::Idle | Turn::Parked) {
            queue.turn = Turn::Ready;
            state.parked.retain(|store| *store != self.store);
            state.ready.push_back(self.store);
            drop(state);
            self.pool.woken.notify_one();
        }
        Ok(())
    }

    /// One whose work nobody does.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        let pool = Pool { state: Mutex::default(), woken: Condvar::new(), most_slow: 0 };
        pool.lock().swallows = true;
        Self { pool: Arc::new(pool), store: 0 }
    }
}

impl Queue {
    fn new(table: Arc<Table>, shared: Arc<StoreShared>) -> Self {
        Self { table, shared, work: VecDeque::new(), snapshot: None, turn: Turn::Idle }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Only moves happen under the lock, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(store) = self.wait() {
            self.take_turn(store);
        }
    }

    /// The store whose turn it is; None at the end.
    fn wait(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(store) = state.ready.pop_front() {
                if let Some(queue) = state.stores.get_mut(store) {
                    queue.turn = Turn::Running;
                }
                return Some(store);
            }
            state = if state.parked.is_empty() {
                self.woken.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.woken.wait_timeout(state, LOOK_AGAIN);
                let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                if timeout.timed_out() {
                    state.unpark();
                }
                state
            };
        }
    }

    fn take_turn(&self, store: usize) {
        // What RocksDB says of itself is asked for without the lock.
        let (table, shared) = {
            let state = self.lock();
            let Some(queue) = state.stores.get(store) else { return };
            (Arc::clone(&queue.table), Arc::clone(&queue.shared))
        };
        let look = Look::at(&table, &shared);
        let (task, slow) = {
            let mut state = self.lock();
            match state.begin(store, look, self.most_slow) {
                Some(begun) => begun,
                None => return,
            }
        };
        let done = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Apply(held) => apply(held, &table, &shared),
            Task::Snapshot(order) => order.carry_out(&table),
        }));
        if done.is_err() {
            shared.fail(Error::internal("an applier's thread panicked"));
        }
        // The table may be closed once the turn is over.
        drop((table, shared));
        let mut state = self.lock();
        state.slow -= usize::from(slow);
        // Time has passed, and level 0 may have changed.
        state.unpark();
        state.end(store);
        let more = state.ready.len() > 1;
        drop(state);
        if more {
            self.woken.notify_one();
        }
    }
}

impl State {
    /// What the store does next, and whether that may take long; None if it gives back its turn.
    fn begin(&mut self, store: usize, look: Look, most_slow: usize) -> Option<(Task, bool)> {
        let busy = self.slow >= most_slow;
        let queue = self.stores.get_mut(store)?;
        // A snapshot stands at what came before it. If it has to wait, it does not hold up what comes after it.
        while matches!(queue.work.front(), Some(Work::Snapshot(_))) {
            if let Some(Work::Snapshot(order)) = queue.work.pop_front() {
                // There is one at a time; a later one would stand for both.
                queue.snapshot = Some(order);
            }
        }
        let (task, slow) = match next(queue.snapshot.is_some(), !queue.work.is_empty(), look, busy) {
            Step::Snapshot => (Task::Snapshot(queue.snapshot.take()?), true),
            Step::Apply => match queue.work.pop_front()? {
                Work::Apply(held) => (Task::Apply(held), look.delayed),
                Work::Snapshot(order) => (Task::Snapshot(order), true),
            },
            Step::Wait => {
                queue.turn = Turn::Parked;
                self.parked.push(store);
                return None;
            }
            Step::Nothing => {
                queue.turn = Turn::Idle;
                return None;
            }
        };
        self.slow += usize::from(slow);
        Some((task, slow))
    }

    fn end(&mut self, store: usize) {
        let Some(queue) = self.stores.get_mut(store) else { return };
        if queue.work.is_empty() && queue.snapshot.is_none() {
            queue.turn = Turn::Idle;
        } else {
            queue.turn = Turn::Ready;
            self.ready.push_back(store);
        }
    }

    /// Has all look again that have given back their turns.
    fn unpark(&mut self) {
        for store in std::mem::take(&mut self.parked) {
            if let Some(queue) = self.stores.get_mut(store) {
                queue.turn = Turn::Ready;
                self.ready.push_back(store);
            }
        }
    }
}

/// More threads than cores, because some wait for the disk or are held back, but no more than there are stores.
fn threads_for(stores: usize, cores: usize) -> usize {
    stores.min(cores.saturating_mul(2).clamp(4, 32)).max(1)
}

impl fmt::Debug for Appliers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appliers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::applier::Taken;
    use super::super::shared::{Attempt, Layer};
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
            self.applier.send(Work::Apply(Held { layer: Arc::clone(&layer), _share: share })).unwrap();
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
        stores[0].applier.send(Work::Apply(Held { layer, _share: share })).unwrap();
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
}
