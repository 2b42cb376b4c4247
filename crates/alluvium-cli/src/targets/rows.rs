//! The rows of the table of targets, each a figure of one turn.

use super::loads::Load::{FullSpeed, ManyKeys, ManyKeysZipf, Paced, Puts, Windows, Zipf};
use super::loads::Side::{Before, Changelog, Native, Plain};
use super::loads::{Load, Side};
use super::sheet::Turn;
use crate::result::metric::times;
use crate::result::{Checkpoints, RunResult};
use crate::units;

/// One row.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) target: Target,
    /// None where a run that it needs did not take place, or did not measure it.
    pub(super) of: fn(&Turn) -> Option<f64>,
    /// With its unit.
    pub(super) show: fn(f64) -> String,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside a row that has one.
    None,
}

use Target::{AtLeast, AtMost};

/// What other systems and the build before the cache of records did, on 27 November 2026, on a machine
/// with 2 cores. The notes below the table say so.
const FLINK_RECORDS_PER_S: f64 = 110_500.0;
const CPU_PACED_S: f64 = 15.6;
const CPU_FULL_SPEED_S: f64 = 9.4;

pub(super) const NOTES: [&str; 2] = [
    "¹ Against `--before`. Without it, against 15.6 and 9.4 s, measured on 27 November 2026 on another machine: no \
     run of this table.",
    "² 110,500 records/s of Flink 2.3, measured on 27 November 2026 on another machine: no run of this table.",
];

const fn row(
    name: &'static str,
    target: Target,
    of: fn(&Turn) -> Option<f64>,
    show: fn(f64) -> String,
) -> Row {
    Row { name, target, of, show }
}

/// All rows, in the order in which they are shown.
pub(super) const ROWS: &[Row] = &[
    row("checkpoint p50 ÷ floor, 50,000/s", AtMost(1.3), |t| p50_to_floor(t, Paced), times),
    row("checkpoint p99 ÷ floor's median, 50,000/s", AtMost(2.0), |t| p99_to_floor(t, Paced), times),
    row("checkpoint p50 ÷ floor, full speed", AtMost(1.5), |t| p50_to_floor(t, FullSpeed), times),
    row("checkpoint p99 ÷ floor's median, full speed", AtMost(2.5), |t| p99_to_floor(t, FullSpeed), times),
    row(
        "longest pause per checkpoint p50, 50,000/s",
        AtMost(0.5),
        |t| Some(t.get(Paced, Changelog)?.operator_pause_ms?.p50),
        units::millis,
    ),
    row(
        "longest pause per checkpoint p99, 50,000/s",
        AtMost(3.0),
        |t| Some(t.get(Paced, Changelog)?.operator_pause_ms?.p99),
        units::millis,
    ),
    row("cut p99.9 (below 1,000: longest), 50,000/s", AtMost(0.5), longest_cut, units::millis),
    row(
        "record latency p99, 50,000/s",
        AtMost(2.0),
        |t| Some(t.get(Paced, Changelog)?.record_latency_ms?.p99),
        units::millis,
    ),
    row(
        "record latency p99.9, 50,000/s",
        AtMost(6.0),
        |t| t.get(Paced, Changelog)?.record_latency_ms?.p999,
        units::millis,
    ),
    row("read-modify-write ÷ native", AtLeast(2.5), |t| faster(t, FullSpeed, Native), times),
    row("read-modify-write ÷ no checkpoints", AtLeast(2.0), |t| faster(t, FullSpeed, Plain), times),
    row(
        "read-modify-write ÷ Flink ²",
        AtLeast(4.0),
        |t| Some(t.get(FullSpeed, Changelog)?.records_per_s / FLINK_RECORDS_PER_S),
        times,
    ),
    row("zipf 0.99 ÷ native", AtLeast(3.0), |t| faster(t, Zipf, Native), times),
    row("blind puts ÷ native", AtLeast(3.5), |t| faster(t, Puts, Native), times),
    row("windows ÷ native", AtLeast(2.5), |t| faster(t, Windows, Native), times),
    row("ten times the keys ÷ native", AtLeast(1.3), |t| faster(t, ManyKeys, Native), times),
    row("ten times the keys, zipf 0.99 ÷ native", AtLeast(2.0), |t| faster(t, ManyKeysZipf, Native), times),
    row("CPU of a record ÷ before ¹, 50,000/s", AtMost(0.5), |t| cpu_to_before(t, Paced, CPU_PACED_S), times),
    row("CPU of a record ÷ native, 50,000/s", Target::None, |t| cpu_to(t, Paced, Native), times),
    row(
        "CPU of a record ÷ before ¹, full speed",
        AtMost(0.5),
        |t| cpu_to_before(t, FullSpeed, CPU_FULL_SPEED_S),
        times,
    ),
    row("CPU of a record ÷ native, full speed", Target::None, |t| cpu_to(t, FullSpeed, Native), times),
    row("bytes PUT per record, 50,000/s", AtMost(185.0), bytes_per_record, units::bytes),
    row("bytes held at most ÷ state, puts", AtMost(2.5), held_to_state, times),
    row("bytes held at most ÷ native, puts", AtMost(1.0), held_to_native, times),
    row(
        "PUTs of a checkpoint, 50,000/s",
        AtMost(1.5),
        |t| own(t.get(Paced, Changelog)?)?.puts_per_checkpoint,
        units::three_digits,
    ),
    row("GETs a minute, 50,000/s", AtMost(0.0), gets_a_minute, units::three_digits),
    row("restore ÷ download, after 50,000/s", AtMost(1.15), |t| restore_to_download(t, Paced), times),
    row("restore ÷ native, after 50,000/s", AtMost(1.5), |t| restore_to_native(t, Paced), times),
    row("restore ÷ download, after full speed", AtMost(1.15), |t| restore_to_download(t, FullSpeed), times),
    row("restore ÷ native, after full speed", AtMost(1.5), |t| restore_to_native(t, FullSpeed), times),
    row("peak memory of the process at 512 MB", AtMost(600e6), peak_memory, units::bytes),
];

