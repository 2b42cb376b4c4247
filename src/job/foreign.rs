//! Starting from another job's checkpoint (Flink's NO_CLAIM mode).
//!
//! The other job stays as it is, except for a pin while it is needed. The new job restores into its
//! own tables and forgets where their files came from, because it may refer only to its own
//! objects. The table as it was opened becomes the first base, in the background: the store copies
//! files that another job holds in the same store, and the others are uploaded. The first
//! checkpoint waits for that base. Once it is committed, the pin goes.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::gc::{Holder, Pin, find_wanted, release_earlier, savepoint};
use crate::ids::{DeltaSeq, Epoch, Nonce, Version};
use crate::key_group::MaxParallelism;
use crate::manifest::{CheckpointMode, Found, RestoreFrom, read_manifest, read_newest};
use crate::materialize::{CopySource, blocking};
use crate::remote::{Connected, JobLocation, Remote};
use crate::restore::Restoration;
use crate::table::TableFiles;

use super::JobOptions;

/// The directory of the snapshot that becomes the first base, beside the table's.
const FIRST_BASE: &str = "base-0";

/// A checkpoint or savepoint of another job, from which a new job starts. See
/// [`JobOptions::start_from`].
#[derive(Debug, Clone)]
pub struct SourceJob {
    location: JobLocation,
    from: RestoreFrom,
}

impl SourceJob {
    /// A checkpoint of the job at a location. It is looked at only when a new job starts from it.
    pub fn new(location: impl Into<JobLocation>, from: RestoreFrom) -> Self {
        Self { location: location.into(), from }
    }
}

/// The other job, as the new one sees it.
pub(super) struct ForeignJob {
    pub(super) remote: Arc<Remote>,
    pub(super) from: RestoreFrom,
    /// Whether the store can copy from one job to the other.
    copies: bool,
}

/// What a subtask takes along from another job.
#[derive(Debug, Default)]
pub(crate) struct ForeignState {
    pub(super) copies: Option<CopySource>,
    /// A snapshot of the table as it was opened, and the delta that it stands at.
    pub(super) first_base: Option<(TableFiles, DeltaSeq)>,
}

impl ForeignJob {
    pub(super) fn open(
        source: &SourceJob,
        target: &Remote,
        place: Option<[u8; 32]>,
        options: &JobOptions,
    ) -> Result<Self> {
        let SourceJob { location, from } = source.clone();
        let Connected { remote, cloud, .. } = location.connect(options.env.clone(), false)?;
        let copies = remote.shares_store_with(target) || (place.is_some() && place == cloud);
        Ok(Self { remote: Arc::new(remote), from, copies })
    }

    /// Checks that the checkpoint to start from exists, before anything is written. Returns its max parallelism.
    pub(super) async fn check(&self, wanted: Option<MaxParallelism>) -> Result<MaxParallelism> {
        let newest = read_newest(&self.remote).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no job to start from").advise("check the URL")
        })?;
        match &self.from {
            RestoreFrom::Savepoint(name) => drop(savepoint::require(&self.remote, &name.parse()?).await?),
            from => drop(find_wanted(&self.remote, from, false).await?),
        }
        match wanted {
            Some(wanted) if wanted != newest.max_parallelism => {
                let (there, wanted) = (newest.max_parallelism.get(), wanted.get());
                let message =
                    format!("the job to start from has max parallelism {there}, and {wanted} was asked for");
                Err(Error::new(ErrorKind::Incompatible, message)
                    .advise("leave it unset: keys are placed by it"))
            }
            _ => Ok(newest.max_parallelism),
        }
    }

    /// Keeps the other job's checkpoint alive for the attempt `epoch` of the job at `target`. Pins that
    /// earlier attempts have left are removed.
    pub(super) async fn pin(&self, target: &Remote, epoch: Epoch) -> Result<(Pin, Found)> {
        let job = identity(target).await?;
        // The new pin comes before the old ones go. Otherwise the other job could collect the
        // checkpoint in between.
        let pinned = Pin::take(&self.remote, &self.from, Holder::Other(job, epoch)).await?;
        release_earlier(&self.remote, job, epoch).await?;
        Ok(pinned)
    }

    /// Removes, in the background, pins that earlier attempts have left: the job has a checkpoint of its own.
    pub(super) fn forget(self, target: &Arc<Remote>, epoch: Epoch) {
        let target = Arc::clone(target);
        tokio::spawn(async move {
            let forget = async { release_earlier(&self.remote, identity(&target).await?, epoch).await };
            if let Err(error) = forget.await {
                // The other job may have been deleted long ago, which is allowed.
                tracing::debug!(%error, "the job that this one was started from cannot be looked at");
            }
        });
    }

    /// Makes what was restored the new job's own.
    pub(super) async fn take_over(
        &self,
        restoration: &mut Restoration,
        mode: CheckpointMode,
    ) -> Result<Vec<ForeignState>> {
        let mut all = Vec::new();
        for restored in &mut restoration.subtasks {
            let objects = restored.detach();
            let copies = self.copies.then(|| CopySource { remote: Arc::clone(&self.remote), objects });
            // In native mode each checkpoint brings a base of its own.
            let state = restored.seq > DeltaSeq(0) && mode.logs_changes();
            all.push((ForeignState { copies, first_base: None }, state));
        }
        // Tables are not shared yet, so they are lent to the blocking pool and come back.
        let subtasks = std::mem::take(&mut restoration.subtasks);
        let (subtasks, foreign) = blocking(move || {
            let mut foreign = Vec::new();
            for (restored, (mut one, state)) in subtasks.iter().zip(all) {
                if state {
                    let dir = restored.table.dir().with_file_name(FIRST_BASE);
                    one.first_base = Some((restored.table.checkpoint(&dir)?, restored.seq));
                }
                foreign.push(one);
            }
            Ok((subtasks, foreign))
        })
        .await?;
        restoration.subtasks = subtasks;
        Ok(foreign)
    }
}

/// Identifies the job at `target`: the nonce of its first record, which is never deleted.
pub(crate) async fn identity(target: &Remote) -> Result<Nonce> {
    read_manifest(target, Version(1)).await.map(|(first, _)| first.nonce)
}
