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

/// After this a test takes what it waits for to hang. Long, because a machine may be busy with other things, and
/// how much happens in what time says nothing about a program.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Looks again and again until `done`, and panics with `what` after `limit` or [`PATIENCE`], whichever is longer.
pub(crate) fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let (start, limit) = (now(), limit.max(PATIENCE));
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does `work` while something is held that only `rescue` lets go. Work that waits for it never ends by itself: then
/// it is rescued, and the test fails.
#[track_caller]
pub(crate) fn unheld<T: Send>(what: &str, rescue: impl FnOnce(), work: impl FnOnce() -> T + Send) -> T {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Nobody listens once it was rescued.
        scope.spawn(move || drop(done.send(work())));
        match ended.recv_timeout(PATIENCE) {
            Ok(value) => value,
            Err(error) => {
                rescue();
                panic!("{what}: {error}");
            }
        }
    })
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
