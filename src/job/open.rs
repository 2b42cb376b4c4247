//! Opening a job: begin an attempt, restore a checkpoint, start the background, hand out the stores.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::channel::oneshot;
use tokio::sync::{Notify, mpsc};

use crate::budget::Budget;
use crate::changelog::Tail;
use crate::error::{Error, Result};
use crate::gc::{Holder, Pin, choose, savepoint};
use crate::ids::{Nonce, SubtaskIndex, Version};
use crate::key_group::MaxParallelism;
use crate::machine::{self, cores};
use crate::manifest::{Chain, Found, OpenMode, RestoreFrom, Top, read_top};
use crate::materialize::{NameSource, Settings, Share, Uploader, blocking};
use crate::remote::{Connected, JobLocation, Notice, Patience, RateLimiter, Remote, remove_staged};
use crate::restore::{Restoration, Restorer, Target};
use crate::store::{
    Appliers, Attempt, Mode, Registry, Revised, StateStore, StoreParts, StoreShared, TaskParts, guarded,
    revise, start_task,
};
use crate::table::TableResources;
use crate::uploads::{PARALLEL_DELTAS, UploadsTask};
use crate::wait::wait;

use super::background::{Background, Busy};
use super::coordinator::{Coordinator, Progress, Schedule, State, Subtask, committer};
use super::files::OpenFiles;
use super::inner::{Inner, JobHold, StoreHandle};
use super::local_dir::{self, LocalDir};
use super::memory::MemoryPlan;
use super::outlet::JobOutlet;
use super::packer::{PACK_OWNER, Packer};
use super::source::{Foreign, Source};
use super::triggers::Triggers;
use super::{Job, JobOptions, Opened};

/// Threads of a job's own runtime, one for each core: encoding and hashing go to its blocking pool.
const WORKERS: RangeInclusive<usize> = 2..=8;
/// Threads of the blocking pool for each core. Some wait for the disk, so more than one; but each keeps memory of its
/// own (what an allocator has for a thread), so not hundreds when all subtasks cut at once.
const BLOCKING_FOR_EACH_CORE: usize = 4;
const BLOCKING: RangeInclusive<usize> = 8..=64;
/// RocksDB's background jobs (flushes and compactions) of all subtasks together, one for each core.
const BACKGROUND_JOBS: RangeInclusive<usize> = 2..=16;
/// Tables that wait for memory wait for the flush of one of them, and a flush waits for the disk. More than this many
/// tables get a second flush thread on any machine: `docs/measurements/table.md`.
const FEW_TABLES: u32 = 2;
const LEAST_FOR_MANY: usize = 4;
/// Files of one base that are uploaded at the same time, and objects fetched at the same time.
const PARALLEL_UPLOADS: usize = 4;
/// Parts of one file that a native checkpoint sends at the same time.
const NATIVE_PARTS: usize = 2;
/// As many transfers as are allowed for to share a link: with more, one that hangs would be noticed too late.
const MOST_SHARERS: u32 = 64;
const PARALLEL_DOWNLOADS: usize = 16;
/// The table's directory within its instance's.
const TABLE: &str = "table";

