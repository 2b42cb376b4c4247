//! The result of a cut: a receipt that may still be pending.

use futures::channel::oneshot;

use crate::changelog::Receipt;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::wait::wait;

/// A cut whose bytes may still be on their way.
#[derive(Debug)]
pub struct Cut {
    pub(super) id: CheckpointId,
    pub(super) receipt: oneshot::Receiver<Result<Receipt>>,
}

impl Cut {
    /// The checkpoint that it belongs to.
    pub fn id(&self) -> CheckpointId {
        self.id
    }

    /// Blocks until all that the receipt names is durable or small enough to travel in it.
    ///
    /// # Errors
    /// [`Aborted`](ErrorKind::Aborted) if the checkpoint was given up; the attempt's failure.
    pub fn wait(self) -> Result<Receipt> {
        wait(self.receipt).unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "the job was closed")))
    }

    /// As [`Cut::wait`], for async callers.
    ///
    /// # Errors
    /// As [`Cut::wait`].
    pub async fn receipt(self) -> Result<Receipt> {
        self.receipt.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "the job was closed")))
    }
}
