//! Access to a job's objects from outside, with a runtime for the requests. No attempt begins, so a running
//! job is not fenced.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::remote::{Connected, JobLocation, Remote};
use crate::runtime::{BackgroundRuntime, aside};
use crate::wait::wait;

/// Threads of the runtime: hashing and decompression go to its blocking pool.
const WORKERS: usize = 2;

#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) remote: Arc<Remote>,
    runtime: BackgroundRuntime,
}

impl Outside {
    pub(crate) fn new(location: &JobLocation, env: Env) -> Result<Self> {
        Self::at(location, env).map(|(outside, _)| outside)
    }

    /// As [`Outside::new`], with the directory that the location is, if it is one.
    pub(crate) fn at(location: &JobLocation, env: Env) -> Result<(Self, Option<PathBuf>)> {
        let Connected { remote, dir, .. } = location.connect(env, false)?;
        let remote = Arc::new(remote);
        let runtime = BackgroundRuntime::start("alluvium-outside", WORKERS, None)?;
        Ok((Self { remote, runtime }, dir))
    }

    /// Runs `task` to its end; blocks. May be called inside a caller's own runtime.
    pub(crate) fn run<T, F>(&self, task: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        wait(self.runtime.spawn(task))
            .unwrap_or_else(|error| Err(Error::internal("a task came to a bad end").source(error)))
    }

    /// Runs `task` to its end on a thread of its own, for at most `limit`. Does not block the caller.
    pub(crate) fn run_behind(self, limit: Duration, task: impl Future<Output = Result<()>> + Send + 'static) {
        let release = move |outside: Self| match outside
            .runtime
            .block_on(async { tokio::time::timeout(limit, task).await })
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a pin stays behind"),
            Err(_) => tracing::warn!(?limit, "a pin stays behind: the store does not answer"),
        };
        if let Err((_, error)) = aside("alluvium-release", self, release) {
            tracing::warn!(%error, "a pin stays behind");
        }
    }
}
