//! Opening a job: begin an attempt, restore a checkpoint, start the background, hand out the stores.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::oneshot;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::changelog::Tail;
use crate::config::{JobOptions, RestoreFrom};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Nonce, SubtaskIndex};
use crate::key_group::{KeyGroupRange, MaxParallelism};
use crate::manifest::{Chain, CheckpointMode, CheckpointRecord, Found, StateInfo};
use crate::materialize::{NameSource, Settings, Share, Uploader};
use crate::remote::{RateLimiter, Remote};
use crate::restore::{self, RestoreReport, Restored, Restorer, Target, may_fall_back};
use crate::store::{
    Attempt, Budget, Mode, Registry, StateStore, StoreParts, StoreShared, TaskParts, start_applier,
    start_task,
};
use crate::table::TableResources;
use crate::wait::wait;

use super::coordinator::{Coordinator, Progress, Schedule, State, summaries};
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
/// A delta is cut between two barriers at this size unless the options say otherwise.
const DELTA_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=32 << 20;

pub(super) fn open(store: Arc<dyn ObjectStore>, prefix: Path, options: JobOptions) -> Result<Opened> {
    let dir = LocalDir::open(&options.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("alluvium")
        .enable_all()
        .build()
        .map_err(|error| Error::internal("cannot start the job's runtime").source(error))?;
    let remote = Arc::new(Remote::new(store, prefix, options.env.clone()));
    let (reply, opened) = oneshot::channel();
    let task = {
        let (remote, options) = (Arc::clone(&remote), options.clone());
        let earlier = dir.earlier()?;
        let instances = Instances::new(&dir, &options);
        async move { begin(&remote, &options, &instances, &earlier).await }
    };
    runtime.spawn(async move {
        // The receiver waits below, whatever happens.
        let _ = reply.send(task.await);
    });
    match wait(opened).unwrap_or_else(|_| Err(Error::internal("opening the job came to a bad end"))) {
        Ok(begun) => assemble(begun, runtime, remote, dir, &options),
        Err(error) => {
            // A plain drop would panic inside a caller's runtime.
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// The new store instances: one for each subtask.
struct Instances {
    dirs: Vec<(Nonce, PathBuf)>,
}

impl Instances {
    fn new(dir: &LocalDir, options: &JobOptions) -> Self {
        let dirs = (0..options.subtasks).map(|subtask| {
            let nonce = options.env.nonces.nonce();
            (nonce, dir.instance(SubtaskIndex(subtask), nonce))
        });
        Self { dirs: dirs.collect() }
    }
}

/// What [`begin`] found and made.
struct Begun {
    chain: Chain,
    restored: Vec<Part>,
    report: RestoreReport,
    metadata: Option<Vec<u8>>,
    states: Vec<StateInfo>,
    resources: TableResources,
}

/// One subtask, restored.
struct Part {
    subtask: SubtaskIndex,
    range: KeyGroupRange,
    instance: Nonce,
    dir: PathBuf,
    restored: Restored,
}

async fn begin(
    remote: &Arc<Remote>,
    options: &JobOptions,
    instances: &Instances,
    earlier: &[PathBuf],
) -> Result<Begun> {
    let opened = Chain::open(Arc::clone(remote), options.open_mode, options.max_parallelism).await?;
    let ranges = ranges(opened.chain.max_parallelism(), options.subtasks)?;
    let resources = TableResources::new(options.memory / 4 * 3, BACKGROUND_JOBS);
    let mut skipped = Vec::new();
    for candidate in candidates(&opened.checkpoints, options)? {
        match restore_one(remote, options, instances, earlier, &ranges, &resources, candidate).await {
            Ok((restored, mut report, record)) => {
                report.skipped = skipped;
                local_dir::remove(earlier);
                let (metadata, states) = match record {
                    Some(record) => (Some(record.metadata.clone()), record.states.clone()),
                    None => (None, Vec::new()),
                };
                let chain = opened.chain;
                return Ok(Begun { chain, restored, report, metadata, states, resources });
            }
            Err(error) => {
                local_dir::remove(instances.dirs.iter().map(|(_, dir)| dir));
                match candidate {
                    Some(found) if options.fallback && may_fall_back(&error) => {
                        tracing::warn!(checkpoint = %found.retained.id, %error, "falling back to an earlier checkpoint");
                        skipped.push((found.retained.id, error.to_string()));
                    }
                    _ => return Err(error),
                }
            }
        }
    }
    let reasons: Vec<_> = skipped.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
    Err(Error::corrupt(format!("no retained checkpoint can be restored: {}", reasons.join("; "))))
}

/// The key-group range of each subtask.
fn ranges(max: MaxParallelism, subtasks: u32) -> Result<Vec<(SubtaskIndex, KeyGroupRange)>> {
    (0..subtasks)
        .map(|subtask| {
            let subtask = SubtaskIndex(subtask);
            let range = max.range_of(subtask, subtasks).ok_or_else(|| {
                Error::invalid(format!(
                    "{subtasks} subtasks are more than the job's max parallelism of {}",
                    max.get()
                ))
            })?;
            Ok((subtask, range))
        })
        .collect()
}

/// The checkpoints to try, the wanted one first; None stands for an empty state.
fn candidates<'a>(checkpoints: &'a [Found], options: &JobOptions) -> Result<Vec<Option<&'a Found>>> {
    let upto = match options.restore_from {
        RestoreFrom::Latest => checkpoints.len(),
        RestoreFrom::Checkpoint(id) => {
            let at = checkpoints.iter().position(|found| found.retained.id == id).ok_or_else(|| {
                let known: Vec<_> = checkpoints.iter().map(|found| found.retained.id.to_string()).collect();
                Error::new(ErrorKind::NotFound, "the checkpoint is not among the retained ones")
                    .object(format!("checkpoint {id}"))
                    .advice(format!("choose one of [{}]", known.join(", ")))
            })?;
            at + 1
        }
    };
    if upto == 0 {
        return Ok(vec![None]);
    }
    Ok(checkpoints.iter().take(upto).rev().map(Some).collect())
}

async fn restore_one<'a>(
    remote: &Arc<Remote>,
    options: &JobOptions,
    instances: &Instances,
    earlier: &[PathBuf],
    ranges: &[(SubtaskIndex, KeyGroupRange)],
    resources: &TableResources,
    candidate: Option<&'a Found>,
) -> Result<(Vec<Part>, RestoreReport, Option<&'a CheckpointRecord>)> {
    let record = match candidate {
        None => None,
        Some(found) => {
            let manifest = found.manifest.as_ref().map_err(Clone::clone)?;
            let record = manifest.checkpoint();
            Some(record.ok_or_else(|| Error::internal("a retained manifest is not a checkpoint"))?)
        }
    };
    let _ = (remote, options, instances, earlier, ranges, resources, record);
    unimplemented!()
}

fn assemble(
    begun: Begun,
    runtime: Runtime,
    remote: Arc<Remote>,
    dir: LocalDir,
    options: &JobOptions,
) -> Result<Opened> {
    let Begun { chain, restored, report, metadata, states, resources } = begun;
    let clock = Arc::clone(&options.env.clock);
    let attempt = Attempt::new(chain.epoch());
    let limiter = options.materialization.bytes_per_second.and_then(NonZeroU64::new);
    let limiter = limiter.map(|rate| Arc::new(RateLimiter::new(rate)));
    let (commands, inbox) = mpsc::unbounded_channel();

    let share = options.memory / u64::from(options.subtasks);
    let delta_bytes =
        options.delta_bytes.unwrap_or_else(|| (share / 16).clamp(*DELTA_BYTES.start(), *DELTA_BYTES.end()));
    let mut handles = Vec::new();
    let mut halves = Vec::new();
    for part in restored {
        let Part { subtask, range, instance, dir, restored } = part;
        let budget = Budget::new(share / 4);
        let shared = StoreShared::new(Arc::clone(&attempt), budget, restored.seq);
        let table = Arc::new(restored.table);
        let applier =
            start_applier(format!("apply-{subtask}"), Arc::clone(&table), Arc::clone(&shared))?;
        let native = options.mode == CheckpointMode::NativeIncremental;
        let uploader = Uploader {
            remote: Arc::clone(&remote),
            names: Arc::new(NameSource::new(chain.epoch(), subtask, instance)),
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
            tail: Tail::new(options.inline_limit, restored.base, restored.deltas),
            inline_limit: options.inline_limit,
            policy: Settings {
                interval: options.materialization.interval,
                changelog_bytes: options.materialization.changelog_bytes,
                replay: None,
            },
            share: Share { index: subtask.0, of: options.subtasks },
            opened: clock.monotonic(),
            base_seq,
            coordinator: commands.clone(),
        };
        let events = start_task(task, runtime.handle());
        let mode = if native {
            Mode::Native { dir }
        } else {
            Mode::Changelog { applier, delta_bytes: usize::try_from(delta_bytes).unwrap_or(usize::MAX) }
        };
        handles.push(StoreHandle { shared: Arc::clone(&shared), table: Arc::clone(&table), events: events.clone() });
        halves.push((subtask, range, restored.seq, restored.metadata, table, shared, events, mode));
    }

    let max_parallelism = chain.max_parallelism();
    let triggers = Arc::new(Triggers::new(chain.epoch()));
    let progress = Arc::new(Mutex::new(Progress { retained: summaries(&chain), ..Progress::default() }));
    let senders: Vec<_> = handles.iter().map(|handle| handle.events.clone()).collect();
    let packer = Packer {
        remote: Arc::clone(&remote),
        names: NameSource::new(chain.epoch(), PACK_OWNER, options.env.nonces.nonce()),
        stores: senders.clone(),
        running: AtomicBool::new(false),
    };
    let coordinator = Coordinator {
        chain,
        remote: Arc::clone(&remote),
        attempt: Arc::clone(&attempt),
        triggers: Arc::clone(&triggers),
        progress: Arc::clone(&progress),
        stores: senders,
        packer: Arc::new(packer),
        mode: options.mode,
        keep: options.retained,
        schedule: Schedule {
            interval: options.checkpoint_interval,
            min_pause: options.min_pause,
            timeout: options.checkpoint_timeout,
        },
        listener: options.listener.clone(),
        state: State::default(),
    };
    runtime.spawn(coordinator.run(inbox));

    let hold = JobHold(Arc::new(Inner {
        runtime: Some(runtime),
        mode: options.mode,
        attempt,
        remote,
        commands,
        triggers,
        progress,
        stores: handles,
        table_options: resources.options_summary(),
        _dir: dir,
    }));
    let stores = halves.into_iter().map(|(subtask, range, seq, restored_metadata, table, shared, events, mode)| {
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
    Ok(Opened { stores: stores.collect(), job: Job { inner: hold.clone() }, restored: report, metadata })
}
