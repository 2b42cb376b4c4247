//! What the integration tests share: an object store that misbehaves on request, and short ways to
//! open a job, drive a checkpoint, and look at what is stored.
//!
//! Every test binary compiles this module for itself and uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod clock;
pub(crate) mod drive;
pub(crate) mod objects;
pub(crate) mod staged;
pub(crate) mod typed;

use std::time::{Duration, Instant};

/// The machine's clock: what these tests measure is real time.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Looks again and again until `done`, and panics with `what` after `limit`.
pub(crate) fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
