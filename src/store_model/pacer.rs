//! How fast bytes pass: one pacer for each stream, one for all uploads and one for all downloads.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a pacer that was not used lets pass at once.
pub(super) const BURST: Duration = Duration::from_millis(5);

/// Lets bytes pass at a rate: `next = max(next, now − 5 ms) + n / rate`, and `n` bytes are through
/// at `next`. Without a rate they are through at once.
#[derive(Debug)]
pub(super) struct Pacer {
    bytes_per_second: Option<NonZeroU64>,
    next: Mutex<Duration>,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, next: Mutex::new(Duration::ZERO) }
    }

    /// When `bytes` that are sent at `now` are through. `now` must be at least [`BURST`].
    pub(super) fn charge(&self, now: Duration, bytes: usize) -> Duration {
        let Some(rate) = self.bytes_per_second else { return now };
        // A chunk is small: this neither runs over nor rounds by more than a nanosecond.
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(now.saturating_sub(BURST)).saturating_add(Duration::from_nanos(nanos));
        *next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn pacer(rate: u64) -> Pacer {
        Pacer::new(NonZeroU64::new(rate))
    }

    #[test]
    fn bytes_pass_at_the_rate_after_a_burst_of_5_ms() {
        let pacer = pacer(1_000_000);
        let now = MS(100);
        assert_eq!(pacer.charge(now, 5000), now, "5 ms' worth passes at once");
        assert_eq!(pacer.charge(now, 3000), now + MS(3));
        assert_eq!(pacer.charge(now, 7000), now + MS(10));
        // Asked for later, but before what was asked for is through.
        assert_eq!(pacer.charge(now + MS(9), 1000), now + MS(11));
    }

    #[test]
    fn a_pause_earns_one_burst_and_no_more() {
        let pacer = pacer(1_000_000);
        pacer.charge(MS(5), 1);
        assert_eq!(pacer.charge(MS(60_000), 10_000), MS(60_005));
    }

    #[test]
    fn a_chunk_of_64_kib_takes_what_it_takes() {
        let pacer = pacer(50_000_000);
        let now = MS(1000);
        assert_eq!(pacer.charge(now, 64 * 1024), now - BURST + Duration::from_nanos(1_310_720));
    }

    #[test]
    fn without_a_rate_nothing_is_held_back() {
        assert_eq!(Pacer::new(None).charge(MS(7), usize::MAX), MS(7));
    }
}
