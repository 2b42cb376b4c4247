//! The memory that the caches of all stores may take together.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::worth::WINDOW;

/// Changes of less than this are not reported.
const STEP: u64 = 1 << 20;

/// What each cache of records may take, and how often it looks at what is worth that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLimits {
    /// Bytes, with the index.
    pub(crate) bytes: u64,
    /// Operations on a state after which its share of reads is looked at. At least 1.
    pub(crate) window: u32,
    /// Whether more may be lent to it.
    pub(crate) lent: bool,
    /// Whether it has its share before it needs it.
    pub(crate) reserved: bool,
}

impl CacheLimits {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, window: WINDOW, lent: true, reserved: false }
    }
}

/// Memory that caches of records share with RocksDB's block cache, which has it as long as they do
/// not take it.
pub(crate) struct CacheMemory {
    /// For each cache.
    limits: CacheLimits,
    taken: AtomicU64,
    /// What was reported last, for a quick look.
    reported: AtomicU64,
    /// Held while a report is made, so that the last report is the newest.
    reporting: Mutex<()>,
    /// Takes the bytes that the caches hold now.
    report: Box<dyn Fn(u64) + Send + Sync>,
}

impl CacheMemory {
    /// `limits` are those of each cache. `report` is called, on any thread, when what they hold
    /// together has changed by a MiB or more.
    pub(crate) fn new(limits: CacheLimits, report: impl Fn(u64) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            limits,
            taken: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            reporting: Mutex::default(),
            report: Box::new(report),
        })
    }

    pub(crate) fn limits(&self) -> CacheLimits {
        self.limits
    }

    /// Bytes that all caches hold or have reserved.
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
            .field("limits", &self.limits)
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
        let memory =
            CacheMemory::new(CacheLimits::new(7 * STEP), move |taken| seen.store(taken, Ordering::Relaxed));
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