pub(super) fn open(location: &JobLocation, options: &JobOptions) -> Result<Opened> {
    let create = options.open_mode != OpenMode::Existing;
    let Connected { remote, cloud, dir: objects } = location.connect(options.env.clone(), create)?;
    let dir = LocalDir::open(&options.dir)?;
    let earlier = dir.earlier()?;
    let cores = cores();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(*WORKERS.start(), *WORKERS.end()))
        .max_blocking_threads((cores * BLOCKING_FOR_EACH_CORE).clamp(*BLOCKING.start(), *BLOCKING.end()))
        .thread_name("alluvium")
        .enable_all()
        .build()
        .map_err(|error| Error::internal("cannot start the job's runtime").source(error))?;
    let remote = Arc::new(remote.with_upload_room(MemoryPlan::of(options).uploads));
    let instances = (0..options.subtasks).map(|subtask| {
        let nonce = options.env.nonces.nonce();
        Instance { nonce, dir: dir.instance(SubtaskIndex(subtask), nonce) }
    });
    let instances: Vec<_> = instances.collect();
    let (reply, opened) = oneshot::channel();
    let task = {
        let (remote, options) = (Arc::clone(&remote), options.clone());
        let instances = instances.clone();
        async move { begin(&remote, (cloud, objects), &options, &instances, earlier).await }
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

fn background_jobs(subtasks: u32, cores: usize) -> usize {
    let least = if subtasks > FEW_TABLES { LEAST_FOR_MANY } else { *BACKGROUND_JOBS.start() };
    cores.clamp(least, *BACKGROUND_JOBS.end())
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
    /// Of what is gone on from, if that is no retained checkpoint.
    origin: Option<Pin>,
    restoration: Restoration,
    /// If the state comes from another job: what each subtask takes along.
    foreign: Vec<Foreign>,
    resources: TableResources,
}

async fn begin(
    remote: &Arc<Remote>,
    (cloud, objects): (Option<[u8; 32]>, Option<PathBuf>),
    options: &JobOptions,
    instances: &[Instance],
    earlier: Vec<PathBuf>,
) -> Result<Begun> {
    // Before anything is written. What cannot be read is for the opening to report.
    let mut max_parallelism = options.max_parallelism;
    let mut source = None;
    let top = match read_top(remote).await {
        // The opening may get through a moment later, and the job would start without its source.
        Err(error) if options.start_from.is_some() => return Err(error),
        top => top.ok(),
    };
    let chosen = matches!(options.restore_from, RestoreFrom::Savepoint(_));
    if let Some(top) = top.as_ref().filter(|_| options.open_mode != OpenMode::Create) {
        check_damage(top, options.fallback, chosen)?;
    }
    if let Some(newest) = top.map(|top| top.head) {
        if let Some(wanted) = &options.start_from {
            let empty = newest.as_ref().is_none_or(|newest| newest.retained.is_empty());
            let found = Source::open(wanted, remote, cloud, options);
            if empty {
                let found = found?;
                max_parallelism = Some(found.look(max_parallelism).await?);
                source = Some(found);
            } else {
                // It may be gone by now.
                source = found.ok();
            }
        }
        let existing = newest.map(|manifest| manifest.max_parallelism);
        targets(existing.or(max_parallelism).unwrap_or_default(), instances)?;
        if let RestoreFrom::Savepoint(name) = &options.restore_from
            && source.is_none()
            && (existing.is_some() || options.open_mode != OpenMode::Existing)
        {
            savepoint::require(remote, &name.parse()?).await?;
        }
    }
    let opened =
        Chain::open_past(Arc::clone(remote), options.open_mode, max_parallelism, options.fallback).await?;
    // Looked at again, because somebody may have come between.
    if opened.checkpoints.is_empty()
        && !chosen
        && let Some(lost) = opened.damaged.iter().find(|damaged| damaged.version != Version(1))
    {
        return Err(nothing_left(&lost.error));
    }
    let damaged: Vec<_> =
        opened.damaged.iter().map(|damaged| (damaged.version.0, damaged.error.to_string())).collect();
    let targets = targets(opened.chain.max_parallelism(), instances)?;
    let plan = MemoryPlan::of(options);
    let files = OpenFiles::of(options, plan.tables);
    let files = files.within(machine::open_files(files.wanted()))?;
    let resources = TableResources::new(
        plan.tables,
        options.background_jobs.unwrap_or_else(|| background_jobs(options.subtasks, cores())),
    )
    .for_tables(options.subtasks)
    .with_open_files(files)
    .with_tuning(options.tuning.clone())
    .with_clock(Arc::clone(&options.env.clock));
    let notice = options.listener.clone().map(|listener| {
        let tell = move |error: &Error, waited| listener.restore_waits(error, waited);
        Arc::new(tell) as Notice
    });
    let patience = Patience::new(options.restore_patience, notice);
    let restorer = |remote: &Arc<Remote>| Restorer {
        remote: Arc::new(remote.patient(Arc::clone(&patience))),
        resources: resources.clone(),
        parallel: PARALLEL_DOWNLOADS,
        memory: plan.restore,
    };
    let epoch = opened.chain.epoch();
    let (origin, mut restoration, foreign) = match source {
        Some(source) if opened.checkpoints.is_empty() => {
            let (pin, found) = source.pin(remote, epoch).await?;
            let restoring = restorer(&source.remote);
            let mut restoration = restoring.restore(&[found], false, &targets, &earlier).await?;
            let foreign = source.take_over(&mut restoration, options.mode).await?;
            (Some(pin), restoration, foreign)
        }
        source => {
            if let Some(source) = source {
                source.forget(remote, epoch);
            }
            let (origin, saved);
            let found = if let RestoreFrom::Savepoint(_) = &options.restore_from {
                // A savepoint may be released at any time, also before this attempt has a checkpoint.
                let holder = Holder::Attempt(epoch);
                let (pin, found) = Pin::take(remote, &options.restore_from, holder).await?;
                (origin, saved) = (Some(pin), [found]);
                &saved[..]
            } else {
                origin = None;
                candidates(&opened.checkpoints, &options.restore_from)?
            };
            let restoration = restorer(remote).restore(found, options.fallback, &targets, &earlier).await?;
            (origin, restoration, Vec::new())
        }
    };
    restoration.report.damaged = damaged;
    if let Some(dir) = objects {
        // Nobody waits for it.
        tokio::task::spawn_blocking(move || {
            let files = remove_staged(&dir, epoch);
            tracing::debug!(files, "removed what killed processes were writing");
        });
    }
    blocking(move || {
        local_dir::remove(&earlier);
        Ok(())
    })
    .await?;
    Ok(Begun { chain: opened.chain, origin, restoration, foreign, resources })
}

/// Damage at the top of the chain is passed over only if the caller allows it, and never by beginning anew:
/// that would lose what is still there without a word. Nothing has been written when this refuses.
fn check_damage(top: &Top, fallback: bool, chosen: bool) -> Result<()> {
    if let Some(error) = top.refusal(fallback) {
        return Err(error);
    }
    for damaged in &top.damaged {
        let (version, error) = (damaged.version, &damaged.error);
        tracing::warn!(%error, %version, "a version of the manifest chain cannot be read, and is passed over");
    }
    match top.damaged.first() {
        Some(newest) if top.is_lost() && !chosen => Err(nothing_left(&newest.error)),
        _ => Ok(()),
    }
}

fn nothing_left(error: &Error) -> Error {
    error.clone().advise(
        "no checkpoint below it is left to go back to: go on from a savepoint, bring the object back, or choose another place",
    )
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
                .advise("open the job with fewer subtasks")
            })?;
        Ok(Target { subtask, range, dir: instance.dir.join(TABLE) })
    };
    (0..).zip(instances).map(target).collect()
}

