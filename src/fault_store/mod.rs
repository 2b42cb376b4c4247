//! A store whose faults a test decides: a decorator around any other store.
//!
//! Every request is recorded as a [`Call`] with its number. What becomes of it is decided in this
//! order: an [outage](FaultStore::set_outage), the faults that were [planned](FaultStore::plan) for
//! its kind, and then the [policy](FaultStore::set_policy), which is asked before and after the
//! request is applied. A policy that draws at random takes its seed from the test, so that a run
//! can be repeated.

mod fault;
mod held;
mod shape;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Error, GetResult, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    PutResult, Result,
};

pub use crate::intercept::Op;
use crate::intercept::{Intercept, Request, intercepted};

pub use fault::{Answer, Call, Conditions, Fault, FaultPolicy, ListingEdit};
use held::HeldBytes;
pub use wait::{Gate, Link};

/// An object store whose faults the test decides. Clones are the same store. Must be used within a
/// tokio runtime with time enabled, as a job does.
///
/// ```
/// use std::sync::Arc;
///
/// use alluvium::test_util::{Answer, Fault, FaultStore};
/// use alluvium::{Job, JobOptions, OpenMode};
/// use object_store::memory::InMemory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let store = FaultStore::new(InMemory::new());
/// // Each manifest is written, but its answer is lost.
/// store.rule(|call| if call.is_manifest_put() { Answer::Lost.into() } else { Fault::Pass });
/// let options = JobOptions::new(dir.path().join("local"), OpenMode::Create);
/// let opened = Job::open((store.clone(), "job"), options)?;
/// assert!(store.calls().iter().any(|call| call.is_manifest_put()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    held: Arc<HeldBytes>,
}

struct State {
    policy: Box<dyn FaultPolicy>,
    planned: VecDeque<(Op, Fault)>,
    outage: bool,
    conditions: Conditions,
    /// How many requests there were.
    count: u64,
    calls: Vec<Call>,
    late: Vec<BoxFuture<'static, bool>>,
}

impl FaultStore {
    /// A store around `inner`, without faults.
    pub fn new(inner: impl ObjectStore) -> Arc<Self> {
        Self::around(Arc::new(inner))
    }

    /// As [`FaultStore::new`], around a store that has other users as well.
    pub fn around(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        let state = State {
            policy: Box::new(|_: &Call| Fault::Pass),
            planned: VecDeque::new(),
            outage: false,
            conditions: Conditions::Honoured,
            count: 0,
            calls: Vec::new(),
            late: Vec::new(),
        };
        Arc::new(Self { inner, state: Arc::new(Mutex::new(state)), held: Arc::default() })
    }

    /// From now on `policy` decides what becomes of each request.
    pub fn set_policy(&self, policy: impl FaultPolicy + 'static) {
        self.state().policy = Box::new(policy);
    }

    /// From now on every request meets the fault that `rule` gives it.
    pub fn rule(&self, rule: impl FnMut(&Call) -> Fault + Send + 'static) {
        self.set_policy(rule);
    }

    /// From now on no policy makes faults.
    pub fn heal(&self) {
        self.rule(|_| Fault::Pass);
    }

    /// The next request of the kind `op` that no earlier plan is for meets `fault`. Where that is a
    /// matter of the answer, the policy still decides what becomes of the request before.
    pub fn plan(&self, op: Op, fault: impl Into<Fault>) {
        self.state().planned.push_back((op, fault.into()));
    }

    /// How many planned faults have not happened yet.
    pub fn planned(&self) -> usize {
        self.state().planned.len()
    }

    /// As long as it lasts, every request fails, no plan is used up, and no policy is asked.
    pub fn set_outage(&self, outage: bool) {
        self.state().outage = outage;
    }

    /// What the store makes of conditional creates from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.state().conditions = conditions;
    }

    /// All requests so far, but those that [`FaultStore::take_calls`] has taken.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// All requests since the last time this was called.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// Applies the late requests now, in the order in which they came. Returns how many of them had
    /// an effect.
    pub async fn deliver(&self) -> usize {
        let late = std::mem::take(&mut self.state().late);
        let mut applied = 0;
        for request in late {
            applied += usize::from(request.await);
        }
        applied
    }

    /// The bytes of answers that are still in memory, and the most that were since the last call.
    pub fn take_held(&self) -> (u64, u64) {
        self.held.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, request: &Request) -> Call {
        let call = Call::new(self.count, request);
        self.count += 1;
        self.calls.push(call.clone());
        call
    }

    /// What becomes of the request, and of its answer where that is decided already.
    fn before(&mut self, call: &Call) -> (Fault, Option<Answer>) {
        if self.outage {
            return (Fault::Fail, None);
        }
        let at = self.planned.iter().position(|(op, _)| *op == call.op);
        match at.and_then(|at| self.planned.remove(at)) {
            Some((_, Fault::Answer(answer))) => (self.policy.before(call), Some(answer)),
            Some((_, fault)) => (fault, None),
            None => match self.policy.before(call) {
                Fault::Answer(answer) => (Fault::Pass, Some(answer)),
                fault => (fault, None),
            },
        }
    }
}

