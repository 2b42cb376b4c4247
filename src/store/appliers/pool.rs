//! The turns of stores, and the threads' loop.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::store::applier::{SnapshotOrder, Step, TableLoad, Work, apply, next};
use crate::store::layer::ChargedLayer;
use crate::store::shared::StoreShared;
use crate::table::Table;

/// How often a store that gave its turn back is looked at again, if nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The pool has ended.
#[derive(Debug)]
pub(crate) struct Gone;

pub(super) struct Pool {
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
    #[cfg(test)]
    held: bool,
}

/// The work of one store.
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

/// The work of one turn.
enum Task {
    Apply(ChargedLayer),
    Snapshot(SnapshotOrder),
}

impl Queue {
    fn new(table: Arc<Table>, shared: Arc<StoreShared>) -> Self {
        Self { table, shared, work: VecDeque::new(), snapshot: None, turn: Turn::Idle }
    }
}

impl Pool {
    /// `most_slow`: how many threads may do slow steps at a time.
    pub(super) fn new(most_slow: usize) -> Self {
        Self { state: Mutex::default(), woken: Condvar::new(), most_slow }
    }

    /// Takes work and does none of it.
    #[cfg(test)]
    pub(super) fn swallowing() -> Self {
        let pool = Self::new(0);
        pool.lock().swallows = true;
        pool
    }

    /// Begins no more work until it is let go.
    #[cfg(test)]
    pub(super) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.woken.notify_all();
    }

    /// One more store, with nothing to do yet. Returns its index.
    pub(super) fn add(&self, table: Arc<Table>, shared: Arc<StoreShared>) -> usize {
        let mut state = self.lock();
        state.stores.push(Queue::new(table, shared));
        state.stores.len() - 1
    }

    pub(super) fn submit(&self, store: usize, work: Work) -> Result<(), Gone> {
        let mut state = self.lock();
        if state.stopping {
            return Err(Gone);
        }
        #[cfg(test)]
        if state.swallows {
            return Ok(());
        }
        let Some(queue) = state.stores.get_mut(store) else { return Err(Gone) };
        queue.work.push_back(work);
        if matches!(queue.turn, Turn::Idle | Turn::Parked) {
            queue.turn = Turn::Ready;
            state.parked.retain(|parked| *parked != store);
            state.ready.push_back(store);
            drop(state);
            self.woken.notify_one();
        }
        Ok(())
    }

    /// Has the threads end after their current step. Returns the tables that they may stand in.
    pub(super) fn stop(&self) -> Vec<Arc<Table>> {
        let mut state = self.lock();
        state.stopping = true;
        let tables = state.stores.iter().map(|queue| Arc::clone(&queue.table)).collect();
        drop(state);
        self.woken.notify_all();
        tables
    }

    /// Lets go of all stores, with the work that they have left.
    pub(super) fn clear(&self) {
        let left = std::mem::take(&mut self.lock().stores);
        // Without the lock, because a table may be closed here.
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only moves happen under the lock, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of one thread, until the pool ends.
    pub(super) fn run(&self) {
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
            #[cfg(test)]
            if state.held {
                state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
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
        let load = TableLoad::at(&table, &shared);
        let (task, slow) = {
            let mut state = self.lock();
            match state.begin(store, load, self.most_slow) {
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
        // Counted down even after a panic, or slow steps would be refused for ever.
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
    /// Takes the store's next step out of its queue, and tells whether it may be slow. None if the
    /// store gives its turn back.
    fn begin(&mut self, store: usize, load: TableLoad, most_slow: usize) -> Option<(Task, bool)> {
        let busy = self.slow >= most_slow;
        let queue = self.stores.get_mut(store)?;
        // A snapshot contains at least the deltas before it. While it has to wait, later deltas go
        // past it.
        while matches!(queue.work.front(), Some(Work::Snapshot(_))) {
            if let Some(Work::Snapshot(order)) = queue.work.pop_front() {
                // There is one at a time; a later one would stand for both.
                queue.snapshot = Some(order);
            }
        }
        let (task, slow) = match next(queue.snapshot.is_some(), !queue.work.is_empty(), load, busy) {
            Step::Snapshot => (Task::Snapshot(queue.snapshot.take()?), true),
            Step::Apply => match queue.work.pop_front()? {
                Work::Apply(held) => (Task::Apply(held), load.delayed),
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

    /// Gives a turn to all parked stores.
    fn unpark(&mut self) {
        for store in std::mem::take(&mut self.parked) {
            if let Some(queue) = self.stores.get_mut(store) {
                queue.turn = Turn::Ready;
                self.ready.push_back(store);
            }
        }
    }
}
