//! A model of a remote object store around any other: latency, bandwidth, outages, failures.
//!
//! The rules, so that other systems can be measured on the very same store:
//! - A pacer lets `n` bytes through at `next = max(next, now − 5 ms) + n / rate`.
//! - The bytes of a PUT are charged in chunks of 64 KiB, on a pacer of its own and on one that all
//!   uploads share; it waits for the later of both, chunk by chunk, then for one latency, and is
//!   then applied.
//! - A GET waits for one latency before its first byte; then its bytes are paced likewise, with a
//!   shared pacer of the downloads' own.
//! - A part of an upload in parts is a PUT of its own. To begin such an upload costs nothing, to
//!   complete or abort it one latency.
//! - A listing, a look at an object's head, a copy and a deletion (of any number of objects) cost
//!   one latency.
//!
//! What the store underneath takes by itself comes on top. There is no TLS, HTTP or signing in it:
//! CPU figures lack what these cost.

mod body;
mod options;
mod pacer;
mod stock;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{Error, GetResult, ObjectStore, Result};

use crate::env::{Env, splitmix64};
use crate::intercept::{Intercept, Op, Request, intercepted};
use crate::remote::{Remote, open_url};

pub use options::{Latency, StoreModelOptions};
use pacer::Pacer;
use stock::Stock;
#[cfg(test)]
pub(crate) use time::stepped::SteppedTime;
use time::{RuntimeTime, Time};

/// Bytes are charged in pieces of this size.
const CHUNK: usize = 64 * 1024;

/// The store and the place in it that `url` names, as [`Job::open`](crate::Job::open) takes it: for
/// [`Job::open`](crate::Job::open) with a decorator between. A directory that does not exist is
/// created if `create` says so.
///
/// # Errors
/// As [`Job::open`](crate::Job::open) for a wrong URL or option;
/// [`NotFound`](crate::ErrorKind::NotFound) for a directory that does not exist.
pub fn open_store(
    url: &str,
    options: &[(String, String)],
    create: bool,
) -> crate::Result<(Arc<dyn ObjectStore>, String)> {
    let (store, prefix) = open_url(url, options.iter().cloned(), create)?;
    Ok((store, prefix.to_string()))
}

/// An object store with the latency, bandwidth and failures of a model around another one. Must be
/// used within a tokio runtime with time enabled, as a job does. Clones are the same store.
///
/// ```
/// use std::sync::Arc;
///
/// use alluvium::test_util::StoreModel;
/// use alluvium::{Job, JobOptions, OpenMode};
/// use object_store::memory::InMemory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let model = StoreModel::new(Arc::new(InMemory::new()), "2ms,50MB/s,100MB/s".parse()?);
/// let options = JobOptions::new(dir.path().join("local"), OpenMode::Create);
/// let opened = Job::open((Arc::new(model.clone()), "job"), options)?;
/// assert!(model.stored_bytes() > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StoreModel {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: StoreModelOptions,
    time: Box<dyn Time>,
    uploads: Pacer,
    downloads: Pacer,
    outages: Mutex<Vec<Range<Duration>>>,
    draws: AtomicU64,
    stock: Stock,
}

/// What is to become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Succeeds,
    /// An error, and nothing is applied.
    Fails,
    /// It is applied, but the answer is an error.
    LosesAnswer,
}

impl StoreModel {
    /// The model around `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, options: StoreModelOptions) -> Self {
        Self::with_time(inner, options, Box::new(RuntimeTime::new()))
    }

    fn with_time(inner: Arc<dyn ObjectStore>, options: StoreModelOptions, time: Box<dyn Time>) -> Self {
        let shared = Shared {
            uploads: Pacer::new(options.shared_bytes_per_second),
            downloads: Pacer::new(options.shared_bytes_per_second),
            outages: Mutex::default(),
            draws: AtomicU64::new(splitmix64(options.seed)),
            stock: Stock::default(),
            options,
            time,
        };
        Self { inner, shared: Arc::new(shared) }
    }

    /// The model around `inner`, on a clock that the test moves.
    #[cfg(test)]
    pub(crate) fn stepped(
        inner: Arc<dyn ObjectStore>,
        options: StoreModelOptions,
        time: &SteppedTime,
    ) -> Self {
        Self::with_time(inner, options, Box::new(time.clone()))
    }

    /// What it models.
    pub fn options(&self) -> StoreModelOptions {
        self.shared.options
    }

    /// From `after` from now, every request fails for `length`; what is under way then fails as
    /// well.
    pub fn plan_outage(&self, after: Duration, length: Duration) {
        let start = self.shared.time.now().saturating_add(after);
        let mut outages = self.shared.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.push(start..start.saturating_add(length));
    }

    /// Bytes of all objects that were written through the model and not deleted, or
    /// [counted](Self::count_existing).
    pub fn stored_bytes(&self) -> u64 {
        self.shared.stock.bytes()
    }

    /// The most that [`StoreModel::stored_bytes`] has been.
    pub fn stored_bytes_peak(&self) -> u64 {
        self.shared.stock.peak()
    }

    /// Counts what lies below `prefix` already, without a cost in the model. `contact` is how long
    /// the store may take until it answers for the first time, see
    /// [`JobLocation::contact_timeout`](crate::JobLocation::contact_timeout).
    ///
    /// # Errors
    /// What the store underneath answers.
    pub async fn count_existing(&self, prefix: &Path, contact: Option<Duration>) -> crate::Result<()> {
        let remote = Remote::new(Arc::clone(&self.inner), prefix.clone(), Env::default());
        for object in remote.with_contact_timeout(contact).list("").await? {
            let location = prefix.parts().chain(object.name.split('/').map(PathPart::from)).collect();
            self.shared.stock.put(location, object.size);
        }
        Ok(())
    }
}

