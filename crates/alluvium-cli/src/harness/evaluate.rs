//! From what the driver measured and the job told to the result of a run. Nothing in here measures.

use std::time::Duration;

use alluvium::RestoreReport;

use crate::harness::backend::{Checkpoint, Gauges, Log};
use crate::harness::driver::{Look, StageRun, sample_every};
use crate::harness::expected::Verdict;
use crate::harness::meter;
use crate::harness::recorder::Times;
use crate::harness::stage::StageKind;
use crate::harness::workload::Workload;
use crate::result::percentiles_of;
use crate::result::{
    Backpressure, CheckpointPoint, Checkpoints, CompactionDebt, Debt, LoadPhase, Machine, Materialization,
    MemoryUse, Mode, Percentiles, Prices, RecordCache, Restore, RunResult, Sample, Settings, Steady,
    StoreModelSpec, StoreUse,
};

/// Objects above this size are uploaded in parts, each a stream of its own.
const PART: u64 = 8 * 1024 * 1024;

/// What a result is made of, apart from the stages.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) mode: Mode,
    pub(crate) workload: Workload,
    pub(crate) settings: Settings,
    pub(crate) machine: Machine,
    pub(crate) store_model: Option<StoreModelSpec>,
    pub(crate) prices: Prices,
    pub(crate) log: Log,
    pub(crate) stored_bytes_peak: u64,
    pub(crate) table_options: Vec<(String, String)>,
}

/// The result. Without a measured stretch (the run ended before) it has only what came before.
pub(crate) fn evaluate(facts: Facts, stages: &[StageRun]) -> RunResult {
    let stage = |kind| stages.iter().find(|run| run.stage.kind == kind);
    let run = stage(StageKind::Measured);
    let measured_s = run.map_or(0.0, |run| run.end.saturating_sub(run.start).as_secs_f64());
    let records = run.map_or(0, |run| run.recorder.records);
    let spec = facts.workload.spec();
    let mut result = RunResult::new(facts.mode, spec, facts.settings, facts.machine, measured_s, records);
    result.options = facts.table_options.into_iter().collect();
    result.rss_peak_bytes = meter::rss_peak_bytes();
    result.load = stage(StageKind::Load).filter(|load| load.recorder.records > 0).map(|load| {
        let load_s = load.end.saturating_sub(load.start).as_secs_f64();
        LoadPhase {
            records: load.recorder.records,
            load_s,
            records_per_s: per(load.recorder.records, load_s),
        }
    });
    let log = &facts.log;
    let model = facts.store_model.as_ref();
    if let Some(run) = run {
        result.drain_s = Some(run.end.saturating_sub(run.worked).as_secs_f64());
        result.cpu_s_per_million_records =
            run.usage.cpu_s.filter(|_| records > 0).map(|s| s * 1e6 / records as f64);
        result.local_write_bytes = run.usage.local_write_bytes;
        result.operator_pause_ms = run.recorder.pause.percentiles();
        result.record_latency_ms = run.recorder.latency.percentiles();
        result.compaction_debt = Some(debts(run));
        result.backpressure = Some(Backpressure {
            blocked_writes: run.last.blocked_writes.saturating_sub(run.first.blocked_writes),
            blocked_ms: (run.last.blocked_ms - run.first.blocked_ms).max(0.0),
        });
        result.record_cache = record_cache(run);
        let seen = run.looks.iter().map(|look| look.gauges.memory);
        result.memory = Some(MemoryUse::of(seen, run.last.memory));
        result.samples = samples(run, log);
        if facts.mode.takes_checkpoints() {
            result.checkpoints = Some(checkpoints(run, log, model));
            result.durable_lag_ms = durable_lag(run, log);
            result.materializations = materializations(run, log);
            result.checkpoint_series = series(run, log, model);
            let mut store = store_use(run);
            store.whole_run_put_bytes = stages.last().map(|last| last.last.remote.put_bytes);
            store.live_bytes_peak = Some(facts.stored_bytes_peak);
            // A stretch without records says nothing of a month.
            store.usd_per_month = facts.prices.usd_per_month(&store, measured_s).filter(|_| records > 0);
            result.store = Some(store);
        }
    }
    result.steady = stage(StageKind::Steady)
        .filter(|_| facts.mode.takes_checkpoints())
        .map(|run| steady(run, log, model));
    result.store_model = facts.store_model;
    result
}

