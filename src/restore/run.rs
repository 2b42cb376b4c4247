//! Carries out a restore: plan, fetch, replay, and the fallback to an older checkpoint if the
//! caller allows it.
//!
//! The changelog passes through memory in batches: one is fetched while the previous one is
//! replayed. A restore therefore stays within the memory that it was given, however long the
//! changelog is. Otherwise it would fail at every start (I6, I8).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::batch::{DeltaId, DeltaLocation, batches};
use super::elements::Dealt;
use super::fetch::{Fetcher, sources_beside};
use super::layout::{Target, Targets};
use super::local::LocalFiles;
use super::plan::{SubtaskPlan, plan};
use super::replay::Replay;
use super::report::RestoreReport;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::DeltaSeq;
use crate::manifest::{BaseRef, CheckpointRecord, DeltaRef, Found, Manifest, Origin, StateLists};
use crate::materialize::{FileId, Known, blocking, run_all};
use crate::remote::{ObjectName, Remote};
use crate::table::{Table, TableResources};

/// Restores the subtasks of one process.
pub(crate) struct Restorer {
    pub(crate) remote: Arc<Remote>,
    pub(crate) resources: TableResources,
    /// Requests under way at a time.
    pub(crate) parallel: usize,
    /// Bytes of changelog held at a time, about: half of it as it is stored, arriving or being
    /// replayed, and half of it decoded. A single delta, or a run of up to 2 MiB, may exceed its
    /// part, and so may the gaps that a request reads along.
    pub(crate) memory: u64,
}

/// Batches in memory. With few of them, the link would idle while the first is replayed, and the
/// replay of the last would come after everything else.
pub(super) const BATCHES: usize = 4;
/// Batches that are replayed together if they are there: their keys are merged once.
const REPLAYED: usize = 2;

/// Empty tables that are made at a time.
const TABLES_AT_A_TIME: usize = 16;

/// A batch as it was fetched, and the room that it takes.
type FetchedBatch = (Vec<(DeltaId, Bytes)>, OwnedSemaphorePermit);

/// A restored subtask: its table, and what its changelog goes on from.
pub(crate) struct Restored {
    pub(crate) target: Target,
    pub(crate) table: Table,
    pub(crate) known: Known,
    /// Of other subtasks, if it was rescaled and has no base of its own.
    pub(crate) origins: Vec<Origin>,
    pub(crate) base: Option<BaseRef>,
    /// After the base or the origins, oldest first.
    pub(crate) deltas: Vec<DeltaRef>,
    pub(crate) seq: DeltaSeq,
    /// The user's, as of the cut; None after a fresh start, and if no subtask of this number had the
    /// same key groups.
    pub(crate) metadata: Option<Vec<u8>>,
    /// State that is not keyed.
    pub(crate) elements: Dealt,
    /// Contents that came from the local disk. The store's copies of them were not read.
    unread: Arc<HashSet<FileId>>,
}

impl Restored {
    /// Forgets the objects that it was restored from, so that only the table is left. Returns the objects that hold
    /// files of the table and were read and verified (I4).
    pub(crate) fn detach(&mut self) -> HashMap<FileId, ObjectName> {
        self.origins.clear();
        self.base = None;
        self.deltas.clear();
        let mut objects = self.known.detach();
        objects.retain(|id, _| !self.unread.contains(id));
        objects
    }
}

/// The result of a restore.
pub(crate) struct Restoration {
    /// The manifest that was restored; None after a fresh start.
    pub(crate) manifest: Option<Arc<Manifest>>,
    /// The states of its checkpoint, in the order of the checkpoint's operators.
    pub(crate) states: StateLists,
    /// In the order of the targets.
    pub(crate) subtasks: Vec<Restored>,
    pub(crate) report: RestoreReport,
}

/// Whether an older checkpoint may be restorable although this one was not.
fn may_fall_back(error: &Error) -> bool {
    // Any other failure would meet an older checkpoint too, or passes by itself. Going back for it would lose
    // what the newest one has.
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::MissingObject)
}

