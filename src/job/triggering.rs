//! Triggering checkpoints, and what comes with it: the id that is due, metadata, receipts from elsewhere.

use std::time::Duration;

use futures::channel::oneshot;

use super::Job;
use super::coordinator::{Command, Trigger};
use super::pending::PendingCheckpoint;
use super::triggers::{Start, WhenBusy};
use crate::changelog::Receipt;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::messages::FromStore;
use crate::remote::SavepointName;
use crate::store::metadata;

impl Job {
    /// Starts a checkpoint. From now on [`StateStore::due`](crate::StateStore::due) of every store returns its id, until
    /// the store has cut for it. `metadata` is the coordinator's own, up to 1 MiB; a restore
    /// returns it as [`Opened::metadata`](crate::Opened::metadata).
    ///
    /// All cuts of a checkpoint must lie at one place in the stream. With several operators, call
    /// this between two records at the source, and send the id down every channel as a barrier.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for metadata that is longer;
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) while another checkpoint is under way; as [`Job::health`].
    pub fn trigger(&self, metadata: impl Into<Vec<u8>>) -> Result<PendingCheckpoint> {
        self.start_checkpoint(metadata.into(), None, WhenBusy::Refuse)
    }

    /// Starts a checkpoint and makes a savepoint of it. Garbage collection never touches a
    /// savepoint, through any number of later checkpoints and attempts, until it is released
    /// ([`Savepoints::release`](crate::admin::Savepoints::release)). Operators cut for it as for any other
    /// checkpoint. The returned checkpoint is done once the savepoint is durable.
    ///
    /// `name` is 1 to 100 ASCII letters, digits, `-`, `_` and `.`, the first a letter or digit, and no
    /// savepoint of the job may have it.
    ///
    /// # Errors
    /// As [`Job::trigger`], and [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a name that is none.
    /// Waiting for the result fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the name is taken;
    /// the checkpoint itself is durable all the same.
    pub fn savepoint(&self, name: &str, metadata: impl Into<Vec<u8>>) -> Result<PendingCheckpoint> {
        self.start_checkpoint(metadata.into(), Some(name.parse()?), WhenBusy::Refuse)
    }

    /// Like [`Job::trigger`], but while another checkpoint is under way this one waits its turn: it
    /// starts when the one before has ended, whether durable or not, and before a scheduled one.
    /// Up to 16 checkpoints wait. The minimum pause does not apply.
    ///
    /// Its id is known at once. Operators may cut for it from when [`Job::due`] returns it, which
    /// [`CheckpointListener::triggered`](crate::CheckpointListener::triggered) tells as well, so the barrier must not be sent before.
    /// `metadata` must be right at that time too.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for metadata that is longer than 1 MiB;
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if 16 checkpoints wait already; as [`Job::health`].
    pub fn queue_trigger(&self, metadata: impl Into<Vec<u8>>) -> Result<PendingCheckpoint> {
        self.start_checkpoint(metadata.into(), None, WhenBusy::Queue)
    }

    /// Starts the last checkpoint. It waits its turn like that of [`Job::queue_trigger`], and no
    /// other checkpoint starts after it, neither by a call nor by the schedule. When it is durable,
    /// [`Job::close`] the job: changes after its cuts are in no checkpoint. If it fails, checkpoints
    /// start again as before.
    ///
    /// ```
    /// # use alluvium::{Job, JobOptions, OpenMode, Opened};
    /// # fn main() -> alluvium::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
    /// # let Opened { job, mut stores, .. } = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
    /// let last = job.stop_with_checkpoint("offset 99")?;
    /// // On an operator's thread: a checkpoint that is under way comes first.
    /// let store = &mut stores[0];
    /// loop {
    ///     let Some(due) = store.due() else { continue };
    ///     store.cut(due, "")?;
    ///     if due == last.id() {
    ///         break;
    ///     }
    /// }
    /// last.wait()?;
    /// job.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Job::queue_trigger`]; [`Closed`](crate::ErrorKind::Closed) if the last checkpoint has been
    /// started before.
    pub fn stop_with_checkpoint(&self, metadata: impl Into<Vec<u8>>) -> Result<PendingCheckpoint> {
        self.start_checkpoint(metadata.into(), None, WhenBusy::QueueAsLast)
    }

    /// Announces that [`Job::trigger`] will be called in about `after`. Operators then cut early, as
    /// they do ahead of a scheduled checkpoint, so that little is left to upload at the barrier: a
    /// checkpoint under a paced load takes one round trip to the object store instead of two. Call
    /// it after each trigger, with the time to the next one; the last call counts. The next call of
    /// [`Job::trigger`] ends the expectation. A trigger that comes earlier, later or never does no
    /// harm. Does nothing in native mode.
    pub fn expect_trigger(&self, after: Duration) {
        // A job that is going down takes no more checkpoints.
        let _ = self.inner.0.send(Command::Expect(after));
    }

    fn start_checkpoint(
        &self,
        metadata: Vec<u8>,
        savepoint: Option<SavepointName>,
        when_busy: WhenBusy,
    ) -> Result<PendingCheckpoint> {
        let inner = &self.inner.0;
        check_metadata(&metadata)?;
        inner.attempt.check_complete()?;
        let (reply, result) = oneshot::channel();
        let start = inner.remote.env().clock.monotonic();
        let id = inner.triggers.start(&inner.attempt, when_busy, |id, at| {
            let trigger = Trigger { id, metadata, start, savepoint, reply: Some(reply) };
            inner.send(match at {
                Start::Now => Command::Trigger(trigger),
                Start::Queued => Command::Queue(trigger),
            })
        })?;
        Ok(PendingCheckpoint { id, result, commands: inner.commands.clone() })
    }

    /// The checkpoint that was triggered last, by a call or by the schedule, and is not complete yet. One load of an
    /// atomic: a source asks between two records, and sends the id with the records, as a barrier. See also
    /// [`CheckpointListener::triggered`](crate::CheckpointListener::triggered).
    pub fn due(&self) -> Option<CheckpointId> {
        let attempt = &self.inner.0.attempt;
        let number = attempt.barrier();
        (number > 0).then_some(CheckpointId { epoch: attempt.epoch, number })
    }

    /// The metadata that scheduled checkpoints carry from now on: up to 1 MiB, as with [`Job::trigger`].
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is longer; the one before stays.
    pub fn set_metadata(&self, metadata: impl Into<Vec<u8>>) -> Result<()> {
        let metadata = metadata.into();
        check_metadata(&metadata)?;
        // A job that is going down takes no more checkpoints.
        let _ = self.inner.0.send(Command::Metadata(metadata));
        Ok(())
    }

    /// Submits a receipt from elsewhere ([`Cut::receipt`](crate::Cut::receipt),
    /// [`Receipt::from_bytes`]). The job's own stores submit theirs by themselves. A receipt that
    /// arrives twice counts once.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if it is of another attempt; the attempt's failure.
    pub fn submit(&self, receipt: Receipt) -> Result<()> {
        let inner = &self.inner.0;
        inner.attempt.health()?;
        if receipt.checkpoint().epoch != inner.attempt.epoch {
            return Err(Error::invalid(format!(
                "the receipt is of checkpoint {}, the attempt's epoch is {}",
                receipt.checkpoint(),
                inner.attempt.epoch
            )));
        }
        inner.send(Command::Told(FromStore::Receipt(Box::new(receipt))))
    }
}

/// The metadata of a trigger lies in the manifest as it is, so its size is limited.
fn check_metadata(metadata: &[u8]) -> Result<()> {
    metadata::check(metadata.len(), 0).map_err(|error| error.object("the coordinator's metadata"))
}
