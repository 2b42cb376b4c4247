//! Opening a job: begin an attempt, restore a checkpoint, start the background, hand out the stores.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::channel::oneshot;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::changelog::Tail;
use crate::config::{JobOptions, RestoreFrom};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Nonce, SubtaskIndex};
use crate::key_group::MaxParallelism;
use crate::manifest::{Chain, CheckpointMode, Found, read_newest};
use crate::materialize::{NameSource, Settings, Share, Uploader, blocking};
use crate::remote::{RateLimiter, Remote};
use crate::restore::{Restoration, Restorer, Target};
use crate::store::{
    Attempt, Budget, Mode, PARALLEL_DELTAS, Registry, StateStore, StoreParts, StoreShared, TaskParts,
    guarded, start_applier, start_task,
};
use crate::table::TableResources;
use crate::wait::wait;

use super::background::{Background, Busy};
use super::coordinator::{Coordinator, Progress, Schedule, State, Subtask, summaries};
use super::local_dir::{self, LocalDir};
use super::packer::{PACK_OWNER, Packer};
use super::triggers::Triggers;
use super::{Inner, Job, JobHold, Opened, StoreHandle};

/// Threads of a job's own runtime: encoding and hashing go to its blocking pool.
const WORKERS: usize = 2;
/// RocksDB's background jobs (flushes and compactions) of all subtasks together.
const BACKGROUND_JOBS: usize = 2;
/// Files of one base that are uploaded at the same time, and objects fetched at the same time.
const PARALLEL_UPLOADS: usize = 4;
const PARALLEL_DOWNLOADS: usize = 16;
/// The table's directory within its instance's.
const TABLE: &str = "table";
/// A delta is cut between two barriers at this size unless the options say otherwise.
const DELTA_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=4 << 20;

pub(super) fn open(store: Arc<dyn ObjectStore>, prefix: Path, options: &JobOptions) -> Result<Opened> {
    let dir = LocalDir::open(&options.dir)?;
    let earlier = dir.earlier()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("alluvium")
        .enable_all()
        .build()
        .map_err(|error| Error::internal("cannot start the job's runtime").source(error))?;
    let remote = Remote::new(store, prefix, options.env.clone()).with_timeout(options.request_timeout);
    let remote = Arc::new(remote);
    let instances = (0..options.subtasks).map(|subtask| {
        let nonce = options.env.nonces.nonce();
        Instance { nonce, dir: dir.instance(SubtaskIndex(subtask), nonce) }
    });
    let instances: Vec<_> = instances.collect();
    let (reply, opened) = oneshot::channel();
    let task = {
        let (remote, options) = (Arc::clone(&remote), options.clone());
        let instances = instances.clone();
        async move { begin(&remote, &options, &instances, earlier).await }
    };
    // Whatever fails from here on, also inside a caller's runtime.
    let runtime = Background::new(runtime);
    runtime.spawn(async move {
        // The receiver waits below, whatever happens.
        let _ = reply.send(task.await);
    });
    let begun = wait(opened).unwrap_or_else(|_| Err(Error::internal("opening the job came to a bad end")))?;
    assemble(begun, instances, runtime, remote, dir, options)
}

/// A new store instance.
#[derive(Clone)]
struct Instance {
    nonce: Nonce,
    dir: PathBuf,
}

/// What [`begin`] found and made.
struct Begun {
    chain: Chain,
    restoration: Restoration,
    resources: TableResources,
}

async fn begin(
    remote: &Arc<Remote>,
    options: &JobOptions,
    instances: &[Instance],
    earlier: Vec<PathBuf>,
) -> Result<Begun> {
    // Before anything is written. What cannot be read is for the opening to report.
    if let Ok(newest) = read_newest(remote).await {
        let existing = newest.map(|manifest| manifest.max_parallelism);
        targets(existing.or(options.max_parallelism).unwrap_or_default(), instances)?;
    }
    let opened = Chain::open(Arc::clone(remote), options.open_mode, options.max_parallelism).await?;
    let targets = targets(opened.chain.max_parallelism(), instances)?;
    let resources = TableResources::new(options.memory / 4 * 3, BACKGROUND_JOBS);
    let restorer = Restorer {
        remote: Arc::clone(remote),
        resources: resources.clone(),
        parallel: PARALLEL_DOWNLOADS,
        // What the stores will have.
        memory: options.memory / 4,
    };
    let found = candidates(&opened.checkpoints, options.restore_from)?;
    let restoration = restorer.restore(found, options.fallback, &targets, &earlier).await?;
    blocking(move || {
        local_dir::remove(&earlier);
        Ok(())
    })
    .await?;
    Ok(Begun { chain: opened.chain, restoration, resources })
}

