//! What happened when: times are seconds from the start of the measured stretch.

use serde::{Deserialize, Serialize};

use super::MemoryParts;

/// A base that was written in the background.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Materialization {
    pub(crate) start_s: f64,
    /// When the base was usable.
    pub(crate) end_s: f64,
    /// Bytes uploaded for it.
    pub(crate) bytes: u64,
    /// Files uploaded for it.
    pub(crate) files: u64,
}

/// One look at the running system. Levels are those of the moment, of all subtasks together; rates and
/// percentiles are those of the time since the sample before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    pub(crate) t_s: f64,
    /// Records since the start of the measured stretch.
    pub(crate) records: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) records_per_s: Option<f64>,
    /// 99th percentile of the record latency, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency_p99_ms: Option<f64>,
    /// Age of the newest record that is durable, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) durable_lag_ms: Option<f64>,
    /// Bytes of the local state: live SST files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state_bytes: Option<u64>,
    /// Bytes of deltas that are not yet applied or not yet durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_bytes: Option<u64>,
    /// Files in level 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) l0_files: Option<u64>,
    /// RocksDB's estimate of the bytes that compaction has yet to rewrite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending_compaction_bytes: Option<u64>,
    /// Compactions that ran; of a longer time since the sample before, the most at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) running_compactions: Option<u64>,
    /// Bytes put into the object store since the start of the measured stretch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) put_bytes: Option<u64>,
    /// How the memory was divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<MemoryParts>,
}

/// One completed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointPoint {
    /// The trigger.
    pub(crate) start_s: f64,
    /// From the trigger until the manifest is durable, in milliseconds.
    pub(crate) duration_ms: f64,
    /// Bytes that the checkpoint itself put into the store.
    pub(crate) bytes: u64,
    /// PUT requests that the checkpoint itself sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) puts: Option<u64>,
    /// The physical limit of its duration, see [`Checkpoints::floor_ms`](super::Checkpoints).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor_ms: Option<f64>,
    /// Whether a compaction or a materialization ran since the checkpoint before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beside_rewriting: Option<bool>,
}
