//! How many checkpoints in a row may fail before the attempt ends.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Counts checkpoints that failed since the last one that became durable.
///
/// What a caller aborts does not count, as it says nothing about the job.
#[derive(Debug, Default)]
pub(super) struct Tolerance {
    tolerable: Option<u32>,
    /// How many there were, and when the first of them failed.
    failed: u32,
    since: Duration,
}

impl Tolerance {
    /// None tolerates any number.
    pub(super) fn new(tolerable: Option<u32>) -> Self {
        Self { tolerable, ..Self::default() }
    }

    /// A checkpoint became durable, or turns out to be.
    pub(super) fn durable(&mut self) {
        self.failed = 0;
    }

    /// A checkpoint failed by `cause`. Returns the end of the attempt, if these are too many.
    pub(super) fn failed(&mut self, now: Duration, cause: &Error) -> Option<Error> {
        let tolerable = self.tolerable?;
        if self.failed == 0 {
            self.since = now;
        }
        self.failed = self.failed.saturating_add(1);
        (self.failed > tolerable).then(|| self.error(tolerable, now, cause))
    }

    fn error(&self, tolerable: u32, now: Duration, cause: &Error) -> Error {
        let within = now.saturating_sub(self.since);
        let message = match self.failed {
            1 => "a checkpoint failed, and none may".to_owned(),
            failed => {
                format!("{failed} checkpoints in a row failed within {within:.1?}, and {tolerable} may")
            }
        };
        Error::new(ErrorKind::Overdue, message)
            .source(cause.clone())
            .advise("end this process and start it again; it goes on from the newest durable checkpoint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause() -> Error {
        Error::new(ErrorKind::Aborted, "not durable within 3s")
    }

    /// The failures after which a new count ends the attempt.
    fn ends_after(tolerable: Option<u32>) -> Option<u64> {
        let mut tolerance = Tolerance::new(tolerable);
        (1..=100).find(|second| tolerance.failed(Duration::from_secs(*second), &cause()).is_some())
    }

    #[test]
    fn as_many_as_are_tolerable_may_fail_and_no_more() {
        assert_eq!(ends_after(None), None);
        assert_eq!([0, 1, 5].map(|tolerable| ends_after(Some(tolerable))), [Some(1), Some(2), Some(6)]);
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let mut tolerance = Tolerance::new(Some(1));
        for second in 0..10 {
            assert!(tolerance.failed(Duration::from_secs(second), &cause()).is_none());
            tolerance.durable();
        }
        assert!(tolerance.failed(Duration::from_secs(20), &cause()).is_none());
        assert!(tolerance.failed(Duration::from_secs(21), &cause()).is_some());
    }

    #[test]
    fn the_end_says_how_many_since_when_and_why() {
        let mut tolerance = Tolerance::new(Some(1));
        tolerance.durable();
        tolerance.failed(Duration::from_secs(40), &cause());
        let error = tolerance.failed(Duration::from_secs(52), &cause()).unwrap();
        assert_eq!(error.kind(), ErrorKind::Overdue);
        let text = error.to_string();
        for words in
            ["2 checkpoints in a row", "within 12.0s", "1 may", "not durable within 3s", "start it again"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        let first = Tolerance::new(Some(0)).failed(Duration::ZERO, &cause()).unwrap().to_string();
        assert!(first.contains("a checkpoint failed, and none may"), "{first}");
    }
}
