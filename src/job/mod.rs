//! A running attempt of a job: its stores, its checkpoints, its schedule.

mod background;
mod busy;
mod coordinator;
mod early_cuts;
mod files;
mod foreign;
mod inner;
mod local_dir;
mod members;
mod memory;
mod open;
mod opened;
mod operators;
mod options;
mod overdue;
mod pending;
#[cfg(feature = "test-util")]
#[cfg(test)]
mod process_tests;
mod report;
mod status;
mod timetable;
mod tolerance;
mod triggering;
mod triggers;
mod with_members;

use std::fmt;
use std::time::Duration;

use futures::channel::oneshot;

use crate::error::Result;
use crate::ids::Epoch;
use crate::manifest::CheckpointMode;
use crate::messages::{ToMember, ToStore};
use crate::remote::JobLocation;
use crate::wait::wait;

pub(crate) use background::{
    Background, BackgroundParts, Instance, Packer, restorer, start_runtime, table_resources, with_upload_room,
};
use coordinator::Command;
pub use foreign::SourceJob;
pub(crate) use foreign::identity;
use inner::JobHold;
pub(crate) use inner::closed;
pub(crate) use local_dir::{LocalDir, remove as remove_instances};
pub use members::Assignment;
pub(crate) use members::Outbox;
pub(crate) use open::schemas;
pub use opened::Opened;
pub use operators::OperatorSpec;
pub use options::JobOptions;
pub use pending::PendingCheckpoint;
pub use report::{CheckpointListener, CheckpointReport, CheckpointSummary, JobStats, MemoryStats};
pub use status::{Health, JobStatus, Owes, StoreState, SubtaskStatus, UnderWay};

/// A running attempt of a job. Cheap to clone, and usable from any thread.
///
/// Dropping the last clone and all stores ends the background work. The drop waits at most for the
/// delta that is being applied, and never panics, not even inside an async runtime. As in a crash,
/// state after the last checkpoint is lost; [`Job::close`] ends the attempt in order.
///
/// ```
/// use alluvium::{Health, Job, JobOptions, OpenMode, Opened};
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let options = JobOptions::new(dir, OpenMode::CreateOrOpen).subtasks(2).retained(5);
/// let Opened { job, mut stores, .. } = Job::open(&url, options)?;
///
/// // Between two records of the source.
/// let checkpoint = job.trigger("offset 17")?;
/// for store in &mut stores {
///     // On each operator's thread, when the barrier reaches it.
///     store.cut(checkpoint.id(), "")?;
/// }
/// let report = checkpoint.wait()?;
///
/// let checkpoints = job.checkpoints();
/// assert_eq!(checkpoints.last().map(|checkpoint| checkpoint.id), Some(report.id));
/// assert!(matches!(job.status().health(), Health::Well));
/// job.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Job {
    inner: JobHold,
}

