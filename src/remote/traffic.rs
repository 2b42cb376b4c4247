//! The traffic of bases: no faster than it may, and behind what a checkpoint has on its way.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::RateLimiter;

/// A part gives way for no longer, so a base comes to its end however often checkpoints begin.
const LONGEST: Duration = Duration::from_secs(1);

/// Lets the parts of bases pass. All stores of a job share one.
///
/// A base is uploaded in parts of some MiB, several at a time, as fast as the link goes. What a
/// barrier waits for would have to share the link with them. So parts that have not begun wait
/// while a checkpoint is near or under way ([`BaseTraffic::give_way`]).
#[derive(Debug)]
pub(crate) struct BaseTraffic {
    rate: Option<RateLimiter>,
    /// New parts wait until then.
    waits: watch::Sender<Option<Instant>>,
}

impl BaseTraffic {
    /// At most `bytes_per_second` on average. None: as fast as it goes.
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { rate: bytes_per_second.map(RateLimiter::new), waits: watch::Sender::new(None) }
    }

    /// Parts that have not begun wait until this moment, or until [`BaseTraffic::go_on`]. None waits
    /// longer than a second.
    pub(crate) fn give_way(&self, until: Instant) {
        self.waits.send_replace(Some(until));
    }

    /// Nothing is to be given way to any more.
    pub(crate) fn go_on(&self) {
        self.waits.send_if_modified(|waits| waits.take().is_some());
    }

    /// Waits until a part of `bytes` may begin. Must be called within a tokio runtime with time
    /// enabled. Dropping the future does not give back the bytes.
    pub(crate) async fn pass(&self, bytes: u64) {
        if let Some(rate) = &self.rate {
            rate.acquire(bytes).await;
        }
        let last = Instant::now() + LONGEST;
        let mut waits = self.waits.subscribe();
        loop {
            let until = waits.borrow_and_update().map_or_else(Instant::now, |until| until.min(last));
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                // The sender lives in `self`.
                _ = waits.changed() => {}
            }
        }
    }
}

#[cfg(test)]
impl BaseTraffic {
    /// Whether it was told to give way, and not yet to go on.
    pub(crate) fn gives_way(&self) -> bool {
        self.waits.borrow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_part_waits_for_as_long_as_it_has_to_give_way() {
        let traffic = BaseTraffic::new(None);
        traffic.pass(1).await;
        traffic.give_way(Instant::now() + HOUR);
        let mut part = pin!(traffic.pass(1));
        assert!(poll!(part.as_mut()).is_pending());
        traffic.go_on();
        part.await;
        traffic.give_way(Instant::now());
        traffic.pass(1).await;
    }

    #[tokio::test]
    async fn no_part_waits_for_ever() {
        let traffic = BaseTraffic::new(None);
        traffic.give_way(Instant::now() + HOUR);
        let start = Instant::now();
        traffic.pass(1).await;
        assert!(start.elapsed() >= LONGEST);
    }

    #[tokio::test]
    async fn the_rate_holds_beside_it() {
        let traffic = BaseTraffic::new(NonZeroU64::new(1));
        traffic.pass(3600).await;
        assert!(poll!(pin!(traffic.pass(1))).is_pending(), "the first part is not paid for");
    }
}
