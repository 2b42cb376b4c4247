//! Makes savepoints of checkpoints that were just committed.

use std::sync::{Arc, Weak};

use futures::channel::oneshot;

use super::Coordinator;
use crate::error::Result;
use crate::gc::{Holder, savepoint};
use crate::job::report::CheckpointReport;
use crate::manifest::{RestoreFrom, Retained};
use crate::remote::SavepointName;

impl Coordinator {
    /// Makes a savepoint of a checkpoint that was just committed. That takes some round trips, so it runs
    /// in a task of its own, and the next checkpoint need not wait for it.
    pub(super) fn make_savepoint(
        &mut self,
        name: SavepointName,
        checkpoint: Retained,
        report: CheckpointReport,
        reply: Option<oneshot::Sender<Result<CheckpointReport>>>,
    ) {
        let saving = Arc::new(checkpoint.version);
        self.state.saving.retain(|version| version.strong_count() > 0);
        self.state.saving.push(Arc::downgrade(&saving));
        // An ordinary pin of this attempt would not do. It counts for nothing once a later attempt has
        // opened, and the savepoint may be created after that. The savepoint must be safe from its
        // first moment (I3).
        let (remote, holder) = (Arc::clone(&self.remote), Holder::Saving(self.chain.epoch(), name.clone()));
        tokio::spawn(async move {
            let from = RestoreFrom::Checkpoint(checkpoint.id);
            let saved = savepoint::create(&remote, &name, &from, holder).await;
            drop(saving);
            if let Err(error) = &saved {
                tracing::warn!(%error, savepoint = %name, "a savepoint was not made");
            }
            if let Some(reply) = reply {
                // The caller may not be interested.
                let _ = reply.send(saved.map(|_| report));
            }
        });
    }

    /// How many checkpoints the next commit retains. A checkpoint of which a savepoint is being made must
    /// not be dropped before the savepoint exists.
    pub(super) fn retain_count(&self) -> usize {
        let oldest = self.state.saving.iter().filter_map(|version| Weak::upgrade(version).map(|v| *v)).min();
        oldest.map_or(self.keep, |oldest| self.keep.max(self.chain.retained_since(oldest) + 1))
    }
}
