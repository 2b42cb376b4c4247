//! What a request may have to wait for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Closed until opened, for any number of waiters. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets all through that wait, and all that come later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// How many requests wait here.
    pub fn waiting(&self) -> usize {
        self.0.receiver_count()
    }

    pub(super) async fn pass(&self) {
        let mut opened = self.0.subscribe();
        // No error: the sender lives in this gate.
        drop(opened.wait_for(|open| *open).await);
    }
}

/// A link that carries so many bytes a second. Transfers at the same time take turns, so that they
/// get equal shares. A transfer that is given up half-way has taken its time in vain. Clones are
/// the same link.
#[derive(Debug, Clone)]
pub struct Link {
    bytes_per_second: u32,
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl Link {
    const TURN: u64 = 8_192;
    /// Timers wake up to a millisecond late. What that loses may be caught up.
    const CATCH_UP: Duration = Duration::from_millis(5);

    /// A link of this rate.
    pub fn new(bytes_per_second: u32) -> Self {
        Self { bytes_per_second, free_at: Arc::default() }
    }

    pub(super) async fn carry(&self, bytes: u64) {
        let mut left = bytes;
        while left > 0 {
            let turn = left.min(Self::TURN);
            let through = self.charge(Instant::now(), turn);
            sleep_until(through).await;
            left -= turn;
        }
    }

    /// When `bytes` more are through.
    fn charge(&self, now: Instant, bytes: u64) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(Self::CATCH_UP).unwrap_or(now);
        // A link that nobody has used owes nothing.
        let from = free_at.map_or(now, |free| free.max(earliest));
        let through = from + Duration::from_secs(bytes) / self.bytes_per_second;
        *free_at = Some(through);
        through
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_link_carries_what_comes_in_turns_and_a_pause_earns_little() {
        let (link, start) = (Link::new(1_000_000), Instant::now());
        // The turns of two transfers that began at the same time.
        assert_eq!(link.charge(start, 8_000), start + MS(8));
        assert_eq!(link.charge(start, 8_000), start + MS(16));
        assert_eq!(link.charge(start + MS(8), 8_000), start + MS(24));
        // A timer that woke 3 ms late has lost nothing.
        assert_eq!(link.charge(start + MS(27), 8_000), start + MS(32));
        // After a second without transfers the link is ahead by 5 ms, and no more.
        assert_eq!(link.charge(start + MS(1_000), 8_000), start + MS(1_003));
    }
}
