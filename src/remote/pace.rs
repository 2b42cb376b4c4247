//! How long requests take at the moment, learned from recent ones. A request that takes much longer
//! than these probably hangs.
//!
//! A request's deadline allows for the slowest tolerated link, shared by as many transfers as there
//! may be. For a few MiB that is minutes, and one silent connection would delay a checkpoint by as
//! much. Compared with other requests it stands out after seconds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Transfers up to this size take one latency, whatever their size.
const SMALL: u64 = 64 * 1024;
/// Transfers of at least this size take a time that is proportional to it.
const LARGE: u64 = 256 * 1024;
/// Requests of each size class that are remembered. Few, so that one slow request is soon
/// forgotten.
const REMEMBERED: usize = 32;
/// Assumed before the first request has ended.
const FIRST_LATENCY: Duration = Duration::from_secs(1);
const FIRST_RATE: f64 = 1_000_000.0;

/// When a request is sent a second time. A wrong guess costs its bytes once more.
const HEDGE: Margin = Margin { times: 4, more: Duration::from_secs(1) };
/// When a request is given up. Later than a hedge, because a wrong guess costs the whole request,
/// and those that depend on it.
const GIVE_UP: Margin = Margin { times: 8, more: Duration::from_secs(10) };

/// How far beyond the expected time a request is overdue: so many times that, and a constant.
struct Margin {
    times: u32,
    more: Duration,
}

impl Margin {
    fn over(&self, expected: Duration) -> Duration {
        expected.saturating_mul(self.times).saturating_add(self.more)
    }
}

/// The times of recent requests.
#[derive(Debug, Default)]
pub(super) struct Pace {
    recent: Mutex<Recent>,
    /// Number of large transfers in progress, and of all that have completed.
    under_way: AtomicU64,
    through: AtomicU64,
}

/// A transfer in progress. `through` is what [`Pace::through`] was when it began.
#[derive(Debug)]
pub(super) struct Begun {
    pace: Arc<Pace>,
    bytes: u64,
    through: u64,
}

impl Begun {
    /// Whether this transfer's time alone may show that it hangs. If a shared link has become slow,
    /// all transfers take long and none completes. A transfer that hangs is overtaken by another,
    /// or has the link to itself.
    fn stands_out(&self) -> bool {
        let alone = self.pace.under_way.load(Ordering::Relaxed) <= 1;
        self.bytes < LARGE || alone || self.pace.through.load(Ordering::Relaxed) != self.through
    }

