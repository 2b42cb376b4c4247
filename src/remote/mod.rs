//! The object store: names, conditional creates, retries, timeouts, rate limits and counters. Every
//! request of this crate to a store goes through [`Remote`].
//!
//! The only condition used is "create if absent", because every backend has it. A create ends as
//! [`Created`], [`Exists`](Created::Exists) or [`Doubt`](Created::Doubt). A timeout or a broken
//! connection leaves a doubt: the store may have applied the request, or may apply it much later.
//! Data objects are retried blindly here, because their names are never used twice. The manifest
//! chain must not do that; it receives the doubt and resolves it by its own rules.

mod answer;
#[cfg(test)]
mod answer_tests;
mod contact;
mod counters;
mod download;
mod error;
mod limit;
mod location;
mod names;
mod pace;
mod probe;
mod read;
mod retry;
mod staging;
#[cfg(test)]
mod tests;
mod traffic;
mod upload;
mod url;
mod write;

use std::fmt::Display;
use std::future::Future;
#[cfg(test)]
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use object_store::ObjectStore;
use object_store::path::{Path, PathPart};
use tokio::sync::Semaphore;

use crate::env::Env;
use contact::Contact;
use counters::Counters;
pub use counters::RemoteCounters;
use error::{Failure, Verdict};
use limit::RateLimiter;
pub(crate) use location::Connected;
pub use location::JobLocation;
pub(crate) use names::{DataKind, Generation, ObjectName, SavepointName};
use pace::{Begun, Pace};
pub(crate) use read::Listed;
pub(crate) use retry::{Notice, Patience, RetryPolicy};
pub(crate) use staging::{Staged, count_staged, remove_staged};
pub(crate) use traffic::{BaseTraffic, NextCheckpoint};
#[cfg(any(test, feature = "test-util"))]
pub(crate) use url::open_url;
pub(crate) use write::{Created, NeededByNothing, Refused};

/// How long a store may take to answer, unless the caller says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A body that moves no byte for this long has stopped for good, however long the store may take
/// for its first byte.
const STALL: Duration = Duration::from_secs(10);

/// Requests that may be sent a second time at a time. That helps against one connection that hangs.
/// If all requests are slow, the link is the cause, and more requests would make it slower.
const MOST_HEDGES: usize = 2;
/// Bytes of files on their way at a time, unless the caller says otherwise: eight parts.
const DEFAULT_UPLOAD_ROOM: u64 = 64 << 20;

/// The rate below which a store counts as dead, in bytes per second.
const DEFAULT_SLOWEST: u64 = 256 * 1024;

/// One job's prefix in an object store.
#[derive(Debug)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    root: Path,
    env: Env,
    timeout: Duration,
    slowest: u64,
    retry: RetryPolicy,
    patience: Option<Arc<Patience>>,
    contact: Arc<Contact>,
    pace: Arc<Pace>,
    /// Room for requests that are on their way a second time.
    hedges: Arc<Semaphore>,
    #[cfg(test)]
    hedge_after: Option<Duration>,
    counters: Arc<Counters>,
    /// Room for parts of files that are in memory on their way to the store, for all uploads
    /// together.
    upload_room: Arc<Semaphore>,
}

