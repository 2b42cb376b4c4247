//! A store in memory that answers creates of manifests as a test says. All else works.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::env::{Env, SeededNonces};
use crate::remote::{Remote, RetryPolicy};

/// What becomes of one create of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// As it should be.
    Works,
    /// It is applied, the answer is lost.
    AnswerLost,
    /// It is not applied.
    Lost,
    /// It is not applied yet, see [`Scripted::deliver`].
    Late,
    /// It is applied, and never answered.
    Hangs,
}

#[derive(Debug, Default)]
pub(crate) struct Scripted {
    inner: InMemory,
    puts: Mutex<VecDeque<Put>>,
    late: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
    /// Everything that was deleted: each request may have an earlier try that is still on its way.
    deleted: Arc<Mutex<Vec<Path>>>,
    /// Reads of manifests that fail.
    failing_reads: AtomicUsize,
    requests: AtomicUsize,
    ignores_conditions: AtomicBool,
    /// Listings that show one more manifest than there is, if there is any.
    phantoms: AtomicUsize,
}

impl Scripted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A client of this store, with its own randomness and a quick temper.
    pub(crate) fn remote(self: &Arc<Self>, seed: u64) -> Arc<Remote> {
        let env = Env { nonces: Arc::new(SeededNonces::new(seed)), ..Env::default() };
        let retry = RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_micros(10),
            max_pause: Duration::from_micros(50),
        };
        let store: Arc<dyn ObjectStore> = Arc::<Self>::clone(self);
        Arc::new(Remote::new(store, Path::from("jobs/a"), env).with_retry(retry))
    }

    /// The answers to the next creates of manifests.
    pub(crate) fn script(&self, puts: impl IntoIterator<Item = Put>) {
        self.puts.lock().unwrap().extend(puts);
    }

    pub(crate) fn fail_reads(&self, count: usize) {
        self.failing_reads.store(count, Ordering::Relaxed);
    }

    /// The next listings of a chain show one version more than there is.
    pub(crate) fn list_phantoms(&self, listings: usize) {
        self.phantoms.store(listings, Ordering::Relaxed);
    }

    pub(crate) fn ignore_conditions(&self) {
        self.ignores_conditions.store(true, Ordering::Relaxed);
    }

    /// Applies the deletes once more that earlier tries have asked for, as if those had been on their way
    /// until now.
    pub(crate) async fn deliver_deletes(&self) {
        let deleted = std::mem::take(&mut *self.deleted.lock().unwrap());
        for path in deleted {
            // Most of them are gone.
            let _ = self.inner.delete(&path).await;
        }
    }

    /// Applies the creates that are late.
    pub(crate) async fn deliver(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for (path, payload, options) in late {
            // Its sender no longer listens.
            let _ = self.inner.put_opts(&path, payload, options).await;
        }
    }

    /// Requests made so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn next_put(&self, location: &Path) -> Put {
        if !location.as_ref().contains("/manifest/") {
            return Put::Works;
        }
        self.puts.lock().unwrap().pop_front().unwrap_or(Put::Works)
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted store")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "scripted", source: "connection reset".into() }
}

impl ObjectStore for Scripted {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.count();
        if self.ignores_conditions.load(Ordering::Relaxed) {
            options = PutOptions::default();
        }
        Box::pin(async move {
            match self.next_put(location) {
                Put::Works => self.inner.put_opts(location, payload, options).await,
                Put::AnswerLost => {
                    let _ = self.inner.put_opts(location, payload, options).await;
                    Err(broken())
                }
                Put::Lost => Err(broken()),
                Put::Late => {
                    self.late.lock().unwrap().push((location.clone(), payload, options));
                    Err(broken())
                }
                Put::Hangs => {
                    let _ = self.inner.put_opts(location, payload, options).await;
                    std::future::pending().await
                }
            }
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        options: GetOptions,
    ) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.count();
        let fewer = |left: usize| left.checked_sub(1);
        let fails = location.as_ref().contains("/manifest/")
            && self.failing_reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok();
        Box::pin(
            async move { if fails { Err(broken()) } else { self.inner.get_opts(location, options).await } },
        )
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.count();
        let deleted = Arc::clone(&self.deleted);
        let noted = locations.inspect_ok(move |path| deleted.lock().unwrap().push(path.clone()));
        self.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count();
        let listed = self.inner.list(prefix);
        if self.phantoms.load(Ordering::Relaxed) == 0 {
            return listed;
        }
        let with_phantom = async move {
            let mut all: Vec<_> = listed.collect().await;
            let newest = all.iter().flatten().max_by_key(|meta| meta.location.clone()).cloned();
            let above = newest.and_then(|newest| {
                let (folder, version) = newest.location.as_ref().rsplit_once('/')?;
                let version = version.parse::<u64>().ok()? + 1;
                Some(ObjectMeta { location: Path::from(format!("{folder}/{version:020}")), ..newest })
            });
            all.extend(above.map(Ok));
            stream::iter(all)
        };
        self.phantoms.fetch_sub(1, Ordering::Relaxed);
        with_phantom.flatten_stream().boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(
        &'a self,
        prefix: Option<&'b Path>,
    ) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.count();
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(
        &'a self,
        from: &'b Path,
        to: &'d Path,
        options: CopyOptions,
    ) -> BoxFuture<'c, Result<()>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.inner.copy_opts(from, to, options)
    }
}