    /// After how long this transfer counts as overdue: `after` if it stands out, otherwise at least
    /// a quarter of `limit`, and never later than `limit`.
    pub(super) fn overdue_after(&self, after: Duration, limit: Duration) -> Duration {
        let after = if self.stands_out() { after } else { after.max(limit / 4) };
        after.min(limit)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.bytes >= LARGE {
            self.pace.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Recent {
    latencies: VecDeque<Duration>,
    /// Whole times of medium transfers. Both latency and bandwidth count in them, so they would
    /// distort either estimate. Their sizes differ by a factor of four at most, which the margins
    /// allow for.
    between: VecDeque<Duration>,
    /// Of large transfers, in seconds per byte.
    costs: VecDeque<f64>,
}

impl Pace {
    /// Notes the beginning of a request that moves `bytes`.
    pub(super) fn begin(self: &Arc<Self>, bytes: u64) -> Begun {
        if bytes >= LARGE {
            self.under_way.fetch_add(1, Ordering::Relaxed);
        }
        Begun { pace: Arc::clone(self), bytes, through: self.through.load(Ordering::Relaxed) }
    }

    /// Notes a request that moved `bytes` in `took`.
    pub(super) fn came_through(&self, bytes: u64, took: Duration) {
        if bytes >= LARGE {
            self.through.fetch_add(1, Ordering::Relaxed);
        }
        self.note(bytes, took);
    }

    /// Notes a request that was given up after so long. It counts as one that took that long, so
    /// the next one gets more time. Otherwise a link that has become slow would be taken for dead
    /// for ever.
    pub(super) fn gave_up(&self, bytes: u64, after: Duration) {
        self.note(bytes, after);
    }

    fn note(&self, bytes: u64, took: Duration) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= SMALL {
            push(&mut recent.latencies, took);
        } else if bytes < LARGE {
            push(&mut recent.between, took);
        } else {
            push(&mut recent.costs, took.as_secs_f64() / bytes as f64);
        }
    }

    /// After how long a request that moves `bytes` is sent a second time over another connection.
    pub(super) fn hedge_after(&self, bytes: u64) -> Duration {
        HEDGE.over(self.expected(bytes))
    }

    /// After how long a request that moves `bytes` is given up.
    pub(super) fn give_up_after(&self, bytes: u64) -> Duration {
        GIVE_UP.over(self.expected(bytes))
    }

    /// The time for `bytes` at the pace of the slowest recent request of that size class.
    fn expected(&self, bytes: u64) -> Duration {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > SMALL
            && bytes < LARGE
            && let Some(slowest) = recent.between.iter().max()
        {
            return *slowest;
        }
        let latency = recent.latencies.iter().max().copied().unwrap_or(FIRST_LATENCY);
        let cost = recent.costs.iter().copied().reduce(f64::max).unwrap_or(1.0 / FIRST_RATE);
        // The clamp keeps the conversion from panicking: a Duration holds far more than 1e9 s.
        latency.saturating_add(Duration::from_secs_f64((cost * bytes as f64).clamp(0.0, 1e9)))
    }
}

fn push<T>(recent: &mut VecDeque<T>, value: T) {
    if recent.len() >= REMEMBERED {
        recent.pop_front();
    }
    recent.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn i6_what_hangs_stands_out_after_seconds_and_not_after_minutes() {
        let pace = Pace::default();
        // 4 MiB at 50 MB/s, eight at a time; manifests in a round trip.
        for _ in 0..3 {
            pace.came_through(1000, seconds(0.03));
            pace.came_through(4 * MIB, seconds(0.7));
        }
        assert!(pace.hedge_after(4 * MIB) < seconds(4.0), "{:?}", pace.hedge_after(4 * MIB));
        assert!(pace.give_up_after(8 * MIB) < seconds(22.0), "{:?}", pace.give_up_after(8 * MIB));
        assert!(pace.give_up_after(1000) < seconds(10.5));
        assert!(pace.hedge_after(4 * MIB) > seconds(2.8), "four times what it usually takes");
    }

    #[test]
    fn nothing_is_hurried_before_anything_was_seen() {
        let pace = Pace::default();
        assert!(pace.hedge_after(4 * MIB) > seconds(20.0));
        assert!(pace.give_up_after(8 * MIB) > seconds(70.0));
    }

    #[test]
    fn i6_a_link_that_has_become_slow_is_given_more_time_until_something_comes_through() {
        let pace = Pace::default();
        for _ in 0..REMEMBERED {
            pace.came_through(8 * MIB, seconds(0.1));
        }
        // From now on 8 MiB take half an hour.
        let mut tries = 0;
        while pace.give_up_after(8 * MIB) < seconds(1800.0) {
            pace.gave_up(8 * MIB, pace.give_up_after(8 * MIB));
            tries += 1;
            assert!(tries <= 4, "{tries}");
        }
        for _ in 0..REMEMBERED {
            pace.came_through(8 * MIB, seconds(0.1));
        }
        assert!(pace.give_up_after(8 * MIB) < seconds(20.0), "and that is forgotten as well");
    }

    #[test]
    fn i6_transfers_between_small_and_large_are_learned_from_as_well() {
        const SIZE: u64 = 128 * 1024;
        let pace = Pace::default();
        for _ in 0..REMEMBERED {
            pace.came_through(1000, seconds(0.03));
            pace.came_through(4 * MIB, seconds(0.4));
        }
        let (hedge, give_up) = (pace.hedge_after(4 * MIB), pace.give_up_after(1000));
        assert!(
            pace.hedge_after(SIZE) < seconds(1.3),
            "by what the others tell: {:?}",
            pace.hedge_after(SIZE)
        );
        // The link has become slow, and nothing else is sent on it.
        let mut tries = 0;
        while pace.give_up_after(SIZE) < seconds(600.0) {
            pace.gave_up(SIZE, pace.give_up_after(SIZE));
            tries += 1;
            assert!(tries <= 3, "{tries}");
        }
        for _ in 0..REMEMBERED {
            pace.came_through(SIZE, seconds(8.0));
        }
        assert_eq!(pace.hedge_after(SIZE), HEDGE.over(seconds(8.0)), "none of its like is sent twice");
        let others = (pace.hedge_after(4 * MIB), pace.give_up_after(1000));
        assert_eq!(others, (hedge, give_up), "of other sizes it says nothing");
    }

    #[test]
    fn i6_of_several_on_a_slow_link_none_stands_out_until_another_is_through() {
        let (pace, limit) = (Arc::new(Pace::default()), seconds(100.0));
        for _ in 0..3 {
            pace.came_through(MIB, seconds(0.01));
        }
        let (soon, patient) = (seconds(1.1), seconds(25.0));
        let first = pace.begin(MIB);
        assert_eq!(first.overdue_after(soon, limit), soon, "it is alone");
        let second = pace.begin(MIB);
        assert_eq!(first.overdue_after(soon, limit), patient);
        assert_eq!(second.overdue_after(soon, limit), patient);
        assert_eq!(pace.begin(1000).overdue_after(soon, limit), soon, "small ones are no load");
        assert_eq!(second.overdue_after(seconds(200.0), limit), limit);
        drop(second);
        pace.came_through(MIB, seconds(8.0));
        let third = pace.begin(MIB);
        assert_eq!(first.overdue_after(soon, limit), soon, "it was overtaken");
        assert_eq!(third.overdue_after(soon, limit), patient);
        assert!(pace.hedge_after(MIB) > seconds(32.0), "and by now it is known how slow the link is");
    }

    #[test]
    fn absurd_figures_do_no_harm() {
        let pace = Pace::default();
        pace.came_through(u64::MAX, Duration::MAX);
        pace.came_through(0, Duration::MAX);
        assert_eq!(pace.hedge_after(u64::MAX), Duration::MAX);
        pace.came_through(MIB, Duration::ZERO);
        assert_eq!(pace.give_up_after(u64::MAX), Duration::MAX);
    }
}
