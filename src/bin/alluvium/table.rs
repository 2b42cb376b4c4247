//! Results side by side, for people.

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

use crate::recorder::percentiles_of;
use crate::result::{Checkpoints, Debt, Percentiles, RunResult};
use crate::units;

/// One figure of a run.
struct Figure {
    group: &'static str,
    name: &'static str,
    better: Better,
    of: fn(&RunResult) -> Option<f64>,
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
    figure(
        THROUGHPUT,
        "records/s",
        Higher,
        |r| (r.measured_s > 0.0).then_some(r.records_per_s),
        units::count,
    ),
    figure(THROUGHPUT, "CPU per million records", Lower, |r| r.cpu_s_per_million_records, seconds),
    figure(THROUGHPUT, "record latency p99", Lower, |r| p99(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "record latency p99.9", Lower, |r| r.record_latency_ms?.p999, units::millis),
    figure(THROUGHPUT, "record latency max", Lower, |r| max(r.record_latency_ms), units::millis),
    figure(THROUGHPUT, "load, records/s", Higher, |r| Some(r.load?.records_per_s), units::count),
    figure(
        THROUGHPUT,
        "compaction debt at the start",
        Lower,
        |r| debt(Some(r.compaction_debt?.start)),
        units::bytes,
    ),
    figure(
        THROUGHPUT,
        "compaction debt at the last record",
        Lower,
        |r| debt(r.compaction_debt?.last_record),
        units::bytes,
    ),
    figure(
        THROUGHPUT,
        "compaction debt at the end",
        Lower,
        |r| debt(Some(r.compaction_debt?.end)),
        units::bytes,
    ),
    figure(THROUGHPUT, "deferred work after the last record", Lower, |r| r.drain_s, seconds),
    figure(
        THROUGHPUT,
        "writes waited at the memory bound",
        Lower,
        |r| Some(r.backpressure?.blocked_ms),
        units::millis,
    ),
    figure(THROUGHPUT, "peak memory", Lower, |r| r.rss_peak_bytes.map(|b| b as f64), units::bytes),
    figure(
        THROUGHPUT,
        "bytes written to local disks",
        Lower,
        |r| r.local_write_bytes.map(|b| b as f64),
        units::bytes,
    ),
    figure(PAUSE, "p50", Lower, |r| p50(r.operator_pause_ms), units::millis),
    figure(PAUSE, "p99", Lower, |r| p99(r.operator_pause_ms), units::millis),
    figure(PAUSE, "p99.9", Lower, |r| r.operator_pause_ms?.p999, units::millis),
    figure(PAUSE, "max", Lower, |r| max(r.operator_pause_ms), units::millis),
    figure(PAUSE, "of it in the cut, p50", Lower, |r| p50(own(r)?.cut_ms), units::millis),
    figure(PAUSE, "of it in the cut, max", Lower, |r| max(own(r)?.cut_ms), units::millis),
    figure(CHECKPOINT, "completed", Neither, |r| Some(own(r)?.n as f64), units::count),
    figure(CHECKPOINT, "failed", Neither, |r| Some(own(r)?.failed as f64), units::count),
    figure(CHECKPOINT, "duration p50", Lower, |r| p50(own(r)?.duration_ms), units::millis),
    figure(CHECKPOINT, "  physical limit of it, p50", Lower, |r| p50(own(r)?.floor_ms), units::millis),
    figure(CHECKPOINT, "duration p99", Lower, |r| p99(own(r)?.duration_ms), units::millis),
    figure(CHECKPOINT, "  physical limit of it, p99", Lower, |r| p99(own(r)?.floor_ms), units::millis),
    figure(CHECKPOINT, "duration max", Lower, |r| max(own(r)?.duration_ms), units::millis),
    figure(CHECKPOINT, "durable lag p50", Lower, |r| p50(r.durable_lag_ms), units::millis),
    figure(CHECKPOINT, "durable lag max", Lower, |r| max(r.durable_lag_ms), units::millis),
    figure(CHECKPOINT, "bytes p50", Lower, |r| p50(own(r)?.bytes), units::bytes),
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
        |r| bytes(r.store.as_ref()?.whole_run_put_bytes),
        units::bytes,
    ),
    figure(
        STORE,
        "PUT requests, measured stretch",
        Lower,
        |r| Some(r.store.as_ref()?.puts as f64),
        units::count,
    ),
    figure(STORE, "bytes held at the end", Lower, |r| bytes(r.store.as_ref()?.live_bytes_end), units::bytes),
    figure(STORE, "bytes held at most", Lower, |r| bytes(r.store.as_ref()?.live_bytes_peak), units::bytes),
    figure(STORE, "price of a month", Lower, |r| r.store.as_ref()?.usd_per_month, dollars),
    figure(RESTORE, "total", Lower, |r| Some(r.restore.as_ref()?.total_ms), units::millis),
    figure(RESTORE, "until the first record", Lower, |r| r.restore.as_ref()?.first_record_ms, units::millis),
    figure(RESTORE, "download", Lower, |r| r.restore.as_ref()?.download_ms, units::millis),
    figure(RESTORE, "open", Lower, |r| r.restore.as_ref()?.open_ms, units::millis),
    figure(RESTORE, "replay", Lower, |r| r.restore.as_ref()?.replay_ms, units::millis),
    figure(RESTORE, "bytes", Lower, |r| bytes(r.restore.as_ref()?.bytes), units::bytes),
    figure(RESTORE, "objects", Lower, |r| bytes(r.restore.as_ref()?.objects), units::count),
];

