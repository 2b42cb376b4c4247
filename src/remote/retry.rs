//! Decides when a failed request is tried again. The one place that does.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::env::Env;
use crate::error::{Error, Result};

use super::Remote;
use super::error::{Failure, Verdict};

/// Least time between two notices that something waits for the store.
const BETWEEN_NOTICES: Duration = Duration::from_secs(10);

/// What may be wrong where a store has never answered.
const NO_CONTACT: &str =
    "the store has not answered once: check its URL, its endpoint and this machine's network";

/// How often a failed request is repeated, and after which pauses. A pause doubles from one try to
/// the next. The actual pause is drawn from its upper half, so that the requests of many subtasks
/// that failed together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// All tries together; 1 means no retry.
    pub(crate) attempts: u32,
    /// Pause before the second try.
    pub(crate) first_pause: Duration,
    /// Longest pause.
    pub(crate) max_pause: Duration,
}

impl Default for RetryPolicy {
    /// Five tries within about two seconds. Callers handle longer outages: they keep what they have
    /// and come back with the next checkpoint (I6).
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(100), max_pause: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// The pause after `failed` tries.
    pub(super) fn pause(self, failed: u32, env: &Env) -> Duration {
        let Some(doublings) = failed.checked_sub(1) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let full = self.first_pause.saturating_mul(factor).min(self.max_pause);
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let [a, b, c, d, e, f, g, h, ..] = env.nonces.nonce().0;
        let draw = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        half + Duration::from_nanos(draw.checked_rem(span).unwrap_or(0))
    }
}

/// Receives a notice that work waits: the failure, and for how long.
pub(crate) type Notice = Arc<dyn Fn(&Error, Duration) + Send + Sync>;

/// For work that cannot be given up and resumed, such as a restore. A request that fails for a
/// passing reason is repeated until it has failed for this long without progress. Shared by all
/// requests of the work.
pub(crate) struct Patience {
    limit: Duration,
    notice: Option<Notice>,
    noticed: Mutex<Option<Duration>>,
}

impl Patience {
    pub(crate) fn new(limit: Duration, notice: Option<Notice>) -> Arc<Self> {
        Arc::new(Self { limit, notice, noticed: Mutex::new(None) })
    }

    /// Tells, now and then, that a request has failed for as long as `waited`.
    fn tell(&self, error: &Error, now: Duration, waited: Duration) {
        {
            let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
            if noticed.is_some_and(|last| now.saturating_sub(last) < BETWEEN_NOTICES) {
                return;
            }
            *noticed = Some(now);
        }
        tracing::warn!(%error, ?waited, limit = ?self.limit, "waiting for the object store");
        if let Some(notice) = &self.notice {
            notice(error, waited);
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The tries of one operation.
pub(super) struct Attempts<'a> {
    remote: &'a Remote,
    failed: u32,
    /// When the first of the tries that failed in a row did so.
    since: Option<Duration>,
}

impl Attempts<'_> {
    /// Waits before the next try, or says that there is none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<()> {
        self.failed = self.failed.saturating_add(1);
        let now = self.remote.env.clock.monotonic();
        let waited = now.saturating_sub(*self.since.get_or_insert(now));
        let patience = self.remote.patience.as_deref();
        let patient = patience.is_some_and(|patience| waited < patience.limit);
        let more = self.failed < self.remote.retry.attempts || patient;
        if failure.verdict != Verdict::Passing || !more {
            return Err(failure.error);
        }
        if self.remote.contact.is_overdue(now) {
            return Err(failure.error.more_advice(NO_CONTACT));
        }
        tracing::debug!(failed = self.failed, error = %failure.error, "the store failed; trying again");
        if let Some(patience) = patience {
            patience.tell(&failure.error, now, waited);
        }
        self.remote.pause(self.failed).await;
        self.remote.counters.retry();
        Ok(())
    }

    /// The last try failed in the end, but brought its work forward.
    pub(super) fn moved(&mut self) {
        self.failed = 0;
        self.since = None;
    }
}

impl Remote {
    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts { remote: self, failed: 0, since: None }
    }

    /// Waits as long as one should after `failed` tries in a row. For callers with their own loop.
    pub(crate) async fn pause(&self, failed: u32) {
        let pause = self.retry.pause(failed, &self.env);
        // A timer waits for its next tick, which would cost each commit a millisecond for nothing.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::SeededNonces;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let env = Env { nonces: Arc::new(SeededNonces::new(1)), ..Env::default() };
        let policy = RetryPolicy {
            attempts: 9,
            first_pause: Duration::from_millis(100),
            max_pause: Duration::from_millis(700),
        };
        assert_eq!(policy.pause(0, &env), Duration::ZERO);
        for (failed, full) in [(1, 100), (2, 200), (3, 400), (4, 700), (40, 700), (u32::MAX, 700)] {
            let pause = policy.pause(failed, &env);
            let full = Duration::from_millis(full);
            assert!(full / 2 <= pause && pause <= full, "{failed}: {pause:?}");
        }
        let never = RetryPolicy { first_pause: Duration::ZERO, ..policy };
        assert_eq!(never.pause(3, &env), Duration::ZERO);
    }
}
