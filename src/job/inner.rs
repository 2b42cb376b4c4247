//! What all clones of a job and its stores share, and what ends with the last of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::busy::Busy;
use super::coordinator::{Command, Progress};
use super::local_dir::LocalDir;
use super::packer::Packer;
use super::report::MemoryStats;
use super::triggers::Triggers;
use crate::cache::CacheMemory;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::SubtaskIndex;
use crate::manifest::CheckpointMode;
use crate::remote::Remote;
use crate::runtime::BackgroundRuntime;
use crate::store::{Appliers, Attempt, EventSender, StoreShared};
use crate::table::{Table, TableResources};
use crate::uploads::Uploads;

/// What keeps a job's background alive.
#[derive(Clone)]
pub(crate) struct JobHold(pub(super) Arc<Inner>);

pub(super) struct Inner {
    // Held for its drop, which ends the background.
    pub(super) runtime: BackgroundRuntime,
    pub(super) mode: CheckpointMode,
    pub(super) attempt: Arc<Attempt>,
    pub(super) remote: Arc<Remote>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) progress: Arc<Mutex<Progress>>,
    // Ends before the tables are closed.
    pub(super) _appliers: Appliers,
    pub(super) stores: Vec<StoreHandle>,
    pub(super) uploads: Uploads,
    pub(super) packer: Arc<Packer>,
    pub(super) collecting: Busy,
    pub(super) closing: Arc<Notify>,
    pub(super) checkpoint_timeout: Duration,
    pub(super) memory: u64,
    pub(super) records: Arc<CacheMemory>,
    pub(super) resources: TableResources,
    pub(super) _dir: LocalDir,
}

/// What the job holds of a store that is in an operator's hands.
pub(super) struct StoreHandle {
    pub(super) shared: Arc<StoreShared>,
    pub(super) events: EventSender,
    pub(super) table: Arc<Table>,
}

impl Inner {
    pub(super) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| closed())
    }

    /// What cannot be done in the background of one of the stores.
    pub(super) fn trouble(&self) -> Option<Error> {
        let now = self.remote.env().clock.monotonic();
        let table = self.stores.iter().find_map(|store| store.table.trouble());
        table.or_else(|| {
            let mut stores = (0..).zip(&self.stores);
            stores.find_map(|(subtask, store)| store.shared.bases.of(SubtaskIndex(subtask), now))
        })
    }

    pub(super) fn memory_stats(&self) -> MemoryStats {
        let budgets = || self.stores.iter().map(|store| &store.shared.budget);
        let tables = self.resources.held();
        let (memtable_waits, waited) = tables.waits;
        MemoryStats {
            limit: self.memory,
            deltas: budgets().map(|budget| budget.held()).sum(),
            deltas_limit: budgets().map(|budget| budget.limit()).sum(),
            recycled: self.stores.iter().map(|store| store.shared.recycler.bytes() as u64).sum(),
            records: self.records.taken(),
            records_limit: self.records.limits().bytes * self.stores.len() as u64,
            memtables: tables.memtables,
            memtables_limit: tables.memtables_limit,
            memtable_waits,
            memtable_wait_ms: waited.as_secs_f64() * 1e3,
            cache: tables.cache,
            cache_pinned: tables.cache_pinned,
            cache_limit: tables.cache_limit,
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whatever is still queued at the appliers is not worth doing.
        self.attempt.fail_quietly(closed());
    }
}

/// The error of whatever is asked of a job that was closed.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the job was closed")
}
