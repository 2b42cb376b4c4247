//! What the coordinator is asked and told.

use std::time::Duration;

use futures::channel::oneshot;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::ids::{CheckpointId, Nonce};
use crate::job::report::CheckpointReport;
use crate::messages::{Committer, FromMember, FromStore};
use crate::remote::SavepointName;

/// A message to the coordinator.
pub(crate) enum Command {
    /// The checkpoint has started.
    Trigger(Trigger),
    /// Starts when the checkpoints before it have ended.
    Queue(Trigger),
    /// A call will trigger a checkpoint in about this time.
    Expect(Duration),
    /// What stores and the uploader say.
    Told(FromStore),
    /// A member was heard of for the first time.
    Joined {
        member: usize,
        session: Nonce,
    },
    /// What a member says.
    Member {
        member: usize,
        message: Box<FromMember>,
    },
    /// A later attempt may have begun.
    LookForSuccessor,
    Abort(CheckpointId),
    /// Metadata for scheduled checkpoints.
    Metadata(Vec<u8>),
    Close(oneshot::Sender<Result<()>>),
}

/// Brings what stores say into the coordinator's inbox.
pub(crate) fn committer(commands: &mpsc::UnboundedSender<Command>) -> Committer {
    let commands = commands.clone();
    // Fails only when the job is going down.
    Committer::new(move |message| drop(commands.send(Command::Told(message))))
}

/// A checkpoint that was asked for.
pub(crate) struct Trigger {
    pub(crate) id: CheckpointId,
    pub(crate) metadata: Vec<u8>,
    pub(crate) start: Duration,
    /// Make a savepoint of it under this name.
    pub(crate) savepoint: Option<SavepointName>,
    pub(crate) reply: Option<oneshot::Sender<Result<CheckpointReport>>>,
}