/// What a restore took.
pub(crate) fn restore(
    total: Duration,
    first_record: Duration,
    report: &RestoreReport,
    subtasks: usize,
    verdict: Option<Verdict>,
) -> Restore {
    let of = |figure: fn(&Verdict) -> u64| verdict.as_ref().map(figure);
    Restore {
        total_ms: millis(total),
        first_record_ms: Some(millis(first_record)),
        download_ms: Some(report.download_ms),
        open_ms: Some(report.open_ms),
        replay_ms: Some(report.replay_ms),
        bytes: Some(report.bytes_downloaded),
        objects: Some(report.objects),
        deltas: Some(report.deltas),
        entries_replayed: Some(report.entries_replayed),
        subtasks: u32::try_from(subtasks).ok(),
        new_process: Some(false),
        page_cache_warm: None,
        keys: of(|verdict| verdict.keys),
        missing_keys: of(|verdict| verdict.missing_keys),
        wrong_keys: of(|verdict| verdict.wrong_keys),
        extra_keys: of(|verdict| verdict.extra_keys),
        examples: verdict.map_or_else(Vec::new, |verdict| verdict.examples),
    }
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn debts(run: &StageRun) -> CompactionDebt {
    let debt = |gauges: &Gauges| Debt {
        pending_bytes: gauges.pending_compaction_bytes,
        l0_files: gauges.l0_files,
        live_sst_bytes: Some(gauges.live_sst_bytes),
    };
    let last_record = run.looks.iter().rev().find(|look| look.at <= run.worked);
    CompactionDebt {
        start: debt(&run.first),
        last_record: last_record.map(|look| debt(&look.gauges)),
        end: debt(&run.last),
    }
}

/// None where there is no such cache.
fn record_cache(run: &StageRun) -> Option<RecordCache> {
    let (before, after) = (run.first.records, run.last.records);
    let reads = RecordCache::of_reads(
        after.hits.saturating_sub(before.hits),
        after.misses.saturating_sub(before.misses),
    );
    (after.limit_bytes > 0).then_some(RecordCache {
        evictions: Some(after.evictions.saturating_sub(before.evictions)),
        entries: Some(after.entries),
        bytes: Some(after.bytes),
        limit_bytes: Some(after.limit_bytes),
        ..reads
    })
}

fn store_use(run: &StageRun) -> StoreUse {
    let used = run.last.remote - run.first.remote;
    StoreUse {
        put_bytes: used.put_bytes,
        puts: used.puts,
        gets: used.gets,
        deletes: used.deletes,
        lists: used.lists,
        retries: Some(used.retries),
        live_bytes_end: Some(run.last.stored_bytes),
        ..StoreUse::default()
    }
}

/// The checkpoints that were triggered during `run`.
fn own<'a>(run: &'a StageRun, log: &'a Log) -> impl Iterator<Item = &'a Checkpoint> {
    log.checkpoints.iter().filter(|checkpoint| (run.start..=run.end).contains(&checkpoint.start))
}

fn duration_ms(checkpoint: &Checkpoint) -> f64 {
    millis(checkpoint.end.saturating_sub(checkpoint.start))
}

/// The physical limit for the bytes that were still to go at the trigger.
fn floor_ms(checkpoint: &Checkpoint, model: &StoreModelSpec) -> f64 {
    let seconds = |bytes: u64, rate: Option<f64>| rate.map_or(0.0, |rate| bytes as f64 / rate);
    // A large object goes in parts beside each other.
    let stream = seconds(checkpoint.largest_object.min(PART), model.stream_bytes_per_s);
    let shared = seconds(checkpoint.bytes_after_trigger, model.shared_bytes_per_s);
    model.latency_ms + stream.max(shared) * 1e3
}

fn checkpoints(run: &StageRun, log: &Log, model: Option<&StoreModelSpec>) -> Checkpoints {
    let n = own(run, log).count() as u64;
    let puts: u64 = own(run, log).map(|checkpoint| checkpoint.puts).sum();
    let failed = log.failed.iter().map(|(_, at)| *at).filter(|at| (run.start..=run.end).contains(at));
    let failed_at_s: Vec<f64> = failed.map(|at| (at - run.start).as_secs_f64()).collect();
    Checkpoints {
        n,
        failed: failed_at_s.len() as u64,
        failed_at_s,
        duration_ms: percentiles_of(own(run, log).map(duration_ms)),
        floor_ms: model.and_then(|model| percentiles_of(own(run, log).map(|c| floor_ms(c, model)))),
        cut_ms: run.recorder.cut.percentiles(),
        bytes: percentiles_of(own(run, log).map(|checkpoint| checkpoint.bytes as f64)),
        puts_per_checkpoint: (n > 0).then(|| puts as f64 / n as f64),
    }
}

fn materializations(run: &StageRun, log: &Log) -> Vec<Materialization> {
    let seconds = |at: Duration| at.as_secs_f64() - run.start.as_secs_f64();
    log.materializations
        .iter()
        .filter(|m| m.end >= run.start && m.start <= run.end)
        .map(|m| Materialization {
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
    let compactions = run.looks.windows(2).filter_map(|pair| match pair {
        [before, after] => (before.gauges.running_compactions > 0
            || after.gauges.running_compactions > 0
            || after.gauges.l0_files < before.gauges.l0_files)
            .then_some((before.at, after.at)),
        _ => None,
    });
    compactions.chain(log.materializations.iter().map(|m| (m.start, m.end))).collect()
}

fn series(run: &StageRun, log: &Log, model: Option<&StoreModelSpec>) -> Vec<CheckpointPoint> {
    let rewriting = rewriting(run, log);
    let mut since = run.start;
    own(run, log)
        .map(|checkpoint| {
            let beside = rewriting.iter().any(|(from, to)| *from <= checkpoint.end && *to >= since);
            since = checkpoint.start;
            CheckpointPoint {
                start_s: checkpoint.start.saturating_sub(run.start).as_secs_f64(),
                duration_ms: duration_ms(checkpoint),
                bytes: checkpoint.bytes,
                puts: Some(checkpoint.puts),
                floor_ms: model.map(|model| floor_ms(checkpoint, model)),
                beside_rewriting: Some(beside),
            }
        })
        .collect()
}

fn steady(run: &StageRun, log: &Log, model: Option<&StoreModelSpec>) -> Steady {
    let series = series(run, log, model);
    let pick = |beside: bool, figure: fn(&CheckpointPoint) -> f64| -> Option<Percentiles> {
        percentiles_of(series.iter().filter(|point| point.beside_rewriting == Some(beside)).map(figure))
    };
    let all = checkpoints(run, log, model);
    Steady {
        records_per_s: per(run.recorder.records, run.worked.saturating_sub(run.start).as_secs_f64()),
        quiet_bytes: pick(false, |point| point.bytes as f64),
        quiet_duration_ms: pick(false, |point| point.duration_ms),
        busy_bytes: pick(true, |point| point.bytes as f64),
        busy_duration_ms: pick(true, |point| point.duration_ms),
        bytes_max_over_median: all.bytes.filter(|bytes| bytes.p50 > 0.0).map(|bytes| bytes.max / bytes.p50),
        all,
    }
}

/// The age of the newest durable record at `at`: what the newest checkpoint that was durable by then
/// holds was processed before its trigger. None before the first.
fn lag_at(at: Duration, log: &Log) -> Option<Duration> {
    let durable = log.checkpoints.iter().filter(|checkpoint| checkpoint.end <= at);
    durable.map(|checkpoint| checkpoint.start).max().map(|start| at.saturating_sub(start))
}

/// While records were being processed: afterwards there is no newer record that could be durable.
fn durable_lag(run: &StageRun, log: &Log) -> Option<Percentiles> {
    let mut lags = Times::new();
    let mut log = log.clone();
    // Their number grows with the run as the looks do; without this the product of both would count.
    log.checkpoints.sort_by_key(|checkpoint| checkpoint.end);
    let mut newest = None;
    let mut durable = log.checkpoints.iter().peekable();
    for look in run.looks.iter().filter(|look| look.at <= run.worked) {
        while let Some(checkpoint) = durable.next_if(|checkpoint| checkpoint.end <= look.at) {
            newest = newest.max(Some(checkpoint.start));
        }
        if let Some(start) = newest {
            lags.record(look.at.saturating_sub(start));
        }
    }
    lags.percentiles()
}

fn samples(run: &StageRun, log: &Log) -> Vec<Sample> {
    let every = sample_every(run.stage.duration);
    let mut samples = Vec::new();
    let mut before: Option<&Look> = None;
    let (mut compactions, mut latency) = (0, None);
    for (index, look) in run.looks.iter().enumerate() {
        compactions = look.gauges.running_compactions.max(compactions);
        // The conductor asks for latencies as often as there are samples.
        latency = look.latency_p99_ms.or(latency);
        let due = before.is_none_or(|before| look.at >= before.at + every) || index + 1 == run.looks.len();
        if !due {
            continue;
        }
        let rate = before.filter(|before| look.at > before.at).map(|before| {
            per(look.records.saturating_sub(before.records), (look.at - before.at).as_secs_f64())
        });
        before = Some(look);
        let gauges = &look.gauges;
        samples.push(Sample {
            t_s: look.at.saturating_sub(run.start).as_secs_f64(),
            records: look.records,
            records_per_s: rate,
            latency_p99_ms: latency.take(),
            durable_lag_ms: lag_at(look.at, log).map(millis),
            state_bytes: Some(gauges.live_sst_bytes),
            held_bytes: Some(gauges.held_bytes),
            l0_files: Some(gauges.l0_files),
            pending_compaction_bytes: Some(gauges.pending_compaction_bytes),
            running_compactions: Some(std::mem::take(&mut compactions)),
            put_bytes: Some(gauges.remote.put_bytes.saturating_sub(run.first.remote.put_bytes)),
            memory: Some(gauges.memory),
        });
    }
    samples
}
