//! How a frozen delta leaves the operator's thread.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::delta::FrozenDelta;
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::messages::ToStore;
use crate::store::applier::Work;
use crate::store::appliers::Applier;
use crate::store::event::{Event, EventSender};
use crate::store::layer::{ChargedLayer, Layer};
use crate::store::shared::StoreShared;

use super::EngineParts;

/// How long a blocked write sleeps at most before it looks again. A failure of the attempt wakes no writer.
const BLOCK_STEP: Duration = Duration::from_millis(20);

/// The store's task and its applier, as the operator's thread sees them.
pub(super) struct Background {
    pub(super) shared: Arc<StoreShared>,
    pub(super) events: EventSender,
    applier: Applier,
    clock: Arc<dyn Clock>,
    /// The newest delta that was frozen.
    seq: Cell<DeltaSeq>,
}

impl Background {
    pub(super) fn new(applier: Applier, parts: EngineParts) -> Self {
        let EngineParts { shared, events, clock, seq, .. } = parts;
        Self { shared, events, applier, clock, seq: Cell::new(seq) }
    }

    pub(super) fn seq(&self) -> DeltaSeq {
        self.seq.get()
    }

    /// Whether there is room left after [`Background::hand_over`] of a delta of so many bytes.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        let budget = &self.shared.budget;
        budget.held().saturating_add(2 * bytes as u64) < budget.limit()
    }

    /// Gives a delta its number, and hands it to the task and to the applier.
    pub(super) fn hand_over(&self, delta: FrozenDelta) -> Arc<Layer> {
        let bytes = delta.bytes() as u64;
        let share = Arc::new(self.shared.budget.take(bytes));
        // For the sealed bytes to come, which are there before the layer is gone.
        let sealed_share = self.shared.budget.take(bytes);
        let seq = self.seq.get().next();
        self.seq.set(seq);
        let layer = Layer::new(seq, delta);
        // Before it can be applied: a caller that waits until all is applied must not miss it.
        self.shared.set_frozen(seq);
        let held = ChargedLayer { layer: Arc::clone(&layer), _share: share };
        // The task first, so that it knows of the delta before a snapshot can contain it.
        self.events.send(Event::Frozen { held: held.clone(), sealed_share });
        if self.applier.send(Work::Apply(held)).is_err() {
            self.shared.fail(Error::internal("the appliers' threads are gone"));
        }
        layer
    }

    #[cfg(test)]
    pub(super) fn hold_applies(&self, held: bool) {
        self.applier.hold(held);
    }

    /// Waits until deltas that are held have become durable and applied, and counts the time.
    /// `purge` lets go of the layers that the table holds.
    pub(super) fn wait_for_room(&self, mut purge: impl FnMut()) -> Result<()> {
        let start = self.clock.monotonic();
        // Small sealed deltas may be waiting for a checkpoint that comes only after this write.
        self.events.tell(ToStore::Flush);
        let mut wait = || {
            while !self.shared.has_room() {
                self.shared.attempt.health()?;
                self.shared.budget.wait(BLOCK_STEP);
                purge();
            }
            Ok(())
        };
        let outcome = wait();
        self.shared.budget.count_blocked(self.clock.monotonic().saturating_sub(start));
        outcome
    }
}
