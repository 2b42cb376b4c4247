//! A decorator around an object store: it keeps a record of every request, and a rule of the test
//! decides what becomes of each.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Thread, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::sync::watch;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    Put,
    Begin,
    Part,
    Complete,
    Get,
    List,
    Delete,
    Copy,
}

/// A request as the store saw it.
#[derive(Debug, Clone)]
pub struct Call {
    pub op: Op,
    /// The whole path; of a listing its prefix.
    pub path: String,
    pub bytes: u64,
    /// What a get asks for; None is all of it.
    pub range: Option<Range<u64>>,
    /// Whether the request was a conditional create.
    pub create: bool,
    pub thread: ThreadId,
    pub thread_name: String,
}

impl Call {
    pub fn writes(&self) -> bool {
        matches!(self.op, Op::Put | Op::Begin | Op::Part | Op::Complete)
    }

    pub fn is_manifest_put(&self) -> bool {
        self.op == Op::Put && self.path.contains("manifest/")
    }

    pub fn is_data(&self) -> bool {
        self.path.contains("data/")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Fate {
    Pass,
    /// A broken connection; nothing is applied.
    Fail,
    /// Applied, and the answer is a broken connection.
    FailAfter,
    /// "Conflicting request, try again", as S3 has it, dressed as object_store does: nothing is applied.
    Conflict,
    /// Applied after this time.
    Slow(Duration),
    /// Waits at the gate, and is applied then. Like a process, or a request, that was paused.
    Hold(Gate),
    /// The answer is a broken connection at once; the request is applied when the test calls
    /// [`Staged::deliver`]. Only puts.
    Late,
    /// So many bytes have to pass the link first.
    Carry(Link, u64),
    /// A permanent refusal.
    Denied,
}

/// A link that so many bytes pass in a second, in turns, so that transfers under way at the same time
/// get equal shares. What was given up half-way has taken its time in vain.
#[derive(Debug, Clone)]
pub struct Link {
    bytes_per_second: u32,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Link {
    const TURN: u64 = 8_192;

    pub fn new(bytes_per_second: u32) -> Self {
        Self { bytes_per_second, turn: Arc::default() }
    }

    async fn carry(&self, bytes: u64) {
        let mut left = bytes;
        while left > 0 {
            // Whoever has had a turn stands at the end of the queue again.
            let _turn = self.turn.lock().await;
            let now = left.min(Self::TURN);
            tokio::time::sleep(Duration::from_secs(now) / self.bytes_per_second).await;
            left -= now;
        }
    }
}

/// Closed until opened, for any number of waiters.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// How many requests wait here.
    pub fn waiting(&self) -> usize {
        self.0.receiver_count()
    }

    async fn pass(&self) {
        let mut opened = self.0.subscribe();
        // The sender lives in this gate.
        opened.wait_for(|open| *open).await.unwrap();
    }
}

type Rule = Box<dyn FnMut(&Call) -> Fate + Send>;

struct State {
    rule: Rule,
    calls: Vec<Call>,
    late: Vec<(Path, PutPayload, PutOptions)>,
    /// How "create if absent" is answered: true as it should be.
    conditions: bool,
}

/// See the [module](self).
pub struct Staged {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    held: Arc<Held>,
}

/// Bytes that were read and are still in memory.
#[derive(Default)]
struct Held {
    now: AtomicU64,
    most: AtomicU64,
}

/// A part of an answer.
struct Chunk {
    bytes: Bytes,
    held: Arc<Held>,
}

impl Held {
    fn watch(self: &Arc<Self>, mut answer: GetResult) -> GetResult {
        answer.payload = match answer.payload {
            GetResultPayload::Stream(chunks) => {
                let held = Arc::clone(self);
                let chunks = chunks.map(move |chunk| chunk.map(|bytes| held.chunk(bytes)));
                GetResultPayload::Stream(chunks.boxed())
            }
            file => file,
        };
        answer
    }

    fn chunk(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let len = bytes.len() as u64;
        let now = self.now.fetch_add(len, Ordering::SeqCst) + len;
        self.most.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Chunk { bytes, held: Arc::clone(self) })
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.held.now.fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
    }
}

impl Staged {
    pub fn new(inner: impl ObjectStore) -> Arc<Self> {
        Self::around(Arc::new(inner))
    }

    pub fn around(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        let state =
            State { rule: Box::new(|_| Fate::Pass), calls: Vec::new(), late: Vec::new(), conditions: true };
        Arc::new(Self { inner, state: Arc::new(Mutex::new(state)), held: Arc::default() })
    }

    /// The bytes of answers that someone still held on to, and the most that were held since the last call.
    pub fn take_held(&self) -> (u64, u64) {
        let now = self.held.now.load(Ordering::SeqCst);
        (now, self.held.most.swap(now, Ordering::SeqCst))
    }

    /// From now on every request meets the fate that `rule` gives it.
    pub fn rule(&self, rule: impl FnMut(&Call) -> Fate + Send + 'static) {
        lock(&self.state).rule = Box::new(rule);
    }

    /// From now on all goes well again.
    pub fn heal(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// From now on creates overwrite.
    pub fn ignore_conditions(&self) {
        lock(&self.state).conditions = false;
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }

    /// All requests since the last time this was called.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.state).calls)
    }

    /// Applies what was given up, now; returns how many of them had an effect.
    pub fn deliver(&self) -> usize {
        let late = std::mem::take(&mut lock(&self.state).late);
        let inner = Arc::clone(&self.inner);
        block_on(async move {
            let mut applied = 0;
            for (path, payload, options) in late {
                applied += usize::from(inner.put_opts(&path, payload, options).await.is_ok());
            }
            applied
        })
    }

