//! What the tests share: an object store that misbehaves on request, and short ways to open a job,
//! drive a checkpoint, and look at what is stored.
//!
//! Not published. A failure in here is a failed test, so that nothing returns errors: it panics.
#![allow(missing_docs, clippy::unwrap_used)]

pub mod clock;
pub mod drive;
pub mod faults;
pub mod numbers;
pub mod objects;
pub mod stored;
pub mod typed;

use std::time::{Duration, Instant};

/// The machine's clock: what these tests measure is real time.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// After this a test takes what it waits for to hang. Long, because a machine may be busy with
/// other things, and how much happens in what time says nothing about a program.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks again and again until `done`, and panics with `what` after `limit` or [`PATIENCE`],
/// whichever is longer.
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let (start, limit) = (now(), limit.max(PATIENCE));
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does `work` while something is held that only `rescue` lets go. Work that waits for it never
/// ends by itself: then it is rescued, and the test fails.
#[track_caller]
pub fn unheld<T: Send>(what: &str, rescue: impl FnOnce(), work: impl FnOnce() -> T + Send) -> T {
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
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
