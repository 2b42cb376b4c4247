//! A member: the process that holds some of a job's subtasks for a committer elsewhere.
//!
//! - [`open`]: checks the place, restores what the member's ranges overlap, starts the background.
//! - [`desk`]: the task between the stores and the link to the committer.
//! - [`named`]: what the stores' receipts name, so that the member packs what it wrote.

mod desk;
mod named;
mod open;
mod options;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::ids::{CheckpointId, Epoch, SubtaskIndex};
use crate::job::{Assignment, Background, LocalDir, MemoryStats, Outbox, closed};
use crate::key_group::KeyGroupRange;
use crate::messages::{Side, decode};
use crate::remote::{JobLocation, Remote, RemoteCounters};
use crate::restore::RestoreReport;
use crate::runtime::BackgroundRuntime;
use crate::store::{Attempt, StateStore, StoreStats};

use desk::Event;
#[cfg(all(test, feature = "test-util"))]
pub(crate) use desk::{Desk, DeskParts, Event as DeskEvent};
pub use options::MemberOptions;

/// The part of a job's attempt that this process holds, for a committer in another one. Cheap to
/// clone, and usable from any thread.
///
/// A member has the stores of its [assignment](Assignment), and does for them what a job does for
/// its own: it uploads, takes bases, packs what it wrote. What it cannot do is commit. It sends
/// receipts to the committer, and hears of triggers and commits from there. All of that are
/// messages, which the host carries as bytes by whatever way it has: a message that is lost,
/// doubled, late or reordered costs time, and nothing else.
///
/// A barrier may reach a store before the committer's word of the trigger reaches its member; the
/// store cuts all the same. If any process of an attempt ends, no further checkpoint is complete,
/// and the host starts all of them again: the committer first, because its epoch fences the members
/// of the attempt before.
///
/// ```
/// use std::sync::mpsc;
/// use std::thread;
///
/// use alluvium::{Assignment, Job, JobOptions, Member, MemberOptions, OpenMode, Opened, OpenedMember};
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let url = place.path().join("job").display().to_string();
/// # let dirs = [0, 1, 2].map(|n| place.path().join(format!("local{n}")));
/// // The committer holds none of the four subtasks itself. Here, members are in the same program.
/// let options = JobOptions::new(&dirs[2], OpenMode::CreateOrOpen).subtasks(4).members([0..2, 2..4]);
/// let Opened { job, assignments, .. } = Job::open(&url, options)?;
///
/// let mut members = Vec::new();
/// for (number, assignment) in assignments.iter().enumerate() {
///     let (to_job, from_member) = mpsc::channel();
///     let (to_member, from_job) = mpsc::channel();
///     // In another process.
///     let assignment = Assignment::from_bytes(&assignment.to_bytes()?)?;
///     let outbox = move |message| drop(to_job.send(message));
///     let OpenedMember { member, stores, .. } =
///         Member::open(&assignment, &url, MemberOptions::new(&dirs[number]), outbox)?;
///     // Whatever carries bytes both ways.
///     job.connect(number, move |message| drop(to_member.send(message)))?;
///     let (ear, mouth) = (job.clone(), member.clone());
///     thread::spawn(move || from_member.iter().try_for_each(|message| ear.deliver(number, &message)));
///     thread::spawn(move || from_job.iter().try_for_each(|message| mouth.deliver(&message)));
///     members.push((member, stores));
/// }
///
/// let checkpoint = job.trigger("offset 17")?;
/// for store in members.iter_mut().flat_map(|(_, stores)| stores) {
///     store.cut(checkpoint.id(), "")?;
/// }
/// checkpoint.wait()?;
/// job.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Member {
    inner: Arc<Inner>,
}

/// A member that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenedMember {
    /// The member.
    pub member: Member,
    /// One store for each subtask that it holds, in their order: to be handed to the operators'
    /// threads.
    pub stores: Vec<StateStore>,
    /// What was restored, and what it took. Of this member's subtasks alone.
    pub restored: RestoreReport,
    /// As [`Opened::metadata`](crate::Opened::metadata).
    pub metadata: Option<Vec<u8>>,
    /// As [`Opened::subtask_metadata`](crate::Opened::subtask_metadata): of all subtasks of the checkpoint.
    pub subtask_metadata: Vec<(SubtaskIndex, KeyGroupRange, Vec<u8>)>,
}

/// Numbers of a member since it was opened.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct MemberStats {
    /// Requests to the object store and their bytes.
    pub remote: RemoteCounters,
    /// The store of each of its subtasks.
    pub stores: Vec<StoreStats>,
    /// How the memory is used.
    pub memory: MemoryStats,
    /// The RocksDB options in force, by name.
    pub table_options: Vec<(String, String)>,
}

