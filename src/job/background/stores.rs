//! Starts a store for each subtask: its budget, its applier, its task.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::cache::CacheMemory;
use crate::changelog::Tail;
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::ids::{DeltaSeq, Nonce, OperatorId, StateId, SubtaskIndex};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::manifest::StateInfo;
use crate::materialize::{NameSource, Settings, Share, Uploader};
use crate::messages::Committer;
use crate::remote::{BaseTraffic, Remote};
use crate::restore::{Dealt, Restored, Target};
use crate::store::{
    Appliers, Attempt, EventSender, HeldElements, Hold, Mode, OperatorPlace, Registry, Revision, StateStore,
    StoreParts, StoreShared, TaskParts, start_task,
};
use crate::table::Table;
use crate::uploads::Uploads;

use super::sizing::{PARALLEL_UPLOADS, file_parts, sharers};
use super::{Instance, StoreHandle};
use crate::job::JobOptions;
use crate::job::foreign::ForeignState;
use crate::job::memory::MemoryPlan;

/// What the stores of a process have in common.
pub(super) struct StoreStarter<'a> {
    pub(super) options: &'a JobOptions,
    pub(super) plan: MemoryPlan,
    pub(super) runtime: &'a Handle,
    pub(super) remote: &'a Arc<Remote>,
    pub(super) attempt: &'a Arc<Attempt>,
    pub(super) appliers: &'a Appliers,
    /// Memory for deltas that wait to be packed.
    pub(super) packing: Arc<Budget>,
    /// Memory of the caches of records.
    pub(super) records: Arc<CacheMemory>,
    /// Limits materializations of all subtasks together.
    pub(super) traffic: Arc<BaseTraffic>,
    pub(super) committer: &'a Committer,
    pub(super) uploads: &'a Uploads,
    pub(super) opened: Duration,
}

/// A store whose background runs. The store itself comes last, because it keeps the job alive.
pub(crate) struct StartedStore {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    /// The place of its operator among those of the job, and its own within the operator.
    pub(crate) operator: usize,
    number: u32,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: MaxParallelism,
    /// The last delta of what was restored.
    pub(crate) seq: DeltaSeq,
    pub(crate) instance: Nonce,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) events: EventSender,
    restored_metadata: Option<Vec<u8>>,
    elements: Dealt,
    table: Arc<Table>,
    mode: Mode,
}

impl StoreStarter<'_> {
    pub(super) fn start(
        &self,
        restored: Restored,
        instance: Instance,
        foreign: ForeignState,
    ) -> StartedStore {
        let ForeignState { copies, first_base } = foreign;
        let Target { subtask, operator, number, parallelism, max_parallelism, range, .. } = restored.target;
        let seq = restored.seq;
        let shared = StoreShared::new(Arc::clone(self.attempt), Budget::new(self.plan.budget), seq);
        let table = Arc::new(restored.table);
        let applier = self.appliers.add(Arc::clone(&table), Arc::clone(&shared));
        let native = !self.options.mode.logs_changes();
        let uploader = Uploader {
            remote: Arc::clone(self.remote),
            names: Arc::new(NameSource::new(self.attempt.epoch, subtask, instance.nonce)),
            // A native checkpoint waits for its upload: nothing may hold it back.
            traffic: Some(Arc::clone(&self.traffic)).filter(|_| !native),
            parallel: PARALLEL_UPLOADS,
            parts: file_parts(native),
            sharers: sharers(self.options.held_here(), native),
            copies,
        };
        let rescaled = !restored.origins.is_empty();
        let tail = Tail::new(self.plan.inline, restored.origins, restored.base, restored.deltas)
            .keeping(Arc::clone(&self.packing));
        let tail = if first_base.is_some() { tail.needing_base() } else { tail };
        let task = TaskParts {
            mode: self.options.mode,
            range,
            dir: instance.dir.clone(),
            shared: Arc::clone(&shared),
            expiries: Arc::clone(table.expiries()),
            applier: applier.clone(),
            uploader: Arc::new(uploader),
            known: Arc::new(restored.known),
            rescaled,
            tail,
            inline_limit: self.plan.inline,
            policy: Settings {
                interval: self.options.materialization.interval,
                changelog_bytes: self.options.materialization.changelog_bytes,
                replay: None,
            },
            share: Share { index: subtask.0, of: self.options.subtasks },
            opened: self.opened,
            first_base,
            committer: self.committer.clone(),
            uploads: self.uploads.clone(),
        };
        let events = start_task(task, self.runtime);
        let mode = if native {
            Mode::Native { dir: instance.dir.clone() }
        } else {
            let [delta_bytes, inline_limit] =
                [self.plan.delta, self.plan.inline].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            let records = Arc::clone(&self.records);
            Mode::Changelog { applier, records, delta_bytes, inline_limit }
        };
        let (restored_metadata, elements) = (restored.metadata, restored.elements);
        StartedStore {
            subtask,
            range,
            operator,
            number,
            parallelism,
            max_parallelism,
            seq,
            instance: instance.nonce,
            shared,
            events,
            restored_metadata,
            elements,
            table,
            mode,
        }
    }
}

impl StartedStore {
    /// What the process holds of it.
    pub(super) fn handle(&self) -> StoreHandle {
        StoreHandle {
            subtask: self.subtask,
            shared: Arc::clone(&self.shared),
            events: self.events.clone(),
            table: Arc::clone(&self.table),
        }
    }

    /// The store for the operator's thread, with what its operator's stores begin with. It keeps
    /// `hold` alive.
    pub(crate) fn into_store_of(self, schemas: &[Schema<'_>], hold: Hold) -> Result<StateStore> {
        let schema = schemas.get(self.operator);
        let schema = schema.ok_or_else(|| Error::internal("a subtask belongs to no operator of the job"))?;
        self.into_store(schema, hold)
    }

    fn into_store(self, schema: &Schema<'_>, hold: Hold) -> Result<StateStore> {
        let parts = StoreParts {
            subtask: self.subtask,
            range: self.range,
            operator: OperatorPlace {
                id: schema.operator.clone(),
                number: self.number,
                parallelism: self.parallelism,
            },
            max_parallelism: self.max_parallelism,
            registry: Registry::new(&schema.states).without(schema.revisions),
            table: self.table,
            shared: self.shared,
            events: self.events,
            clock: Arc::clone(schema.clock),
            seq: self.seq,
            restored_metadata: self.restored_metadata,
            elements: HeldElements::new(&self.elements, &schema.dropped),
            job: hold,
        };
        let mut store = StateStore::new(parts, self.mode);
        store.drop_states(&schema.dropped)?;
        Ok(store)
    }
}

/// What the stores of one operator begin with.
pub(crate) struct Schema<'a> {
    pub(crate) operator: OperatorId,
    pub(crate) states: Vec<StateInfo>,
    /// States that the options drop. Their keys are deleted.
    pub(crate) dropped: Vec<StateId>,
    pub(crate) revisions: &'a [Revision],
    pub(crate) clock: &'a Arc<dyn Clock>,
}
