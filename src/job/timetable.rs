//! When the next checkpoint is triggered, and when operators are asked for early cuts ahead of it.
//! Holds moments of the runtime's clock, and acts on nothing by itself.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::remote::NextCheckpoint;

use super::early_cuts::EarlyCuts;

/// How long bases give way to a checkpoint after its trigger, at most, and at most a quarter of the
/// interval. Parts that would not be through before the early cuts wait as long at most, and the early
/// cuts begin a quarter of the interval before the trigger at most. So a quarter of the time is left.
const GRACE: Duration = Duration::from_millis(250);

/// Barriers for which the slowest upload ahead of them is remembered.
const REMEMBERED: usize = 8;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Timetable {
    /// From one trigger to the next. None: only by calls.
    interval: Option<Duration>,
    /// Whether operators can be asked for early cuts.
    cuts_early: bool,
    /// The next trigger by the schedule.
    next: Option<Instant>,
    /// The early cuts ahead of triggers by the schedule.
    early: Option<EarlyCuts>,
    /// The next trigger by a call, if it was announced, and the early cuts ahead of it.
    expected: Option<(Instant, EarlyCuts)>,
    uploads: UploadTimes,
}

/// How long uploads of deltas took lately: the slowest since the last barrier, and of those before it
/// the slowest ahead of each. One of many uploads is slow, and a checkpoint that waits for it takes
/// two round trips, so that the slowest counts for a while.
#[derive(Debug, Default)]
struct UploadTimes {
    since_barrier: Option<Duration>,
    before: VecDeque<Duration>,
}

impl UploadTimes {
    fn took(&mut self, time: Duration) {
        self.since_barrier = self.since_barrier.max(Some(time));
    }

    /// A barrier without uploads before it says nothing.
    fn barrier(&mut self) {
        self.before.extend(self.since_barrier.take());
        while self.before.len() > REMEMBERED {
            self.before.pop_front();
        }
    }

    fn slowest(&self) -> Option<Duration> {
        self.before.iter().copied().max().max(self.since_barrier)
    }
}

impl Timetable {
    /// The first trigger comes one interval after `now`.
    pub(super) fn new(interval: Option<Duration>, cuts_early: bool, now: Instant) -> Self {
        Self {
            interval,
            cuts_early,
            next: interval.map(|interval| after(now, interval)),
            early: interval.filter(|_| cuts_early).map(EarlyCuts::new),
            ..Self::default()
        }
    }

    /// When the schedule triggers next.
    pub(super) fn next_trigger(&self) -> Option<Instant> {
        self.next
    }

    /// The schedule triggers `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        self.next = self.interval.map(|interval| after(now, interval));
    }

    /// The schedule does not trigger before this moment.
    pub(super) fn rest_until(&mut self, earliest: Instant) {
        self.next = self.next.map(|next| next.max(earliest));
    }

    /// A call will trigger in about this time.
    pub(super) fn expect(&mut self, in_about: Duration, now: Instant) {
        if !self.cuts_early {
            return;
        }
        let mut early = EarlyCuts::new(in_about);
        early.triggered(self.uploads.slowest());
        self.expected = Some((after(now, in_about), early));
    }

    /// A call has triggered.
    pub(super) fn called(&mut self) {
        self.expected = None;
    }

    /// A checkpoint begins, whatever has triggered it.
    pub(super) fn begin(&mut self) {
        self.uploads.barrier();
        if let Some(early) = &mut self.early {
            early.triggered(self.uploads.slowest());
        }
    }

    /// An upload of deltas took this long.
    pub(super) fn uploaded(&mut self, took: Duration) {
        self.uploads.took(took);
    }

    /// How long bases give way to a checkpoint after its trigger, at most.
    pub(super) fn grace(&self) -> Duration {
        self.interval.map_or(GRACE, |interval| (interval / 4).min(GRACE))
    }

    /// When bases should leave the link to the next checkpoint, as far as that is known.
    pub(super) fn next_checkpoint(&self) -> Option<NextCheckpoint> {
        let at = self.next_early_cut().or(self.next)?;
        Some(NextCheckpoint { at, ahead: self.grace() })
    }

    /// When operators should be asked for an early cut, ahead of the schedule's next trigger or of
    /// the announced one.
    pub(super) fn next_early_cut(&self) -> Option<Instant> {
        let scheduled = self.early.zip(self.next).and_then(|(early, trigger)| early.next(trigger));
        let expected = self.expected.and_then(|(trigger, early)| early.next(trigger));
        scheduled.into_iter().chain(expected).min()
    }

    /// Operators are asked `now`. Returns the trigger that this is ahead of.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Instant> {
        let scheduled = self.early.as_mut().zip(self.next);
        let scheduled = scheduled.and_then(|(early, trigger)| early.call(trigger, now).then_some(trigger));
        let expected = self.expected.as_mut();
        let expected = expected.and_then(|(trigger, early)| early.call(*trigger, now).then_some(*trigger));
        scheduled.into_iter().chain(expected).min()
    }
}

