//! A clock for TTL and processing time that stands still until it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluvium::{Clock, Env};

/// Its date is set by hand; what waits and measures (timeouts, intervals) goes by real time.
#[derive(Debug)]
pub(crate) struct ManualClock {
    millis: AtomicU64,
    start: Instant,
}

impl ManualClock {
    pub(crate) fn at(millis: u64) -> Arc<Self> {
        Arc::new(Self { millis: AtomicU64::new(millis), start: super::now() })
    }

    pub(crate) fn set(&self, millis: u64) {
        self.millis.store(millis, Ordering::Release);
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::AcqRel);
    }

    /// The machine's environment with this clock.
    pub(crate) fn env(self: &Arc<Self>) -> Env {
        Env { clock: Arc::clone(self) as Arc<dyn Clock>, ..Env::default() }
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        self.millis.load(Ordering::Acquire)
    }
}