/// The checkpoints to try, oldest first, the wanted one last.
fn candidates<'a>(checkpoints: &'a [Found], from: &RestoreFrom) -> Result<&'a [Found]> {
    if *from == RestoreFrom::Latest {
        return Ok(checkpoints);
    }
    let retained: Vec<_> = checkpoints.iter().map(|found| found.retained).collect();
    let wanted = choose(from, &retained)?;
    let at = retained.iter().position(|retained| *retained == wanted);
    Ok(at.and_then(|at| checkpoints.get(..=at)).unwrap_or_default())
}

fn assemble(
    begun: Begun,
    instances: Vec<Instance>,
    runtime: Background,
    remote: Arc<Remote>,
    dir: LocalDir,
    options: &JobOptions,
) -> Result<Opened> {
    let Begun { chain, origin, restoration, foreign, resources } = begun;
    let dependent = !foreign.is_empty();
    let mut foreign = foreign.into_iter();
    let Restoration { manifest, states, subtasks, report } = restoration;
    let record = manifest.as_ref().and_then(|manifest| manifest.checkpoint());
    let Revised { states, dropped } = revise(states.to_vec(), &options.revisions)?;
    let metadata = record.map(|record| record.metadata.clone());
    let subtask_metadata = record.into_iter().flat_map(|record| &record.subtasks);
    let subtask_metadata =
        subtask_metadata.map(|subtask| (subtask.subtask, subtask.range, subtask.metadata.clone())).collect();
    let clock = Arc::clone(&options.env.clock);
    let attempt = Attempt::new(chain.epoch());
    let limiter = options.materialization.bytes_per_second.and_then(NonZeroU64::new);
    let limiter = limiter.map(|rate| Arc::new(RateLimiter::new(rate)));
    let (commands, inbox) = mpsc::unbounded_channel();
    let committer = committer(&commands);
    let names = Arc::new(NameSource::new(chain.epoch(), PACK_OWNER, options.env.nonces.nonce()));
    let (uploads, uploading) = UploadsTask::new(Arc::clone(&remote), Arc::clone(&names));

    let plan = MemoryPlan::of(options);
    let packing = Budget::new(plan.packing);
    let appliers = Appliers::start(subtasks.len(), cores())?;
    let mut handles = Vec::new();
    let mut owners = BTreeMap::new();
    let mut halves = Vec::new();
    for (restored, Instance { nonce, dir }) in subtasks.into_iter().zip(instances) {
        let (subtask, range) = (restored.subtask, restored.range);
        let Foreign { copies, first_base } = foreign.next().unwrap_or_default();
        let budget = Budget::new(plan.budget);
        let shared = StoreShared::new(Arc::clone(&attempt), budget, restored.seq);
        let table = Arc::new(restored.table);
        let applier = appliers.add(Arc::clone(&table), Arc::clone(&shared));
        let native = !options.mode.logs_changes();
        let uploader = Uploader {
            remote: Arc::clone(&remote),
            names: Arc::new(NameSource::new(chain.epoch(), subtask, nonce)),
            // A native checkpoint waits for its upload: nothing may hold it back.
            limiter: limiter.clone().filter(|_| !native),
            parallel: PARALLEL_UPLOADS,
            // Its last file would otherwise be alone on the link.
            parts: if native { NATIVE_PARTS } else { 1 },
            sharers: sharers(options.subtasks, native),
            copies,
        };
        let rescaled = !restored.origins.is_empty();
        let tail = Tail::new(plan.inline, restored.origins, restored.base, restored.deltas);
        let tail = tail.keeping(Arc::clone(&packing));
        let tail = if first_base.is_some() { tail.needing_base() } else { tail };
        let task = TaskParts {
            mode: options.mode,
            range,
            dir: dir.clone(),
            shared: Arc::clone(&shared),
            expiries: Arc::clone(table.expiries()),
            applier: applier.clone(),
            uploader: Arc::new(uploader),
            known: Arc::new(restored.known),
            rescaled,
            tail,
            inline_limit: plan.inline,
            policy: Settings {
                interval: options.materialization.interval,
                changelog_bytes: options.materialization.changelog_bytes,
                replay: None,
            },
            share: Share { index: subtask.0, of: options.subtasks },
            opened: clock.monotonic(),
            first_base,
            committer: committer.clone(),
            uploads: uploads.clone(),
        };
        let events = start_task(task, runtime.handle());
        let known = Subtask {
            range,
            instance: nonce,
            events: events.clone(),
            shared: Arc::clone(&shared),
            committed: restored.seq,
            finished: false,
        };
        owners.insert(subtask, known);
        let mode = if native {
            Mode::Native { dir }
        } else {
            let [delta_bytes, inline_limit] =
                [plan.delta, plan.inline].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            Mode::Changelog { applier, delta_bytes, inline_limit }
        };
        handles.push(StoreHandle {
            shared: Arc::clone(&shared),
            events: events.clone(),
            table: Arc::clone(&table),
        });
        halves.push((subtask, range, restored.seq, restored.metadata, table, shared, events, mode));
    }

    let max_parallelism = chain.max_parallelism();
    let triggers = Arc::new(Triggers::new(chain.epoch()));
    let mut progress = Progress { dependent, ..Progress::default() };
    progress.follow(&chain);
    let progress = Arc::new(Mutex::new(progress));
    let closing = Arc::new(Notify::new());
    let stores: BTreeMap<_, _> =
        owners.iter().map(|(subtask, owner)| (*subtask, owner.events.clone())).collect();
    let outlet = JobOutlet { attempt: Arc::clone(&attempt), stores: stores.clone(), committer };
    runtime.spawn(guarded(Arc::clone(&attempt), uploading.run(Arc::new(outlet))));
    let carried = plan.packing / 2;
    let packer = Arc::new(Packer::new(Arc::clone(&remote), names, uploads.clone(), stores, carried));
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
        origin,
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
        _appliers: appliers,
        stores: handles,
        uploads,
        packer,
        collecting,
        closing,
        checkpoint_timeout: options.checkpoint_timeout,
        memory: options.memory,
        resources,
        _dir: dir,
    }));
    let stores =
        halves.into_iter().map(|(subtask, range, seq, restored_metadata, table, shared, events, mode)| {
            let parts = StoreParts {
                subtask,
                range,
                max_parallelism,
                registry: Registry::new(&states).without(&options.revisions),
                table,
                shared,
                events,
                clock: Arc::clone(&clock),
                seq,
                restored_metadata,
                job: Arc::new(hold.clone()),
            };
            let mut store = StateStore::new(parts, mode);
            store.drop_states(&dropped)?;
            Ok(store)
        });
    Ok(Opened {
        stores: stores.collect::<Result<_>>()?,
        job: Job { inner: hold.clone() },
        restored: report,
        metadata,
        subtask_metadata,
    })
}

/// Transfers that may be under way at a time: files of all subtasks in parts, and deltas.
fn sharers(subtasks: u32, native: bool) -> u32 {
    let parts = if native { NATIVE_PARTS } else { 1 };
    let each = u32::try_from(PARALLEL_UPLOADS * parts).unwrap_or(u32::MAX);
    subtasks.saturating_mul(each).saturating_add(PARALLEL_DELTAS).min(MOST_SHARERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_jobs_follow_cores_and_many_tables_have_two_for_flushes() {
        assert_eq!([1, 2, 8, 64].map(|cores| background_jobs(2, cores)), [2, 2, 8, 16]);
        assert_eq!([1, 2, 8, 64].map(|cores| background_jobs(3, cores)), [4, 4, 8, 16]);
    }

    #[test]
    fn i6_a_connection_that_hangs_is_noticed_however_many_subtasks_there_are() {
        assert_eq!(sharers(1, false), 4 + PARALLEL_DELTAS);
        assert_eq!(sharers(2, true), 16 + PARALLEL_DELTAS);
        assert_eq!(sharers(u32::MAX, true), MOST_SHARERS);
    }
}
