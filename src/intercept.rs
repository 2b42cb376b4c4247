//! The plumbing of a decorator around an object store: by whichever method a request comes, it
//! passes the one function [`Intercept::carry`]. The store model and the fault store are built on
//! it.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::sync::Mutex;

/// The kinds of requests to an object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// Creating or overwriting an object in one request.
    Put,
    /// Beginning an upload in parts.
    Begin,
    /// One part of such an upload.
    Part,
    /// The end of such an upload, which makes the object.
    Complete,
    /// Giving such an upload up.
    Abort,
    /// Reading an object, whole or in part, or only its head.
    Get,
    /// Listing objects, of all levels or of one.
    List,
    /// Deleting one object. A bulk request is as many of these.
    Delete,
    /// Copying within the store.
    Copy,
}

/// A request that is about to be made.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) op: Op,
    /// The object; of a listing its prefix.
    pub(crate) path: Path,
    /// What a copy reads.
    pub(crate) from: Option<Path>,
    /// Bytes that are sent; of [`Op::Complete`] the bytes of all parts together.
    pub(crate) bytes: u64,
    /// What a get asks for. None is all of it.
    pub(crate) range: Option<Range<u64>>,
    /// Whether the request is a conditional create.
    pub(crate) create: bool,
}

impl Request {
    pub(crate) fn new(op: Op, path: &Path) -> Self {
        Self { op, path: path.clone(), from: None, bytes: 0, range: None, create: false }
    }
}

/// A decorator. Clones are the same store.
pub(crate) trait Intercept: Clone + Send + Sync + 'static {
    /// What [`Self::carry`] tells [`Self::body`] and [`Self::listing`] about the same request.
    type Note: Send + 'static;

    /// The store that is decorated.
    fn inner(&self) -> &Arc<dyn ObjectStore>;

    /// Makes `request`. The store underneath applies it while `apply` is polled, and never if
    /// `apply` is dropped before. It borrows nothing, so it may be kept and polled later.
    fn carry<T: Send + 'static>(
        self,
        request: Request,
        apply: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<(T, Self::Note)>> + Send + 'static;

    /// How a put is applied.
    fn apply_put(
        self,
        path: Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'static, Result<PutResult>> {
        async move { self.inner().put_opts(&path, payload, options).await }.boxed()
    }

    /// The body of an object that was read.
    fn body(&self, note: Self::Note, answer: GetResult) -> GetResult {
        let _ = note;
        answer
    }

    /// The objects of a listing of all levels.
    fn listing(
        &self,
        note: Self::Note,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let _ = note;
        listed
    }

    /// The objects of a listing of one level.
    fn level(self, note: Self::Note, listed: ListResult) -> BoxFuture<'static, Result<ListResult>> {
        let _ = note;
        future::ready(Ok(listed)).boxed()
    }

    /// Deletes objects: a request for each.
    fn apply_deletes(self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let delete_one = move |path: Path| {
            let (inner, one) = (Arc::clone(self.inner()), stream::iter([Ok(path.clone())]).boxed());
            let apply = async move {
                let mut answers: Vec<_> = inner.delete_stream(one).collect().await;
                answers.pop().unwrap_or_else(|| Err(misuse("a deletion without an answer")))
            };
            answer(self.clone().carry(Request::new(Op::Delete, &path), apply))
        };
        paths.and_then(delete_one).boxed()
    }
}

/// The answer alone.
fn answer<T: Send + 'static, N: Send + 'static>(
    carried: impl Future<Output = Result<(T, N)>> + Send + 'static,
) -> BoxFuture<'static, Result<T>> {
    carried.map(|answered| answered.map(|(answer, _)| answer)).boxed()
}

pub(crate) fn put(
    store: &impl Intercept,
    path: &Path,
    payload: PutPayload,
    options: PutOptions,
) -> BoxFuture<'static, Result<PutResult>> {
    let create = options.mode == PutMode::Create;
    let request = Request { bytes: payload.content_length() as u64, create, ..Request::new(Op::Put, path) };
    let apply = store.clone().apply_put(path.clone(), payload, options);
    answer(store.clone().carry(request, apply))
}

pub(crate) fn begin<S: Intercept>(
    store: &S,
    path: &Path,
    options: PutMultipartOptions,
) -> BoxFuture<'static, Result<Box<dyn MultipartUpload>>> {
    let (inner, target) = (Arc::clone(store.inner()), path.clone());
    let apply = async move { inner.put_multipart_opts(&target, options).await };
    let carried = store.clone().carry(Request::new(Op::Begin, path), apply);
    let (store, path) = (store.clone(), path.clone());
    let upload = |inner| Upload { store, path, inner: Arc::new(Mutex::new(inner)), bytes: 0 };
    answer(carried).map_ok(|inner| Box::new(upload(inner)) as Box<dyn MultipartUpload>).boxed()
}

pub(crate) fn get<S: Intercept>(
    store: &S,
    path: &Path,
    options: GetOptions,
) -> BoxFuture<'static, Result<GetResult>> {
    let range = match options.range.clone() {
        Some(GetRange::Bounded(range)) => Some(range),
        Some(GetRange::Offset(start)) => Some(start..u64::MAX),
        // Counted from an end that is not known here.
        Some(GetRange::Suffix(_)) => Some(0..0),
        None => None,
    };
    let (inner, source, head) = (Arc::clone(store.inner()), path.clone(), options.head);
    let apply = async move { inner.get_opts(&source, options).await };
    let carried = store.clone().carry(Request { range, ..Request::new(Op::Get, path) }, apply);
    let store = store.clone();
    let body = move |(answer, note)| if head { answer } else { store.body(note, answer) };
    carried.map_ok(body).boxed()
}

