//! A runtime for background work, and how it ends without holding up the thread that drops it.

use std::io;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

/// The threads that were started by [`aside`] and not joined yet.
///
/// They are joined, never detached. glibc's `pthread_detach` (seen in 2.36) reads the thread's
/// descriptor once more after it has let the thread go, and a thread that ends at that moment has
/// freed it. For the same reason a [`BackgroundRuntime`] joins its threads: tokio's
/// `shutdown_background` tells them to end and detaches them in one breath.
static ASIDE: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// A multi-threaded runtime that may be dropped anywhere. Dropping does not block; a thread of its
/// own waits until the runtime's threads have ended.
#[derive(Debug)]
pub(crate) struct BackgroundRuntime {
    /// None only while dropping.
    runtime: Option<Runtime>,
}

impl BackgroundRuntime {
    /// Starts a runtime whose threads carry `name`. `blocking_threads` None is tokio's own limit.
    pub(crate) fn start(name: &str, workers: usize, blocking_threads: Option<usize>) -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(workers).thread_name(name).enable_all();
        if let Some(limit) = blocking_threads {
            builder.max_blocking_threads(limit);
        }
        let runtime =
            builder.build().map_err(|error| Error::internal("cannot start a runtime").source(error))?;
        Ok(Self { runtime: Some(runtime) })
    }
}

impl Deref for BackgroundRuntime {
    type Target = Runtime;

    #[expect(clippy::expect_used, reason = "it is taken out by the drop alone")]
    fn deref(&self) -> &Runtime {
        self.runtime.as_ref().expect("not dropped yet")
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // A runtime's own drop blocks, and panics inside a caller's runtime.
        if let Err((runtime, error)) = aside("alluvium-end", runtime, drop) {
            tracing::warn!(%error, "no thread to wait for a runtime's end; its threads end by themselves");
            runtime.shutdown_background();
        }
    }
}

/// Runs `work` on a thread of its own, without waiting for it. Gives `input` back if no thread can
/// be started.
pub(crate) fn aside<T: Send + 'static>(
    name: &str,
    input: T,
    work: impl FnOnce(T) + Send + 'static,
) -> Result<(), (T, io::Error)> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Ok(input) = receiver.recv() {
            work(input);
        }
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => return Err((input, error)),
    };
    remember(thread);
    sender.send(input).map_err(|mpsc::SendError(input)| (input, io::ErrorKind::BrokenPipe.into()))
}

/// Joins what has ended meanwhile, so that no more threads are kept than are at work.
fn remember(thread: JoinHandle<()>) {
    let mut threads = ASIDE.lock().unwrap_or_else(PoisonError::into_inner);
    for ended in threads.extract_if(.., |thread| thread.is_finished()) {
        // A panic was reported where it happened.
        let _ = ended.join();
    }
    threads.push(thread);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_background_runtime_may_be_dropped_inside_a_runtime() {
        drop(BackgroundRuntime::start("test", 1, None).unwrap());
    }

    #[test]
    fn dropping_does_not_wait_for_what_the_runtime_is_doing() {
        let runtime = BackgroundRuntime::start("test", 1, Some(1)).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (go, wait) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let task = Arc::clone(&ended);
        runtime.spawn_blocking(move || {
            began.send(()).unwrap();
            let _ = wait.recv();
            task.store(true, Ordering::Release);
        });
        begun.recv().unwrap();
        drop(runtime);
        assert!(!ended.load(Ordering::Acquire), "the drop waited");
        drop(go);
    }

    /// One thread for each runtime that is ending, and none that is let go.
    #[test]
    fn thousands_of_runtimes_come_and_go() {
        for _ in 0..2_000 {
            let runtime = BackgroundRuntime::start("test", 2, None).unwrap();
            runtime.spawn_blocking(|| ());
        }
        let (done, wait) = mpsc::channel::<()>();
        aside("test", done, drop).unwrap();
        assert!(wait.recv().is_err(), "the input was dropped by the thread");
    }
}
