//! Who may start a checkpoint, and under which id: one at a time, and no id twice.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, Epoch};

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

    /// The id of a new checkpoint, which is from now on the one under way.
    pub(crate) fn next(&self) -> Result<CheckpointId> {
        let mut state = self.lock();
        if let Some(pending) = state.pending {
            return Err(Error::new(ErrorKind::WouldBlock, "a checkpoint is still under way")
                .object(format!("checkpoint {pending}"))
                .advice("wait for it, or abort it"));
        }
        state.last += 1;
        let id = CheckpointId { epoch: self.epoch, number: state.last };
        state.pending = Some(id);
        Ok(id)
    }

    pub(crate) fn done(&self, id: CheckpointId) {
        let mut state = self.lock();
        state.pending = state.pending.filter(|pending| *pending != id);
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
        let triggers = Triggers::new(Epoch(4));
        let first = triggers.next().unwrap();
        assert_eq!(first.to_string(), "4-1");
        assert_eq!(triggers.next().unwrap_err().kind(), ErrorKind::WouldBlock);
        triggers.done(first);
        let second = triggers.next().unwrap();
        assert!(second > first);
        triggers.done(first);
        assert!(triggers.next().is_err(), "an old checkpoint's end does not end the newer one");
    }
}
