//! A mark for background work under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a run is under way, of a kind of which there is one at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

impl Busy {
    /// None while another run is under way.
    pub(super) fn begin(&self) -> Option<BusyGuard> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| BusyGuard(self.clone()))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A run; it ends when this is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct BusyGuard(Busy);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time() {
        let busy = Busy::default();
        let run = busy.begin().unwrap();
        assert!(busy.is_busy() && busy.begin().is_none());
        drop(run);
        assert!(!busy.is_busy() && busy.begin().is_some());
    }
}