/// Where each subtask's table goes, and what it owns.
fn targets(max: MaxParallelism, instances: &[Instance]) -> Result<Vec<Target>> {
    let subtasks = instances.len();
    let target = |(subtask, instance): (u32, &Instance)| {
        let subtask = SubtaskIndex(subtask);
        let range =
            u32::try_from(subtasks).ok().and_then(|all| max.range_of(subtask, all)).ok_or_else(|| {
                Error::invalid(format!(
                    "{subtasks} subtasks are more than the max parallelism of {}",
                    max.get()
                ))
                .advice("open the job with fewer subtasks")
            })?;
        Ok(Target { subtask, range, dir: instance.dir.join(TABLE) })
    };
    (0..).zip(instances).map(target).collect()
}

/// The checkpoints to try, oldest first, the wanted one last.
fn candidates(checkpoints: &[Found], from: RestoreFrom) -> Result<&[Found]> {
    let RestoreFrom::Checkpoint(id) = from else { return Ok(checkpoints) };
    let wanted = checkpoints.iter().position(|found| found.retained.id == id);
    wanted.and_then(|at| checkpoints.get(..=at)).ok_or_else(|| {
        let known: Vec<_> = checkpoints.iter().map(|found| found.retained.id.to_string()).collect();
        Error::new(ErrorKind::NotFound, "the checkpoint is not among the retained ones")
            .object(format!("checkpoint {id}"))
            .advice(format!("choose one of [{}]", known.join(", ")))
    })
}

