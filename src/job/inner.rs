//! What all clones of a job and its stores share, and what ends with the last of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::background::Background;
use super::busy::Busy;
use super::coordinator::{Command, Progress};
use super::local_dir::LocalDir;
use super::members::{MemberLink, Seat};
use super::triggers::Triggers;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::SubtaskIndex;
use crate::manifest::CheckpointMode;
use crate::remote::Remote;
use crate::runtime::BackgroundRuntime;
use crate::store::Attempt;

/// What keeps a job's background alive.
#[derive(Clone)]
pub(crate) struct JobHold(pub(super) Arc<Inner>);

pub(super) struct Inner {
    // Held for its drop, which ends the background.
    pub(super) runtime: BackgroundRuntime,
    pub(super) mode: CheckpointMode,
    pub(super) attempt: Arc<Attempt>,
    pub(super) remote: Arc<Remote>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) background: Background,
    /// Where each subtask's store is.
    pub(super) seats: Vec<(SubtaskIndex, Seat)>,
    pub(super) members: Vec<MemberLink>,
    pub(super) collecting: Busy,
    pub(super) closing: Arc<Notify>,
    pub(super) checkpoint_timeout: Duration,
    pub(super) _dir: LocalDir,
}

impl Inner {
    pub(super) fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| closed())
    }

    /// What cannot be done in the background of one of the stores.
    pub(super) fn trouble(&self) -> Option<Error> {
        let here = self.background.trouble(self.remote.env().clock.monotonic());
        here.or_else(|| self.progress().heard.iter().find_map(|heard| heard.standing.trouble.clone()))
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whatever is still queued at the appliers is not worth doing.
        self.attempt.fail_quietly(closed());
    }
}

/// The error of whatever is asked of a job that was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the job was closed")
}
