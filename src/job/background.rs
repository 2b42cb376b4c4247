//! The job's runtime, and a mark for background work under way.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;

/// A runtime that may be dropped anywhere: a plain one blocks, and panics inside a caller's runtime.
#[derive(Debug)]
pub(super) struct Background(Option<Runtime>);

impl Background {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self(Some(runtime))
    }
}

impl Deref for Background {
    type Target = Runtime;

    #[expect(clippy::expect_used, reason = "it is taken out by the drop alone")]
    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("not dropped yet")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

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

    #[tokio::test]
    async fn a_background_may_be_dropped_inside_a_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        drop(Background::new(runtime));
    }

    #[test]
    fn one_run_at_a_time() {
        let busy = Busy::default();
        let run = busy.begin().unwrap();
        assert!(busy.is_busy() && busy.begin().is_none());
        drop(run);
        assert!(!busy.is_busy() && busy.begin().is_some());
    }
}
