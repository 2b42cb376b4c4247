//! Starts checkpoints: one at a time, and no id twice.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, Epoch};
use crate::store::Attempt;

#[derive(Debug)]
pub(crate) struct Triggers {
    epoch: Epoch,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    pending: Option<CheckpointId>,
}

impl Triggers {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, state: Mutex::default() }
    }

    /// Starts a checkpoint under a new id. First `announce` tells the coordinator, then the
    /// operators see the checkpoint as due. Both happen under the lock, so that no receipt comes
    /// before its checkpoint, and no barrier outlives it.
    pub(crate) fn start(
        &self,
        attempt: &Attempt,
        announce: impl FnOnce(CheckpointId) -> Result<()>,
    ) -> Result<CheckpointId> {
        let mut state = self.lock();
        if let Some(pending) = state.pending {
            return Err(Error::new(ErrorKind::WouldBlock, "a checkpoint is still under way")
                .object(format!("checkpoint {pending}"))
                .advise("wait for it, or abort it"));
        }
        state.last += 1;
        let id = CheckpointId { epoch: self.epoch, number: state.last };
        announce(id)?;
        state.pending = Some(id);
        attempt.set_barrier(id.number);
        Ok(id)
    }

    /// Returns when no start is under way on another thread. The checkpoint that it has announced is due then.
    pub(crate) fn started(&self) {
        drop(self.lock());
    }

    /// Ends the checkpoint `id`, if it is the one under way.
    pub(crate) fn done(&self, attempt: &Attempt, id: CheckpointId) {
        let mut state = self.lock();
        if state.pending == Some(id) {
            state.pending = None;
            attempt.set_barrier(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_no_id_twice() {
        let (triggers, attempt) = (Triggers::new(Epoch(4)), Attempt::new(Epoch(4)));
        let start = || triggers.start(&attempt, |_| Ok(()));
        let first = start().unwrap();
        assert_eq!(first.to_string(), "4-1");
        assert_eq!(attempt.barrier(), 1);
        assert_eq!(start().unwrap_err().kind(), ErrorKind::WouldBlock);
        triggers.done(&attempt, first);
        assert_eq!(attempt.barrier(), 0);
        let second = start().unwrap();
        assert!(second > first);
        triggers.done(&attempt, first);
        assert!(start().is_err(), "an old checkpoint's end does not end the newer one");
        assert_eq!(attempt.barrier(), 2);
    }
}
