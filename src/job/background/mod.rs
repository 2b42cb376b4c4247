//! The background of the stores that one process holds: an uploader, a packer, the appliers, and what
//! the stores share of the process's memory. The committer has one, and so has each member.

mod outlet;
mod packer;
mod resources;
mod sizing;
mod stores;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::cache::{CacheLimits, CacheMemory};
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Nonce, SubtaskIndex};
use crate::machine::cores;
use crate::materialize::NameSource;
use crate::messages::{Committer, ToStore};
use crate::remote::{BaseTraffic, Remote};
use crate::restore::Restored;
use crate::store::{Appliers, Attempt, EventSender, StoreShared, StoreStats, guarded};
use crate::table::{Table, TableResources};
use crate::uploads::{Uploads, UploadsTask};

use super::JobOptions;
use super::foreign::ForeignState;
use super::memory::MemoryPlan;
use super::report::MemoryStats;
pub(crate) use outlet::JobOutlet;
pub(crate) use packer::{PACK_OWNER, Packer};
pub(crate) use resources::{restorer, start_runtime, table_resources, with_upload_room};
use stores::StoreStarter;
pub(crate) use stores::{Schema, StartedStore};

/// The table's directory within its instance's.
const TABLE: &str = "table";

/// A new store instance.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) nonce: Nonce,
    pub(crate) dir: PathBuf,
}

impl Instance {
    /// The subtask, and where its table goes.
    pub(crate) fn table(&self) -> (SubtaskIndex, PathBuf) {
        (self.subtask, self.dir.join(TABLE))
    }
}

/// What a background is started with.
pub(crate) struct BackgroundParts<'a> {
    pub(crate) options: &'a JobOptions,
    pub(crate) runtime: &'a Handle,
    pub(crate) remote: &'a Arc<Remote>,
    pub(crate) attempt: &'a Arc<Attempt>,
    pub(crate) resources: TableResources,
    /// The way to the coordinator.
    pub(crate) committer: Committer,
}

/// See the [module](self). Ends with the runtime that it runs on.
pub(crate) struct Background {
    // Ends before the tables are closed.
    _appliers: Appliers,
    pub(crate) stores: Vec<StoreHandle>,
    pub(crate) uploads: Uploads,
    pub(crate) packer: Arc<Packer>,
    /// The uploads of bases, which give way to what a checkpoint waits for.
    pub(crate) traffic: Arc<BaseTraffic>,
    pub(crate) resources: TableResources,
    memory: u64,
    records: Arc<CacheMemory>,
}

/// What the process holds of a store that is in an operator's hands.
pub(crate) struct StoreHandle {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) events: EventSender,
    pub(crate) table: Arc<Table>,
}

