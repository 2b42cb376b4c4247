//! The rate limit of background uploads.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a limiter remembers that it was not used: the largest burst is what passes in this
/// time.
const BURST: Duration = Duration::from_secs(1);

/// No single wait is longer; also keeps sums of times from running over.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Lets bytes pass at a given average rate. Share one among all uploads that should stay below the
/// rate together; they are served in the order in which they ask.
///
/// A token bucket with debt: a caller waits until earlier bytes are paid for, not its own. A piece
/// that is larger than the burst therefore passes too, and the next one waits longer.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    bytes_per_second: NonZeroU64,
    paid_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// A limiter for `bytes_per_second`.
    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, paid_at: Mutex::new(None) }
    }

    /// Waits until `bytes` may pass. Must be called within a tokio runtime with time enabled.
    /// Dropping the future does not give back the bytes.
    pub(crate) async fn acquire(&self, bytes: u64) {
        let at = self.reserve(bytes, Instant::now());
        tokio::time::sleep_until(at).await;
    }

    /// When `bytes` may pass if asked for at `now`.
    fn reserve(&self, bytes: u64, now: Instant) -> Instant {
        // u128, because bytes × 10⁹ does not fit in 64 bits.
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = u64::try_from(nanos).map_or(LONGEST, Duration::from_nanos).min(LONGEST);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = paid_at.map_or(now, |at| at.max(earliest)).min(now + LONGEST);
        *paid_at = Some(start + cost);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: u64) -> RateLimiter {
        RateLimiter::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn bytes_pass_at_the_rate_on_average() {
        let limiter = limiter(1000);
        let now = Instant::now();
        assert_eq!(limiter.reserve(5000, now), now, "the first piece passes at once, whatever its size");
        assert_eq!(limiter.reserve(500, now), now + Duration::from_secs(5));
        assert_eq!(limiter.reserve(1, now), now + Duration::from_millis(5500));
    }

    #[test]
    fn a_pause_earns_one_burst_and_no_more() {
        let limiter = limiter(1000);
        let now = Instant::now();
        limiter.reserve(1, now);
        let later = now + Duration::from_secs(3600);
        assert!(limiter.reserve(1000, later) <= later);
        assert!(limiter.reserve(1, later) <= later);
        assert!(limiter.reserve(1, later) > later);
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let limiter = limiter(1);
        let now = Instant::now();
        for _ in 0..3 {
            assert!(limiter.reserve(u64::MAX, now) <= now + LONGEST);
        }
    }

    #[tokio::test]
    async fn acquire_waits() {
        let limiter = limiter(10_000);
        let start = Instant::now();
        for _ in 0..3 {
            limiter.acquire(500).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(95), "{:?}", start.elapsed());
    }
}
