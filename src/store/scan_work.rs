//! What scans have cost on this thread, for tests that count work rather than time.

use std::cell::Cell;

thread_local! {
    static WORK: Cell<usize> = const { Cell::new(0) };
}

/// Counts steps, searches and copied entries.
pub(super) fn count(work: usize) {
    WORK.set(WORK.get() + work);
}

/// The work of `f`.
pub(crate) fn of<R>(f: impl FnOnce() -> R) -> (usize, R) {
    let before = WORK.get();
    let result = f();
    (WORK.get() - before, result)
}