impl Restorer {
    /// Restores the last of `found` (oldest first), or starts empty where there is none. With
    /// `fallback`, a checkpoint that is damaged is passed over for the one before; it is the same
    /// one for all subtasks. SST files below the directories in `local` are used where they match.
    pub(crate) async fn restore(
        &self,
        found: &[Found],
        fallback: bool,
        targets: &(impl Targets + ?Sized),
        local: &[PathBuf],
    ) -> Result<Restoration> {
        let mut skipped = Vec::new();
        let local = if found.is_empty() { Vec::new() } else { local.to_owned() };
        let local = Arc::new(blocking(move || Ok(LocalFiles::scan(&local))).await?);
        let mut first_failure = None;
        for candidate in found.iter().rev() {
            let result = match candidate.read(&self.remote).await {
                Ok(manifest) => match targets.targets(Some(&manifest)) {
                    Ok(targets) => self.restore_one(&manifest, &targets, &local).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match result {
                Ok(mut restoration) => {
                    restoration.report.skipped = skipped;
                    return Ok(restoration);
                }
                Err(error) if fallback && may_fall_back(&error) => {
                    let id = candidate.retained.id;
                    tracing::warn!(%error, checkpoint = %id, "a checkpoint cannot be restored; trying the one before");
                    skipped.push((id, error.to_string()));
                    first_failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        // An empty list must not count as "all were damaged": that would silently start from an
        // empty state.
        first_failure.map_or_else(|| Ok(()), Err)?;
        self.start_empty(&targets.targets(None)?).await
    }

    async fn restore_one(
        &self,
        manifest: &Arc<Manifest>,
        targets: &[Target],
        local: &Arc<LocalFiles>,
    ) -> Result<Restoration> {
        let record = manifest
            .checkpoint()
            .ok_or_else(|| Error::internal(format!("version {} is not a checkpoint", manifest.version)))?;
        let plans = plan(record, &manifest.operators(), targets)?;
        assert_eq!(plans.len(), targets.len(), "a plan for each target");
        let states = record.states.fetch(&self.remote).await?;
        let dirs: Vec<_> = targets.iter().map(|target| target.dir.clone()).collect();
        // Only now that the plan is known to be possible: this removes what lies there.
        prepare(dirs.clone()).await?;
        // What a failed restore has fetched stays. The next start takes over the files that it
        // finds intact, and removes the rest.
        let restored = self.run(record, plans, &dirs, local).await;
        if restored.is_err() {
            let _ = blocking(move || {
                dirs.iter().for_each(|dir| forget_empty(dir));
                Ok(())
            })
            .await;
        }
        let (subtasks, report) = restored?;
        Ok(Restoration { manifest: Some(Arc::clone(manifest)), states, subtasks, report })
    }

    async fn run(
        &self,
        record: &CheckpointRecord,
        plans: Vec<SubtaskPlan>,
        dirs: &[PathBuf],
        local: &Arc<LocalFiles>,
    ) -> Result<(Vec<Restored>, RestoreReport)> {
        let fetcher = Fetcher::new(&self.remote, self.parallel);
        let batches = batches(&plans, self.memory / 2 / BATCHES as u64)?;
        let (sender, receiver) = mpsc::channel(BATCHES);
        let changelog = fetch_changelog(&fetcher, batches, sender);
        let replay = self.replay(&fetcher, plans, dirs, local, receiver);
        let (changelog, replay) = (std::pin::pin!(changelog), std::pin::pin!(replay));
        // The replay reports a failure of the changelog's download, because the replay writes files
        // and must end first. If the replay fails, the download can simply be dropped.
        let (download, replayed) = match select(changelog, replay).await {
            Either::Left(((), replay)) => replay.await?,
            Either::Right((replayed, _changelog)) => replayed?,
        };
        let cost = &fetcher.cost;

        let slowest = |time: fn(&Replay) -> Duration| replayed.iter().map(time).max().unwrap_or_default();
        let sources = || replayed.iter().flat_map(|replayed| &replayed.plan.sources);
        // Some may be read for several subtasks.
        let deltas: BTreeSet<_> =
            sources().flat_map(Origin::deltas).map(|(_, delta)| (&delta.object, delta.offset)).collect();
        let report = RestoreReport {
            checkpoint: Some(record.id),
            bytes_downloaded: cost.downloaded.load(Ordering::Relaxed),
            bytes_reused: cost.reused.load(Ordering::Relaxed),
            objects: cost.requests.load(Ordering::Relaxed),
            deltas: deltas.len() as u64,
            bytes_rewritten: replayed.iter().map(|replayed| replayed.copied).sum(),
            entries_replayed: replayed.iter().map(|replayed| replayed.entries).sum(),
            download_ms: millis(download),
            open_ms: millis(slowest(|replayed| replayed.open)),
            join_ms: millis(slowest(|replayed| replayed.join)),
            replay_ms: millis(slowest(|replayed| replayed.replay)),
            skipped: Vec::new(),
            damaged: Vec::new(),
        };
        let unread = Arc::new(fetcher.unread());
        let restored = replayed.into_iter().map(|replay| Restored::of(replay, Arc::clone(&unread)));
        Ok((restored.collect(), report))
    }

    /// Fetches and opens the bases, and replays the changelog as it arrives. Also returns the time
    /// that was spent waiting for the store.
    async fn replay(
        &self,
        fetcher: &Fetcher<'_>,
        plans: Vec<SubtaskPlan>,
        dirs: &[PathBuf],
        local: &Arc<LocalFiles>,
        mut changelog: mpsc::Receiver<Result<FetchedBatch>>,
    ) -> Result<(Duration, Vec<Replay>)> {
        let clock = &self.remote.env().clock;
        let start = clock.monotonic();
        let plans = plans.into_iter().zip(dirs.iter().cloned()).collect();
        let fetched = fetcher.bases(plans, local).await?;
        let mut download = clock.monotonic().saturating_sub(start);

        let resources = &self.resources;
        // A table that copies parts of other tables reads ahead on every thread. Together they use
        // no more threads than there are cores.
        let cores = crate::machine::cores();
        let tables = cores.min(fetched.len().max(1));
        let mut replays = in_parallel(fetched, tables, |fetched| {
            let (resources, clock) = (resources.clone(), Arc::clone(clock));
            move || Replay::open(fetched, &resources, &*clock, cores.div_ceil(tables))
        })
        .await?;
        loop {
            let start = clock.monotonic();
            let Some(batch) = changelog.recv().await else { break };
            let (mut deltas, mut room) = batch?;
            download += clock.monotonic().saturating_sub(start);
            for _ in 1..REPLAYED {
                let Ok(batch) = changelog.try_recv() else { break };
                let (more, its_room) = batch?;
                deltas.extend(more);
                room.merge(its_room);
            }
            // Those of one source lie side by side, in their order.
            deltas.sort_by_key(|(id, _)| *id);
            let mut shares: Vec<_> = replays.into_iter().map(|replay| (replay, Vec::new())).collect();
            for (id, bytes) in deltas {
                let (_, share) = shares
                    .get_mut(id.plan)
                    .ok_or_else(|| Error::internal("a restore read something that it has no plan for"))?;
                share.push((id, bytes));
            }
            let busy = shares.iter().filter(|(_, share)| !share.is_empty()).count();
            let parallel = crate::machine::cores().min(busy).max(1);
            let limit = self.memory / 2 / parallel as u64;
            replays = in_parallel(shares, parallel, |(mut replay, share)| {
                let clock = Arc::clone(clock);
                move || {
                    replay.add(&share, limit, &*clock)?;
                    Ok(replay)
                }
            })
            .await?;
            drop(room);
        }
        Ok((download, in_parallel(replays, usize::MAX, |replay| move || replay.finish()).await?))
    }

    async fn start_empty(&self, targets: &[Target]) -> Result<Restoration> {
        prepare(targets.iter().map(|target| target.dir.clone()).collect()).await?;
        // RocksDB waits for the disk several times for each table, so many are made at a time.
        let subtasks = in_parallel(targets.to_owned(), TABLES_AT_A_TIME, |target| {
            let resources = self.resources.clone();
            move || {
                Ok(Restored {
                    table: Table::create(&target.dir, target.range, &resources)?,
                    target,
                    known: Known::default(),
                    origins: Vec::new(),
                    base: None,
                    deltas: Vec::new(),
                    seq: DeltaSeq(0),
                    metadata: None,
                    elements: Dealt::default(),
                    unread: Arc::default(),
                })
            }
        });
        let (states, report) = (StateLists::default(), RestoreReport::default());
        Ok(Restoration { manifest: None, states, subtasks: subtasks.await?, report })
    }
}

/// Fetches the batches in their order. A batch begins as soon as there is room for it, also while the
/// one before is still arriving, so that no round trip lies between two. The first failure is
/// the last that is sent.
async fn fetch_changelog(
    fetcher: &Fetcher<'_>,
    batches: Vec<Vec<DeltaLocation>>,
    sender: mpsc::Sender<Result<FetchedBatch>>,
) {
    // Room is given in the order in which it is asked for, which is that of the batches.
    let room = Arc::new(Semaphore::new(BATCHES));
    let fetched = batches.into_iter().map(async |batch| {
        let room = Arc::clone(&room).acquire_owned().await;
        let room = room.map_err(|closed| Error::internal("a restore was stopped").source(closed))?;
        Ok((fetcher.deltas(batch).await?, room))
    });
    let mut fetched = std::pin::pin!(futures::stream::iter(fetched).buffered(BATCHES));
    while let Some(fetched) = fetched.next().await {
        let failed = fetched.is_err();
        if sender.send(fetched).await.is_err() || failed {
            return;
        }
    }
}

/// Does work that blocks for each of `items`, for at most `limit` at a time, and gives the results in
/// their order.
async fn in_parallel<T, U: Send + 'static, W: FnOnce() -> Result<U> + Send + 'static>(
    items: Vec<T>,
    limit: usize,
    work: impl Fn(T) -> W,
) -> Result<Vec<U>> {
    let work = items.into_iter().map(work).enumerate();
    let work = work.map(|(index, work)| async move { Ok((index, blocking(work).await?)) });
    let mut done = run_all(work.collect(), limit).await?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, done)| done).collect())
}

impl Restored {
    fn of(replay: Replay, unread: Arc<HashSet<FileId>>) -> Self {
        let Replay { plan, table, known, .. } = replay;
        Self {
            target: plan.target,
            table,
            known,
            origins: plan.origins,
            base: plan.base,
            deltas: plan.deltas,
            seq: plan.seq,
            metadata: plan.metadata,
            elements: plan.elements,
            unread,
        }
    }
}

/// Makes empty directories.
async fn prepare(dirs: Vec<PathBuf>) -> Result<()> {
    blocking(move || {
        dirs.iter().try_for_each(|dir| {
            remove(dir)?;
            fs::create_dir_all(dir)
                .map_err(|error| Error::disk("create the directory of a table", dir, error))
        })
    })
    .await
}

/// Removes the directory of a table and that of its instance, as far as there is nothing in them.
fn forget_empty(dir: &Path) {
    for dir in [Some(dir), dir.parent()].into_iter().flatten() {
        let _ = fs::remove_dir(dir);
    }
}

/// Removes a table and the tables that were to be joined into it.
fn remove(dir: &Path) -> Result<()> {
    [dir, &sources_beside(dir)].into_iter().try_for_each(|dir| match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::disk("empty the directory of a table", dir, error))
        }
        _ => Ok(()),
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