/// None where the other one is 0.
fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    (theirs > 0.0).then(|| ours / theirs)
}

fn own(run: &RunResult) -> Option<&Checkpoints> {
    run.checkpoints.as_ref()
}

fn p50_to_floor(turn: &Turn, load: Load) -> Option<f64> {
    let checkpoints = own(turn.get(load, Changelog)?)?;
    ratio(checkpoints.duration_ms?.p50, checkpoints.floor_ms?.p50)
}

fn p99_to_floor(turn: &Turn, load: Load) -> Option<f64> {
    let checkpoints = own(turn.get(load, Changelog)?)?;
    ratio(checkpoints.duration_ms?.p99, checkpoints.floor_ms?.p50)
}

fn longest_cut(turn: &Turn) -> Option<f64> {
    let cut = own(turn.get(Paced, Changelog)?)?.cut_ms?;
    Some(cut.p999.unwrap_or(cut.max))
}

/// Records a second ÷ those of another side.
fn faster(turn: &Turn, load: Load, than: Side) -> Option<f64> {
    ratio(turn.get(load, Changelog)?.records_per_s, turn.get(load, than)?.records_per_s)
}

fn cpu_to(turn: &Turn, load: Load, side: Side) -> Option<f64> {
    let cpu = |side| turn.get(load, side)?.cpu_s_per_million_records;
    ratio(cpu(Changelog)?, cpu(side)?)
}

fn cpu_to_before(turn: &Turn, load: Load, of_another_day: f64) -> Option<f64> {
    match turn.get(load, Before) {
        Some(_) => cpu_to(turn, load, Before),
        None => ratio(turn.get(load, Changelog)?.cpu_s_per_million_records?, of_another_day),
    }
}

fn bytes_per_record(turn: &Turn) -> Option<f64> {
    let run = turn.get(Paced, Changelog)?;
    ratio(run.store.as_ref()?.put_bytes as f64, run.records as f64)
}

/// The state is that of the beginning, when it was one sorted run.
fn held_to_state(turn: &Turn) -> Option<f64> {
    let run = turn.get(Puts, Changelog)?;
    let state = run.compaction_debt?.start.live_sst_bytes?;
    ratio(run.store.as_ref()?.live_bytes_peak? as f64, state as f64)
}

fn held_to_native(turn: &Turn) -> Option<f64> {
    let held = |side| Some(turn.get(Puts, side)?.store.as_ref()?.live_bytes_peak? as f64);
    ratio(held(Changelog)?, held(Native)?)
}

fn gets_a_minute(turn: &Turn) -> Option<f64> {
    let run = turn.get(Paced, Changelog)?;
    ratio(run.store.as_ref()?.gets as f64, run.measured_s / 60.0)
}

/// To what the store needs for the bytes alone.
fn restore_to_download(turn: &Turn, load: Load) -> Option<f64> {
    let run = turn.get(load, Changelog)?;
    let (restore, model) = (run.restore.as_ref()?, run.store_model.as_ref()?);
    ratio(restore.total_ms, restore.bytes? as f64 / model.shared_bytes_per_s? * 1e3)
}

fn restore_to_native(turn: &Turn, load: Load) -> Option<f64> {
    let restore = |side| Some(turn.get(load, side)?.restore.as_ref()?.total_ms);
    ratio(restore(Changelog)?, restore(Native)?)
}

/// The larger one of both loads.
fn peak_memory(turn: &Turn) -> Option<f64> {
    let peak = |load| Some(turn.get(load, Changelog)?.rss_peak_bytes? as f64);
    Some(peak(Paced)?.max(peak(FullSpeed)?))
}
