//! What an operator thread measures about itself.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::result::{ENOUGH_FOR_P999, Percentiles};

/// Longest time that a histogram tells apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Times in nanoseconds, to three significant digits. A bucket counts to 4 billion, because each
/// operator's thread has several of these, and with wider ones they take more than 1 MB of its own.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u32>);

impl Times {
    pub(crate) fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3);
        Self(bounds.expect("1 ns to 1 h at 3 digits are bounds that a histogram can have"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Moves everything to `other`.
    pub(crate) fn move_to(&mut self, other: &mut Self) {
        other.add(self);
        self.0.reset();
    }

    /// In milliseconds; starts anew.
    pub(crate) fn take_p99(&mut self) -> Option<f64> {
        let p99 = (!self.0.is_empty()).then(|| self.0.value_at_quantile(0.99) as f64 / 1e6);
        self.0.reset();
        p99
    }

    /// In milliseconds; None where nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let n = self.0.len();
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        (n > 0).then(|| Percentiles {
            n,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: (n >= ENOUGH_FOR_P999).then(|| at(0.999)),
            max: self.0.max() as f64 / 1e6,
        })
    }
}

/// One operator thread's measurements of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    pub(crate) records: u64,
    /// End of an update minus the release of its group; at full speed the time of the update itself.
    pub(crate) latency: Times,
    /// Time in `cut`.
    pub(crate) cut: Times,
    /// One sample per checkpoint: the longest time since the last one during which the operator did
    /// not get on, be it in `cut` or in one record.
    pub(crate) pause: Times,
    /// Latencies that the conductor has not seen yet.
    pub(crate) recent: Times,
    longest_record: Duration,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            records: 0,
            latency: Times::new(),
            cut: Times::new(),
            pause: Times::new(),
            recent: Times::new(),
            longest_record: Duration::ZERO,
        }
    }

    /// A record that took `service` and was done `latency` after it was released.
    pub(crate) fn record(&mut self, service: Duration, latency: Duration) {
        self.records += 1;
        self.latency.record(latency);
        self.recent.record(latency);
        self.longest_record = self.longest_record.max(service);
    }

    pub(crate) fn cut(&mut self, time: Duration) {
        self.cut.record(time);
        self.pause.record(time.max(std::mem::take(&mut self.longest_record)));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.latency.add(&other.latency);
        self.cut.add(&other.cut);
        self.pause.add(&other.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_longer_of_cut_and_longest_record() {
        let ms = Duration::from_millis;
        let mut recorder = Recorder::new();
        recorder.record(ms(1), ms(30));
        recorder.record(ms(9), ms(9));
        recorder.cut(ms(4));
        recorder.record(ms(2), ms(2));
        recorder.cut(ms(5));
        let pause = recorder.pause.percentiles().unwrap();
        assert!((pause.p50 - 5.0).abs() < 0.01 && (pause.max - 9.0).abs() < 0.02, "{pause:?}");
        assert!((recorder.latency.percentiles().unwrap().max - 30.0).abs() < 0.05);
    }
}
