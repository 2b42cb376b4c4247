//! The result of a run, as JSON writes it. Built from what the driver measured and the job told;
//! nothing in here measures.

use std::collections::BTreeMap;
use std::time::Duration;

use alluvium::{CheckpointMode, RestoreReport};
use serde::Serialize;

use crate::backend::{Checkpoint, Gauges, Log};
use crate::driver::{StageKind, StageRun};
use crate::expected::Verdict;
use crate::meter::{self, Machine};
use crate::recorder::Percentiles;
use crate::workload::Workload;

/// Version of the JSON's shape; a field that changes its meaning raises it.
pub(crate) const SCHEMA: u32 = 1;

/// Time between two samples in the result.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// One run of one mode. Times are named with their unit; sizes are bytes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunReport {
    pub(crate) schema: u32,
    pub(crate) system: &'static str,
    pub(crate) version: &'static str,
    pub(crate) mode: CheckpointMode,
    pub(crate) workload: Workload,
    pub(crate) settings: Settings,
    pub(crate) machine: Machine,
    /// Every key written once, as fast as it goes. Absent where a resumed run had done it before.
    pub(crate) load: Option<Load>,
    /// The measured stretch, until all deferred work was done.
    pub(crate) measured_s: f64,
    /// The part of it after the last record.
    pub(crate) drain_s: f64,
    pub(crate) records: u64,
    pub(crate) records_per_s: f64,
    pub(crate) cpu_s_per_million_records: Option<f64>,
    pub(crate) rss_peak_bytes: Option<u64>,
    pub(crate) local_write_bytes: Option<u64>,
    /// Per checkpoint and subtask: the longest time that the operator did not get on.
    pub(crate) operator_pause_ms: Option<Percentiles>,
    /// Paced: end of the update minus the release of its group. At full speed: time of the update.
    pub(crate) record_latency_ms: Option<Percentiles>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) materializations: Vec<MaterializationSpan>,
    pub(crate) store: Store,
    pub(crate) compaction: Compaction,
    /// Writes that waited at the memory bound.
    pub(crate) backpressure: Backpressure,
    /// A slow stretch after the measured one, that shows what a checkpoint costs while SST files are
    /// being rewritten (I5).
    pub(crate) steady: Option<Steady>,
    pub(crate) restore: Option<Restore>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) checkpoint_series: Vec<CheckpointPoint>,
    /// RocksDB options in force.
    pub(crate) table_options: BTreeMap<String, String>,
}

/// How the workload was driven and the job configured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// Records per second; 0: as fast as it goes.
    pub(crate) rate: f64,
    pub(crate) duration_s: f64,
    pub(crate) warm_up_s: f64,
    pub(crate) checkpoint_interval_ms: f64,
    pub(crate) materialization_interval_ms: Option<f64>,
    pub(crate) memory: u64,
    /// Kind of object store: `file`, `memory`, `s3` …
    pub(crate) store: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) load_s: f64,
    pub(crate) records_per_s: f64,
}

/// The checkpoints of a stretch. Durations run from the trigger until the manifest is durable.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Checkpoints {
    pub(crate) n: u64,
    pub(crate) failed: u64,
    pub(crate) duration_ms: Option<Percentiles>,
    /// Time of an operator thread in `cut`, per checkpoint and subtask.
    pub(crate) cut_ms: Option<Percentiles>,
    pub(crate) bytes: Option<Percentiles>,
    /// Mean number of PUT requests that a checkpoint itself sends.
    pub(crate) puts_per_checkpoint: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct MaterializationSpan {
    pub(crate) start_s: f64,
    pub(crate) end_s: f64,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// What the object store was asked for in the measured stretch.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Store {
    pub(crate) put_bytes: u64,
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) deletes: u64,
    pub(crate) lists: u64,
    pub(crate) retries: u64,
    /// From the opening of the job to its end, the load and the steady stretch too.
    pub(crate) whole_run_put_bytes: u64,
    /// What the retained checkpoints need at the end.
    pub(crate) live_bytes_end: Option<u64>,
}

/// RocksDB's unfinished work, before and after.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Compaction {
    pub(crate) start: Debt,
    /// At the last record, before deferred work was waited for.
    pub(crate) last_record: Debt,
    pub(crate) end: Debt,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Debt {
    pub(crate) pending_bytes: u64,
    pub(crate) l0_files: u64,
    pub(crate) live_sst_bytes: u64,
}

