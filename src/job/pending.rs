//! A checkpoint as its caller holds it: waits for the report, or gives the checkpoint up.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use futures::channel::oneshot;
use tokio::sync::mpsc;

use super::coordinator::Command;
use super::inner::closed;
use super::report::CheckpointReport;
use crate::error::Result;
use crate::ids::CheckpointId;
use crate::wait::wait;

/// A checkpoint under way. Wait for it with [`PendingCheckpoint::wait`], or `.await` it.
///
/// Dropping it changes nothing: the checkpoint goes on.
#[derive(Debug)]
pub struct PendingCheckpoint {
    pub(super) id: CheckpointId,
    pub(super) result: oneshot::Receiver<Result<CheckpointReport>>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

impl PendingCheckpoint {
    /// Its id.
    pub fn id(&self) -> CheckpointId {
        self.id
    }

    /// Blocks until the checkpoint is durable.
    ///
    /// # Errors
    /// [`Aborted`](crate::ErrorKind::Aborted) after a timeout or [`PendingCheckpoint::abort`],
    /// [`Fenced`](crate::ErrorKind::Fenced), [`StoreUnavailable`](crate::ErrorKind::StoreUnavailable),
    /// [`Closed`](crate::ErrorKind::Closed). Whatever it is, the state is unharmed.
    pub fn wait(self) -> Result<CheckpointReport> {
        wait(self.into_future())
    }

    /// Gives the checkpoint up, unless it is being committed already.
    pub fn abort(&self) {
        // Nothing to abort if the job is gone.
        let _ = self.commands.send(Command::Abort(self.id));
    }
}

impl IntoFuture for PendingCheckpoint {
    type Output = Result<CheckpointReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.result.await.unwrap_or_else(|_| Err(closed())) })
    }
}
