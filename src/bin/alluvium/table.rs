//! Results side by side, for people.

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::recorder::Percentiles;
use crate::report::RunReport;
use crate::units;

/// One figure of a run.
struct Figure {
    group: &'static str,
    name: &'static str,
    better: Better,
    of: fn(&RunReport) -> Option<f64>,
    show: fn(f64) -> String,
}

/// Which way is good.
#[derive(Clone, Copy, PartialEq)]
enum Better {
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

type P = Option<Percentiles>;

const FIGURES: &[Figure] = &[
    figure(THROUGHPUT, "records/s", Higher, |r| Some(r.records_per_s), units::count),
    figure(THROUGHPUT, "CPU per million records", Lower, |r| r.cpu_s_per_million_records, seconds),
    figure(THROUGHPUT, "record latency p99", Lower, |r| p99(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "record latency max", Lower, |r| max(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "load, records/s", Higher, |r| Some(r.load.as_ref()?.records_per_s), units::count),
    figure(THROUGHPUT, "compaction debt at the last record", Lower, debt, units::bytes),
    figure(THROUGHPUT, "deferred work after the last record", Lower, |r| Some(r.drain_s), seconds),
    figure(THROUGHPUT, "peak memory", Lower, |r| r.rss_peak_bytes.map(|b| b as f64), units::bytes),
    figure(PAUSE, "p50", Lower, |r| p50(r.operator_pause_ms), units::millis),
    figure(PAUSE, "p99", Lower, |r| p99(r.operator_pause_ms), units::millis),
    figure(PAUSE, "p99.9", Lower, |r| r.operator_pause_ms?.p999, units::millis),
    figure(PAUSE, "max", Lower, |r| max(r.operator_pause_ms), units::millis),
    figure(PAUSE, "of it in the cut, p50", Lower, |r| p50(r.checkpoints.cut_ms), units::millis),
    figure(PAUSE, "of it in the cut, max", Lower, |r| max(r.checkpoints.cut_ms), units::millis),
    figure(CHECKPOINT, "completed", Neither, |r| Some(r.checkpoints.n as f64), units::count),
    figure(CHECKPOINT, "failed", Neither, |r| Some(r.checkpoints.failed as f64), units::count),
    figure(CHECKPOINT, "duration p50", Lower, |r| p50(r.checkpoints.duration_ms), units::millis),
    figure(CHECKPOINT, "duration p99", Lower, |r| p99(r.checkpoints.duration_ms), units::millis),
    figure(CHECKPOINT, "duration max", Lower, |r| max(r.checkpoints.duration_ms), units::millis),
    figure(CHECKPOINT, "bytes p50", Lower, |r| p50(r.checkpoints.bytes), units::bytes),
    figure(CHECKPOINT, "bytes max", Lower, |r| max(r.checkpoints.bytes), units::bytes),
    figure(
        CHECKPOINT,
        "PUT requests, mean",
        Lower,
        |r| r.checkpoints.puts_per_checkpoint,
        units::three_digits,
    ),
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
    figure(STORE, "bytes put, measured stretch", Lower, |r| Some(r.store.put_bytes as f64), units::bytes),
    figure(STORE, "bytes put, whole run", Lower, |r| Some(r.store.whole_run_put_bytes as f64), units::bytes),
    figure(STORE, "PUT requests, measured stretch", Lower, |r| Some(r.store.puts as f64), units::count),
    figure(STORE, "live bytes at the end", Lower, |r| r.store.live_bytes_end.map(|b| b as f64), units::bytes),
    figure(RESTORE, "total", Lower, |r| Some(r.restore.as_ref()?.total_ms), units::millis),
    figure(RESTORE, "download", Lower, |r| Some(r.restore.as_ref()?.download_ms), units::millis),
    figure(RESTORE, "open", Lower, |r| Some(r.restore.as_ref()?.open_ms), units::millis),
    figure(RESTORE, "replay", Lower, |r| Some(r.restore.as_ref()?.replay_ms), units::millis),
    figure(RESTORE, "bytes", Lower, |r| Some(r.restore.as_ref()?.bytes as f64), units::bytes),
    figure(RESTORE, "objects", Lower, |r| Some(r.restore.as_ref()?.objects as f64), units::count),
];

const fn figure(
    group: &'static str,
    name: &'static str,
    better: Better,
    of: fn(&RunReport) -> Option<f64>,
    show: fn(f64) -> String,
) -> Figure {
    Figure { group, name, better, of, show }
}

fn p50(p: P) -> Option<f64> {
    Some(p?.p50)
}

fn p99(p: P) -> Option<f64> {
    Some(p?.p99)
}

fn max(p: P) -> Option<f64> {
    Some(p?.max)
}

fn debt(report: &RunReport) -> Option<f64> {
    Some(report.compaction.last_record.pending_bytes as f64)
}

fn seconds(seconds: f64) -> String {
    format!("{} s", units::three_digits(seconds))
}

fn times(ratio: f64) -> String {
    format!("{}×", units::three_digits(ratio))
}

/// One figure of two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) figure: String,
    pub(crate) changelog: f64,
    pub(crate) native: f64,
    /// changelog / native; absent where native's is 0.
    pub(crate) ratio: Option<f64>,
}

/// All figures that both runs have.
pub(crate) fn ratios(changelog: &RunReport, native: &RunReport) -> Vec<Ratio> {
    FIGURES
        .iter()
        .filter_map(|figure| {
            let (a, b) = ((figure.of)(changelog)?, (figure.of)(native)?);
            let ratio = (b != 0.0).then(|| a / b);
            Some(Ratio {
                figure: format!("{}: {}", figure.group, figure.name),
                changelog: a,
                native: b,
                ratio,
            })
        })
        .collect()
}

/// The ratio in words, from the changelog's side.
fn compare(better: Better, changelog: f64, native: f64) -> String {
    if better == Neither {
        return String::new();
    }
    let (low, high) = (changelog.min(native), changelog.max(native));
    if low == high {
        return "equal".to_owned();
    }
    let factor = if low > 0.0 { times(high / low) } else { "∞".to_owned() };
    if factor == "1.00×" {
        return "equal".to_owned();
    }
    let word = if changelog > native { "higher" } else { "lower" };
    let mark = if (better == Higher) == (changelog > native) { "✓" } else { "✗" };
    format!("{factor} {word} {mark}")
}

/// Two runs with the changelog's ratio to native.
pub(crate) fn side_by_side(changelog: &RunReport, native: &RunReport) -> String {
    let mut table = empty(["", "changelog", "native", "changelog is"]);
    let mut group = "";
    for figure in FIGURES {
        let (a, b) = ((figure.of)(changelog), (figure.of)(native));
        if a.is_none() && b.is_none() {
            continue;
        }
        heading(&mut table, &mut group, figure.group, 4);
        let show = |value: Option<f64>| value.map_or("–".to_owned(), figure.show);
        let ratio = a.zip(b).map_or(String::new(), |(a, b)| compare(figure.better, a, b));
        table.add_row([cell(&format!("  {}", figure.name)), right(&show(a)), right(&show(b)), right(&ratio)]);
    }
    table.trim_fmt()
}

/// One run.
pub(crate) fn single(report: &RunReport) -> String {
    let mut table = empty(["", crate::session::mode_name(report.mode)]);
    let mut group = "";
    for figure in FIGURES {
        if let Some(value) = (figure.of)(report) {
            heading(&mut table, &mut group, figure.group, 2);
            table.add_row([cell(&format!("  {}", figure.name)), right(&(figure.show)(value))]);
        }
    }
    table.trim_fmt()
}

/// Rules above, below and under the header, and none between rows: a report is read as a whole.
const LINES: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('═').junction('═'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// A table in this program's style.
pub(crate) fn empty<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(LINES);
    table
        .set_header(header.iter().enumerate().map(|(i, text)| if i == 0 { cell(text) } else { right(text) }));
    table
}

fn heading(table: &mut Table, current: &mut &'static str, group: &'static str, columns: usize) {
    if *current != group {
        *current = group;
        let mut row = vec![cell(group)];
        row.resize(columns, cell(""));
        table.add_row(row);
    }
}

pub(crate) fn cell(text: &str) -> Cell {
    Cell::new(text)
}

pub(crate) fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_which_way_and_whether_that_is_good() {
        assert_eq!(compare(Higher, 200.0, 100.0), "2.00× higher ✓");
        assert_eq!(compare(Lower, 200.0, 100.0), "2.00× higher ✗");
        assert_eq!(compare(Lower, 10.0, 100.0), "10.0× lower ✓");
        assert_eq!(compare(Higher, 10.0, 100.0), "10.0× lower ✗");
        assert_eq!(compare(Lower, 100.0, 100.1), "equal");
        assert_eq!(compare(Lower, 0.0, 5.0), "∞ lower ✓");
        assert_eq!(compare(Lower, 0.0, 0.0), "equal");
        assert_eq!(compare(Neither, 1.0, 2.0), "");
    }
}