impl Remote {
    /// The objects of `store` whose names begin with `root`. Touches nothing yet.
    ///
    /// `store` should not retry by itself, because a create that it repeats hides a doubt.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, root: Path, env: Env) -> Self {
        Self {
            store,
            root,
            env,
            timeout: DEFAULT_TIMEOUT,
            slowest: DEFAULT_SLOWEST,
            retry: RetryPolicy::default(),
            patience: None,
            contact: Arc::default(),
            pace: Arc::default(),
            hedges: Arc::new(Semaphore::new(MOST_HEDGES)),
            #[cfg(test)]
            hedge_after: None,
            counters: Arc::default(),
            upload_room: upload::room(DEFAULT_UPLOAD_ROOM),
        }
    }

    /// The same place by the same handle, counted together, for work that has this patience.
    pub(crate) fn patient(&self, patience: Arc<Patience>) -> Self {
        Self {
            store: Arc::clone(&self.store),
            root: self.root.clone(),
            env: self.env.clone(),
            timeout: self.timeout,
            slowest: self.slowest,
            retry: self.retry,
            patience: Some(patience),
            contact: Arc::clone(&self.contact),
            pace: Arc::clone(&self.pace),
            hedges: Arc::clone(&self.hedges),
            #[cfg(test)]
            hedge_after: self.hedge_after,
            counters: Arc::clone(&self.counters),
            upload_room: Arc::clone(&self.upload_room),
        }
    }

    /// Bytes of files that may be in memory on their way to the store, of all uploads together: at
    /// least a part. Default 64 MiB.
    #[must_use]
    pub(crate) fn with_upload_room(mut self, bytes: u64) -> Self {
        self.upload_room = upload::room(bytes);
        self
    }

    /// How long the store may take until it answers for the first time, all tries together.
    /// Default: no limit of its own.
    #[must_use]
    pub(crate) fn with_contact_timeout(mut self, limit: Option<Duration>) -> Self {
        self.contact = Arc::new(Contact::within(limit));
        self
    }

    /// How long the store may take to answer one request, before its bytes are counted. Default 30
    /// s.
    #[must_use]
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A transfer may take longer than the timeout by what its bytes need at this rate: a slow
    /// store is not a dead one, and giving up on a large object half-way would never end. Default
    /// 256 KiB/s.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_slowest(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.slowest = bytes_per_second.get();
        self
    }

    /// When a request is sent a second time, whatever time other requests take.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_hedge_after(mut self, after: Duration) -> Self {
        self.hedge_after = Some(after);
        self
    }

    /// How often a failed request is repeated.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        self.retry
    }

    /// What was asked of the store so far.
    pub(crate) fn counters(&self) -> RemoteCounters {
        self.counters.read()
    }

    fn path(&self, name: &ObjectName) -> Path {
        let text = name.to_string();
        // An object whose name is not read again would never be collected, and one in an unknown
        // folder would be taken for another program's.
        debug_assert_eq!(
            ObjectName::parse(&text).as_ref(),
            Some(name),
            "remote/names writes a name that it does not read"
        );
        debug_assert!(
            ObjectName::FOLDERS.iter().any(|folder| text.starts_with(folder)),
            "{text} is in no known folder"
        );
        self.below(&text)
    }

    /// The root followed by a relative path.
    fn below(&self, relative: &str) -> Path {
        self.root.parts().chain(relative.split('/').map(PathPart::from)).collect()
    }

    /// Whether both go to the store by the same handle.
    pub(crate) fn shares_store_with(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.store), Arc::as_ptr(&other.store))
    }

    /// Longest time for a request that moves `bytes`.
    fn limit(&self, bytes: u64) -> Duration {
        let transfer = bytes.saturating_mul(1000).checked_div(self.slowest).unwrap_or(0);
        self.timeout.saturating_add(Duration::from_millis(transfer))
    }

    /// Longest time for a request that moves `bytes` and begins again if it is given up: `limit` at
    /// most, less where other requests show that it hangs.
    fn limit_by_pace(&self, bytes: u64, limit: Duration) -> Duration {
        self.pace.give_up_after(bytes).min(limit)
    }

    /// When a request that moves `bytes` is sent a second time.
    fn hedge_after(&self, bytes: u64) -> Duration {
        #[cfg(test)]
        if let Some(after) = self.hedge_after {
            return after;
        }
        self.pace.hedge_after(bytes)
    }

    /// Returns when a transfer that has `begun` at `start` is overdue, by what `after` says at each
    /// moment.
    async fn overdue(&self, begun: &Begun, start: Duration, after: impl Fn() -> Duration, limit: Duration) {
        loop {
            let due = begun.overdue_after(after(), limit);
            let elapsed = self.env.clock.monotonic().saturating_sub(start);
            match due.checked_sub(elapsed) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    /// As [`Remote::request`] for one that moves `bytes`. Its time says how long later requests may take.
    async fn timed<T>(
        &self,
        what: &'static str,
        object: impl Display,
        bytes: u64,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let start = self.env.clock.monotonic();
        let result = self.request(what, object, limit, request).await;
        let took = self.env.clock.monotonic().saturating_sub(start);
        // An answer that came fast because it is "no" says nothing about how long other requests take.
        match &result {
            Ok(_) => self.pace.came_through(bytes, took),
            Err(_) if took >= limit => self.pace.gave_up(bytes, took),
            Err(_) => {}
        }
        result
    }

    /// As [`Remote::timed`] for a transfer of `bytes` that cannot be sent a second time from here:
    /// it is given up where other requests show that it hangs, and its caller begins again.
    async fn unless_it_hangs<T>(
        &self,
        what: &'static str,
        object: impl Display,
        bytes: u64,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let (begun, start) = (self.pace.begin(bytes), self.env.clock.monotonic());
        let request = pin!(self.timed(what, &object, bytes, limit, request));
        let overdue = pin!(self.overdue(&begun, start, || self.pace.give_up_after(bytes), limit));
        match select(request, overdue).await {
            Either::Left((done, _)) => done,
            Either::Right(((), _)) => {
                let took = self.env.clock.monotonic().saturating_sub(start);
                self.pace.gave_up(bytes, took);
                self.counters.failure();
                Err(Failure::no_answer(what, &object, took))
            }
        }
    }

    /// Longest time in which a body may move nothing.
    fn stall(&self) -> Duration {
        self.timeout.min(STALL)
    }

    /// One request: bounded in time, its failure sorted and counted.
    async fn request<T>(
        &self,
        what: &'static str,
        object: impl Display,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let limit = self.contact.limit(self.env.clock.monotonic(), limit);
        let failure = match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => {
                self.contact.made();
                return Ok(answer);
            }
            Ok(Err(error)) => {
                if error::is_an_answer(&error) {
                    self.contact.made();
                }
                Failure::from_store(what, object, error)
            }
            Err(_elapsed) => Failure::no_answer(what, object, limit),
        };
        if failure.verdict != Verdict::Passing {
            self.contact.made();
        }
        if failure.is_failure() {
            self.counters.failure();
        }
        Err(failure)
    }
}
