//! What was run, on what, and the figures of it.

use serde::{Deserialize, Serialize};

/// The reference workload's parameters: what is done to which keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkloadSpec {
    /// Number of keys, of 8 bytes each.
    pub(crate) keys: u64,
    /// Size of a value in bytes.
    pub(crate) value_bytes: u64,
    pub(crate) subtasks: u32,
    /// Number of key groups; absent where the system has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_parallelism: Option<u32>,
    /// `read-modify-write`, `put`, `append`, `window`, `mixed`, or another that both sides know.
    pub(crate) operation: String,
    /// `uniform`, or `zipf:S` with exponent S.
    pub(crate) distribution: String,
    /// Seed of the stream; 0 is the reference stream.
    #[serde(default)]
    pub(crate) seed: u64,
}

/// How the workload was driven and the system configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Records per second of all subtasks together, open loop; 0: as fast as it goes.
    pub(crate) rate: f64,
    /// Length of the measured stretch that was asked for, in seconds.
    pub(crate) duration_s: f64,
    #[serde(default)]
    pub(crate) warm_up_s: f64,
    /// Absent in mode `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_interval_ms: Option<f64>,
    /// Absent where bases are not written by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) materialization_interval_ms: Option<f64>,
    /// Deltas, caches of records, memtables and block caches of all subtasks together, in bytes.
    pub(crate) memory_bytes: u64,
    /// The part of it that was set aside for a cache of values, in systems where that is a setting. What
    /// a cache held is in [`RunResult::record_cache`](super::RunResult).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_cache_bytes: Option<u64>,
    /// Kind of object store: `file`, `memory`, `s3`, `az`, `gs`. Absent in mode `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// The scenario that the run was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scenario: Option<String>,
}

/// Latency, bandwidth and faults that were put around the object store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreModelSpec {
    /// Latency of one request in milliseconds; the median where `latency_p99_ms` is there.
    pub(crate) latency_ms: f64,
    /// 99th percentile of a log-normal latency, in milliseconds. Absent: the latency is constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency_p99_ms: Option<f64>,
    /// Bandwidth of one stream in bytes per second (10^6 are 1 MB/s). Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream_bytes_per_s: Option<f64>,
    /// Bandwidth of all uploads together, and of all downloads together, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shared_bytes_per_s: Option<f64>,
    /// Share of requests that fail on purpose, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_rate: Option<f64>,
    /// When the store did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) outages: Vec<Outage>,
}

/// A time in which the object store failed every request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Outage {
    pub(crate) start_s: f64,
    pub(crate) end_s: f64,
}

/// The machine, by what matters here and no more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cores: Option<u64>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
    /// Load average over the minute before the run: threads of others that wanted a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) load_average_before: Option<f64>,
}

/// A distribution in a few figures, with the number of samples behind it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Percentiles {
    /// Number of samples.
    pub(crate) n: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    /// Absent below 1000 samples, where it would be another name for the maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p999: Option<f64>,
    pub(crate) max: f64,
}

/// The load phase: every key written once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadPhase {
    pub(crate) records: u64,
    /// In seconds, until all deferred work was done.
    pub(crate) load_s: f64,
    pub(crate) records_per_s: f64,
}

/// The checkpoints of a stretch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoints {
    /// Completed ones.
    pub(crate) n: u64,
    pub(crate) failed: u64,
    /// When checkpoints failed, in seconds from the start of the stretch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed_at_s: Vec<f64>,
    /// From the trigger until the manifest is durable, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<Percentiles>,
    /// The physical limit for the bytes that were still to go at the trigger, in milliseconds: request
    /// latency + max(largest object / stream bandwidth, bytes after the trigger / shared bandwidth).
    /// Absent without a store model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor_ms: Option<Percentiles>,
    /// Time that an operator thread spent in the cut, per checkpoint and subtask, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cut_ms: Option<Percentiles>,
    /// Bytes that the checkpoint itself put into the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Percentiles>,
    /// Mean number of PUT requests that a checkpoint itself sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) puts_per_checkpoint: Option<f64>,
}

/// What the object store was asked for in the measured stretch, and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreUse {
    pub(crate) put_bytes: u64,
    /// Requests that create an object or a part of one.
    pub(crate) puts: u64,
    #[serde(default)]
    pub(crate) gets: u64,
    #[serde(default)]
    pub(crate) deletes: u64,
    #[serde(default)]
    pub(crate) lists: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retries: Option<u64>,
    /// Bytes put from the opening of the job to its end, load phase and steady stretch too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whole_run_put_bytes: Option<u64>,
    /// Bytes of all objects that the store held at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live_bytes_end: Option<u64>,
    /// The most bytes that it held at any time that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live_bytes_peak: Option<u64>,
    /// Price of a month that goes on like the measured stretch, in US dollars. See
    /// [`Prices`](super::Prices), whose defaults `load` uses; the report computes it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usd_per_month: Option<f64>,
}

/// RocksDB's unfinished work, so that deferred work does not flatter a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct CompactionDebt {
    /// Before the first record of the measured stretch.
    pub(crate) start: Debt,
    /// At the last record, before deferred work was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_record: Option<Debt>,
    /// When the clock stopped.
    pub(crate) end: Debt,
}

/// Unfinished work at one moment, of all subtasks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Debt {
    /// RocksDB's estimate of the bytes that compaction has yet to rewrite.
    pub(crate) pending_bytes: u64,
    /// Files in level 0.
    pub(crate) l0_files: u64,
    /// Bytes of live SST files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live_sst_bytes: Option<u64>,
}

/// Writes that waited at the memory bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Backpressure {
    pub(crate) blocked_writes: u64,
    /// Of all subtasks together, in milliseconds.
    pub(crate) blocked_ms: f64,
}

/// Checkpoints of the steady stretch, by whether SST files were being rewritten or uploaded meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Steady {
    pub(crate) records_per_s: f64,
    /// All checkpoints of the stretch.
    pub(crate) all: Checkpoints,
    /// No compaction and no materialization ran since the checkpoint before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quiet_bytes: Option<Percentiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quiet_duration_ms: Option<Percentiles>,
    /// One ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy_bytes: Option<Percentiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busy_duration_ms: Option<Percentiles>,
    /// The largest checkpoint over the median one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_max_over_median: Option<f64>,
}

/// Opening the job again with an empty local directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Restore {
    /// Until everything is restored, in milliseconds.
    pub(crate) total_ms: f64,
    /// Until every subtask has processed its first record, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_record_ms: Option<f64>,
    /// Getting objects from the store, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) download_ms: Option<f64>,
    /// Opening RocksDB, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) open_ms: Option<f64>,
    /// Bringing the changelog into RocksDB, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replay_ms: Option<f64>,
    /// Bytes got from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Objects got from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<u64>,
    /// Deltas replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deltas: Option<u64>,
    /// Entries replayed, after deltas were merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entries_replayed: Option<u64>,
    /// Subtasks that restored; another number than the run's is a rescaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subtasks: Option<u32>,
    /// Whether a process of its own restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) new_process: Option<bool>,
    /// Whether the operating system could have had the objects in memory already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) page_cache_warm: Option<bool>,
    /// Keys that verification checked. This and the three below are absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) missing_keys: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrong_keys: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extra_keys: Option<u64>,
    /// A few of the keys that were not right, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) examples: Vec<String>,
}