fn assemble(
    begun: Begun,
    instances: Vec<Instance>,
    runtime: Background,
    remote: Arc<Remote>,
    dir: LocalDir,
    options: &JobOptions,
) -> Result<Opened> {
    let Begun { chain, restoration, resources } = begun;
    let Restoration { manifest, subtasks, report } = restoration;
    let record = manifest.as_ref().and_then(|manifest| manifest.checkpoint());
    let states = record.map_or_else(Vec::new, |record| record.states.clone());
    let metadata = record.map(|record| record.metadata.clone());
    let subtask_metadata = record.into_iter().flat_map(|record| &record.subtasks);
    let subtask_metadata =
        subtask_metadata.map(|subtask| (subtask.subtask, subtask.range, subtask.metadata.clone())).collect();
    let clock = Arc::clone(&options.env.clock);
    let attempt = Attempt::new(chain.epoch());
    let limiter = options.materialization.bytes_per_second.and_then(NonZeroU64::new);
    let limiter = limiter.map(|rate| Arc::new(RateLimiter::new(rate)));
    let (commands, inbox) = mpsc::unbounded_channel();
    let uploads = Arc::new(Semaphore::new(PARALLEL_DELTAS as usize));

    let share = options.memory / u64::from(options.subtasks);
    let delta_bytes = options.delta_bytes.unwrap_or_else(|| {
        share.div_ceil(64).clamp(*DELTA_BYTES.start(), *DELTA_BYTES.end()).min(share / 16)
    });
    // Far below what a store may hold, or held bytes could fill it.
    let inline_limit = options.inline_limit.min(share / 16);
    let mut handles = Vec::new();
    let mut owners = BTreeMap::new();
    let mut halves = Vec::new();
    for (restored, Instance { nonce, dir }) in subtasks.into_iter().zip(instances) {
        let (subtask, range) = (restored.subtask, restored.range);
        let budget = Budget::new(share / 4);
        let shared = StoreShared::new(Arc::clone(&attempt), budget, restored.seq);
        let table = Arc::new(restored.table);
        let (applier, thread) =
            start_applier(format!("apply-{subtask}"), Arc::clone(&table), Arc::clone(&shared))?;
        let native = options.mode == CheckpointMode::NativeIncremental;
        let uploader = Uploader {
            remote: Arc::clone(&remote),
            names: Arc::new(NameSource::new(chain.epoch(), subtask, nonce)),
            // A native checkpoint waits for its upload: nothing may hold it back.
            limiter: limiter.clone().filter(|_| !native),
            parallel: PARALLEL_UPLOADS,
        };
        let base_seq = restored.base.as_ref().map_or_else(Default::default, |base| base.seq);
        let task = TaskParts {
            mode: options.mode,
            range,
            dir: dir.clone(),
            shared: Arc::clone(&shared),
            applier: applier.clone(),
            uploader: Arc::new(uploader),
            known: Arc::new(restored.known),
            rescaled: !restored.origins.is_empty(),
            tail: Tail::new(inline_limit, restored.origins, restored.base, restored.deltas),
            inline_limit,
            policy: Settings {
                interval: options.materialization.interval,
                changelog_bytes: options.materialization.changelog_bytes,
                replay: None,
            },
            share: Share { index: subtask.0, of: options.subtasks },
            opened: clock.monotonic(),
            base_seq,
            coordinator: commands.clone(),
            uploads: Arc::clone(&uploads),
        };
        let events = start_task(task, runtime.handle());
        let known = Subtask { range, instance: nonce, events: events.clone(), committed: restored.seq };
        owners.insert(subtask, known);
        let mode = if native {
            Mode::Native { dir }
        } else {
            Mode::Changelog { applier, delta_bytes: usize::try_from(delta_bytes).unwrap_or(usize::MAX) }
        };
        handles.push(StoreHandle {
            shared: Arc::clone(&shared),
            events: events.clone(),
            _applier: thread,
            table: Arc::clone(&table),
        });
        halves.push((subtask, range, restored.seq, restored.metadata, table, shared, events, mode));
    }

    let max_parallelism = chain.max_parallelism();
    let triggers = Arc::new(Triggers::new(chain.epoch()));
    let progress = Arc::new(Mutex::new(Progress { retained: summaries(&chain), ..Progress::default() }));
    let closing = Arc::new(Notify::new());
    let packer = Arc::new(Packer::new(
        Arc::clone(&remote),
        NameSource::new(chain.epoch(), PACK_OWNER, options.env.nonces.nonce()),
        handles.iter().map(|handle| handle.events.clone()).collect(),
        commands.clone(),
    ));
    let collecting = Busy::default();
    let coordinator = Coordinator {
        chain,
        remote: Arc::clone(&remote),
        attempt: Arc::clone(&attempt),
        triggers: Arc::clone(&triggers),
        progress: Arc::clone(&progress),
        subtasks: owners,
        packer: Arc::clone(&packer),
        mode: options.mode,
        keep: options.retained,
        schedule: Schedule {
            interval: options.checkpoint_interval,
            min_pause: options.min_pause,
            timeout: options.checkpoint_timeout,
        },
        listener: options.listener.clone(),
        closing: Arc::clone(&closing),
        collecting: collecting.clone(),
        state: State::default(),
    };
    runtime.spawn(guarded(Arc::clone(&attempt), coordinator.run(inbox)));

    let hold = JobHold(Arc::new(Inner {
        _runtime: runtime,
        mode: options.mode,
        attempt,
        remote,
        commands,
        triggers,
        progress,
        stores: handles,
        packer,
        collecting,
        closing,
        table_options: resources.options_summary(),
        _dir: dir,
    }));
    let stores =
        halves.into_iter().map(|(subtask, range, seq, restored_metadata, table, shared, events, mode)| {
            let parts = StoreParts {
                subtask,
                range,
                max_parallelism,
                registry: Registry::new(&states),
                table,
                shared,
                events,
                clock: Arc::clone(&clock),
                seq,
                restored_metadata,
                job: hold.clone(),
            };
            StateStore::new(parts, mode)
        });
    Ok(Opened {
        stores: stores.collect(),
        job: Job { inner: hold.clone() },
        restored: report,
        metadata,
        subtask_metadata,
    })
}
