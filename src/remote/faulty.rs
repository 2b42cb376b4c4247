//! A store that fails on request: a decorator around another one, for the tests of this module and of
//! those above it.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

use super::RateLimiter;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Creating or overwriting an object in one request.
    Put,
    /// Beginning an upload in parts.
    Begin,
    /// One part.
    Part,
    /// The end of an upload in parts.
    Complete,
    /// Reading, whole or in part.
    Get,
    /// Listing, either way.
    List,
    /// Deleting.
    Delete,
}

/// What goes wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error, and nothing is applied.
    Before,
    /// It is applied, but the answer is an error.
    After,
    /// Nothing is applied and no answer comes.
    Hang,
    /// It is applied, and no answer comes.
    HangAfter,
    /// No answer comes, and it is applied when the test calls [`Faulty::deliver`]. Only for `Put`.
    Late,
    /// An answer that will not change: no permission.
    Denied,
    /// Half of the body, and then an error. Only for `Get`.
    Cut,
    /// Half of the body, and then an end as if that were all. Only for `Get`.
    Short,
    /// The body, and then some of it once more. Only for `Get`.
    Long,
    /// Half of the body, and then nothing any more. Only for `Get`.
    Stall,
    /// None: the body comes in many chunks. Only for `Get`.
    Chunks,
}

/// What the store makes of "create if absent".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// As it should be.
    Honoured,
    /// Overwrites and says that it created.
    Ignored,
    /// Looks first and writes later, so that two creates at the same time both succeed.
    Racy,
    /// Says that it exists but overwrites nevertheless.
    Lying,
}

/// The decorator.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    planned: VecDeque<(Op, Fault)>,
    outage: bool,
    conditions: Conditions,
    /// What all uploads together may send.
    link: Option<Arc<RateLimiter>>,
    late: Vec<(Path, PutPayload, PutMode)>,
    /// Uploads in parts that were aborted.
    aborted: usize,
}

impl Faulty {
    pub(crate) fn new(inner: impl ObjectStore) -> Arc<Self> {
        let state = State {
            planned: VecDeque::new(),
            outage: false,
            conditions: Conditions::Honoured,
            link: None,
            late: Vec::new(),
            aborted: 0,
        };
        Arc::new(Self { inner: Arc::new(inner), state: Arc::new(Mutex::new(state)) })
    }

    /// Lets the next request of the kind `op` that no earlier plan is for fail with `fault`.
    pub(crate) fn plan(&self, op: Op, fault: Fault) {
        self.state().planned.push_back((op, fault));
    }

    /// As long as it lasts, every request fails, and no plan is used up.
    pub(crate) fn set_outage(&self, outage: bool) {
        self.state().outage = outage;
    }

    pub(crate) fn set_conditions(&self, conditions: Conditions) {
        self.state().conditions = conditions;
    }

    /// Lets uploads share a link that takes so many bytes per second.
    pub(crate) fn set_link(&self, bytes_per_second: NonZeroU64) {
        self.state().link = Some(Arc::new(RateLimiter::new(bytes_per_second)));
    }

    /// How many planned faults have not happened yet.
    pub(crate) fn planned(&self) -> usize {
        self.state().planned.len()
    }

    /// How many uploads in parts were aborted.
    pub(crate) fn aborted(&self) -> usize {
        self.state().aborted
    }

    /// Applies the late requests now; returns how many of them had an effect.
    pub(crate) async fn deliver(&self) -> usize {
        let late = std::mem::take(&mut self.state().late);
        let mut applied = 0;
        for (path, payload, mode) in late {
            applied += usize::from(self.inner.put_opts(&path, payload, mode.into()).await.is_ok());
        }
        applied
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self, op: Op) -> Option<Fault> {
        if self.outage {
            return Some(Fault::Before);
        }
        let at = self.planned.iter().position(|(planned, _)| *planned == op)?;
        self.planned.remove(at).map(|(_, fault)| fault)
    }
}

