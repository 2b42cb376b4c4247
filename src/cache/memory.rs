//! The memory that the caches of all stores may take together.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Changes of less than this are not reported.
const STEP: u64 = 1 << 20;

/// Memory that caches of records share with somebody else, who has it as long as they do not take
/// it: RocksDB's block cache.
pub(crate) struct CacheMemory {
    /// Bytes for each cache.
    share: u64,
    taken: AtomicU64,
    /// What was reported last, for a quick look.
    reported: AtomicU64,
    /// Held while a report is made, so that the last report is the newest.
    reporting: Mutex<()>,
    /// Takes the bytes that the caches hold now.
    report: Box<dyn Fn(u64) + Send + Sync>,
}

impl CacheMemory {
    /// `share` bytes for each cache. `report` is called, on any thread, when what they hold
    /// together has changed by a MiB or more.
    pub(crate) fn new(share: u64, report: impl Fn(u64) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            share,
            taken: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            reporting: Mutex::default(),
            report: Box::new(report),
        })
    }

    /// Bytes that each cache may take.
    pub(crate) fn share(&self) -> u64 {
        self.share
    }

    /// Bytes that all caches hold.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.report_if_due();
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        self.report_if_due();
    }

    fn report_if_due(&self) {
        let due = || self.taken().abs_diff(self.reported.load(Ordering::Relaxed)) >= STEP;
        if !due() {
            return;
        }
        let _guard = self.reporting.lock().unwrap_or_else(PoisonError::into_inner);
        if due() {
            let taken = self.taken();
            self.reported.store(taken, Ordering::Relaxed);
            (self.report)(taken);
        }
    }
}

impl fmt::Debug for CacheMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMemory")
            .field("share", &self.share)
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_reported_in_steps() {
        let reports = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&reports);
        let memory = CacheMemory::new(7 * STEP, move |taken| seen.store(taken, Ordering::Relaxed));
        memory.take(STEP - 1);
        assert_eq!((memory.taken(), reports.load(Ordering::Relaxed)), (STEP - 1, 0));
        memory.take(1);
        assert_eq!(reports.load(Ordering::Relaxed), STEP);
        memory.give_back(1);
        assert_eq!(reports.load(Ordering::Relaxed), STEP);
        memory.give_back(STEP - 1);
        assert_eq!((memory.taken(), reports.load(Ordering::Relaxed)), (0, 0));
    }
}