impl Shared {
    /// One uniform number of 0..1.
    fn uniform(&self) -> f64 {
        let n = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        // 53 random bits: every one counts.
        (splitmix64(n) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn fate(&self) -> Fate {
        let rate = self.options.error_rate;
        match self.uniform() {
            draw if rate <= 0.0 || draw >= rate => Fate::Succeeds,
            draw if draw < rate / 2.0 => Fate::Fails,
            _ => Fate::LosesAnswer,
        }
    }

    /// An error during an outage.
    fn reachable(&self) -> Result<()> {
        let now = self.time.now();
        let outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        if outages.iter().any(|outage| outage.contains(&now)) { Err(unreachable_store()) } else { Ok(()) }
    }

    /// One latency. An outage at its beginning or end is an error.
    async fn round_trip(&self) -> Result<()> {
        let reached = self.reachable();
        let latency = self.options.latency.draw([self.uniform(), self.uniform()]);
        if !latency.is_zero() {
            self.time.sleep_until(self.time.now() + latency).await;
        }
        reached.and_then(|()| self.reachable())
    }

    /// Waits until `bytes` are through.
    async fn pace(&self, stream: &Pacer, shared: &Pacer, bytes: usize) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            self.reachable()?;
            let chunk = left.min(CHUNK);
            let now = self.time.now();
            let through = stream.charge(now, chunk).max(shared.charge(now, chunk));
            if through > now {
                self.time.sleep_until(through).await;
            }
            left -= chunk;
        }
        Ok(())
    }

    /// A request that sends `bytes` and is applied by `request`.
    async fn send<T>(&self, bytes: usize, request: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = self.fate();
        self.pace(&Pacer::new(self.options.stream_bytes_per_second), &self.uploads, bytes).await?;
        self.round_trip().await?;
        match fate {
            Fate::Succeeds => request.await,
            Fate::Fails => Err(broken()),
            Fate::LosesAnswer => {
                request.await?;
                Err(broken())
            }
        }
    }
}

fn unreachable_store() -> Error {
    failure(io::Error::new(io::ErrorKind::ConnectionRefused, "the modelled store has an outage"))
}

fn broken() -> Error {
    failure(io::Error::new(io::ErrorKind::ConnectionReset, "the modelled store has dropped the connection"))
}

fn failure(error: io::Error) -> Error {
    Error::Generic { store: "StoreModel", source: Box::new(error) }
}

impl fmt::Display for StoreModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreModel({}, {})", self.inner, self.shared.options)
    }
}

impl Intercept for StoreModel {
    type Note = ();

    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn carry<T: Send + 'static>(
        self,
        request: Request,
        apply: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<(T, ())> {
        if request.op == Op::Begin {
            self.shared.reachable()?;
            return Ok((apply.await?, ()));
        }
        let sent = if matches!(request.op, Op::Put | Op::Part) { request.bytes as usize } else { 0 };
        let applied = async {
            let value = apply.await?;
            self.shared.stock.applied(&request);
            Ok(value)
        };
        Ok((self.shared.send(sent, applied).await?, ()))
    }

    fn body(&self, (): (), answer: GetResult) -> GetResult {
        if self.shared.options.paces() { body::paced(&self.shared, answer) } else { answer }
    }

    /// One request, however many objects it deletes.
    fn apply_deletes(self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, shared) = (self.inner, Arc::clone(&self.shared));
        let deleted = async move { self.shared.send(0, async { Ok(inner.delete_stream(paths)) }).await };
        stream::once(deleted).try_flatten().inspect_ok(move |path| shared.stock.delete(path)).boxed()
    }
}

intercepted!(StoreModel);
