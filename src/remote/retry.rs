//! When a failed request is tried again. The one place that decides it.

use std::time::Duration;

use crate::env::Env;
use crate::error::Result;

use super::Remote;
use super::error::{Failure, Verdict};

/// How often a failed request is repeated, and how long the pauses are. A pause doubles from one
/// attempt to the next; the one actually made is drawn from its upper half, so that the requests of
/// many subtasks that failed together do not come back together.
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
    /// Five tries within about two seconds. Longer outages are the business of the callers, which
    /// keep what they have and come back with the next checkpoint (I6).
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

/// The tries of one operation.
pub(super) struct Attempts<'a> {
    remote: &'a Remote,
    failed: u32,
}

impl Attempts<'_> {
    /// Waits before the next try, or says that there is none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<()> {
        self.failed = self.failed.saturating_add(1);
        if failure.verdict != Verdict::Passing || self.failed >= self.remote.retry.attempts {
            return Err(failure.error);
        }
        tracing::debug!(failed = self.failed, error = %failure.error, "the store failed; trying again");
        self.remote.pause(self.failed).await;
        self.remote.counters.retry();
        Ok(())
    }
}

impl Remote {
    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts { remote: self, failed: 0 }
    }

    /// Waits as long as one should after `failed` tries in a row. For callers with their own loop.
    pub(crate) async fn pause(&self, failed: u32) {
        tokio::time::sleep(self.retry.pause(failed, &self.env)).await;
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