struct Inner {
    // Held for its drop, which ends the background.
    _runtime: BackgroundRuntime,
    number: u32,
    attempt: Arc<Attempt>,
    remote: Arc<Remote>,
    desk: mpsc::UnboundedSender<Event>,
    background: Arc<Background>,
    _dir: LocalDir,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whatever is still queued at the appliers is not worth doing.
        self.attempt.fail_quietly(closed());
    }
}

impl Member {
    /// Opens the part of a job that `assignment` says, whose place is `location`: the same as the
    /// committer's, with credentials of this process. Restores what its key groups overlap, and no
    /// more, with files of its own local directory where they match. `outbox` takes messages to the
    /// committer, as that of [`Job::connect`](crate::Job::connect) does the other way. It is called on a thread of the
    /// background, and must not wait.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if a later attempt has begun,
    /// [`NotFound`](crate::ErrorKind::NotFound) and [`Incompatible`](crate::ErrorKind::Incompatible) if the place holds no
    /// job or another one; otherwise as [`Job::open`](crate::Job::open).
    pub fn open(
        assignment: &Assignment,
        location: impl Into<JobLocation>,
        options: MemberOptions,
        outbox: impl Fn(Bytes) + Send + Sync + 'static,
    ) -> Result<OpenedMember> {
        open::open(assignment, &location.into(), &options, Outbox::new(outbox))
    }

    /// Takes in a message of the committer, as its outbox was given it. A message of another job,
    /// attempt or member, one that comes twice or that is overdue is ignored. Never waits.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`UnsupportedVersion`](crate::ErrorKind::UnsupportedVersion) for bytes that are
    /// no message. The member goes on.
    pub fn deliver(&self, message: &[u8]) -> Result<()> {
        self.send(Event::Received(Box::new(decode(message, Side::Committer)?)));
        Ok(())
    }

    /// Sends messages elsewhere from now on, beginning with what the committer has not taken in:
    /// after a connection was lost and made again.
    pub fn connect(&self, outbox: impl Fn(Bytes) + Send + Sync + 'static) {
        self.send(Event::Connect(Outbox::new(outbox)));
    }

    /// The member's number: its place in [`JobOptions::members`](crate::JobOptions::members).
    pub fn number(&self) -> usize {
        self.inner.number as usize
    }

    /// The epoch of the attempt that it is a part of.
    pub fn epoch(&self) -> Epoch {
        self.inner.attempt.epoch
    }

    /// The checkpoint that was triggered last, as far as is known here, and is not complete yet. As
    /// [`Job::due`](crate::Job::due).
    pub fn due(&self) -> Option<CheckpointId> {
        let attempt = &self.inner.attempt;
        let number = attempt.barrier();
        (number > 0).then_some(CheckpointId { epoch: attempt.epoch, number })
    }

    /// As [`Job::health`](crate::Job::health), of this member: the failure that ended the attempt, if any, as far as is
    /// known here, or what is in trouble. Never blocks.
    ///
    /// # Errors
    /// That failure: [`Fenced`](crate::ErrorKind::Fenced) if a later attempt has taken over, or if another process has
    /// opened the same assignment; [`Closed`](crate::ErrorKind::Closed) if the committer has closed the job; …
    pub fn health(&self) -> Result<()> {
        self.inner.attempt.complete()?;
        let now = self.inner.remote.env().clock.monotonic();
        self.inner.background.trouble(now).map_or(Ok(()), Err)
    }

    /// Waits until all deferred work of the member's stores is done, as [`Job::settle`](crate::Job::settle) does.
    ///
    /// # Errors
    /// [`Aborted`](crate::ErrorKind::Aborted) if that takes longer than `timeout`; the attempt's failure.
    pub fn settle(&self, timeout: Duration) -> Result<()> {
        let Inner { attempt, remote, background, .. } = &*self.inner;
        background.settle(attempt, &*remote.env().clock, timeout, || false)
    }

    /// As [`Job::compact`](crate::Job::compact), of the member's stores.
    ///
    /// # Errors
    /// [`Disk`](crate::ErrorKind::Disk); the attempt's failure.
    pub fn compact(&self) -> Result<()> {
        self.inner.attempt.health()?;
        self.inner.background.compact()
    }

    /// Numbers since the member was opened.
    pub fn stats(&self) -> MemberStats {
        let Inner { remote, background, .. } = &*self.inner;
        MemberStats {
            remote: remote.counters(),
            stores: background.store_stats(),
            memory: background.memory_stats(),
            table_options: background.resources.options_summary(),
        }
    }

    fn send(&self, event: Event) {
        // Fails only when the member is going down.
        let _ = self.inner.desk.send(event);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("number", &self.number())
            .field("epoch", &self.epoch())
            .field("stores", &self.inner.background.stores.len())
            .finish_non_exhaustive()
    }
}
