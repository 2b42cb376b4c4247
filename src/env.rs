//! Time and randomness, injected: the only module that reads the clock or the random device, so that
//! a test can replay a run from its seed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::ids::Nonce;

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since 1970-01-01 UTC, for people and for TTL; may jump.
    fn unix_millis(&self) -> u64;
}

/// A source of nonces.
pub trait NonceSource: Send + Sync + fmt::Debug {
    /// 128 bits that no other writer of the same job has drawn.
    fn nonce(&self) -> Nonce;
}

/// Time and randomness of a job. The default is the machine's.
#[derive(Clone, Debug)]
pub struct Env {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where nonces come from.
    pub nonces: Arc<dyn NonceSource>,
}

impl Default for Env {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::new()), nonces: Arc::new(SystemNonces) }
    }
}

#[derive(Debug)]
struct SystemClock {
    start: Instant,
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
impl SystemClock {
    fn new() -> Self {
        Self { start: Instant::now() }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        Instant::now().duration_since(self.start)
    }

    fn unix_millis(&self) -> u64 {
        // A clock before 1970 or after the year 584,556,019 is shown as one of the ends.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct SystemNonces;

impl NonceSource for SystemNonces {
    #[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        Nonce(bytes)
    }
}

/// Nonces that follow from a seed (splitmix64), for runs that must be repeatable.
#[derive(Debug)]
pub struct SeededNonces {
    state: AtomicU64,
}

impl SeededNonces {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl NonceSource for SeededNonces {
    fn nonce(&self) -> Nonce {
        let draw = || {
            let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            splitmix64(state)
        };
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&draw().to_le_bytes());
        high.copy_from_slice(&draw().to_le_bytes());
        Nonce(bytes)
    }
}

/// One step of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) fn splitmix64(state: u64) -> u64 {
    let mut x = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_nonces_repeat_and_differ() {
        let (a, b) = (SeededNonces::new(7), SeededNonces::new(7));
        let first = a.nonce();
        assert_eq!(first, b.nonce());
        assert_ne!(first, a.nonce());
    }

    #[test]
    fn splitmix64_matches_the_reference() {
        // First output of the reference implementation for seed 1234567.
        assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
    }
}
