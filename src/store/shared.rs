//! State shared by an operator's thread and its store's background: the layers on their way into
//! the table, the sticky failure, and a few numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::delta::{FrozenDelta, Recycler};
use crate::error::{Error, Result};
use crate::ids::{DeltaSeq, Epoch};

use super::base_trouble::BaseTrouble;
use super::metadata;
use super::presence::Presence;
use crate::budget::{Budget, BudgetShare};

/// A frozen delta between the operator's thread and the table.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) seq: DeltaSeq,
    pub(crate) delta: FrozenDelta,
    /// Set once the table holds it; from then on reads go past it.
    applied: AtomicBool,
}

impl Layer {
    pub(crate) fn new(seq: DeltaSeq, delta: FrozenDelta) -> Arc<Self> {
        Arc::new(Self { seq, delta, applied: AtomicBool::new(false) })
    }

    pub(crate) fn is_applied(&self) -> bool {
        self.applied.load(Ordering::Acquire)
    }

    pub(crate) fn set_applied(&self) {
        self.applied.store(true, Ordering::Release);
    }
}

/// A layer with its share of the budget, held by the background until its work on the layer is
/// done. A reference from a scan or from the operator's list of layers does not count: an operator
/// that writes while it scans must not wait for itself.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) layer: Arc<Layer>,
    pub(crate) _share: Arc<BudgetShare>,
}

/// State of a whole attempt that every part of it can see without a lock.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) epoch: Epoch,
    failure: OnceLock<Error>,
    failed: AtomicBool,
    /// Why the next checkpoint can't be complete, though nothing has failed yet.
    abandoned: OnceLock<Error>,
    /// Number of the checkpoint that was triggered last; 0 when none is under way.
    barrier: AtomicU64,
    /// Number of the checkpoint that was started last, whether or not it is complete.
    started: AtomicU64,
    /// How often operators were called on to cut ahead of a barrier.
    early: AtomicU64,
    /// Metadata of the stores' last cuts.
    pub(crate) metadata: metadata::Total,
}

impl Attempt {
    pub(crate) fn new(epoch: Epoch) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            failure: OnceLock::new(),
            failed: AtomicBool::new(false),
            abandoned: OnceLock::new(),
            barrier: AtomicU64::new(0),
            started: AtomicU64::new(0),
            early: AtomicU64::new(0),
            metadata: metadata::Total::default(),
        })
    }

    /// Keeps the first failure that the attempt cannot recover from.
    pub(crate) fn fail(&self, error: Error) {
        // The first one is the cause; what follows are consequences.
        if self.health().is_ok() {
            tracing::error!(%error, "the attempt has failed");
        }
        self.fail_quietly(error);
    }

    /// As [`Attempt::fail`], for an intended end: nothing is logged.
    pub(crate) fn fail_quietly(&self, error: Error) {
        let _ = self.failure.set(error);
        self.failed.store(true, Ordering::Release);
    }

    pub(crate) fn health(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let cause = self.failure.get().cloned();
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

    /// As [`Attempt::complete`], where a checkpoint is about to be begun: a missing store ends the attempt.
    pub(crate) fn check_complete(&self) -> Result<()> {
        self.complete().inspect_err(|error| self.fail(error.clone()))
    }

    pub(crate) fn barrier(&self) -> u64 {
        self.barrier.load(Ordering::Acquire)
    }

    pub(crate) fn early(&self) -> u64 {
        self.early.load(Ordering::Relaxed)
    }

    /// Asks all operators to cut deltas that do not fit the manifest, because a barrier is near.
    pub(crate) fn call_early(&self) {
        self.early.fetch_add(1, Ordering::Relaxed);
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

    /// Number of the checkpoint that was started last. No store may cut for a later one.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Acquire)
    }
}

