//! Starts the background of a job, and hands out its stores.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::budget::Budget;
use crate::cache::{CacheLimits, CacheMemory};
use crate::error::{Error, Result};
use crate::gc::Pin;
use crate::ids::OperatorId;
use crate::machine::cores;
use crate::manifest::{Chain, OperatorRecord, StateLists};
use crate::materialize::NameSource;
use crate::remote::{BaseTraffic, Remote};
use crate::restore::{Resolved, Restoration};
use crate::runtime::BackgroundRuntime;
use crate::store::{Appliers, Attempt, Revised, guarded};
use crate::uploads::UploadsTask;

use super::Instance;
use super::begin::{Begun, RestoredState};
use super::fits::revise_all;
use super::stores::{Schema, StartedStore, StoreStarter};
use crate::job::busy::Busy;
use crate::job::coordinator::{Coordinator, Garbage, Progress, Schedule, State, committer};
use crate::job::inner::{Inner, JobHold};
use crate::job::local_dir::LocalDir;
use crate::job::memory::MemoryPlan;
use crate::job::opened::RestoredOperator;
use crate::job::outlet::JobOutlet;
use crate::job::packer::{PACK_OWNER, Packer};
use crate::job::tolerance::Tolerance;
use crate::job::triggers::Triggers;
use crate::job::{Job, JobOptions, Opened};

pub(super) fn assemble(
    begun: Begun,
    instances: Vec<Instance>,
    runtime: BackgroundRuntime,
    remote: Arc<Remote>,
    dir: LocalDir,
    options: &JobOptions,
) -> Result<Opened> {
    let Begun { chain, operators, restored, resources } = begun;
    let RestoredState { restoration, origin, foreign } = restored;
    let dependent = !foreign.is_empty();
    let Restoration { manifest, states, subtasks, report } = restoration;
    let record = manifest.as_ref().and_then(|manifest| manifest.checkpoint());
    let schemas = schemas(&operators, &states, options)?;
    let metadata = record.map(|record| record.metadata.clone());
    let restored_operators = manifest.as_ref().map(|manifest| manifest.operators()).unwrap_or_default();
    let restored_operators = restored_operators.iter().map(RestoredOperator::of).collect();
    let subtask_metadata = record.into_iter().flat_map(|record| &record.subtasks);
    let subtask_metadata =
        subtask_metadata.map(|subtask| (subtask.subtask, subtask.range, subtask.metadata.clone())).collect();
    // A subtask without its table, or with another's, would serve state that it does not own.
    assert_eq!(subtasks.len(), instances.len(), "one restored subtask for each instance");

    let plan = MemoryPlan::of(options);
    let attempt = Attempt::new(chain.epoch());
    // Unbounded, because an operator must never wait for the coordinator (I7). What is in it is bounded
    // by the deltas and checkpoints that messages are about.
    let (commands, inbox) = mpsc::unbounded_channel();
    let committer = committer(&commands);
    let names = Arc::new(NameSource::new(chain.epoch(), PACK_OWNER, options.env.nonces.nonce()));
    let (uploads, uploading) = UploadsTask::new(Arc::clone(&remote), Arc::clone(&names));
    let appliers = Appliers::start(subtasks.len(), cores())?;
    let limits = CacheLimits { reserved: true, ..CacheLimits::new(plan.records) };
    let limits = options.record_cache.unwrap_or(limits);
    let (lender, most) = (resources.clone(), plan.records * u64::from(options.subtasks));
    // What the caches hold beyond their shares is of the deltas' memory.
    let records = CacheMemory::new(limits, move |taken| lender.lend(taken.min(most)));
    let rate = options.materialization.bytes_per_second.and_then(NonZeroU64::new);
    let traffic = Arc::new(BaseTraffic::new(rate));
    let starter = StoreStarter {
        options,
        plan,
        runtime: runtime.handle(),
        remote: &remote,
        attempt: &attempt,
        appliers: &appliers,
        packing: Budget::new(plan.packing),
        records: Arc::clone(&records),
        traffic: Arc::clone(&traffic),
        committer: &committer,
        uploads: &uploads,
        opened: options.env.clock.monotonic(),
    };
    let mut foreign = foreign.into_iter();
    let started = subtasks.into_iter().zip(instances);
    let started = started
        .map(|(restored, instance)| starter.start(restored, instance, foreign.next().unwrap_or_default()));
    let started: Vec<StartedStore> = started.collect();

    let operators = options.operators.records(&operators)?;
    let stores: BTreeMap<_, _> = started.iter().map(|store| (store.subtask, store.events.clone())).collect();
    let outlet = JobOutlet { attempt: Arc::clone(&attempt), stores: stores.clone(), committer };
    runtime.spawn(guarded(Arc::clone(&attempt), uploading.run(Arc::new(outlet))));
    let carried = plan.packing / 2;
    let packer = Packer::new(Arc::clone(&remote), names, uploads.clone(), stores, carried);
    let mut progress = Progress { dependent, ..Progress::default() };
    progress.follow(&chain);
    let inner = Inner {
        runtime,
        mode: options.mode,
        triggers: Arc::new(Triggers::new(attempt.epoch)),
        attempt,
        remote,
        commands,
        progress: Arc::new(Mutex::new(progress)),
        _appliers: appliers,
        stores: started.iter().map(StartedStore::handle).collect(),
        uploads,
        packer: Arc::new(packer),
        collecting: Busy::default(),
        closing: Arc::default(),
        checkpoint_timeout: options.checkpoint_timeout,
        memory: options.memory,
        records,
        resources,
        _dir: dir,
    };
    let coordinator = coordinator(chain, origin, &inner, traffic, operators, &started, options);
    inner.runtime.spawn(guarded(Arc::clone(&inner.attempt), coordinator.run(inbox)));

    let hold = JobHold(Arc::new(inner));
    let stores = started.into_iter().map(|store| {
        let schema = schemas.get(store.operator);
        let schema = schema.ok_or_else(|| Error::internal("a subtask belongs to no operator of the job"))?;
        store.into_store(schema, &hold)
    });
    Ok(Opened {
        stores: stores.collect::<Result<_>>()?,
        job: Job { inner: hold.clone() },
        restored: report,
        metadata,
        subtask_metadata,
        restored_operators,
    })
}