pub(crate) fn list<S: Intercept>(store: &S, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
    let (inner, below) = (Arc::clone(store.inner()), prefix.cloned());
    let apply = async move { Ok(inner.list(below.as_ref())) };
    let carried = store.clone().carry(Request::new(Op::List, prefix.unwrap_or(&Path::ROOT)), apply);
    let store = store.clone();
    carried.map_ok(move |(listed, note)| store.listing(note, listed)).try_flatten_stream().boxed()
}

pub(crate) fn list_level<S: Intercept>(
    store: &S,
    prefix: Option<&Path>,
) -> BoxFuture<'static, Result<ListResult>> {
    let (inner, below) = (Arc::clone(store.inner()), prefix.cloned());
    let apply = async move { inner.list_with_delimiter(below.as_ref()).await };
    let carried = store.clone().carry(Request::new(Op::List, prefix.unwrap_or(&Path::ROOT)), apply);
    let store = store.clone();
    carried.and_then(move |(listed, note)| store.level(note, listed)).boxed()
}

pub(crate) fn copy(
    store: &impl Intercept,
    from: &Path,
    to: &Path,
    options: CopyOptions,
) -> BoxFuture<'static, Result<()>> {
    let (inner, source, target) = (Arc::clone(store.inner()), from.clone(), to.clone());
    let apply = async move { inner.copy_opts(&source, &target, options).await };
    answer(store.clone().carry(Request { from: Some(from.clone()), ..Request::new(Op::Copy, to) }, apply))
}

/// An upload in parts through a decorator.
struct Upload<S> {
    store: S,
    path: Path,
    /// Shared with the requests that are under way.
    inner: Arc<Mutex<Box<dyn MultipartUpload>>>,
    /// Of all parts so far.
    bytes: u64,
}

impl<S> fmt::Debug for Upload<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<S: Intercept> MultipartUpload for Upload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        self.bytes += bytes;
        // At once, because parts are numbered in the order of these calls.
        let part = match self.inner.try_lock() {
            Ok(mut inner) => inner.put_part(data),
            Err(_) => async { Err(misuse("a part after the end of its upload")) }.boxed(),
        };
        answer(self.store.clone().carry(Request { bytes, ..Request::new(Op::Part, &self.path) }, part))
    }

    fn complete<'a, 'c>(&'a mut self) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
    {
        let inner = Arc::clone(&self.inner);
        let apply = async move { inner.lock().await.complete().await };
        let request = Request { bytes: self.bytes, ..Request::new(Op::Complete, &self.path) };
        answer(self.store.clone().carry(request, apply))
    }

    fn abort<'a, 'c>(&'a mut self) -> BoxFuture<'c, Result<()>>
    where
        'a: 'c,
    {
        let inner = Arc::clone(&self.inner);
        let apply = async move { inner.lock().await.abort().await };
        answer(self.store.clone().carry(Request::new(Op::Abort, &self.path), apply))
    }
}

fn misuse(problem: &'static str) -> Error {
    Error::Generic { store: "decorator", source: problem.into() }
}

/// Implements `ObjectStore` for a type that is [`Intercept`]. The signatures are what `async_trait`
/// makes of the trait's `async fn`s.
macro_rules! intercepted {
    ($store:ty) => {
        impl object_store::ObjectStore for $store {
            fn put_opts<'a, 'b, 'c>(
                &'a self,
                path: &'b Path,
                payload: object_store::PutPayload,
                options: object_store::PutOptions,
            ) -> futures::future::BoxFuture<'c, object_store::Result<object_store::PutResult>>
            where
                'a: 'c,
                'b: 'c,
            {
                $crate::intercept::put(self, path, payload, options)
            }

            fn put_multipart_opts<'a, 'b, 'c>(
                &'a self,
                path: &'b Path,
                options: object_store::PutMultipartOptions,
            ) -> futures::future::BoxFuture<'c, object_store::Result<Box<dyn object_store::MultipartUpload>>>
            where
                'a: 'c,
                'b: 'c,
            {
                $crate::intercept::begin(self, path, options)
            }

            fn get_opts<'a, 'b, 'c>(
                &'a self,
                path: &'b Path,
                options: object_store::GetOptions,
            ) -> futures::future::BoxFuture<'c, object_store::Result<object_store::GetResult>>
            where
                'a: 'c,
                'b: 'c,
            {
                $crate::intercept::get(self, path, options)
            }

            fn delete_stream(
                &self,
                paths: futures::stream::BoxStream<'static, object_store::Result<Path>>,
            ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
                $crate::intercept::Intercept::apply_deletes(self.clone(), paths)
            }

            fn list(
                &self,
                prefix: Option<&Path>,
            ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
                $crate::intercept::list(self, prefix)
            }

            fn list_with_delimiter<'a, 'b, 'c>(
                &'a self,
                prefix: Option<&'b Path>,
            ) -> futures::future::BoxFuture<'c, object_store::Result<object_store::ListResult>>
            where
                'a: 'c,
                'b: 'c,
            {
                $crate::intercept::list_level(self, prefix)
            }

            fn copy_opts<'a, 'b, 'd, 'c>(
                &'a self,
                from: &'b Path,
                to: &'d Path,
                options: object_store::CopyOptions,
            ) -> futures::future::BoxFuture<'c, object_store::Result<()>>
            where
                'a: 'c,
                'b: 'c,
                'd: 'c,
            {
                $crate::intercept::copy(self, from, to, options)
            }
        }
    };
}
pub(crate) use intercepted;
