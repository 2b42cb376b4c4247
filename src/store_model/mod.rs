//! A model of a remote object store around any other: latency, bandwidth, outages, failures.
//!
//! The rules, so that other systems can be measured on the very same store:
//! - A pacer lets `n` bytes through at `next = max(next, now − 5 ms) + n / rate`.
//! - The bytes of a PUT are charged in chunks of 64 KiB, on a pacer of its own and on one that all uploads
//!   share; it waits for the later of both, chunk by chunk, then for one latency, and is then applied.
//! - A GET waits for one latency before its first byte; then its bytes are paced likewise, with a shared
//!   pacer of the downloads' own.
//! - A part of an upload in parts is a PUT of its own. To begin such an upload costs nothing, to complete
//!   or abort it one latency.
//! - A listing, a look at an object's head, a copy and a deletion (of any number of objects) cost one latency.
//!
//! What the store underneath takes by itself comes on top. There is no TLS, HTTP or signing in it: CPU
//! figures lack what these cost.

mod options;
mod pacer;
mod stock;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::env::{Env, splitmix64};
use crate::remote::{Remote, open_url};

pub use options::{Latency, StoreModelOptions};
use pacer::Pacer;
use stock::Stock;
#[cfg(test)]
pub(crate) use time::stepped::SteppedTime;
use time::{RuntimeTime, Time};

/// Bytes are charged in pieces of this size.
const CHUNK: usize = 64 * 1024;
/// A local file is read in pieces of this size.
const FILE_CHUNK: usize = 256 * 1024;

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

/// An object store with the latency, bandwidth and failures of a model around another one. Must be used
/// within a tokio runtime with time enabled, as a job does. Clones are the same store.
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

    /// From `after` from now, every request fails for `length`; what is under way then fails as well.
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

    /// Counts what lies below `prefix` already, without a cost in the model. `contact` is how long the store may take
    /// until it answers for the first time, see [`JobLocation::contact_timeout`](crate::JobLocation::contact_timeout).
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

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// The signatures are what `async_trait` makes of the trait's `async fn`s.
impl ObjectStore for StoreModel {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Answer<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let length = payload.content_length();
        Box::pin(self.shared.send(length, async move {
            let put = self.inner.put_opts(location, payload, opts).await?;
            self.shared.stock.put(location.clone(), length as u64);
            Ok(put)
        }))
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        opts: PutMultipartOptions,
    ) -> Answer<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            self.shared.reachable()?;
            let inner = self.inner.put_multipart_opts(location, opts).await?;
            let (shared, location) = (Arc::clone(&self.shared), location.clone());
            Ok(Box::new(ModelledUpload { inner, shared, location, bytes: 0 }) as Box<dyn MultipartUpload>)
        })
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> Answer<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let head = options.head;
        Box::pin(async move {
            let result = self.shared.send(0, self.inner.get_opts(location, options)).await?;
            if head || !self.shared.options.paces() {
                return Ok(result);
            }
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
            let payload = GetResultPayload::Stream(paced(Arc::clone(&self.shared), body(result)));
            Ok(GetResult { payload, meta, range, attributes, extensions })
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (model, shared) = (self.clone(), Arc::clone(&self.shared));
        let deleted =
            async move { model.shared.send(0, async { Ok(model.inner.delete_stream(locations)) }).await };
        stream::once(deleted).try_flatten().inspect_ok(move |location| shared.stock.delete(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (shared, listed) = (Arc::clone(&self.shared), self.inner.list(prefix));
        stream::once(async move { shared.send(0, async { Ok(listed) }).await }).try_flatten().boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Answer<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(self.shared.send(0, self.inner.list_with_delimiter(prefix)))
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> Answer<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        Box::pin(self.shared.send(0, async move {
            self.inner.copy_opts(from, to, options).await?;
            self.shared.stock.copy(from, to);
            Ok(())
        }))
    }
}

/// An object's bytes. The store's own stream would read a local file in pieces of 8 KiB.
fn body(result: GetResult) -> BoxStream<'static, Result<Bytes>> {
    let range = result.range.clone();
    match result.payload {
        GetResultPayload::Stream(stream) => stream,
        GetResultPayload::File(file, _) => {
            stream::try_unfold((Some(file), range), |(file, range)| async move {
                let Some(file) = file.filter(|_| !range.is_empty()) else { return Ok(None) };
                let end = range.end.min(range.start.saturating_add(FILE_CHUNK as u64));
                let read = tokio::task::spawn_blocking(move || read(file, range.start..end)).await;
                let (file, bytes) =
                    read.map_err(|error| failure(io::Error::other(error)))?.map_err(failure)?;
                Ok(Some((bytes, (Some(file), end..range.end))))
            })
            .boxed()
        }
    }
}

fn read(mut file: File, range: Range<u64>) -> io::Result<(File, Bytes)> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(FILE_CHUNK)];
    file.read_exact(&mut bytes)?;
    Ok((file, bytes.into()))
}

fn paced(shared: Arc<Shared>, body: BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
    let pacer = Arc::new(Pacer::new(shared.options.stream_bytes_per_second));
    body.and_then(move |bytes| {
        let (shared, pacer) = (Arc::clone(&shared), Arc::clone(&pacer));
        async move {
            shared.pace(&pacer, &shared.downloads, bytes.len()).await?;
            Ok(bytes)
        }
    })
    .boxed()
}

#[derive(Debug)]
struct ModelledUpload {
    inner: Box<dyn MultipartUpload>,
    shared: Arc<Shared>,
    location: Path,
    bytes: u64,
}

impl MultipartUpload for ModelledUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (shared, bytes) = (Arc::clone(&self.shared), data.content_length());
        self.bytes += bytes as u64;
        let put = self.inner.put_part(data);
        Box::pin(async move { shared.send(bytes, put).await })
    }

    fn complete<'a, 'c>(&'a mut self) -> Answer<'c, PutResult>
    where
        'a: 'c,
    {
        let (inner, shared) = (&mut self.inner, &self.shared);
        let (location, bytes) = (self.location.clone(), self.bytes);
        Box::pin(shared.send(0, async move {
            let put = inner.complete().await?;
            shared.stock.put(location, bytes);
            Ok(put)
        }))
    }

    fn abort<'a, 'c>(&'a mut self) -> Answer<'c, ()>
    where
        'a: 'c,
    {
        Box::pin(self.shared.send(0, self.inner.abort()))
    }
}