/// What the stores of each operator begin with.
fn schemas<'a>(
    operators: &[Resolved],
    states: &StateLists,
    options: &'a JobOptions,
) -> Result<Vec<Schema<'a>>> {
    let revisions = options.operators.revisions(&options.revisions);
    let revised = revise_all(&revisions, operators, states)?;
    let schemas = revised.into_iter().zip(revisions).map(|(revised, (id, revisions))| {
        let Revised { states, dropped } = revised;
        Ok(Schema {
            operator: if id.is_empty() { OperatorId::default() } else { OperatorId::new(id)? },
            states,
            dropped,
            revisions,
            clock: &options.env.clock,
        })
    });
    schemas.collect()
}

fn coordinator(
    chain: Chain,
    origin: Option<Pin>,
    job: &Inner,
    bases: Arc<BaseTraffic>,
    operators: Vec<OperatorRecord>,
    stores: &[StartedStore],
    options: &JobOptions,
) -> Coordinator {
    Coordinator {
        chain,
        remote: Arc::clone(&job.remote),
        attempt: Arc::clone(&job.attempt),
        triggers: Arc::clone(&job.triggers),
        progress: Arc::clone(&job.progress),
        operators,
        subtasks: stores.iter().map(|store| (store.subtask, store.as_subtask())).collect(),
        packer: Arc::clone(&job.packer),
        bases,
        mode: options.mode,
        keep: options.retained,
        schedule: Schedule {
            interval: options.checkpoint_interval,
            min_pause: options.min_pause,
            timeout: options.checkpoint_timeout,
        },
        listener: options.listener.clone(),
        closing: Arc::clone(&job.closing),
        origin,
        garbage: Garbage::new(job.collecting.clone()),
        tolerance: Tolerance::new(options.tolerable_failed_checkpoints),
        state: State::default(),
    }
}
