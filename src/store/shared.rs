//! State shared by the operator's thread and the store's background: how far deltas have come, the
//! memory bound, and a few counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::budget::Budget;
use crate::cache::CacheStats;
use crate::delta::Recycler;
use crate::error::Error;
use crate::ids::DeltaSeq;
use crate::messages::Standing;

use super::attempt::Attempt;
use super::base_trouble::BaseTrouble;
use super::presence::Presence;

/// [`CacheStats`] for other threads than the operator's.
#[derive(Debug, Default)]
pub(crate) struct CacheNumbers {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl CacheNumbers {
    pub(crate) fn set(&self, stats: CacheStats) {
        let CacheStats { hits, misses, evictions, entries, bytes } = stats;
        let values = [hits, misses, evictions, entries, bytes];
        let all = self.all().into_iter().zip(values);
        all.for_each(|(number, value)| number.store(value, Ordering::Relaxed));
    }

    pub(crate) fn get(&self) -> CacheStats {
        let [hits, misses, evictions, entries, bytes] =
            self.all().map(|number| number.load(Ordering::Relaxed));
        CacheStats { hits, misses, evictions, entries, bytes }
    }

    fn all(&self) -> [&AtomicU64; 5] {
        [&self.hits, &self.misses, &self.evictions, &self.entries, &self.bytes]
    }
}

/// Shared by all threads that work for one store.
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
    /// Numbers of the cache of records, as of the last cut.
    pub(crate) cache: CacheNumbers,
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
            cache: CacheNumbers::default(),
            inbox: AtomicU64::new(0),
            idle: AtomicBool::new(true),
        })
    }

    /// Records a background failure and wakes a writer that waits for memory.
    pub(crate) fn fail(&self, error: Error) {
        self.attempt.fail(error);
        self.budget.notify();
    }

    /// How the store stands `now`.
    pub(crate) fn standing(&self, now: Duration) -> Standing {
        let last_cut = self.presence.last_cut();
        Standing {
            operator: self.presence.operator(),
            last_cut: last_cut.map(|(number, at)| (number, now.saturating_sub(at))),
            held: self.budget.held(),
        }
    }

    /// Whether more may be written. Retired tables that were not cleaned yet count beside the
    /// budget. If they alone would make a writer wait, they are freed here.
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
        let before = self.inbox.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a message is counted before it is sent");
    }

    /// Whether all frozen deltas are applied, and none is being sealed or uploaded.
    pub(crate) fn is_settled(&self) -> bool {
        self.unapplied() == 0 && self.inbox.load(Ordering::Acquire) == 0 && self.idle.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{ActiveDelta, TableKind};
    use crate::ids::Epoch;

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