/// What one store's threads share.
#[derive(Debug)]
pub(crate) struct StoreShared {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) presence: Presence,
    pub(crate) bases: BaseTrouble,
    pub(crate) recycler: Arc<Recycler>,
    /// The last delta that was frozen, and the last that the table holds.
    frozen: AtomicU64,
    applied: AtomicU64,
    pub(crate) deltas_sealed: AtomicU64,
    pub(crate) sealed_bytes: AtomicU64,
    /// Messages that the store's task has not dealt with, and whether it waits for anything.
    inbox: AtomicU64,
    idle: AtomicBool,
}

impl StoreShared {
    pub(crate) fn new(attempt: Arc<Attempt>, budget: Arc<Budget>, seq: DeltaSeq) -> Arc<Self> {
        Arc::new(Self {
            attempt,
            budget,
            presence: Presence::default(),
            bases: BaseTrouble::default(),
            recycler: Arc::default(),
            frozen: AtomicU64::new(seq.0),
            applied: AtomicU64::new(seq.0),
            deltas_sealed: AtomicU64::new(0),
            sealed_bytes: AtomicU64::new(0),
            inbox: AtomicU64::new(0),
            idle: AtomicBool::new(true),
        })
    }

    /// Records a background failure and wakes a writer that waits for memory.
    pub(crate) fn fail(&self, error: Error) {
        self.attempt.fail(error);
        self.budget.notify();
    }

    /// Whether more may be written. What is done with and not cleaned yet counts beside the budget; where it would
    /// keep a writer waiting, it is freed here.
    pub(crate) fn has_room(&self) -> bool {
        let budget = &self.budget;
        if budget.held() + (self.recycler.retired() as u64) < budget.limit() {
            return true;
        }
        self.recycler.clean();
        !budget.is_full()
    }

    pub(crate) fn set_frozen(&self, seq: DeltaSeq) {
        self.frozen.store(seq.0, Ordering::Release);
    }

    pub(crate) fn set_applied(&self, seq: DeltaSeq) {
        self.applied.store(seq.0, Ordering::Release);
        self.budget.notify();
    }

    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Release);
    }

    pub(crate) fn unapplied(&self) -> u64 {
        self.frozen.load(Ordering::Acquire).saturating_sub(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn message_sent(&self) {
        self.inbox.fetch_add(1, Ordering::AcqRel);
    }

    /// A message was dealt with; `idle` tells whether anything is under way after it.
    pub(crate) fn message_done(&self, idle: bool) {
        self.idle.store(idle, Ordering::Release);
        self.inbox.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether all that was frozen is applied, and nothing is being sealed or uploaded.
    pub(crate) fn is_settled(&self) -> bool {
        self.unapplied() == 0 && self.inbox.load(Ordering::Acquire) == 0 && self.idle.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{ActiveDelta, TableKind};

    #[test]
    fn i6_memory_of_deltas_that_are_done_with_counts_beside_those_on_their_way() {
        const MIB: u64 = 1 << 20;
        let shared = StoreShared::new(Attempt::new(Epoch(1)), Budget::new(4 * MIB), DeltaSeq(0));
        let mut active = ActiveDelta::recycled_by(Arc::clone(&shared.recycler));
        let mut retire = || {
            for key in 0..1000_u32 {
                active.put(TableKind::Hash, &key.to_be_bytes(), &[7; 1000]);
            }
            drop(active.cut());
        };
        retire();
        let retired = shared.recycler.retired() as u64;
        assert!((MIB..2 * MIB).contains(&retired), "{retired} bytes");
        assert!(shared.has_room());
        assert_eq!(
            shared.recycler.retired() as u64,
            retired,
            "there is room beside it: cleaning is for the background"
        );
        // Now there is not.
        let held = shared.budget.take(3 * MIB);
        assert!(shared.has_room(), "nobody waits for what can be freed");
        assert_eq!(shared.recycler.retired(), 0);
        // What lies ready to be used again is the next delta's.
        let ready = shared.recycler.bytes() as u64;
        assert!((MIB..2 * MIB).contains(&ready), "{ready} bytes");
        retire();
        let more = shared.budget.take(MIB);
        assert!(!shared.has_room());
        drop((held, more));
        assert!(shared.has_room());
    }
}
