//! An attempt as all threads of it see it: its epoch, its end, and the checkpoint that is due.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::ids::Epoch;

use super::metadata;

/// State of a whole attempt that every part of it can see without a lock.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) epoch: Epoch,
    /// Whether checkpoints are started in this process. In a member's, a barrier may come before the
    /// committer's word that its checkpoint has started.
    starts_here: bool,
    end: OnceLock<End>,
    /// Whether there is one.
    failed: AtomicBool,
    /// Why the next checkpoint can't be complete, though nothing has failed yet.
    abandoned: OnceLock<Error>,
    /// Number of the checkpoint that was triggered last; 0 when none is under way.
    barrier: AtomicU64,
    /// Number of the checkpoint that was started last, whether or not it is complete.
    started: AtomicU64,
    /// How often operators were asked for an early cut, ahead of a barrier.
    early_cuts: AtomicU64,
    /// Metadata of the stores' last cuts.
    pub(crate) metadata: metadata::Total,
    /// State that is not keyed, of the stores' last cuts.
    pub(crate) elements: metadata::ElementsTotal,
}

/// What has ended an attempt.
#[derive(Debug)]
struct End {
    error: Error,
    /// It was closed or dropped.
    intended: bool,
}

impl Attempt {
    pub(crate) fn new(epoch: Epoch) -> Arc<Self> {
        Self::with(epoch, true)
    }

    /// As a member sees it.
    pub(crate) fn of_member(epoch: Epoch) -> Arc<Self> {
        Self::with(epoch, false)
    }

    fn with(epoch: Epoch, starts_here: bool) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            starts_here,
            end: OnceLock::new(),
            failed: AtomicBool::new(false),
            abandoned: OnceLock::new(),
            barrier: AtomicU64::new(0),
            started: AtomicU64::new(0),
            early_cuts: AtomicU64::new(0),
            metadata: metadata::Total::default(),
            elements: metadata::ElementsTotal::default(),
        })
    }

    /// Keeps the first failure that the attempt cannot recover from.
    pub(crate) fn fail(&self, error: Error) {
        // The first one is the cause; what follows are consequences.
        if self.health().is_ok() {
            tracing::error!(%error, "the attempt has failed");
        }
        self.end_by(End { error, intended: false });
    }

    /// As [`Attempt::fail`], for an intended end: nothing is logged.
    pub(crate) fn fail_quietly(&self, error: Error) {
        self.end_by(End { error, intended: true });
    }

    fn end_by(&self, end: End) {
        let _ = self.end.set(end);
        self.failed.store(true, Ordering::Release);
    }

    /// What has ended it, unless that was intended.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.end.get().filter(|end| !end.intended).map(|end| &end.error)
    }

    pub(crate) fn health(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let cause = self.end.get().map(|end| end.error.clone());
        Err(cause.unwrap_or_else(|| Error::internal("the attempt failed without a cause")))
    }

    /// A store was dropped that later checkpoints would wait for. The checkpoint under way may
    /// still complete, so this is no failure until the next checkpoint is asked for
    /// ([`Attempt::check_complete`]).
    pub(crate) fn abandon(&self, error: Error) {
        // The first one is enough.
        let _ = self.abandoned.set(error);
    }

    /// Whether the attempt is sound *and* no store is missing.
    pub(crate) fn complete(&self) -> Result<()> {
        self.health()?;
        self.abandoned.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// As [`Attempt::complete`], where a checkpoint is about to be begun: a missing store ends the
    /// attempt.
    pub(crate) fn check_complete(&self) -> Result<()> {
        self.complete().inspect_err(|error| self.fail(error.clone()))
    }

    pub(crate) fn barrier(&self) -> u64 {
        self.barrier.load(Ordering::Acquire)
    }

    pub(crate) fn early_cuts(&self) -> u64 {
        self.early_cuts.load(Ordering::Relaxed)
    }

    /// Asks all operators to cut deltas that do not fit the manifest, because a barrier is near.
    pub(crate) fn ask_for_early_cut(&self) {
        self.early_cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// The checkpoint `number` starts.
    pub(crate) fn start(&self, number: u64) {
        debug_assert!(number > self.started(), "{number} starts after {}", self.started());
        self.started.store(number, Ordering::Release);
        self.barrier.store(number, Ordering::Release);
    }

    /// The checkpoint under way has ended.
    pub(crate) fn end(&self) {
        self.barrier.store(0, Ordering::Release);
    }

    /// The committer says that the checkpoint `number` has started.
    pub(crate) fn hear_of_start(&self, number: u64) {
        self.started.fetch_max(number, Ordering::AcqRel);
        self.barrier.store(number, Ordering::Release);
    }

    /// The committer says that the checkpoint `number` has ended.
    pub(crate) fn hear_of_end(&self, number: u64) {
        // A later one may be due by now. If not, nothing is.
        let _ = self.barrier.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether a store may cut for the checkpoint `number`: it has started. A member takes a barrier's
    /// word for it. The committer ignores what it did not ask for.
    pub(crate) fn may_cut(&self, number: u64) -> bool {
        number <= self.started() || !self.starts_here
    }

    /// Number of the checkpoint that was started last.
    fn started(&self) -> u64 {
        self.started.load(Ordering::Acquire)
    }
}