    fn fate(&self, op: Op, path: &Path, bytes: u64) -> Fate {
        fate(&self.state, call(op, path, bytes))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn call(op: Op, path: &Path, bytes: u64) -> Call {
    let thread: Thread = std::thread::current();
    Call {
        op,
        path: path.to_string(),
        bytes,
        range: None,
        create: false,
        thread: thread.id(),
        thread_name: thread.name().unwrap_or_default().to_owned(),
    }
}

fn fate(state: &Mutex<State>, call: Call) -> Fate {
    let mut state = lock(state);
    let fate = (state.rule)(&call);
    state.calls.push(call);
    fate
}

/// Runs a future to its end on a thread of its own, so that it works inside a runtime as well.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime().block_on(future)).join().unwrap()
    })
}

fn broken() -> object_store::Error {
    object_store::Error::Generic {
        store: "Staged",
        source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
    }
}

async fn meet<T>(fate: Fate, path: String, request: impl Future<Output = Result<T>>) -> Result<T> {
    match fate {
        Fate::Pass => request.await,
        Fate::Fail | Fate::Late => Err(broken()),
        Fate::FailAfter => {
            request.await?;
            Err(broken())
        }
        Fate::Conflict => Err(object_store::Error::AlreadyExists {
            path,
            source: Box::new(io::Error::other("409 Conflict: ConditionalRequestConflict")),
        }),
        Fate::Slow(time) => {
            tokio::time::sleep(time).await;
            request.await
        }
        Fate::Hold(gate) => {
            gate.pass().await;
            request.await
        }
        Fate::Carry(link, bytes) => {
            link.carry(bytes).await;
            request.await
        }
        Fate::Denied => {
            let source = Box::new(io::Error::from(io::ErrorKind::PermissionDenied));
            Err(object_store::Error::PermissionDenied { path, source })
        }
    }
}

impl fmt::Display for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staged({})", self.inner)
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

// The signatures are what `async_trait` makes of the trait's `async fn`s.
impl ObjectStore for Staged {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Answer<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let create = opts.mode == PutMode::Create;
        let call = Call { create, ..call(Op::Put, location, payload.content_length() as u64) };
        let fate = fate(&self.state, call);
        {
            let mut state = lock(&self.state);
            if matches!(fate, Fate::Late) {
                state.late.push((location.clone(), payload.clone(), opts.clone()));
            }
            if !state.conditions {
                opts.mode = PutMode::Overwrite;
            }
        }
        Box::pin(meet(fate, location.to_string(), self.inner.put_opts(location, payload, opts)))
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
        let fate = self.fate(Op::Begin, location, 0);
        let (state, path) = (Arc::clone(&self.state), location.clone());
        let begin = async move {
            let inner = self.inner.put_multipart_opts(location, opts).await?;
            Ok(Box::new(StagedUpload { inner, path, state }) as Box<dyn MultipartUpload>)
        };
        Box::pin(meet(fate, location.to_string(), begin))
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Path, options: GetOptions) -> Answer<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let range = match options.range.clone() {
            Some(GetRange::Bounded(range)) => Some(range),
            Some(GetRange::Offset(start)) => Some(start..u64::MAX),
            // From the end: that could be anything.
            Some(GetRange::Suffix(_)) => Some(0..0),
            None => None,
        };
        let fate = fate(&self.state, Call { range, ..call(Op::Get, location, 0) });
        let held = Arc::clone(&self.held);
        let get = self.inner.get_opts(location, options);
        let get = async move { get.await.map(|answer| held.watch(answer)) };
        Box::pin(meet(fate, location.to_string(), get))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        locations
            .then(move |location| {
                let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
                async move {
                    let location = location?;
                    let fate = fate(&state, call(Op::Delete, &location, 0));
                    let one = stream::iter([Ok(location.clone())]).boxed();
                    let delete = async move {
                        let mut answers: Vec<_> = inner.delete_stream(one).collect().await;
                        answers.pop().unwrap_or_else(|| Err(broken()))
                    };
                    meet(fate, location.to_string(), delete).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = Path::ROOT;
        let path = prefix.unwrap_or(&root);
        let fate = self.fate(Op::List, path, 0);
        let listed = self.inner.list(prefix);
        let answer = meet(fate, path.to_string(), async move { Ok(listed) });
        stream::once(answer)
            .flat_map(|answer| answer.unwrap_or_else(|error| stream::iter([Err(error)]).boxed()))
            .boxed()
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Answer<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
    {
        let root = Path::ROOT;
        let path = prefix.unwrap_or(&root);
        let fate = self.fate(Op::List, path, 0);
        Box::pin(meet(fate, path.to_string(), self.inner.list_with_delimiter(prefix)))
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
        let fate = self.fate(Op::Copy, to, 0);
        Box::pin(meet(fate, to.to_string(), self.inner.copy_opts(from, to, options)))
    }
}

struct StagedUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for StagedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StagedUpload({})", self.path)
    }
}

impl MultipartUpload for StagedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fate = fate(&self.state, call(Op::Part, &self.path, data.content_length() as u64));
        Box::pin(meet(fate, self.path.to_string(), self.inner.put_part(data)))
    }

    fn complete<'a, 'c>(&'a mut self) -> Answer<'c, PutResult>
    where
        'a: 'c,
    {
        let fate = fate(&self.state, call(Op::Complete, &self.path, 0));
        Box::pin(meet(fate, self.path.to_string(), self.inner.complete()))
    }

    fn abort<'a, 'c>(&'a mut self) -> Answer<'c, ()>
    where
        'a: 'c,
    {
        self.inner.abort()
    }
}
