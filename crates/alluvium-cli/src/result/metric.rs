//! The figures that results are compared by: their names, how they are written, and which way is good.
//! Table and report show the same list.

use crate::result::{Checkpoints, Debt, Percentiles, RunResult};
use crate::units;

/// One figure of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    /// Figures of a group stand under a common heading.
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) better: Better,
    /// None where it was not measured.
    pub(crate) of: fn(&RunResult) -> Option<f64>,
    /// With its unit.
    pub(crate) show: fn(f64) -> String,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// A fact that is neither.
    Neither,
}

use Better::{Higher, Lower, Neither};

const THROUGHPUT: &str = "throughput";
const PAUSE: &str = "operator pause per checkpoint";
const CHECKPOINT: &str = "checkpoint";
const STEADY: &str = "steady stretch: bytes per checkpoint";
const STORE: &str = "object store";
const RESTORE: &str = "restore into an empty directory";

/// All of them, in the order in which they are shown.
pub(crate) const METRICS: &[Metric] = &[
    figure(
        THROUGHPUT,
        "records/s",
        Higher,
        |r| (r.measured_s > 0.0).then_some(r.records_per_s),
        units::count,
    ),
    figure(THROUGHPUT, "CPU per million records", Lower, |r| r.cpu_s_per_million_records, seconds),
    figure(THROUGHPUT, "record latency p50", Lower, |r| p50(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "record latency p99", Lower, |r| p99(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "record latency p99.9", Lower, |r| r.record_latency_ms?.p999, units::millis),
    figure(THROUGHPUT, "record latency max", Lower, |r| max(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "load, records/s", Higher, |r| Some(r.load?.records_per_s), units::count),
    figure(
        THROUGHPUT,
        "compaction debt at the start",
        Lower,
        |r| pending(Some(r.compaction_debt?.start)),
        units::bytes,
    ),
    figure(
        THROUGHPUT,
        "compaction debt at the last record",
        Lower,
        |r| pending(r.compaction_debt?.last_record),
        units::bytes,
    ),
    figure(
        THROUGHPUT,
        "compaction debt at the end",
        Lower,
        |r| pending(Some(r.compaction_debt?.end)),
        units::bytes,
    ),
    figure(
        THROUGHPUT,
        "level-0 files at the start",
        Lower,
        |r| Some(r.compaction_debt?.start.l0_files as f64),
        units::count,
    ),
    figure(
        THROUGHPUT,
        "level-0 files at the end",
        Lower,
        |r| Some(r.compaction_debt?.end.l0_files as f64),
        units::count,
    ),
    figure(THROUGHPUT, "deferred work after the last record", Lower, |r| r.drain_s, seconds),
    figure(
        THROUGHPUT,
        "writes waited at the memory bound",
        Lower,
        |r| Some(r.backpressure?.blocked_ms),
        units::millis,
    ),
    figure(THROUGHPUT, "peak memory", Lower, |r| float(r.rss_peak_bytes), units::bytes),
    figure(THROUGHPUT, "hit rate of the cache of records", Higher, |r| r.record_cache?.hit_rate, percent),
    figure(
        THROUGHPUT,
        "memory of the cache of records",
        Neither,
        |r| float(r.record_cache?.bytes),
        units::bytes,
    ),
    figure(THROUGHPUT, "bytes written to local disks", Lower, |r| float(r.local_write_bytes), units::bytes),
    figure(PAUSE, "p50", Lower, |r| p50(r.operator_pause_ms), units::millis),
    figure(PAUSE, "p99", Lower, |r| p99(r.operator_pause_ms), units::millis),
    figure(PAUSE, "p99.9", Lower, |r| r.operator_pause_ms?.p999, units::millis),
    figure(PAUSE, "max", Lower, |r| max(r.operator_pause_ms), units::millis),
    figure(PAUSE, "of it in the cut, p50", Lower, |r| p50(own(r)?.cut_ms), units::millis),
    figure(PAUSE, "of it in the cut, max", Lower, |r| max(own(r)?.cut_ms), units::millis),
    figure(CHECKPOINT, "completed", Neither, |r| Some(own(r)?.n as f64), units::count),
    figure(CHECKPOINT, "failed", Neither, |r| Some(own(r)?.failed as f64), units::count),
    figure(CHECKPOINT, "duration p50", Lower, |r| p50(own(r)?.duration_ms), units::millis),
    figure(CHECKPOINT, "physical limit of it, p50", Neither, |r| p50(own(r)?.floor_ms), units::millis),
    figure(CHECKPOINT, "duration p90", Lower, |r| Some(own(r)?.duration_ms?.p90), units::millis),
    figure(CHECKPOINT, "duration p99", Lower, |r| p99(own(r)?.duration_ms), units::millis),
    figure(CHECKPOINT, "physical limit of it, p99", Neither, |r| p99(own(r)?.floor_ms), units::millis),
    figure(CHECKPOINT, "duration p99.9", Lower, |r| own(r)?.duration_ms?.p999, units::millis),
    figure(CHECKPOINT, "duration max", Lower, |r| max(own(r)?.duration_ms), units::millis),
    figure(CHECKPOINT, "durable lag p50", Lower, |r| p50(r.durable_lag_ms), units::millis),
    figure(CHECKPOINT, "durable lag p99", Lower, |r| p99(r.durable_lag_ms), units::millis),
    figure(CHECKPOINT, "durable lag max", Lower, |r| max(r.durable_lag_ms), units::millis),
    figure(CHECKPOINT, "bytes p50", Lower, |r| p50(own(r)?.bytes), units::bytes),
    figure(CHECKPOINT, "bytes p99", Lower, |r| p99(own(r)?.bytes), units::bytes),
    figure(CHECKPOINT, "bytes max", Lower, |r| max(own(r)?.bytes), units::bytes),
    figure(CHECKPOINT, "PUT requests, mean", Lower, |r| own(r)?.puts_per_checkpoint, units::three_digits),
    figure(STEADY, "nothing rewritten, p50", Lower, |r| p50(r.steady.as_ref()?.quiet_bytes), units::bytes),
    figure(
        STEADY,
        "beside compaction/base, p50",
        Lower,
        |r| p50(r.steady.as_ref()?.busy_bytes),
        units::bytes,
    ),
    figure(
        STEADY,
        "beside compaction/base, max",
        Lower,
        |r| max(r.steady.as_ref()?.busy_bytes),
        units::bytes,
    ),
    figure(STEADY, "max / median of all", Lower, |r| r.steady.as_ref()?.bytes_max_over_median, times),
    figure(STEADY, "duration max", Lower, |r| max(r.steady.as_ref()?.all.duration_ms), units::millis),
    figure(
        STORE,
        "bytes put, measured stretch",
        Lower,
        |r| Some(r.store.as_ref()?.put_bytes as f64),
        units::bytes,
    ),
    figure(
        STORE,
        "bytes put, whole run",
        Lower,
        |r| float(r.store.as_ref()?.whole_run_put_bytes),
        units::bytes,
    ),
    figure(
        STORE,
        "PUT requests, measured stretch",
        Lower,
        |r| Some(r.store.as_ref()?.puts as f64),
        units::count,
    ),
    figure(
        STORE,
        "GET requests, measured stretch",
        Lower,
        |r| Some(r.store.as_ref()?.gets as f64),
        units::count,
    ),
    figure(
        STORE,
        "LIST requests, measured stretch",
        Lower,
        |r| Some(r.store.as_ref()?.lists as f64),
        units::count,
    ),
    figure(
        STORE,
        "DELETE requests, measured stretch",
        Neither,
        |r| Some(r.store.as_ref()?.deletes as f64),
        units::count,
    ),
    figure(STORE, "retries, measured stretch", Lower, |r| float(r.store.as_ref()?.retries), units::count),
    figure(STORE, "bytes held at the end", Lower, |r| float(r.store.as_ref()?.live_bytes_end), units::bytes),
    figure(STORE, "bytes held at most", Lower, |r| float(r.store.as_ref()?.live_bytes_peak), units::bytes),
    figure(STORE, "price of a month", Lower, |r| r.store.as_ref()?.usd_per_month, dollars),
    figure(RESTORE, "total", Lower, |r| Some(r.restore.as_ref()?.total_ms), units::millis),
    figure(RESTORE, "until the first record", Lower, |r| r.restore.as_ref()?.first_record_ms, units::millis),
    figure(RESTORE, "download", Lower, |r| r.restore.as_ref()?.download_ms, units::millis),
    figure(RESTORE, "open", Lower, |r| r.restore.as_ref()?.open_ms, units::millis),
    figure(RESTORE, "replay", Lower, |r| r.restore.as_ref()?.replay_ms, units::millis),
    figure(RESTORE, "bytes", Lower, |r| float(r.restore.as_ref()?.bytes), units::bytes),
    figure(RESTORE, "objects", Lower, |r| float(r.restore.as_ref()?.objects), units::count),
];

const fn figure(
    group: &'static str,
    name: &'static str,
    better: Better,
    of: fn(&RunResult) -> Option<f64>,
    show: fn(f64) -> String,
) -> Metric {
    Metric { group, name, better, of, show }
}

type P = Option<Percentiles>;

fn p50(p: P) -> Option<f64> {
    Some(p?.p50)
}

fn p99(p: P) -> Option<f64> {
    Some(p?.p99)
}

fn max(p: P) -> Option<f64> {
    Some(p?.max)
}

fn own(result: &RunResult) -> Option<&Checkpoints> {
    result.checkpoints.as_ref()
}

fn pending(debt: Option<Debt>) -> Option<f64> {
    Some(debt?.pending_bytes as f64)
}

fn float(count: Option<u64>) -> Option<f64> {
    Some(count? as f64)
}

/// `1.50 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    format!("{} s", units::three_digits(seconds))
}

/// `13.37 $`; more digits below 10 cents.
pub(crate) fn dollars(usd: f64) -> String {
    match usd {
        usd if usd >= 99.5 => format!("{} $", units::count(usd)),
        usd if usd >= 0.1 || usd == 0.0 => format!("{usd:.2} $"),
        usd => format!("{usd:.4} $"),
    }
}

/// `97.3 %`, of a share.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", units::three_digits(share * 100.0))
}

/// `1.50×`.
pub(crate) fn times(ratio: f64) -> String {
    format!("{}×", units::three_digits(ratio))
}

/// How a figure stands to the same one of another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Better,
    Worse,
    /// Nearer than [`RESOLUTION`], or of a kind where neither way is good.
    Even,
}

/// The harness's figures are right to 2 %, so a smaller difference says nothing.
const RESOLUTION: f64 = 0.02;

impl Better {
    /// What `ratio`, ours over the other's, says about ours.
    pub(crate) fn standing(self, ratio: f64) -> Standing {
        if self == Neither || (ratio - 1.0).abs() < RESOLUTION {
            Standing::Even
        } else if (ratio > 1.0) == (self == Higher) {
            Standing::Better
        } else {
            Standing::Worse
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_judged_by_which_way_is_good() {
        assert_eq!(Higher.standing(2.0), Standing::Better);
        assert_eq!(Higher.standing(0.5), Standing::Worse);
        assert_eq!(Lower.standing(2.0), Standing::Worse);
        assert_eq!(Lower.standing(0.5), Standing::Better);
        assert_eq!(Lower.standing(f64::INFINITY), Standing::Worse);
        assert_eq!(Lower.standing(1.019), Standing::Even);
        assert_eq!(Lower.standing(1.021), Standing::Worse);
        assert_eq!(Neither.standing(7.0), Standing::Even);
    }

    #[test]
    fn no_two_figures_have_the_same_name() {
        let mut names: Vec<_> = METRICS.iter().map(|figure| (figure.group, figure.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
