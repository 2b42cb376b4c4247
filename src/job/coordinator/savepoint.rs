//! Makes savepoints of checkpoints that were just committed.

use std::sync::{Arc, Weak};

use futures::channel::oneshot;

use super::Coordinator;
use crate::error::Result;
use crate::gc::{Holder, savepoint};
use crate::ids::Version;
use crate::job::report::CheckpointReport;
use crate::manifest::{RestoreFrom, Retained};
use crate::remote::SavepointName;

/// Versions of which savepoints are being made, for as long as that takes.
#[derive(Default)]
pub(super) struct Saving(Vec<Weak<Version>>);

impl Saving {
    /// The version counts until the result is dropped.
    fn begin(&mut self, version: Version) -> Arc<Version> {
        let saving = Arc::new(version);
        self.0.retain(|version| version.strong_count() > 0);
        self.0.push(Arc::downgrade(&saving));
        saving
    }

    fn oldest(&self) -> Option<Version> {
        self.0.iter().filter_map(Weak::upgrade).map(|version| *version).min()
    }
}

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
        let saving = self.state.saving.begin(checkpoint.version);
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
        let oldest = self.state.saving.oldest();
        oldest.map_or(self.keep, |oldest| self.keep.max(self.chain.retained_since(oldest) + 1))
    }
}