/// "For ever" is taken for a year.
pub(super) fn after(now: Instant, duration: Duration) -> Instant {
    now + duration.min(Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The moments of all early cuts that are left, in milliseconds after `start`.
    fn early(table: &mut Timetable, start: Instant) -> Vec<u128> {
        let mut cuts = Vec::new();
        while let Some(cut) = table.next_early_cut() {
            cuts.push((cut - start).as_millis());
            assert!(table.ask(cut).is_some_and(|trigger| trigger > cut), "it is ahead of a trigger");
        }
        cuts
    }

    #[tokio::test]
    async fn the_schedule_goes_on_from_each_trigger() {
        let start = Instant::now();
        let mut table = Timetable::new(Some(SECOND), true, start);
        assert_eq!(table.next_trigger(), Some(start + SECOND));
        assert_eq!(early(&mut table, start), [900, 950, 975]);
        table.advance(start + SECOND);
        table.uploaded(ms(55));
        table.uploaded(ms(10));
        table.begin();
        assert_eq!(early(&mut table, start), [1920, 1960, 1980], "as early as the slowest upload takes");
        for _ in 1..REMEMBERED {
            table.uploaded(ms(15));
            table.begin();
            assert_eq!(early(&mut table, start), [1920, 1960, 1980], "it counts for a while");
        }
        table.uploaded(ms(15));
        table.begin();
        assert_eq!(early(&mut table, start), [1960, 1980, 1990]);
        table.begin();
        assert_eq!(early(&mut table, start), [1960, 1980, 1990], "nothing new is known");
        table.rest_until(start + 3 * SECOND);
        assert_eq!(table.next_trigger(), Some(start + 3 * SECOND));
        table.rest_until(start + SECOND);
        assert_eq!(table.next_trigger(), Some(start + 3 * SECOND), "it comes no earlier");
    }

    #[tokio::test]
    async fn an_announced_trigger_has_early_cuts_of_its_own() {
        let start = Instant::now();
        let mut table = Timetable::new(None, true, start);
        assert_eq!((table.next_trigger(), table.next_early_cut()), (None, None));
        table.uploaded(ms(75));
        table.begin();
        table.expect(SECOND, start);
        assert_eq!(
            early(&mut table, start),
            [900, 950, 975],
            "what was known before the barrier still counts"
        );
        table.expect(SECOND, start);
        table.called();
        assert_eq!(table.next_early_cut(), None);
    }

    #[tokio::test]
    async fn native_mode_cuts_nothing_early() {
        let start = Instant::now();
        let mut table = Timetable::new(Some(SECOND), false, start);
        table.expect(SECOND, start);
        assert_eq!((table.next_early_cut(), table.ask(start + SECOND)), (None, None));
    }

    #[tokio::test]
    async fn bases_have_a_quarter_of_the_time_at_least() {
        let start = Instant::now();
        for interval in [ms(10), ms(100), SECOND, SECOND * 60] {
            let mut table = Timetable::new(Some(interval), true, start);
            table.uploaded(SECOND * 60);
            table.begin();
            let first = table.next_early_cut().unwrap();
            let next = table.next_checkpoint().unwrap();
            assert_eq!(next.at, first);
            let before = start + interval - first + next.ahead;
            assert!(before + table.grace() <= interval / 4 * 3, "{interval:?}");
        }
        assert_eq!(Timetable::new(None, true, start).grace(), GRACE);
    }

    #[tokio::test]
    async fn for_ever_is_a_moment_too() {
        let start = Instant::now();
        assert!(Timetable::new(Some(Duration::MAX), true, start).next_trigger() > Some(start + SECOND));
    }
}
