//! A frozen delta on its way into the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::budget::BudgetShare;
use crate::delta::FrozenDelta;
use crate::ids::DeltaSeq;

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
pub(crate) struct ChargedLayer {
    pub(crate) layer: Arc<Layer>,
    pub(crate) _share: Arc<BudgetShare>,
}
