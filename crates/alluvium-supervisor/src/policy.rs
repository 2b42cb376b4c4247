//! When a job is started again, and when no more. Every setter's documentation ends in its default.

use std::time::Duration;

use crate::error::{Error, Result};

/// When a job is started again, how soon, and how often.
///
/// ```
/// use std::time::Duration;
///
/// use alluvium_supervisor::Policy;
///
/// let policy = Policy::default()
///     .grace(Duration::from_secs(30)) // for a last checkpoint after SIGTERM
///     .limit(Some(5), Duration::from_secs(600));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) grace: Duration,
    pub(crate) first_delay: Duration,
    pub(crate) longest_delay: Duration,
    pub(crate) steady: Duration,
    pub(crate) restarts: Option<u32>,
    pub(crate) window: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(60),
            steady: Duration::from_secs(60),
            restarts: Some(10),
            window: Duration::from_secs(600),
        }
    }
}

impl Policy {
    /// How long processes may take to end after SIGTERM. Then they are killed by SIGKILL. Default 10 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The delay before the first restart, and the longest one. The delay doubles with each restart until the
    /// job has run [steadily](Self::steady) for once. Each is shortened by up to its half at random, so that many
    /// jobs that failed together do not start together. Default 200 ms and 60 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_delay = first;
        self.longest_delay = longest;
        self
    }

    /// A job that has run for so long before it failed starts again after the first delay. Default 60 s.
    #[must_use]
    pub fn steady(mut self, steady: Duration) -> Self {
        self.steady = steady;
        self
    }

    /// How many restarts there may be within `window`; None: any number. The failure after the last of them ends
    /// the supervisor ([`Exit::GivenUp`](crate::Exit::GivenUp)). Default 10 within 10 minutes.
    #[must_use]
    pub fn limit(mut self, restarts: Option<u32>, window: Duration) -> Self {
        self.restarts = restarts;
        self.window = window;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.longest_delay < self.first_delay {
            return Err(Error::new(format!(
                "the longest delay of {:?} is shorter than the first one of {:?}; choose a longer one",
                self.longest_delay, self.first_delay
            )));
        }
        if self.restarts.is_some_and(|restarts| restarts > 0) && self.window.is_zero() {
            return Err(Error::new("restarts are counted within a window that is longer than 0"));
        }
        Ok(())
    }

    /// The delay before a restart after `earlier` ones without a steady run. `draw` is any number at random.
    pub(crate) fn delay(&self, earlier: u32, draw: u64) -> Duration {
        let factor = 1_u32.checked_shl(earlier).unwrap_or(u32::MAX);
        let whole = self.first_delay.saturating_mul(factor).min(self.longest_delay);
        let half = whole / 2;
        // A draw is less than 2^64, so that this is less than the half.
        let more = (half.as_nanos() * u128::from(draw)) >> 64;
        whole - half + Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let policy = Policy::default().backoff(millis(100), millis(1500));
        let longest = |earlier| (policy.delay(earlier, u64::MAX).as_nanos() as f64 / 1e6).round();
        assert_eq!([0, 1, 2, 3, 4, 5].map(longest), [100.0, 200.0, 400.0, 800.0, 1500.0, 1500.0]);
        for far in [31, 32, 1000, u32::MAX] {
            assert_eq!(longest(far), 1500.0, "{far}");
        }
    }

    #[test]
    fn chance_shortens_a_delay_by_up_to_its_half() {
        let policy = Policy::default().backoff(millis(100), millis(1000));
        assert_eq!(policy.delay(1, 0), millis(100));
        assert_eq!(policy.delay(1, 1 << 63), millis(150));
        assert!(policy.delay(1, u64::MAX) < millis(200));
        let none = Policy::default().backoff(Duration::ZERO, Duration::ZERO);
        assert_eq!(none.delay(7, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        Policy::default().validate().unwrap();
        Policy::default().limit(Some(0), Duration::ZERO).validate().unwrap();
        Policy::default().limit(Some(1), Duration::ZERO).validate().unwrap_err();
        Policy::default().backoff(millis(2), millis(1)).validate().unwrap_err();
    }
}
