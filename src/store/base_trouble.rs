//! Why bases of a store fail at the moment, although the changelog goes on.
//!
//! A failed base is tried again without end, and checkpoints do not wait for it. A failure of the
//! object store passes, and shows in everything else as well. A local disk that cannot be read may
//! never recover: the changelog would grow unnoticed. Failures of this machine are therefore kept
//! here, and reported by the health of the store and of the job.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::ids::SubtaskIndex;

/// The failures of a store's bases since the last success.
#[derive(Debug, Default)]
pub(crate) struct BaseTrouble(Mutex<Option<Failing>>);

#[derive(Debug)]
struct Failing {
    since: Duration,
    times: u64,
    last: Error,
}

impl BaseTrouble {
    /// A base has failed at `now`.
    pub(crate) fn failed(&self, error: &Error, now: Duration) {
        if !is_of_this_machine(error.kind()) {
            return;
        }
        let mut failing = self.lock();
        let (since, times) = failing.as_ref().map_or((now, 0), |failing| (failing.since, failing.times));
        *failing = Some(Failing { since, times: times + 1, last: error.clone() });
    }

    /// A base was completed.
    pub(crate) fn succeeded(&self) {
        *self.lock() = None;
    }

    /// The trouble of this subtask as of `now`.
    pub(crate) fn of(&self, subtask: SubtaskIndex, now: Duration) -> Option<Error> {
        let failing = self.lock();
        let Failing { since, times, last } = failing.as_ref()?;
        let stood = now.saturating_sub(*since);
        let message = format!(
            "no base of subtask {subtask} can be taken: it has failed for {stood:.0?}, {times} time(s) in a row"
        );
        let error = Error::new(last.kind(), message).source(last.clone()).advise(
            "check the local disk, and free disk space if it is full: until a base succeeds, the changelog grows, and \
             restores take longer",
        );
        Some(match last.object_name() {
            Some(object) => error.object(object),
            None => error,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        // The value is only ever replaced as a whole, so a panic elsewhere leaves it intact.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a failure of this kind has its cause on this machine, rather than in the object store or
/// in the end of the attempt.
fn is_of_this_machine(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Disk | ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_says_which_subtask_since_when_and_why_until_a_base_comes_about() {
        let trouble = BaseTrouble::default();
        let subtask = SubtaskIndex(3);
        assert!(trouble.of(subtask, seconds(1)).is_none());
        let broken = io::Error::from_raw_os_error(5);
        let error = Error::disk("read a file of a snapshot", Path::new("/data/000012.sst"), broken);
        trouble.failed(&error, seconds(10));
        // What the object store says in between does not change where it began.
        trouble.failed(&Error::new(ErrorKind::StoreUnavailable, "away"), seconds(20));
        trouble.failed(&error, seconds(40));
        let told = trouble.of(subtask, seconds(55)).unwrap();
        assert_eq!((told.kind(), told.object_name()), (ErrorKind::Disk, Some("/data/000012.sst")));
        for words in ["subtask 3", "for 45s", "2 time(s)", "os error 5", "changelog grows"] {
            assert!(told.to_string().contains(words), "{words}: {told}");
        }
        trouble.succeeded();
        assert!(trouble.of(subtask, seconds(60)).is_none());
        trouble.failed(&error, seconds(70));
        assert!(trouble.of(subtask, seconds(71)).unwrap().to_string().contains("for 1s"));
    }

    #[test]
    fn what_the_object_store_refuses_and_how_an_attempt_ends_is_told_elsewhere() {
        let trouble = BaseTrouble::default();
        for kind in [ErrorKind::StoreUnavailable, ErrorKind::Aborted, ErrorKind::Fenced, ErrorKind::Corrupt] {
            trouble.failed(&Error::new(kind, "x"), seconds(1));
            assert!(trouble.of(SubtaskIndex(0), seconds(2)).is_none(), "{kind}");
        }
    }
}