const fn figure(
    group: &'static str,
    name: &'static str,
    better: Better,
    of: fn(&RunResult) -> Option<f64>,
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

fn own(result: &RunResult) -> Option<&Checkpoints> {
    result.checkpoints.as_ref()
}

fn debt(debt: Option<Debt>) -> Option<f64> {
    Some(debt?.pending_bytes as f64)
}

fn bytes(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64)
}

fn dollars(usd: f64) -> String {
    format!("{usd:.2} $")
}

fn seconds(seconds: f64) -> String {
    format!("{} s", units::three_digits(seconds))
}

fn times(ratio: f64) -> String {
    format!("{}×", units::three_digits(ratio))
}

/// Runs of one system in one mode, side by side with those of others.
#[derive(Debug)]
pub(crate) struct Column<'a> {
    pub(crate) title: String,
    /// In the order of their repetitions.
    pub(crate) runs: Vec<&'a RunResult>,
}

impl<'a> Column<'a> {
    /// One column for each system, mode and label, in the order in which they come.
    pub(crate) fn of(results: impl Iterator<Item = &'a RunResult>) -> Vec<Self> {
        let mut columns: Vec<Self> = Vec::new();
        for result in results {
            let same = |column: &&mut Self| {
                column.runs.first().is_some_and(|first| {
                    (&first.system, first.mode, &first.label) == (&result.system, result.mode, &result.label)
                })
            };
            match columns.iter_mut().find(same) {
                Some(column) => column.runs.push(result),
                None => {
                    let mode = result.mode.name();
                    let title = match (result.system.as_str(), &result.label) {
                        ("alluvium", None) => mode.to_owned(),
                        (system, None) => format!("{system} {mode}"),
                        (_, Some(label)) if columns.iter().any(|column| column.title == mode) => {
                            format!("{mode} ({label})")
                        }
                        ("alluvium", Some(_)) => mode.to_owned(),
                        (system, Some(label)) => format!("{system} {mode} ({label})"),
                    };
                    columns.push(Self { title, runs: vec![result] });
                }
            }
        }
        columns
    }

    /// The figure of each run.
    fn values(&self, figure: &Figure) -> Vec<Option<f64>> {
        self.runs.iter().map(|run| (figure.of)(run)).collect()
    }

    /// The median over the runs that have the figure.
    fn median(&self, figure: &Figure) -> Option<f64> {
        percentiles_of(self.values(figure).into_iter().flatten()).map(|percentiles| percentiles.p50)
    }
}

