//! Starts the background of a job and its coordinator, and hands out the stores.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::env::Clock;
use crate::error::Result;
use crate::gc::Pin;
use crate::ids::{OperatorId, SubtaskIndex};
use crate::manifest::{Chain, Manifest, OperatorRecord, Retained, StateLists};
use crate::remote::Remote;
use crate::restore::{Layout, Resolved, Restoration, Targets};
use crate::runtime::BackgroundRuntime;
use crate::store::{Attempt, Revised, Revision, guarded};

use super::begin::{Begun, RestoredState};
use super::fits::revise_all;
use crate::job::background::{BackgroundParts, Instance, Schema, StartedStore};
use crate::job::busy::Busy;
use crate::job::coordinator::{Coordinator, Garbage, Progress, Schedule, State, Subtask, committer};
use crate::job::inner::{Inner, JobHold};
use crate::job::local_dir::LocalDir;
use crate::job::members::{Assignment, Heard, MemberLink, Seat, assign};
use crate::job::opened::RestoredOperator;
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
    let Begun { job, chain, operators, restored, resources } = begun;
    let RestoredState { restoration, origin, foreign } = restored;
    let dependent = !foreign.is_empty();
    let Restoration { manifest, states, subtasks: restored, report } = restoration;
    let record = manifest.as_ref().and_then(|manifest| manifest.checkpoint());
    let revisions = options.operators.revisions(&options.revisions);
    let schemas = schemas(&revisions, &operators, &states, &options.env.clock)?;
    let metadata = record.map(|record| record.metadata.clone());
    let restored_operators = manifest.as_ref().map(|manifest| manifest.operators()).unwrap_or_default();
    let restored_operators = restored_operators.iter().map(RestoredOperator::of).collect();
    let subtask_metadata = record.into_iter().flat_map(|record| &record.subtasks);
    let subtask_metadata =
        subtask_metadata.map(|subtask| (subtask.subtask, subtask.range, subtask.metadata.clone())).collect();

    let attempt = Attempt::new(chain.epoch());
    // Unbounded, because an operator must never wait for the coordinator (I7). What is in it is bounded
    // by the deltas and checkpoints that messages are about.
    let (commands, inbox) = mpsc::unbounded_channel();
    let parts = BackgroundParts {
        options,
        runtime: runtime.handle(),
        remote: &remote,
        attempt: &attempt,
        resources,
        committer: committer(&commands),
    };
    let (background, started) = parts.start(restored, instances, foreign)?;
    let layout = options.operators.layout(options.subtasks, chain.max_parallelism())?;
    let from = manifest.as_ref().zip(record);
    let from = from.map(|(manifest, record)| Retained { version: manifest.version, id: record.id });
    let assignments = job.map(|job| assign(options, (job, attempt.epoch), &layout, from));
    let assignments = assignments.unwrap_or_default();
    let members = assignments.iter().map(|assignment| {
        let held = assignment.held().collect();
        let (link, task) = MemberLink::new(assignment.ends(), held, &attempt, &commands);
        runtime.spawn(guarded(Arc::clone(&attempt), task.run()));
        link
    });
    let members: Vec<_> = members.collect();
    let subtasks = subtasks_of(&started, &assignments, &layout, manifest.as_deref())?;
    let heard = vec![Heard::default(); members.len()];
    let mut progress = Progress { dependent, heard, ..Progress::default() };
    progress.follow(&chain);
    let inner = Inner {
        runtime,
        mode: options.mode,
        triggers: Arc::new(Triggers::new(attempt.epoch)),
        attempt,
        remote,
        commands,
        progress: Arc::new(Mutex::new(progress)),
        background,
        seats: subtasks.iter().map(|(subtask, own)| (*subtask, own.seat.clone())).collect(),
        members,
        collecting: Busy::default(),
        closing: Arc::default(),
        checkpoint_timeout: options.checkpoint_timeout,
        _dir: dir,
    };
    let coordinator =
        coordinator(chain, origin, &inner, options.operators.records(&operators)?, subtasks, options);
    inner.runtime.spawn(guarded(Arc::clone(&inner.attempt), coordinator.run(inbox)));

    let hold = JobHold(Arc::new(inner));
    let stores = started.into_iter().map(|store| store.into_store_of(&schemas, Arc::new(hold.clone())));
    Ok(Opened {
        stores: stores.collect::<Result<_>>()?,
        job: Job { inner: hold.clone() },
        restored: report,
        metadata,
        subtask_metadata,
        assignments,
        restored_operators,
    })
}

/// What the stores of each operator begin with. `revisions` are each operator's id and changes of its
/// states.
///
/// # Errors
/// As [`revise_all`].
pub(crate) fn schemas<'a>(
    revisions: &[(&str, &'a [Revision])],
    operators: &[Resolved],
    states: &StateLists,
    clock: &'a Arc<dyn Clock>,
) -> Result<Vec<Schema<'a>>> {
    let revised = revise_all(revisions, operators, states)?;
    let schemas = revised.into_iter().zip(revisions).map(|(revised, (id, revisions))| {
        let Revised { states, dropped } = revised;
        let operator = if id.is_empty() { OperatorId::default() } else { OperatorId::new(*id)? };
        Ok(Schema { operator, states, dropped, revisions, clock })
    });
    schemas.collect()
}

/// What the coordinator knows of all subtasks: those whose stores were `started` here, and those of
/// members, which go on from the checkpoint of `manifest`.
fn subtasks_of(
    started: &[StartedStore],
    assignments: &[Assignment],
    layout: &Layout,
    manifest: Option<&Manifest>,
) -> Result<BTreeMap<SubtaskIndex, Subtask>> {
    let here = started.iter().map(|store| {
        let seat = Seat::Here { events: store.events.clone(), shared: Arc::clone(&store.shared) };
        let (range, instance, committed) = (store.range, Some(store.instance), store.seq);
        (store.subtask, Subtask { range, instance, seat, committed, finished: false })
    });
    let mut subtasks: BTreeMap<_, _> = here.collect();
    let operators = manifest.map(Manifest::operators).unwrap_or_default();
    for (member, assignment) in assignments.iter().enumerate() {
        let dirs = assignment.held().map(|subtask| (subtask, PathBuf::new())).collect();
        for target in (Layout { dirs, ..layout.clone() }).targets(manifest)? {
            // As its restore finds it.
            let sources = target.from.and_then(|from| operators.get(from)).map(|part| part.subtasks.iter());
            let sources = sources.into_iter().flatten();
            let sources = sources.filter(|source| source.range.intersection(target.range).is_some());
            let committed = sources.map(|source| source.seq).max().unwrap_or_default();
            let (range, seat) = (target.range, Seat::Member(member));
            let subtask = Subtask { range, instance: None, seat, committed, finished: false };
            subtasks.insert(target.subtask, subtask);
        }
    }
    Ok(subtasks)
}

fn coordinator(
    chain: Chain,
    origin: Option<Pin>,
    job: &Inner,
    operators: Vec<OperatorRecord>,
    subtasks: BTreeMap<SubtaskIndex, Subtask>,
    options: &JobOptions,
) -> Coordinator {
    Coordinator {
        chain,
        remote: Arc::clone(&job.remote),
        attempt: Arc::clone(&job.attempt),
        triggers: Arc::clone(&job.triggers),
        progress: Arc::clone(&job.progress),
        operators,
        subtasks,
        members: job.members.clone(),
        packer: Arc::clone(&job.background.packer),
        bases: Arc::clone(&job.background.traffic),
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
