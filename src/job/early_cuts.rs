//! Early cuts: when operators should cut and upload ahead of a scheduled barrier, so that little is
//! left to upload at the barrier. A pure decision.
//!
//! A delta that was cut early is durable when the barrier arrives, and later writes normally fit
//! into the manifest. The checkpoint then takes one round trip instead of two. The price is that a
//! hot key may be uploaded once more.
//!
//! The first call comes as long before the trigger as the slowest of the last uploads took, plus a
//! margin. Each further call comes halfway between the last one and the trigger, for
//! operators that would otherwise have written more than the manifest takes. The upload after the
//! last call may still be under way at the barrier, but it is short. An operator decides for itself
//! whether it cuts (`crate::store`'s `early_cuts`).

use std::time::Duration;

use tokio::time::Instant;

/// Before an upload was seen.
const FIRST: Duration = Duration::from_millis(100);
/// For sealing, and for an upload that takes longer than the ones before it.
const MARGIN: Duration = Duration::from_millis(25);
const CALLS: u32 = 3;

/// The calls ahead of the next trigger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EarlyCuts {
    /// Most of it: a quarter of the interval.
    bound: Duration,
    lead: Duration,
    made: u32,
}

impl EarlyCuts {
    pub(crate) fn new(interval: Duration) -> Self {
        let bound = interval / 4;
        Self { bound, lead: FIRST.min(bound), made: 0 }
    }

    /// The next call ahead of `trigger`; a moment that has passed stands for now.
    pub(crate) fn next(&self, trigger: Instant) -> Option<Instant> {
        let lead = Some(self.lead / (1 << self.made)).filter(|_| self.made < CALLS)?;
        trigger.checked_sub(lead)
    }

    /// Counts a call, if one is due at `now`. Returns whether one was.
    pub(crate) fn call(&mut self, trigger: Instant, now: Instant) -> bool {
        let due = self.next(trigger).is_some_and(|call| call <= now);
        self.made += u32::from(due);
        due
    }

    /// The barrier is there. `slowest` is the longest that an upload took lately, if there was any.
    pub(crate) fn triggered(&mut self, slowest: Option<Duration>) {
        self.made = 0;
        if let Some(slowest) = slowest {
            self.lead = slowest.saturating_add(MARGIN).min(self.bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// How long before the trigger the calls come.
    fn calls(early: &mut EarlyCuts) -> Vec<Duration> {
        let trigger = Instant::now() + ms(1000);
        let mut calls = Vec::new();
        while let Some(call) = early.next(trigger) {
            calls.push(trigger - call);
            assert!(!early.call(trigger, call - ms(1)));
            assert!(early.call(trigger, call));
        }
        calls
    }

    #[tokio::test]
    async fn calls_come_as_early_as_uploads_take() {
        let mut early = EarlyCuts::new(ms(1000));
        assert_eq!(calls(&mut early), [ms(100), ms(50), ms(25)]);
        assert_eq!(calls(&mut early), [], "once for each trigger");
        early.triggered(Some(ms(65)));
        assert_eq!(calls(&mut early), [ms(90), ms(45), ms(45) / 2]);
        early.triggered(None);
        assert_eq!(calls(&mut early), [ms(90), ms(45), ms(45) / 2], "nothing new is known");
        early.triggered(Some(ms(3000)));
        assert_eq!(calls(&mut early), [ms(250), ms(125), ms(125) / 2], "at most a quarter of the interval");
        let mut short = EarlyCuts::new(ms(100));
        assert_eq!(calls(&mut short), [ms(25), ms(25) / 2, ms(25) / 4]);
    }
}
