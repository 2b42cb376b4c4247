//! The bound on memory that deltas hold until they are both applied and durable (I6).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One store's share of the job's memory for deltas.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    held: AtomicU64,
    blocked: AtomicU64,
    blocked_nanos: AtomicU64,
    changed: Mutex<()>,
    freed: Condvar,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            blocked_nanos: AtomicU64::new(0),
            changed: Mutex::new(()),
            freed: Condvar::new(),
        })
    }

    /// Counts `bytes` until the share is dropped. Taking never waits, because the bytes exist
    /// already. Code that is about to create bytes asks [`Budget::is_full`] first.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> BudgetShare {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        BudgetShare { budget: Arc::clone(self), bytes }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.held() >= self.limit
    }

    /// Bytes at which it is full.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Sleeps until something was freed, or a moment has passed.
    pub(crate) fn wait(&self, at_most: Duration) {
        let guard = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_full() {
            // A wake-up too many or too few is harmless: the caller looks again in a loop.
            drop(self.freed.wait_timeout(guard, at_most));
        }
    }

    /// Wakes waiting writers, because memory was freed or there is nothing left to wait for.
    pub(crate) fn notify(&self) {
        let _guard = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        self.freed.notify_all();
    }

    pub(crate) fn count_blocked(&self, time: Duration) {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.blocked_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How often writes waited, and how long altogether.
    pub(crate) fn blocked(&self) -> (u64, Duration) {
        (
            self.blocked.load(Ordering::Relaxed),
            Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed)),
        )
    }
}

/// Bytes of a [`Budget`] in use; given back at drop.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        assert!(!budget.is_full());
        let second = budget.take(6);
        assert!(budget.is_full());
        assert_eq!(budget.held(), 12);
        drop(first);
        assert!(!budget.is_full());
        drop(second);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_waiter_wakes_when_memory_is_freed() {
        let budget = Budget::new(1);
        let share = budget.take(1);
        let waiter = std::thread::spawn({
            let budget = Arc::clone(&budget);
            move || {
                while budget.is_full() {
                    budget.wait(Duration::from_secs(60));
                }
            }
        });
        drop(share);
        waiter.join().unwrap();
    }
}