impl BackgroundParts<'_> {
    /// Starts the background of what was restored. A process may hold no subtask.
    pub(crate) fn start(
        self,
        restored: Vec<Restored>,
        instances: Vec<Instance>,
        foreign: Vec<ForeignState>,
    ) -> Result<(Background, Vec<StartedStore>)> {
        let Self { options, runtime, remote, attempt, resources, committer } = self;
        // A subtask without its table, or with another's, would serve state that it does not own.
        let held = instances.iter().map(|instance| instance.subtask);
        assert!(
            restored.iter().map(|one| one.target.subtask).eq(held),
            "one restored subtask for each instance"
        );
        let plan = MemoryPlan::of(options);
        let names = Arc::new(NameSource::new(attempt.epoch, PACK_OWNER, options.env.nonces.nonce()));
        let (uploads, uploading) = UploadsTask::new(Arc::clone(remote), Arc::clone(&names));
        let appliers = Appliers::start(restored.len(), cores())?;
        let limits = CacheLimits { reserved: true, ..CacheLimits::new(plan.records) };
        let limits = options.record_cache.unwrap_or(limits);
        let (lender, most) = (resources.clone(), plan.records * u64::from(options.held_here()));
        // What the caches hold beyond their shares is of the deltas' memory.
        let records = CacheMemory::new(limits, move |taken| lender.lend(taken.min(most)));
        let rate = share_of(options.materialization.bytes_per_second, options);
        let traffic = Arc::new(BaseTraffic::new(rate));
        let starter = StoreStarter {
            options,
            plan,
            runtime,
            remote,
            attempt,
            appliers: &appliers,
            packing: Budget::new(plan.packing),
            records: Arc::clone(&records),
            traffic: Arc::clone(&traffic),
            committer: &committer,
            uploads: &uploads,
            opened: options.env.clock.monotonic(),
        };
        let mut foreign = foreign.into_iter();
        let started = restored.into_iter().zip(instances);
        let started: Vec<_> = started
            .map(|(one, instance)| starter.start(one, instance, foreign.next().unwrap_or_default()))
            .collect();

        let stores: Vec<_> = started.iter().map(StartedStore::handle).collect();
        let ways: BTreeMap<_, _> = stores.iter().map(|store| (store.subtask, store.events.clone())).collect();
        let outlet = JobOutlet { attempt: Arc::clone(attempt), stores: ways.clone(), committer };
        runtime.spawn(guarded(Arc::clone(attempt), uploading.run(Arc::new(outlet))));
        let packer = Packer::new(Arc::clone(remote), names, uploads.clone(), ways, plan.packing / 2);
        let background = Background {
            _appliers: appliers,
            stores,
            uploads,
            packer: Arc::new(packer),
            traffic,
            resources,
            memory: options.memory,
            records,
        };
        Ok((background, started))
    }
}

/// The process's share of a `rate` of all subtasks together.
fn share_of(rate: Option<u64>, options: &JobOptions) -> Option<NonZeroU64> {
    let [held, all] = [options.held_here(), options.subtasks].map(|count| u128::from(count.max(1)));
    let share = |rate: u64| u64::try_from(u128::from(rate) * held / all).unwrap_or(rate).max(1);
    NonZeroU64::new(rate?).and_then(|rate| NonZeroU64::new(share(rate.get())))
}

impl Background {
    /// What cannot be done in the background of one of the stores.
    pub(crate) fn trouble(&self, now: Duration) -> Option<Error> {
        let table = self.stores.iter().find_map(|store| store.table.trouble());
        table.or_else(|| self.stores.iter().find_map(|store| store.shared.bases.of(store.subtask, now)))
    }

    pub(crate) fn memory_stats(&self) -> MemoryStats {
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

    pub(crate) fn store_stats(&self) -> Vec<StoreStats> {
        self.stores.iter().map(|store| StoreStats::gather(&store.shared, &store.table)).collect()
    }

    /// Tells all stores the same.
    pub(crate) fn tell_all(&self, message: &ToStore) {
        self.stores.iter().for_each(|store| store.events.tell(message.clone()));
    }

    /// Rewrites the whole table of every subtask by a full compaction, and waits for it.
    ///
    /// # Errors
    /// `Disk`.
    pub(crate) fn compact(&self) -> Result<()> {
        self.stores.iter().try_for_each(|store| store.table.compact_all())
    }

    /// Waits until all deferred work of the stores is done, and what else `is_busy`.
    ///
    /// # Errors
    /// `Aborted` if that takes longer than `timeout`; the attempt's failure.
    pub(crate) fn settle(
        &self,
        attempt: &Attempt,
        clock: &dyn Clock,
        timeout: Duration,
        is_busy: impl Fn() -> bool,
    ) -> Result<()> {
        attempt.health()?;
        let start = clock.monotonic();
        let late = || Error::new(ErrorKind::Aborted, format!("work is left after {timeout:?}"));
        self.tell_all(&ToStore::Flush);
        let busy = || !self.uploads.is_settled() || self.packer.is_running() || is_busy();
        while busy() || !self.stores.iter().all(|store| store.shared.is_settled()) {
            attempt.health()?;
            if clock.monotonic().saturating_sub(start) > timeout {
                return Err(late());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        for store in &self.stores {
            let left = timeout.saturating_sub(clock.monotonic().saturating_sub(start));
            if !store.table.wait_idle(left)? {
                return Err(late());
            }
        }
        Ok(())
    }
}
