//! Begins an attempt and restores the state that it goes on from. Runs on the job's runtime.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::gc::{Holder, Pin, choose};
use crate::ids::{Epoch, Nonce};
use crate::key_group::MaxParallelism;
use crate::manifest::{Chain, Found, RestoreFrom};
use crate::materialize::blocking;
use crate::remote::{Remote, remove_staged};
use crate::restore::{Layout, Resolved, Restoration};
use crate::table::TableResources;

use super::preflight::{Preflight, check_lost};
use crate::job::JobOptions;
use crate::job::background::{restorer, table_resources};
use crate::job::foreign::{ForeignJob, ForeignState, identity};
use crate::job::local_dir;

/// A job that is being opened.
pub(super) struct Opening {
    pub(super) remote: Arc<Remote>,
    /// Identifies the job's cloud store, if it is in one.
    pub(super) cloud: Option<[u8; 32]>,
    /// The directory of the job's objects, if it is in one.
    pub(super) objects: Option<PathBuf>,
    pub(super) options: JobOptions,
    /// The operators, and where the tables of their subtasks will be.
    pub(super) layout: Layout,
    /// Local directories of earlier instances. Files that match are taken over, the rest is removed.
    pub(super) earlier: Vec<PathBuf>,
}

/// An attempt that has begun, with its state.
pub(super) struct Begun {
    /// Identifies the job, if members need to know.
    pub(super) job: Option<Nonce>,
    pub(super) chain: Chain,
    /// The job's operators, as the restored checkpoint has them.
    pub(super) operators: Vec<Resolved>,
    pub(super) restored: RestoredState,
    pub(super) resources: TableResources,
}

/// What an attempt goes on from.
pub(super) struct RestoredState {
    pub(super) restoration: Restoration,
    /// Keeps the checkpoint alive that was restored, if the job's own chain does not retain it.
    pub(super) origin: Option<Pin>,
    /// If the state comes from another job: what each subtask takes along.
    pub(super) foreign: Vec<ForeignState>,
}

impl Opening {
    pub(super) async fn begin(self) -> Result<Begun> {
        let options = &self.options;
        // All that can be refused is refused here. The next step writes the attempt's record, which
        // fences a running one.
        let Preflight { max_parallelism, source } = self.check().await?;
        let opened =
            Chain::open_past(Arc::clone(&self.remote), options.open_mode, max_parallelism, options.fallback)
                .await?;
        // Checked again, because another attempt may have come between.
        check_lost(!opened.checkpoints.is_empty(), &opened.damaged, options)?;
        let damaged = opened.damaged.iter().map(|damaged| (damaged.version.0, damaged.error.to_string()));
        let damaged = damaged.collect();
        let layout = self.layout_of(opened.chain.max_parallelism());
        let resources = table_resources(options)?;
        let epoch = opened.chain.epoch();
        let mut restored = match source {
            Some(source) if opened.checkpoints.is_empty() => {
                self.start_from(&source, epoch, &layout, &resources).await?
            }
            source => {
                if let Some(source) = source {
                    source.forget(&self.remote, epoch);
                }
                self.go_on(epoch, &opened.checkpoints, &layout, &resources).await?
            }
        };
        restored.restoration.report.damaged = damaged;
        let job = match options.members.is_empty() {
            true => None,
            false => Some(identity(&self.remote).await?),
        };
        // Last, because the restore takes over files of earlier instances.
        self.clean_up(epoch).await?;
        let operators = layout.resolve(restored.restoration.manifest.as_deref())?;
        Ok(Begun { job, chain: opened.chain, operators, restored, resources })
    }

    /// The operators in a job of this max parallelism.
    pub(super) fn layout_of(&self, max_parallelism: MaxParallelism) -> Layout {
        Layout { max_parallelism, ..self.layout.clone() }
    }

    /// Starts from a checkpoint of another job.
    async fn start_from(
        &self,
        source: &ForeignJob,
        epoch: Epoch,
        layout: &Layout,
        resources: &TableResources,
    ) -> Result<RestoredState> {
        let (pin, found) = source.pin(&self.remote, epoch).await?;
        let restorer = restorer(&self.options, &source.remote, resources);
        let mut restoration = restorer.restore(&[found], false, layout, &self.earlier).await?;
        let foreign = source.take_over(&mut restoration, self.options.mode).await?;
        Ok(RestoredState { restoration, origin: Some(pin), foreign })
    }

    /// Goes on from a checkpoint or savepoint of this job.
    async fn go_on(
        &self,
        epoch: Epoch,
        checkpoints: &[Found],
        layout: &Layout,
        resources: &TableResources,
    ) -> Result<RestoredState> {
        let (options, remote) = (&self.options, &self.remote);
        let (origin, saved);
        let found = if let RestoreFrom::Savepoint(_) = &options.restore_from {
            // A savepoint may be released at any time, also before this attempt has a checkpoint.
            let (pin, found) = Pin::take(remote, &options.restore_from, Holder::Attempt(epoch)).await?;
            (origin, saved) = (Some(pin), [found]);
            &saved[..]
        } else {
            origin = None;
            candidates(checkpoints, &options.restore_from)?
        };
        let restorer = restorer(options, remote, resources);
        let restoration = restorer.restore(found, options.fallback, layout, &self.earlier).await?;
        Ok(RestoredState { restoration, origin, foreign: Vec::new() })
    }

    /// Removes what earlier processes have left: local directories, and files that were never renamed to
    /// objects.
    async fn clean_up(self, epoch: Epoch) -> Result<()> {
        if let Some(dir) = self.objects {
            // The opening does not wait for it: it may take long, and nothing depends on it.
            tokio::task::spawn_blocking(move || {
                let files = remove_staged(&dir, epoch);
                tracing::debug!(files, "removed what killed processes were writing");
            });
        }
        let earlier = self.earlier;
        blocking(move || {
            local_dir::remove(&earlier);
            Ok(())
        })
        .await
    }
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