/// Takes the time that `bytes` need on a link, in turns with others.
async fn over(link: Option<Arc<RateLimiter>>, bytes: usize) {
    const SLICE: usize = 64 * 1024;
    let Some(link) = link else { return };
    for at in (0..bytes).step_by(SLICE) {
        link.acquire(SLICE.min(bytes - at) as u64).await;
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic {
        store: "Faulty",
        source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
    }
}

/// Runs `request` as `fault` has it.
async fn with_fault<T>(fault: Option<Fault>, request: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        None | Some(Fault::Cut | Fault::Short | Fault::Long | Fault::Stall | Fault::Chunks) => request.await,
        Some(Fault::Before) => Err(broken()),
        Some(Fault::Denied) => {
            let source = Box::new(io::Error::from(io::ErrorKind::PermissionDenied));
            Err(object_store::Error::PermissionDenied { path: String::new(), source })
        }
        Some(Fault::After) => {
            request.await?;
            Err(broken())
        }
        Some(Fault::HangAfter) => {
            request.await?;
            pending().await
        }
        Some(Fault::Hang | Fault::Late) => pending().await,
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// The signatures are what `async_trait` makes of the trait's `async fn`s.
impl ObjectStore for Faulty {
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
        Box::pin(async move {
            let (fault, conditions, link) = {
                let mut state = self.state();
                let fault = state.next(Op::Put);
                if fault == Some(Fault::Late) {
                    state.late.push((location.clone(), payload.clone(), opts.mode.clone()));
                }
                (fault, state.conditions, state.link.clone())
            };
            with_fault(fault, async move {
                over(link, payload.content_length()).await;
                if opts.mode != PutMode::Create || conditions == Conditions::Honoured {
                    return self.inner.put_opts(location, payload, opts).await;
                }
                let exists = match conditions {
                    Conditions::Honoured | Conditions::Ignored => None,
                    Conditions::Racy => match self.inner.head(location).await {
                        Ok(_) => return self.inner.put_opts(location, payload, opts).await,
                        Err(_) => None,
                    },
                    Conditions::Lying => {
                        let created = self.inner.put_opts(location, payload.clone(), opts).await;
                        if created.is_ok() {
                            return created;
                        }
                        created.err()
                    }
                };
                tokio::time::sleep(Duration::from_millis(5)).await;
                let put = self.inner.put_opts(location, payload, PutMode::Overwrite.into()).await;
                exists.map_or(put, Err)
            })
            .await
        })
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
        let fault = self.state().next(Op::Begin);
        Box::pin(with_fault(fault, async move {
            let inner = self.inner.put_multipart_opts(location, opts).await?;
            Ok(Box::new(FaultyUpload { inner, state: Arc::clone(&self.state) }) as Box<dyn MultipartUpload>)
        }))
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> Answer<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let fault = self.state().next(Op::Get);
        Box::pin(with_fault(fault, async move {
            let mut result = self.inner.get_opts(location, options).await?;
            if let Some(fault @ (Fault::Cut | Fault::Short | Fault::Long | Fault::Stall | Fault::Chunks)) =
                fault
            {
                let (range, meta) = (result.range.clone(), result.meta.clone());
                let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
                let whole = result.bytes().await?;
                let half = whole.slice(..whole.len() / 2);
                let pieces = whole.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
                let chunks: Vec<Result<Bytes>> = match fault {
                    Fault::Cut => vec![Ok(half), Err(broken())],
                    Fault::Long => pieces.chain([Ok(half)]).collect(),
                    Fault::Chunks => pieces.collect(),
                    _ => vec![Ok(half)],
                };
                let chunks = stream::iter(chunks);
                let payload = GetResultPayload::Stream(match fault {
                    Fault::Stall => chunks.chain(stream::pending()).boxed(),
                    _ => chunks.boxed(),
                });
                result = GetResult { payload, range, meta, attributes, extensions };
            }
            Ok(result)
        }))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fault = self.state().next(Op::Delete);
        let inner = Arc::clone(&self.inner);
        let answers =
            with_fault(fault, async move { Ok(inner.delete_stream(locations).collect::<Vec<_>>().await) });
        stream::once(answers)
            .flat_map(|answers| stream::iter(answers.unwrap_or_else(|error| vec![Err(error)])))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.state().next(Op::List);
        let listed = self.inner.list(prefix);
        let failing = fault.map(|fault| with_fault(Some(fault), async { Err(broken()) }));
        // The failure comes after the first object: a listing may break in the middle.
        match failing {
            None => listed,
            Some(failing) => listed.take(1).chain(stream::once(failing)).boxed(),
        }
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Answer<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let fault = self.state().next(Op::List);
        Box::pin(with_fault(fault, self.inner.list_with_delimiter(prefix)))
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
        self.inner.copy_opts(from, to, options)
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<Mutex<State>>,
}

impl FaultyUpload {
    fn next(&self, op: Op) -> Option<Fault> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next(op)
    }
}

impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let link = self.state.lock().unwrap_or_else(PoisonError::into_inner).link.clone();
        let (length, part) = (data.content_length(), self.inner.put_part(data));
        Box::pin(with_fault(self.next(Op::Part), async move {
            over(link, length).await;
            part.await
        }))
    }

    fn complete<'a, 'c>(&'a mut self) -> Answer<'c, PutResult>
    where
        'a: 'c,
    {
        let fault = self.next(Op::Complete);
        Box::pin(with_fault(fault, self.inner.complete()))
    }

    fn abort<'a, 'c>(&'a mut self) -> Answer<'c, ()>
    where
        'a: 'c,
    {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).aborted += 1;
        self.inner.abort()
    }
}
