//! Carries a restore out: plan, fetch, replay, and the way back to an older checkpoint if the caller
//! allows it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fetch::{Cost, fetch, sources_beside};
use super::local::LocalFiles;
use super::plan::{SubtaskPlan, plan};
use super::replay::{Replayed, replay};
use super::report::RestoreReport;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::key_group::KeyGroupRange;
use crate::manifest::{BaseRef, CheckpointRecord, DeltaRef, Found, Manifest, Origin};
use crate::materialize::{Known, blocking, run_all};
use crate::remote::Remote;
use crate::table::{Table, TableResources};

/// Restores the subtasks of one process.
pub(crate) struct Restorer {
    pub(crate) remote: Arc<Remote>,
    pub(crate) resources: TableResources,
    /// Requests under way at a time.
    pub(crate) parallel: usize,
}

/// A subtask to be restored.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    /// Where its table will be. Whatever is there is removed.
    pub(crate) dir: PathBuf,
}

/// A restored subtask: its table, and what its changelog goes on from.
pub(crate) struct Restored {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
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
}

/// What a restore comes to.
pub(crate) struct Restoration {
    /// The manifest that was restored; None after a fresh start.
    pub(crate) manifest: Option<Arc<Manifest>>,
    /// In the order of the targets.
    pub(crate) subtasks: Vec<Restored>,
    pub(crate) report: RestoreReport,
}

/// Whether an older checkpoint may be restorable where this one was not.
fn may_fall_back(error: &Error) -> bool {
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
        targets: &[Target],
        local: &[PathBuf],
    ) -> Result<Restoration> {
        let mut skipped = Vec::new();
        let local = if found.is_empty() { Vec::new() } else { local.to_owned() };
        let local = Arc::new(blocking(move || Ok(LocalFiles::scan(&local))).await?);
        let mut first_failure = None;
        for candidate in found.iter().rev() {
            let result = match &candidate.manifest {
                Ok(manifest) => self.restore_one(manifest, targets, &local).await,
                Err(error) => Err(error.clone()),
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
        // Nothing is never taken for "all were damaged": that would begin anew without a word.
        first_failure.map_or_else(|| Ok(()), Err)?;
        self.start_empty(targets).await
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
        let wanted: Vec<_> = targets.iter().map(|target| (target.subtask, target.range)).collect();
        let plans = plan(record, &wanted)?;
        let dirs: Vec<_> = targets.iter().map(|target| target.dir.clone()).collect();
        prepare(dirs.clone()).await?;
        let result = self.run(record, plans, &dirs, local).await;
        if result.is_err() {
            // The failure is what counts; what stays behind is removed by the next start.
            let _ = blocking(move || dirs.iter().try_for_each(|dir| remove(dir))).await;
        }
        let (subtasks, report) = result?;
        Ok(Restoration { manifest: Some(Arc::clone(manifest)), subtasks, report })
    }

    async fn run(
        &self,
        record: &CheckpointRecord,
        plans: Vec<SubtaskPlan>,
        dirs: &[PathBuf],
        local: &Arc<LocalFiles>,
    ) -> Result<(Vec<Restored>, RestoreReport)> {
        let clock = Arc::clone(&self.remote.env().clock);
        let start = clock.monotonic();
        let cost = Cost::default();
        let plans = plans.into_iter().zip(dirs.iter().cloned()).collect();
        let fetched = fetch(&self.remote, plans, local, self.parallel, &cost).await?;
        let download = clock.monotonic().saturating_sub(start);

        let replays = fetched.into_iter().enumerate().map(|(index, fetched)| {
            let (resources, clock) = (self.resources.clone(), Arc::clone(&clock));
            // A task of its own, so that all run at once; the results come in any order.
            async move { Ok((index, blocking(move || replay(fetched, &resources, &*clock)).await?)) }
        });
        let mut replayed = run_all(replays.collect(), usize::MAX).await?;
        replayed.sort_by_key(|(index, _)| *index);
        let replayed: Vec<_> = replayed.into_iter().map(|(_, replayed)| replayed).collect();

        let slowest = |time: fn(&Replayed) -> Duration| replayed.iter().map(time).max().unwrap_or_default();
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
        };
        Ok((replayed.into_iter().map(Restored::from).collect(), report))
    }

    async fn start_empty(&self, targets: &[Target]) -> Result<Restoration> {
        prepare(targets.iter().map(|target| target.dir.clone()).collect()).await?;
        let (wanted, resources) = (targets.to_owned(), self.resources.clone());
        let subtasks = blocking(move || {
            let start = |target: Target| {
                Ok(Restored {
                    subtask: target.subtask,
                    range: target.range,
                    table: Table::create(&target.dir, target.range, &resources)?,
                    known: Known::default(),
                    origins: Vec::new(),
                    base: None,
                    deltas: Vec::new(),
                    seq: DeltaSeq(0),
                    metadata: None,
                })
            };
            wanted.into_iter().map(start).collect::<Result<_>>()
        });
        Ok(Restoration { manifest: None, subtasks: subtasks.await?, report: RestoreReport::default() })
    }
}

impl From<Replayed> for Restored {
    fn from(replayed: Replayed) -> Self {
        let Replayed { plan, table, known, .. } = replayed;
        Self {
            subtask: plan.subtask,
            range: plan.range,
            table,
            known,
            origins: plan.origins,
            base: plan.base,
            deltas: plan.deltas,
            seq: plan.seq,
            metadata: plan.metadata,
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

/// Removes a table and what was to be copied into it.
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
