//! What may become of a request, and who decides it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use object_store::ObjectMeta;

use crate::intercept::{Op, Request};

use super::{Gate, Link};

/// A request as the store received it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// How many requests came before it.
    pub index: u64,
    /// What it does.
    pub op: Op,
    /// The whole path of the object; of a listing its prefix.
    pub path: String,
    /// Bytes that it sends; of [`Op::Complete`] the bytes of all parts together.
    pub bytes: u64,
    /// What a get asks for. None is all of it.
    pub range: Option<Range<u64>>,
    /// Whether it is a conditional create.
    pub create: bool,
    /// The thread that made it.
    pub thread: ThreadId,
    /// That thread's name, empty if it has none.
    pub thread_name: String,
}

impl Call {
    pub(super) fn new(index: u64, request: &Request) -> Self {
        let thread = thread::current();
        Self {
            index,
            op: request.op,
            path: request.path.to_string(),
            bytes: request.bytes,
            range: request.range.clone(),
            create: request.create,
            thread: thread.id(),
            thread_name: thread.name().unwrap_or_default().to_owned(),
        }
    }

    /// Whether it sends an object or a part of one.
    pub fn writes(&self) -> bool {
        matches!(self.op, Op::Put | Op::Begin | Op::Part | Op::Complete)
    }

    /// Whether it puts an object of a job's chain of manifests.
    pub fn is_manifest_put(&self) -> bool {
        self.op == Op::Put && self.path.contains("manifest/")
    }

    /// Whether it is about an object of a job's data.
    pub fn is_data(&self) -> bool {
        self.path.contains("data/")
    }
}

/// What becomes of a request. Decided before the store underneath has seen it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// None.
    Pass,
    /// A broken connection. Nothing is applied.
    Fail,
    /// A permanent refusal: no permission. Nothing is applied.
    Denied,
    /// "Conflicting request, try again", as S3 says it and `object_store` passes it on. Nothing is
    /// applied.
    Conflict,
    /// Nothing is applied, and no answer comes.
    Hang,
    /// It is applied after this time.
    Delay(Duration),
    /// It waits at the gate, and is applied then, like a process or a request that was paused.
    Hold(Gate),
    /// The bytes that it sends have to pass the link first.
    Carry(Link),
    /// It is applied when the test calls [`FaultStore::deliver`](super::FaultStore::deliver). The
    /// answer is a broken connection at once.
    Late,
    /// As [`Fault::Late`], but no answer comes.
    LateUnanswered,
    /// It is applied, and this becomes of the answer. The policy is not asked again.
    Answer(Answer),
}

/// What becomes of the answer to a request that was applied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Answer {
    /// It arrives as it is.
    Whole,
    /// A broken connection instead.
    Lost,
    /// No answer comes.
    Never,
    /// It arrives after this time.
    Delay(Duration),
    /// It waits at the gate.
    Hold(Gate),
    /// Half of the body, or the first object of a listing, and then a broken connection. Any other
    /// answer is lost.
    Cut,
    /// Half of the body, or the first object of a listing, and then nothing any more. Any other
    /// answer never comes.
    Stall,
    /// Half of the body, and then an end as if that were all.
    Short,
    /// The body, and then half of it once more.
    Long,
    /// The body in many small chunks.
    Chunks,
    /// A listing with these changes: stale, or ahead of its time.
    Listing(ListingEdit),
}

impl Answer {
    /// A listing that `edit` has changed.
    pub fn listing(edit: impl Fn(&mut Vec<ObjectMeta>) + Send + Sync + 'static) -> Self {
        Self::Listing(ListingEdit(Arc::new(edit)))
    }
}

impl From<Answer> for Fault {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

type Edit = dyn Fn(&mut Vec<ObjectMeta>) + Send + Sync;

/// Changes what a listing shows.
#[derive(Clone)]
pub struct ListingEdit(Arc<Edit>);

impl ListingEdit {
    pub(super) fn apply(&self, objects: &mut Vec<ObjectMeta>) {
        (self.0)(objects);
    }
}

impl fmt::Debug for ListingEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListingEdit")
    }
}

/// Decides what becomes of each request. Asked under a lock, one request after the other.
pub trait FaultPolicy: Send {
    /// Asked before the store underneath has seen the request.
    fn before(&mut self, call: &Call) -> Fault;

    /// Asked once the store underneath has applied the request, before the answer goes back. Not
    /// asked if it has refused it. Default: [`Answer::Whole`].
    fn after(&mut self, call: &Call) -> Answer {
        let _ = call;
        Answer::Whole
    }
}

/// A function decides before the request is applied; all answers arrive.
impl<F: FnMut(&Call) -> Fault + Send> FaultPolicy for F {
    fn before(&mut self, call: &Call) -> Fault {
        self(call)
    }
}

/// What the store makes of "create if absent".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conditions {
    /// As it should be.
    #[default]
    Honoured,
    /// Overwrites, and says that it created.
    Ignored,
    /// Looks first and writes later, so that two creates at the same time both succeed.
    Racy,
    /// Says that it exists, but overwrites nevertheless.
    Lying,
}
