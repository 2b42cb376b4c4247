//! The result of one run: what `--json` and `--output` write, and what `compare --with` and `report` read.
//!
//! Its shape is for every system that does the reference workload, not for Alluvium alone; the schema
//! is checked in as `docs/result.schema.json`. A file holds one [`RunResult`], or an array of them.
//!
//! How to fill it: start from [`RunResult::new`], which has the required fields, and set what was measured.
//! What was not measured stays `None` or empty and is then absent from the JSON: a figure is never made
//! up, and never 0 for "unknown". Times of series (`t_s`, `start_s`, `end_s`) are seconds from the start
//! of the measured stretch, and may be negative for what began before it. All numbers must be finite.

mod figures;
mod memory;
pub(crate) mod metric;
mod percentiles;
mod prices;
mod read;
mod series;
mod spread;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use figures::*;
pub(crate) use memory::{MemoryParts, MemoryUse, RecordCache};
pub(crate) use percentiles::{ENOUGH_FOR_P999, percentiles_of};
pub(crate) use prices::{MonthlyCost, Prices};
pub(crate) use read::ResultFile;
pub(crate) use series::*;
pub(crate) use spread::Spread;

/// Version of the schema. Raised by every change, added fields too: a reader refuses a field that it
/// does not know, so that a typo in a result of another system is not taken for a missing figure.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// One run of one system in one mode on the reference workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RunResult {
    /// Version of this schema, 1.
    pub(crate) schema_version: u32,
    /// What the user calls the run, the scenario's name for example. The report shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    /// When the run began, RFC 3339 in UTC, as in `2026-11-24T06:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    /// Name of the system under test, `alluvium` for this one.
    pub(crate) system: String,
    /// Version of the system under test.
    pub(crate) version: String,
    pub(crate) mode: Mode,
    /// Which of several repetitions this is, from 1. Runs with the same number belong together, and are
    /// compared pair by pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repeat: Option<u32>,
    /// Why the run ended before its time (Ctrl-C, SIGTERM, fenced, store gone). Its figures are those up
    /// to then. Absent: it ran to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_early: Option<String>,
    pub(crate) workload: WorkloadSpec,
    pub(crate) settings: Settings,
    /// The model put around the object store; absent: the store as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store_model: Option<StoreModelSpec>,
    pub(crate) machine: Machine,
    /// RocksDB's options in force, by RocksDB's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) options: BTreeMap<String, String>,
    /// The load phase: every key written once, as fast as it goes. Absent where a resumed run had done
    /// it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<LoadPhase>,
    /// Length of the measured stretch in seconds, until all deferred work was done.
    pub(crate) measured_s: f64,
    /// The part of it after the last record, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drain_s: Option<f64>,
    /// Records of the measured stretch.
    pub(crate) records: u64,
    /// `records / measured_s`.
    pub(crate) records_per_s: f64,
    /// User and system time of the whole process in the measured stretch, in seconds per 10^6 records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_s_per_million_records: Option<f64>,
    /// Largest resident memory of the process, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rss_peak_bytes: Option<u64>,
    /// Bytes written to local disks in the measured stretch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) local_write_bytes: Option<u64>,
    /// One sample per checkpoint and subtask, in milliseconds: the longest time since the one before in
    /// which the operator did not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator_pause_ms: Option<Percentiles>,
    /// One sample per record, in milliseconds. Paced: end of the update minus the release of its group;
    /// at full speed: time of the update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record_latency_ms: Option<Percentiles>,
    /// Age of the newest record that is durable, in milliseconds, looked at regularly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) durable_lag_ms: Option<Percentiles>,
    /// Checkpoints triggered in the measured stretch. Absent in mode `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoints: Option<Checkpoints>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<StoreUse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compaction_debt: Option<CompactionDebt>,
    /// Writes that waited at the memory bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backpressure: Option<Backpressure>,
    /// The cache of records. Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record_cache: Option<RecordCache>,
    /// How the memory was divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<MemoryUse>,
    /// A slow stretch after the measured one, that shows what a checkpoint costs while SST files are
    /// being rewritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) steady: Option<Steady>,
    /// Opening the job again with an empty local directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restore: Option<Restore>,
    /// Bases written in the background during the measured stretch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) materializations: Vec<Materialization>,
    /// Levels and rates over the measured stretch, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) samples: Vec<Sample>,
    /// Every completed checkpoint of the measured stretch, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) checkpoint_series: Vec<CheckpointPoint>,
    /// What a reader of the figures must know and no field says, one sentence each: other load on the
    /// machine, a setting that another system lacks. The report shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

impl RunResult {
    /// A result with the required fields; `records_per_s` follows from the others.
    pub(crate) fn new(
        mode: Mode,
        workload: WorkloadSpec,
        settings: Settings,
        machine: Machine,
        measured_s: f64,
        records: u64,
    ) -> Self {
        let records_per_s = if measured_s > 0.0 { records as f64 / measured_s } else { 0.0 };
        Self {
            schema_version: SCHEMA_VERSION,
            label: None,
            started_at: None,
            system: "alluvium".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode,
            repeat: None,
            ended_early: None,
            workload,
            settings,
            store_model: None,
            machine,
            options: BTreeMap::new(),
            load: None,
            measured_s,
            drain_s: None,
            records,
            records_per_s,
            cpu_s_per_million_records: None,
            rss_peak_bytes: None,
            local_write_bytes: None,
            operator_pause_ms: None,
            record_latency_ms: None,
            durable_lag_ms: None,
            checkpoints: None,
            store: None,
            compaction_debt: None,
            backpressure: None,
            record_cache: None,
            memory: None,
            steady: None,
            restore: None,
            materializations: Vec::new(),
            samples: Vec::new(),
            checkpoint_series: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// How checkpoints are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Every change is logged; SST files follow in the background.
    Changelog,
    /// RocksDB's own incremental checkpoints.
    Native,
    /// The same store without any checkpoints.
    None,
}

impl Mode {
    /// As the JSON writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Changelog => "changelog",
            Self::Native => "native",
            Self::None => "none",
        }
    }

    /// Whether there are checkpoints, and a store that has them.
    pub(crate) fn takes_checkpoints(self) -> bool {
        match self {
            Self::Changelog | Self::Native => true,
            Self::None => false,
        }
    }

    /// Whether bases are taken beside checkpoints.
    pub(crate) fn materializes(self) -> bool {
        match self {
            Self::Changelog => true,
            Self::Native | Self::None => false,
        }
    }
}
