//! The threads that apply deltas: a few for all stores of a job, because of hundreds of stores only
//! a few have something to apply at a time. Each store's work is done in order, by one thread at a
//! time, one step per turn.
//!
//! A thread must not wait for one store while other stores could proceed. A store whose table takes
//! no writes, or whose snapshot has to wait for level 0, therefore gives its turn back and is
//! looked at again a moment later. Slow steps (snapshots, and writes that RocksDB slows down) never
//! occupy all threads.

mod pool;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result};
use crate::table::Table;

use super::applier::Work;
use super::shared::StoreShared;
pub(crate) use pool::Gone;
use pool::Pool;

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

impl Appliers {
    /// Starts the threads for this many stores, on this many cores.
    pub(crate) fn start(stores: usize, cores: usize) -> Result<Self> {
        let count = threads_for(stores, cores);
        // With a thread for each store, no store delays another.
        let pool = Pool::new(if count < stores { count - 1 } else { count });
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
        Applier { pool: Arc::clone(&self.pool), store: self.pool.add(table, shared) }
    }
}

impl Drop for Appliers {
    fn drop(&mut self) {
        let tables = self.pool.stop();
        // A thread may stand in a write that RocksDB holds back until compaction has caught up.
        tables.iter().for_each(|table| table.abandon());
        drop(tables);
        // The thread that drops the job closes RocksDB. If a thread of its own did, a process that
        // exits meanwhile would run into RocksDB's destructors. So the threads are joined and the
        // tables dropped here.
        for thread in self.threads.drain(..) {
            // A panic was recorded where it happened.
            let _ = thread.join();
        }
        self.pool.clear();
    }
}

impl Applier {
    /// Adds to the store's work.
    pub(crate) fn send(&self, work: Work) -> Result<(), Gone> {
        self.pool.submit(self.store, work)
    }

    /// Holds the work of all stores back, or lets it go.
    #[cfg(test)]
    pub(crate) fn hold(&self, held: bool) {
        self.pool.hold(held);
    }

    /// An applier whose work is never done.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self { pool: Arc::new(Pool::swallowing()), store: 0 }
    }
}

/// More threads than cores, because some wait for the disk or are slowed down by RocksDB, but no
/// more than stores.
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