fn broken() -> Error {
    let source = Box::new(io::Error::from(io::ErrorKind::ConnectionReset));
    Error::Generic { store: "FaultStore", source }
}

fn denied(path: &str) -> Error {
    let source = Box::new(io::Error::from(io::ErrorKind::PermissionDenied));
    Error::PermissionDenied { path: path.to_owned(), source }
}

fn conflict(path: &str) -> Error {
    let source = Box::new(io::Error::other("409 Conflict: ConditionalRequestConflict"));
    Error::AlreadyExists { path: path.to_owned(), source }
}

/// What `answer` makes of the value that a request returned, as far as that is the same for all
/// kinds.
async fn answered<T>(op: Op, answer: Answer, value: T) -> Result<(T, Answer)> {
    let has_parts = matches!(op, Op::Get | Op::List);
    match &answer {
        Answer::Lost => return Err(broken()),
        Answer::Never => return pending().await,
        Answer::Delay(time) => tokio::time::sleep(*time).await,
        Answer::Hold(gate) => gate.pass().await,
        // An answer in one piece arrives or doesn't.
        Answer::Cut if !has_parts => return Err(broken()),
        Answer::Stall if !has_parts => return pending().await,
        _ => {}
    }
    Ok((value, answer))
}

impl Intercept for FaultStore {
    type Note = Answer;

    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    fn carry<T: Send + 'static>(
        self,
        request: Request,
        apply: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<(T, Answer)>> + Send + 'static {
        // Outside the future: a request counts when it is made, on the thread that makes it.
        let (call, (fault, decided)) = {
            let mut state = self.state();
            let call = state.record(&request);
            let fault = state.before(&call);
            (call, fault)
        };
        async move {
            match fault {
                Fault::Pass | Fault::Answer(_) => {}
                Fault::Fail => return Err(broken()),
                Fault::Denied => return Err(denied(&call.path)),
                Fault::Conflict => return Err(conflict(&call.path)),
                Fault::Hang => return pending().await,
                Fault::Delay(time) => tokio::time::sleep(time).await,
                Fault::Hold(gate) => gate.pass().await,
                Fault::Carry(link) => link.carry(call.bytes).await,
                Fault::Late | Fault::LateUnanswered => {
                    self.state().late.push(apply.map(|result| result.is_ok()).boxed());
                    if matches!(fault, Fault::LateUnanswered) {
                        return pending().await;
                    }
                    return Err(broken());
                }
            }
            let value = apply.await?;
            let answer = decided.unwrap_or_else(|| self.state().policy.after(&call));
            answered(call.op, answer, value).await
        }
    }

    fn apply_put(
        self,
        path: Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> BoxFuture<'static, Result<PutResult>> {
        let conditions = self.state().conditions;
        let apply = async move {
            if options.mode != PutMode::Create {
                return self.inner.put_opts(&path, payload, options).await;
            }
            let overwrite = PutOptions { mode: PutMode::Overwrite, ..options.clone() };
            match conditions {
                Conditions::Honoured => {}
                Conditions::Ignored => options = overwrite,
                Conditions::Racy if self.inner.head(&path).await.is_err() => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    options = overwrite;
                }
                Conditions::Racy => {}
                Conditions::Lying => {
                    let created = self.inner.put_opts(&path, payload.clone(), options).await;
                    if created.is_err() {
                        self.inner.put_opts(&path, payload, overwrite).await?;
                    }
                    return created;
                }
            }
            self.inner.put_opts(&path, payload, options).await
        };
        apply.boxed()
    }

    fn body(&self, answer: Answer, result: GetResult) -> GetResult {
        self.held.watch(shape::body(&answer, result))
    }

    fn listing(
        &self,
        answer: Answer,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        shape::listing(answer, listed)
    }

    fn level(self, answer: Answer, listed: ListResult) -> BoxFuture<'static, Result<ListResult>> {
        shape::level(answer, listed).boxed()
    }
}

intercepted!(FaultStore);

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