impl Job {
    /// Opens the job that lives at `location`, a URL or an object store and a prefix in it, and restores its newest
    /// checkpoint if there is one. From here on every earlier attempt of the job is fenced (I2).
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a wrong URL or option,
    /// [`NotFound`](crate::ErrorKind::NotFound) or
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the job is not as the open mode says,
    /// [`ForeignData`](crate::ErrorKind::ForeignData) if the place holds something else,
    /// [`UnsafeStore`](crate::ErrorKind::UnsafeStore) if the store does not honour conditional creates,
    /// [`Locked`](crate::ErrorKind::Locked) if another process uses the local directory,
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`MissingObject`](crate::ErrorKind::MissingObject),
    /// [`UnsupportedVersion`](crate::ErrorKind::UnsupportedVersion) and
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the checkpoint cannot be restored,
    /// [`Disk`](crate::ErrorKind::Disk) and [`StoreUnavailable`](crate::ErrorKind::StoreUnavailable).
    pub fn open(location: impl Into<JobLocation>, options: JobOptions) -> Result<Opened> {
        options.validate()?;
        open::open(&location.into(), &options)
    }

    /// The attempt's epoch: greater than that of every earlier attempt.
    pub fn epoch(&self) -> Epoch {
        self.inner.0.attempt.epoch
    }

    /// How checkpoints are taken.
    pub fn mode(&self) -> CheckpointMode {
        self.inner.0.mode
    }

    /// The failure that ended the attempt, if any, or what makes every further checkpoint
    /// impossible: a store that was dropped without
    /// [`StateStore::finish`](crate::StateStore::finish). In that case the next checkpoint ends the
    /// attempt; a checkpoint that the store has cut for may still complete. Also reports what
    /// cannot be done in the background of one of the stores at the moment, see
    /// [`StateStore::health`](crate::StateStore::health). Never blocks. [`Job::status`] says more.
    ///
    /// # Errors
    /// That failure: [`Fenced`](crate::ErrorKind::Fenced) if a later attempt has taken over,
    /// [`Disk`](crate::ErrorKind::Disk), [`Closed`](crate::ErrorKind::Closed) for a store that was dropped,
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if two subtasks use one state in different ways, …
    pub fn health(&self) -> Result<()> {
        let inner = &self.inner.0;
        inner.attempt.complete()?;
        inner.trouble().map_or(Ok(()), Err)
    }

    /// The state of the job: what ended it, checkpoints that fail in a row, what the checkpoint
    /// under way waits for, when each subtask last cut. Never blocks.
    pub fn status(&self) -> JobStatus {
        let inner = &self.inner.0;
        let now = inner.remote.env().clock.monotonic();
        let (pending, failures, heard) = {
            let progress = inner.progress();
            (progress.pending.clone(), progress.failures.clone(), progress.heard.clone())
        };
        let subtasks = inner.seats.iter().map(|(subtask, seat)| {
            let standing = seat.standing(*subtask, &heard, now);
            status::of_subtask(*subtask, &standing, pending.as_ref(), inner.attempt.epoch)
        });
        JobStatus {
            failure: inner.attempt.complete().err(),
            trouble: inner.trouble(),
            failed_in_a_row: failures.count,
            failing_for: (failures.count > 0).then(|| now.saturating_sub(failures.since)),
            last_failure: failures.last,
            subtasks: subtasks.collect(),
            under_way: pending.map(|pending| UnderWay {
                id: pending.id,
                age: now.saturating_sub(pending.start),
                timeout: inner.checkpoint_timeout,
            }),
        }
    }

    /// Asks for a new base of every subtask now, whatever the schedule says, even if nothing was
    /// written since the last one. After values have expired and [`Job::compact`] has removed them,
    /// checkpoints on the new base are smaller. The next checkpoint refers to it. Does nothing if
    /// no state was ever written, and in native mode, in which every checkpoint is a base.
    pub fn materialize(&self) {
        self.inner.0.background.tell_all(&ToStore::Materialize);
        self.inner.0.members.iter().for_each(|member| member.tell(ToMember::Materialize));
    }

    /// Waits until all deferred work is done: every cut delta applied, nothing being uploaded, no
    /// materialization, packing or garbage collection under way, RocksDB's compaction settled. Not
    /// that of members ([`Member::settle`](crate::Member::settle)).
    ///
    /// # Errors
    /// [`Aborted`](crate::ErrorKind::Aborted) if that takes longer than `timeout`; the attempt's failure.
    pub fn settle(&self, timeout: Duration) -> Result<()> {
        let inner = &self.inner.0;
        let clock = &*inner.remote.env().clock;
        inner.background.settle(&inner.attempt, clock, timeout, || inner.collecting.is_busy())
    }

    /// Rewrites the whole table of every subtask by a full compaction, and waits for it. That of
    /// members' subtasks is [`Member::compact`](crate::Member::compact). For maintenance and for
    /// measuring: it is what makes native incremental checkpoints upload everything again.
    ///
    /// # Errors
    /// [`Disk`](crate::ErrorKind::Disk); the attempt's failure.
    pub fn compact(&self) -> Result<()> {
        self.inner.0.attempt.health()?;
        self.inner.0.background.compact()
    }

    /// Whether the job needs nothing of another job. False only between a start from another job
    /// ([`JobOptions::start_from`]) and the first checkpoint after it. Once it is true, the other
    /// job may be deleted.
    pub fn is_independent(&self) -> bool {
        !self.inner.0.progress().dependent
    }

    /// The checkpoints that can be restored, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointSummary> {
        self.inner.0.progress().retained.iter().cloned().collect()
    }

    /// Numbers since the job was opened.
    pub fn stats(&self) -> JobStats {
        let inner = &self.inner.0;
        let (completed, failed) = {
            let progress = inner.progress();
            (progress.completed, progress.failed)
        };
        JobStats {
            remote: inner.remote.counters(),
            checkpoints_completed: completed,
            checkpoints_failed: failed,
            stores: inner.background.store_stats(),
            memory: inner.background.memory_stats(),
            table_options: inner.background.resources.options_summary(),
        }
    }

    /// Ends the attempt in order: gives up a checkpoint under way, and deletes what the last
    /// commits have made unreachable. The stores are closed with it. State after the last
    /// checkpoint is not kept: take a checkpoint first.
    ///
    /// # Errors
    /// What the object store answers to the last deletions.
    pub fn close(self) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.inner.0.closing.notify_one();
        let result = match self.inner.0.send(Command::Close(reply)) {
            Ok(()) => wait(done).unwrap_or(Ok(())),
            // Closed by another clone.
            Err(_) => Ok(()),
        };
        self.inner.0.attempt.fail_quietly(closed());
        result
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("epoch", &self.epoch())
            .field("mode", &self.mode())
            .field("stores", &self.inner.0.background.stores.len())
            .finish_non_exhaustive()
    }
}