impl From<&Gauges> for Debt {
    fn from(gauges: &Gauges) -> Self {
        Self {
            pending_bytes: gauges.pending_compaction_bytes,
            l0_files: gauges.l0_files,
            live_sst_bytes: gauges.live_sst_bytes,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Backpressure {
    pub(crate) blocked_writes: u64,
    pub(crate) blocked_ms: f64,
}

/// Checkpoints of the steady stretch, by whether SST files were being rewritten or uploaded meanwhile.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Steady {
    pub(crate) records_per_s: f64,
    /// All checkpoints of the stretch.
    pub(crate) all: Checkpoints,
    /// No compaction and no materialization ran since the checkpoint before.
    pub(crate) quiet_bytes: Option<Percentiles>,
    pub(crate) quiet_duration_ms: Option<Percentiles>,
    /// One ran.
    pub(crate) busy_bytes: Option<Percentiles>,
    pub(crate) busy_duration_ms: Option<Percentiles>,
    /// The largest checkpoint over the median one.
    pub(crate) bytes_max_over_median: Option<f64>,
    pub(crate) materializations: Vec<MaterializationSpan>,
    pub(crate) checkpoint_series: Vec<CheckpointPoint>,
}

/// Reopening the job with an empty local directory.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Restore {
    pub(crate) total_ms: f64,
    /// Until every subtask has answered a read.
    pub(crate) first_record_ms: f64,
    pub(crate) download_ms: f64,
    pub(crate) open_ms: f64,
    pub(crate) replay_ms: f64,
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
    pub(crate) deltas: u64,
    pub(crate) entries_replayed: u64,
    /// Present where the state was verified.
    #[serde(flatten)]
    pub(crate) verdict: Option<Verdict>,
}

impl Restore {
    pub(crate) fn new(
        total: Duration,
        first_record: Duration,
        report: &RestoreReport,
        verdict: Option<Verdict>,
    ) -> Self {
        Self {
            total_ms: millis(total),
            first_record_ms: millis(first_record),
            download_ms: report.download_ms,
            open_ms: report.open_ms,
            replay_ms: report.replay_ms,
            bytes: report.bytes_downloaded,
            objects: report.objects,
            deltas: report.deltas,
            entries_replayed: report.entries_replayed,
            verdict,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) t_s: f64,
    pub(crate) records: u64,
    pub(crate) put_bytes: u64,
    pub(crate) held_bytes: u64,
    pub(crate) pending_compaction_bytes: u64,
    pub(crate) l0_files: u64,
    pub(crate) running_compactions: u64,
    pub(crate) live_sst_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckpointPoint {
    pub(crate) start_s: f64,
    pub(crate) duration_ms: f64,
    pub(crate) bytes: u64,
    pub(crate) puts: u64,
    /// Whether a compaction or a materialization ran since the checkpoint before.
    pub(crate) beside_rewriting: bool,
}

/// What a report is made of, apart from the stages.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) mode: CheckpointMode,
    pub(crate) workload: Workload,
    pub(crate) settings: Settings,
    pub(crate) log: Log,
    pub(crate) live_bytes: Option<u64>,
    pub(crate) restore: Option<Restore>,
    pub(crate) table_options: Vec<(String, String)>,
}

/// None where there was no measured stage.
pub(crate) fn build(facts: Facts, stages: &[StageRun]) -> Option<RunReport> {
    let stage = |kind| stages.iter().find(|run| run.stage.kind == kind);
    let run = stage(StageKind::Measured)?;
    let measured = run.end.saturating_sub(run.start).as_secs_f64();
    let records = run.recorder.records;
    let remote = run.last.remote;
    let before = run.first.remote;
    let log = &facts.log;
    let last_watched = run.watched.iter().rev().find(|(at, ..)| *at <= run.worked);
    Some(RunReport {
        schema: SCHEMA,
        system: "alluvium",
        version: env!("CARGO_PKG_VERSION"),
        mode: facts.mode,
        workload: facts.workload,
        settings: facts.settings,
        machine: Machine::this(),
        load: stage(StageKind::Load).filter(|load| load.recorder.records > 0).map(|load| {
            let load_s = load.end.saturating_sub(load.start).as_secs_f64();
            Load { records: load.recorder.records, load_s, records_per_s: per(load.recorder.records, load_s) }
        }),
        measured_s: measured,
        drain_s: run.end.saturating_sub(run.worked).as_secs_f64(),
        records,
        records_per_s: per(records, measured),
        cpu_s_per_million_records: run.usage.cpu_s.filter(|_| records > 0).map(|s| s * 1e6 / records as f64),
        rss_peak_bytes: meter::rss_peak_bytes(),
        local_write_bytes: run.usage.local_write_bytes,
        operator_pause_ms: run.recorder.pause.percentiles(),
        record_latency_ms: run.recorder.latency.percentiles(),
        checkpoints: checkpoints(run, log),
        materializations: materializations(run, log),
        store: Store {
            put_bytes: remote.put_bytes - before.put_bytes,
            puts: remote.puts - before.puts,
            gets: remote.gets - before.gets,
            deletes: remote.deletes - before.deletes,
            lists: remote.lists - before.lists,
            retries: remote.retries - before.retries,
            whole_run_put_bytes: stages.last().map_or(0, |last| last.last.remote.put_bytes),
            live_bytes_end: facts.live_bytes,
        },
        compaction: Compaction {
            start: Debt::from(&run.first),
            last_record: Debt::from(last_watched.map_or(&run.last, |(.., gauges)| gauges)),
            end: Debt::from(&run.last),
        },
        backpressure: Backpressure {
            blocked_writes: run.last.blocked_writes.saturating_sub(run.first.blocked_writes),
            blocked_ms: (run.last.blocked_ms - run.first.blocked_ms).max(0.0),
        },
        steady: stage(StageKind::Steady).map(|run| steady(run, log)),
        restore: facts.restore,
        samples: samples(run),
        checkpoint_series: series(run, log),
        table_options: facts.table_options.into_iter().collect(),
    })
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The checkpoints that were triggered during `run`.
fn own<'a>(run: &'a StageRun, log: &'a Log) -> impl Iterator<Item = &'a Checkpoint> {
    log.checkpoints.iter().filter(|checkpoint| (run.start..=run.end).contains(&checkpoint.start))
}

fn durations<'a>(checkpoints: impl Iterator<Item = &'a Checkpoint>) -> Option<Percentiles> {
    Percentiles::of(checkpoints.map(|c| millis(c.end.saturating_sub(c.start))))
}

fn sizes<'a>(checkpoints: impl Iterator<Item = &'a Checkpoint>) -> Option<Percentiles> {
    Percentiles::of(checkpoints.map(|checkpoint| checkpoint.bytes as f64))
}

fn checkpoints(run: &StageRun, log: &Log) -> Checkpoints {
    let n = own(run, log).count() as u64;
    let puts: u64 = own(run, log).map(|checkpoint| checkpoint.puts).sum();
    Checkpoints {
        n,
        failed: log.failed.iter().filter(|at| (run.start..=run.end).contains(at)).count() as u64,
        duration_ms: durations(own(run, log)),
        cut_ms: run.recorder.cut.percentiles(),
        bytes: sizes(own(run, log)),
        puts_per_checkpoint: (n > 0).then(|| puts as f64 / n as f64),
    }
}

fn materializations(run: &StageRun, log: &Log) -> Vec<MaterializationSpan> {
    let seconds = |at: Duration| at.as_secs_f64() - run.start.as_secs_f64();
    log.materializations
        .iter()
        .filter(|m| m.end >= run.start && m.start <= run.end)
        .map(|m| MaterializationSpan {
            start_s: seconds(m.start),
            end_s: seconds(m.end),
            bytes: m.bytes,
            files: m.files,
        })
        .collect()
}

/// When SST files were being rewritten (compaction) or a base was uploaded (materialization). A
/// compaction between two looks shows in the number of files in level 0, which only it makes smaller.
fn rewriting(run: &StageRun, log: &Log) -> Vec<(Duration, Duration)> {
    let compactions = run.watched.windows(2).filter_map(|pair| match pair {
        [(from, _, before), (to, _, after)] => (before.running_compactions > 0
            || after.running_compactions > 0
            || after.l0_files < before.l0_files)
            .then_some((*from, *to)),
        _ => None,
    });
    compactions.chain(log.materializations.iter().map(|m| (m.start, m.end))).collect()
}

fn series(run: &StageRun, log: &Log) -> Vec<CheckpointPoint> {
    let rewriting = rewriting(run, log);
    let mut since = run.start;
    own(run, log)
        .map(|checkpoint| {
            let beside = rewriting.iter().any(|(from, to)| *from <= checkpoint.end && *to >= since);
            since = checkpoint.start;
            CheckpointPoint {
                start_s: checkpoint.start.saturating_sub(run.start).as_secs_f64(),
                duration_ms: millis(checkpoint.end.saturating_sub(checkpoint.start)),
                bytes: checkpoint.bytes,
                puts: checkpoint.puts,
                beside_rewriting: beside,
            }
        })
        .collect()
}

fn steady(run: &StageRun, log: &Log) -> Steady {
    let series = series(run, log);
    let pick = |beside: bool, figure: fn(&CheckpointPoint) -> f64| {
        Percentiles::of(series.iter().filter(|point| point.beside_rewriting == beside).map(figure))
    };
    let all = checkpoints(run, log);
    Steady {
        records_per_s: per(run.recorder.records, run.worked.saturating_sub(run.start).as_secs_f64()),
        quiet_bytes: pick(false, |point| point.bytes as f64),
        quiet_duration_ms: pick(false, |point| point.duration_ms),
        busy_bytes: pick(true, |point| point.bytes as f64),
        busy_duration_ms: pick(true, |point| point.duration_ms),
        bytes_max_over_median: all.bytes.filter(|bytes| bytes.p50 > 0.0).map(|bytes| bytes.max / bytes.p50),
        all,
        materializations: materializations(run, log),
        checkpoint_series: series,
    }
}

fn samples(run: &StageRun) -> Vec<Sample> {
    let mut next = run.start;
    let mut samples = Vec::new();
    for (at, records, gauges) in &run.watched {
        if *at < next {
            continue;
        }
        next = *at + SAMPLE_EVERY;
        samples.push(Sample {
            t_s: at.saturating_sub(run.start).as_secs_f64(),
            records: *records,
            put_bytes: gauges.remote.put_bytes.saturating_sub(run.first.remote.put_bytes),
            held_bytes: gauges.held_bytes,
            pending_compaction_bytes: gauges.pending_compaction_bytes,
            l0_files: gauges.l0_files,
            running_compactions: gauges.running_compactions,
            live_sst_bytes: gauges.live_sst_bytes,
        });
    }
    samples
}
