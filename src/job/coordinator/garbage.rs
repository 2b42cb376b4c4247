//! Has garbage collected after commits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Coordinator;
use crate::error::Result;
use crate::gc::{Collection, Collector};
use crate::job::busy::Busy;
use crate::manifest::{Retained, Roots, fenced_by};
use crate::remote::{ObjectName, Remote};
use crate::store::Attempt;

/// A collection is worth its requests once this many manifests were dropped, ...
const GC_BATCH: usize = 16;
/// ... or once this much time has passed since the last collection.
const GC_PAUSE: Duration = Duration::from_secs(10);
/// How long closing a job may wait for the last deletions.
const LAST_COLLECTION: Duration = Duration::from_secs(10);

/// What commits have left to be deleted, and the collector.
#[derive(Default)]
pub(crate) struct Garbage {
    /// Objects that nothing in the process refers to any more.
    retired: Vec<ObjectName>,
    /// Manifests that commits have dropped.
    dropped: Vec<Retained>,
    /// When the last collection began.
    collected: Option<Instant>,
    collector: Arc<Mutex<Collector>>,
    /// Whether a collection is under way.
    running: Busy,
}

impl Garbage {
    /// `running` says to others whether a collection is under way.
    pub(crate) fn new(running: Busy) -> Self {
        Self { running, ..Self::default() }
    }

    pub(super) fn retire(&mut self, objects: Vec<ObjectName>) {
        self.retired.extend(objects);
    }

    pub(super) fn dropped(&mut self, manifests: impl IntoIterator<Item = Retained>) {
        self.dropped.extend(manifests);
    }

    fn is_worth_it(&self) -> bool {
        self.dropped.len() >= GC_BATCH || self.collected.is_none_or(|at| at.elapsed() >= GC_PAUSE)
    }

    /// Deletes what is no longer reachable, in a task of its own.
    fn collect(&mut self, remote: &Arc<Remote>, roots: Roots, attempt: &Arc<Attempt>) {
        // One at a time. What was dropped meanwhile goes with the next.
        let Some(run) = self.running.begin() else { return };
        let Ok(mut collector) = Arc::clone(&self.collector).try_lock_owned() else { return };
        self.collected = Some(Instant::now());
        let dropped = std::mem::take(&mut self.dropped);
        let (remote, attempt) = (Arc::clone(remote), Arc::clone(attempt));
        // Retired only now, after a commit. A commit that was in doubt until then could have named them.
        collector.retire(std::mem::take(&mut self.retired));
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
}

impl Coordinator {
    /// Collects once enough was dropped or enough time has passed. Not after each commit, because every
    /// collection lists the pins.
    pub(super) fn collect_if_worth_it(&mut self) {
        if self.garbage.is_worth_it() {
            self.garbage.collect(&self.remote, self.chain.roots(), &self.attempt);
        }
    }

    /// The last collection, when the job is closed.
    pub(super) async fn collect_all(&mut self) -> Result<()> {
        if self.chain.stopped().is_some() {
            // Fenced. The later attempt decides what is garbage.
            return Ok(());
        }
        self.garbage.dropped(self.chain.take_dropped());
        let dropped = std::mem::take(&mut self.garbage.dropped);
        let collect = async {
            let mut collector = self.garbage.collector.lock().await;
            collector.finish(&self.remote, &self.chain.roots(), dropped).await
        };
        match tokio::time::timeout(LAST_COLLECTION, collect).await {
            Ok(result) => result.map(|_| ()),
            // The next attempt looks for garbage that stays behind.
            Err(_) => Ok(()),
        }
    }
}
