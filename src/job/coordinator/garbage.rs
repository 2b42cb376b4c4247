//! Has garbage collected after commits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Coordinator;
use crate::error::Result;
use crate::gc::Collection;
use crate::manifest::fenced_by;

/// A collection is worth its requests once this many manifests were dropped, ...
const GC_BATCH: usize = 16;
/// ... or once this much time has passed since the last collection.
const GC_PAUSE: Duration = Duration::from_secs(10);
/// How long closing a job may wait for the last deletions.
const LAST_COLLECTION: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Collects once enough was dropped or enough time has passed. Not after each commit, because every
    /// collection lists the pins.
    pub(super) fn collect_if_worth_it(&mut self) {
        let rested = self.state.collected.is_none_or(|at| at.elapsed() >= GC_PAUSE);
        if self.state.dropped.len() >= GC_BATCH || rested {
            self.collect();
        }
    }

    /// Deletes what is no longer reachable, in a task of its own.
    fn collect(&mut self) {
        let Some(run) = self.collecting.begin() else { return };
        let Ok(mut collector) = Arc::clone(&self.state.collector).try_lock_owned() else { return };
        self.state.collected = Some(Instant::now());
        let dropped = std::mem::take(&mut self.state.dropped);
        let (remote, roots) = (Arc::clone(&self.remote), self.chain.roots());
        let attempt = Arc::clone(&self.attempt);
        // Retired only now, after a commit. A commit that was in doubt until then could have named them.
        collector.retire(std::mem::take(&mut self.state.retired));
        tokio::spawn(async move {
            match collector.run(&remote, &roots, dropped).await {
                Ok(Collection::Done(_)) => {}
                Ok(Collection::Overtaken(by)) => attempt.fail(fenced_by(by)),
                Err(error) => {
                    tracing::warn!(%error, "garbage collection failed; it goes on after a later checkpoint");
                }
            }
            drop((collector, run));
        });
    }

    /// The last collection, when the job is closed.
    pub(super) async fn collect_all(&mut self) -> Result<()> {
        if self.chain.stopped().is_some() {
            // Fenced. The later attempt decides what is garbage.
            return Ok(());
        }
        let mut dropped = std::mem::take(&mut self.state.dropped);
        dropped.extend(self.chain.take_dropped());
        let collect = async {
            let mut collector = self.state.collector.lock().await;
            collector.finish(&self.remote, &self.chain.roots(), dropped).await
        };
        match tokio::time::timeout(LAST_COLLECTION, collect).await {
            Ok(result) => result.map(|_| ()),
            // The next attempt looks for garbage that stays behind.
            Err(_) => Ok(()),
        }
    }
}
