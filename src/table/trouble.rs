//! Work that RocksDB's background cannot do at the moment, though writes still go through.
//!
//! A compaction that finds the disk full is no final error to RocksDB: it tries again when there is
//! space. Meanwhile level 0 fills up, until a flush or a write would wait for a compaction that
//! never comes. Code that is about to wait therefore checks here first, and so does the job's
//! health.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::status::Status;
use crate::env::Clock;

/// The last error of the background, until a compaction goes well.
pub(super) struct Trouble {
    clock: Arc<dyn Clock>,
    any: AtomicBool,
    first: Mutex<Option<(Status, Duration)>>,
}

impl Trouble {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, any: AtomicBool::new(false), first: Mutex::new(None) })
    }

    /// The first error is the cause of those that follow.
    pub(super) fn begin(&self, status: Status) {
        let now = self.clock.monotonic();
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((status, now));
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn end(&self) {
        if self.any.swap(false, Ordering::AcqRel) {
            *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The error, and for how long it has stood.
    pub(super) fn now(&self) -> Option<(Status, Duration)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let (status, since) = self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some((status, self.clock.monotonic().saturating_sub(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;

    #[test]
    fn the_first_error_counts_until_a_compaction_goes_well() {
        let trouble = Trouble::new(Env::default().clock);
        assert!(trouble.now().is_none());
        trouble.begin(Status::of("IO error: No space left on device"));
        trouble.begin(Status::of("IO error: later"));
        let (status, _) = trouble.now().unwrap();
        assert_eq!(status.as_ref(), "IO error: No space left on device");
        trouble.end();
        assert!(trouble.now().is_none());
        trouble.begin(Status::of("IO error: again"));
        assert_eq!(trouble.now().unwrap().0.as_ref(), "IO error: again");
    }
}
