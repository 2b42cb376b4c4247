//! The traffic of bases: no faster than it may, and behind what a checkpoint has on its way.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::RateLimiter;

/// A part gives way for no longer, so a base comes to its end however often checkpoints begin.
const LONGEST: Duration = Duration::from_secs(1);
/// A part that waits for a checkpoint that is near waits this much longer, because the checkpoint
/// says only then that it is there.
const SLACK: Duration = Duration::from_millis(50);

/// Lets the parts of bases pass. All stores of a job share one.
///
/// A base is uploaded in parts of some MiB, several at a time, as fast as the link goes. What a
/// barrier waits for would have to share the link with them. So parts that have not begun wait
/// while a checkpoint is near or under way ([`BaseTraffic::give_way`]), and a part that would not be
/// through by then does not begin ([`BaseTraffic::go_on`]).
#[derive(Debug)]
pub(crate) struct BaseTraffic {
    rate: Option<RateLimiter>,
    waits: watch::Sender<Waits>,
    /// How long a part takes, in nanoseconds: the slowest of the last ones, which counts less and
    /// less.
    part: AtomicU64,
}

/// What parts wait for.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    /// A checkpoint is near or under way, and new parts wait until then.
    until: Option<Instant>,
    next: Option<NextCheckpoint>,
}

/// When the link should be free again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextCheckpoint {
    pub(crate) at: Instant,
    /// How long before that a part must not begin at most, however long parts take.
    pub(crate) ahead: Duration,
}

impl Waits {
    /// Until when a part waits that takes about so long. None if it may begin now.
    fn of(self, part: Duration, now: Instant) -> Option<Instant> {
        let near = self.until.filter(|until| *until > now);
        near.or_else(|| {
            let NextCheckpoint { at, ahead } = self.next?;
            (now < at && now + part.min(ahead) > at).then(|| at + SLACK)
        })
    }
}

impl BaseTraffic {
    /// At most `bytes_per_second` on average. None: as fast as it goes.
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        let (rate, waits) = (bytes_per_second.map(RateLimiter::new), watch::Sender::default());
        Self { rate, waits, part: AtomicU64::new(0) }
    }

    /// Parts that have not begun wait until this moment, or until [`BaseTraffic::go_on`]. None waits
    /// longer than a second.
    pub(crate) fn give_way(&self, until: Instant) {
        self.waits.send_replace(Waits { until: Some(until), next: None });
    }

    /// Nothing is to be given way to until the next checkpoint. None: that is not known.
    pub(crate) fn go_on(&self, next: Option<NextCheckpoint>) {
        self.waits.send_replace(Waits { until: None, next });
    }

    /// A part took this long.
    pub(crate) fn took(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Parts that end at the same time may overwrite each other: one of them counts.
        let before = self.part.load(Ordering::Relaxed);
        self.part.store(nanos.max(before - before / 8), Ordering::Relaxed);
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
            let part = Duration::from_nanos(self.part.load(Ordering::Relaxed));
            let now = Instant::now();
            let until = waits.borrow_and_update().of(part, now);
            let Some(until) = until.filter(|_| now < last) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until.min(last)) => {}
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
        self.waits.borrow().until.is_some()
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
        traffic.go_on(None);
        part.await;
        traffic.give_way(Instant::now());
        traffic.pass(1).await;
    }

    #[tokio::test]
    async fn a_part_that_would_not_be_through_before_the_next_checkpoint_does_not_begin() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let next = |at, ahead| Waits { until: None, next: Some(NextCheckpoint { at: now + at, ahead }) };
        assert_eq!(Waits::default().of(HOUR, now), None);
        assert_eq!(next(ms(300), ms(250)).of(ms(200), now), None, "it is through by then");
        assert_eq!(next(ms(199), ms(250)).of(ms(200), now), Some(now + ms(199) + SLACK));
        assert_eq!(next(ms(300), ms(250)).of(HOUR, now), None, "some time is left to every base");
        assert_eq!(next(ms(249), ms(250)).of(HOUR, now), Some(now + ms(249) + SLACK));
        assert_eq!(next(ms(0), ms(250)).of(HOUR, now), None, "the checkpoint did not come");

        let traffic = BaseTraffic::new(None);
        traffic.took(ms(80));
        traffic.took(ms(8));
        traffic.go_on(Some(NextCheckpoint { at: now + HOUR, ahead: 2 * HOUR }));
        traffic.pass(1).await;
        traffic.took(2 * HOUR);
        assert!(poll!(pin!(traffic.pass(1))).is_pending());
        traffic.go_on(None);
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