/// The ratios of two columns' runs in words, pair by pair, from the first one's side.
fn compare(better: Better, pairs: &[(f64, f64)]) -> String {
    if better == Neither || pairs.is_empty() {
        return String::new();
    }
    let words: Vec<(String, &str)> = pairs.iter().map(|(a, b)| compare_pair(better, *a, *b)).collect();
    let alike = words.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let verdict = words.first().map_or("", |(_, verdict)| verdict);
    if alike {
        let factors: Vec<&str> =
            words.iter().map(|(factor, _)| factor.as_str()).filter(|f| !f.is_empty()).collect();
        return [factors.join(" "), verdict.to_owned()].join(" ").trim().to_owned();
    }
    words
        .iter()
        .map(|(factor, verdict)| format!("{factor} {verdict}").trim().to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Factor and verdict.
fn compare_pair(better: Better, first: f64, second: f64) -> (String, &'static str) {
    let (low, high) = (first.min(second), first.max(second));
    let factor = if low > 0.0 { times(high / low) } else { "∞".to_owned() };
    if low == high || factor == "1.00×" {
        return (String::new(), "equal");
    }
    let verdict = match (first > second, (better == Higher) == (first > second)) {
        (true, true) => "higher ✓",
        (true, false) => "higher ✗",
        (false, true) => "lower ✓",
        (false, false) => "lower ✗",
    };
    (factor, verdict)
}

/// The columns, medians where they have several runs, with the ratios of the first to the second.
pub(crate) fn side_by_side(columns: &[Column<'_>]) -> String {
    let mut header = vec![String::new()];
    header.extend(columns.iter().map(|column| column.title.clone()));
    if let [first, _, ..] = columns {
        header.push(format!("{} is", first.title));
    }
    let mut table = empty(&header);
    let mut group = "";
    for figure in FIGURES {
        let medians: Vec<Option<f64>> = columns.iter().map(|column| column.median(figure)).collect();
        if medians.iter().all(Option::is_none) {
            continue;
        }
        heading(&mut table, &mut group, figure.group, header.len());
        let show = |value: &Option<f64>| right(&value.map_or("–".to_owned(), figure.show));
        let mut row = vec![cell(&format!("  {}", figure.name))];
        row.extend(medians.iter().map(show));
        if let [first, second, ..] = columns {
            let pairs = first.values(figure).into_iter().zip(second.values(figure));
            let pairs: Vec<_> = pairs.filter_map(|(a, b)| a.zip(b)).collect();
            row.push(right(&compare(figure.better, &pairs)));
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

/// RocksDB options that are not the same in all columns; empty if all are.
pub(crate) fn differing_options(columns: &[Column<'_>]) -> String {
    let with: Vec<_> = columns.iter().filter(|column| !column.runs[0].options.is_empty()).collect();
    let mut names: Vec<&String> = with.iter().flat_map(|column| column.runs[0].options.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut header = vec!["option".to_owned()];
    header.extend(with.iter().map(|column| column.title.clone()));
    let mut table = empty(&header);
    let mut rows = 0;
    for name in names {
        let values: Vec<_> = with.iter().map(|column| column.runs[0].options.get(name)).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            let mut row = vec![cell(name)];
            row.extend(values.iter().map(|value| right(value.map_or("–", String::as_str))));
            table.add_row(row);
            rows += 1;
        }
    }
    if rows == 0 { String::new() } else { table.trim_fmt() }
}

/// One run.
pub(crate) fn single(report: &RunResult) -> String {
    let mut table = empty(&["", report.mode.name()]);
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
pub(crate) fn empty(header: &[impl AsRef<str>]) -> Table {
    let mut table = Table::new();
    table.load_style(LINES);
    let cells = header.iter().map(AsRef::as_ref).enumerate();
    table.set_header(cells.map(|(i, text)| if i == 0 { cell(text) } else { right(text) }));
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
        let compare = |better, a, b| super::compare(better, &[(a, b)]);
        assert_eq!(compare(Higher, 200.0, 100.0), "2.00× higher ✓");
        assert_eq!(compare(Lower, 200.0, 100.0), "2.00× higher ✗");
        assert_eq!(compare(Lower, 10.0, 100.0), "10.0× lower ✓");
        assert_eq!(compare(Higher, 10.0, 100.0), "10.0× lower ✗");
        assert_eq!(compare(Lower, 100.0, 100.1), "equal");
        assert_eq!(compare(Lower, 0.0, 5.0), "∞ lower ✓");
        assert_eq!(compare(Lower, 0.0, 0.0), "equal");
        assert_eq!(compare(Neither, 1.0, 2.0), "");
    }

    #[test]
    fn repetitions_are_compared_pair_by_pair() {
        assert_eq!(compare(Lower, &[(1.0, 2.0), (1.0, 3.0)]), "2.00× 3.00× lower ✓");
        assert_eq!(compare(Lower, &[(1.0, 2.0), (3.0, 1.0)]), "2.00× lower ✓, 3.00× higher ✗");
        assert_eq!(compare(Lower, &[(1.0, 1.0), (3.0, 1.0)]), "equal, 3.00× higher ✗");
        assert_eq!(compare(Lower, &[]), "");
    }
}
