//! The first answer of a store. Until it has come, waiting may be pointless: the address may be
//! wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the first answer may take, all tries together. Times are the clock's.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// None: as long as any other answer.
    limit: Option<Duration>,
    /// When the store was first asked.
    since: Mutex<Option<Duration>>,
    made: AtomicBool,
}

impl Contact {
    pub(super) fn within(limit: Option<Duration>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The store has answered, be it with "no".
    pub(super) fn made(&self) {
        self.made.store(true, Ordering::Relaxed);
    }

    /// How long a request may take that begins now, of the `limit` that it has otherwise.
    pub(super) fn limit(&self, now: Duration, limit: Duration) -> Duration {
        self.left(now).map_or(limit, |left| left.min(limit))
    }

    /// Whether the first answer has taken too long.
    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }

    /// None where nothing limits it.
    fn left(&self, now: Duration) -> Option<Duration> {
        let limit = self.limit.filter(|_| !self.made.load(Ordering::Relaxed))?;
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        Some(since.get_or_insert(now).saturating_add(limit).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_answer_has_a_limit_of_its_own() {
        let seconds = Duration::from_secs;
        let contact = Contact::within(Some(seconds(10)));
        assert_eq!(contact.limit(seconds(100), seconds(30)), seconds(10));
        assert_eq!(contact.limit(seconds(104), seconds(30)), seconds(6));
        assert_eq!(contact.limit(seconds(104), seconds(2)), seconds(2));
        assert!(!contact.is_overdue(seconds(109)) && contact.is_overdue(seconds(110)));
        let patient = Contact::within(Some(Duration::MAX));
        assert_eq!(patient.limit(seconds(100), seconds(30)), seconds(30));
        contact.made();
        assert_eq!(contact.limit(seconds(200), seconds(30)), seconds(30));
        assert!(!contact.is_overdue(seconds(200)));
        assert!(!Contact::within(None).is_overdue(seconds(1000)));
    }
}
