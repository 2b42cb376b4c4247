//! API sketch: the job.
use std::sync::Arc;
use std::time::Duration;
use object_store::ObjectStore;
use serde::Serialize;
use crate::{error::{Error, Result}, ids::*, config::*, store::*};

/// A running attempt of a job. Cheap to clone; Send + Sync. The last clone dropped ends the background (never blocks, never panics, also inside a tokio runtime).
#[derive(Debug, Clone)]
pub struct Job;

/// What `Job::open` returns.
#[derive(Debug)]
pub struct Opened { pub job: Job, /// one per subtask, in order
    pub stores: Vec<StateStore>, pub restored: RestoreReport, /// coordinator metadata of the restored checkpoint
    pub metadata: Option<Vec<u8>> }

impl Job {
    /// url: file:///dir, a plain path, memory:///, s3://bucket/prefix, az://…, gs://… (with the cargo features)
    pub fn open(url: &str, options: JobOptions) -> Result<Opened> { unimplemented!() }
    pub fn open_on(store: Arc<dyn ObjectStore>, prefix: &str, options: JobOptions) -> Result<Opened> { unimplemented!() }
    pub fn epoch(&self) -> Epoch { unimplemented!() }
    pub fn mode(&self) -> CheckpointMode { unimplemented!() }
    /// Starts a checkpoint: from now on `StateStore::due` of every store gives its id. Err(Aborted) if one is still under way.
    pub fn trigger(&self, metadata: impl Into<Vec<u8>>) -> Result<PendingCheckpoint> { unimplemented!() }
    /// Coordinator metadata that scheduled checkpoints carry from now on.
    pub fn set_metadata(&self, metadata: impl Into<Vec<u8>>) { unimplemented!() }
    /// Ok while the job can go on; else the sticky error (Fenced, …).
    pub fn health(&self) -> Result<()> { unimplemented!() }
    /// Asks for a new base of every subtask now.
    pub fn materialize(&self) { unimplemented!() }
    /// Waits until all deferred work is done: every cut delta applied and durable, no materialization running, compaction settled.
    pub fn settle(&self, timeout: Duration) -> Result<()> { unimplemented!() }
    /// Retained checkpoints, newest last.
    pub fn checkpoints(&self) -> Vec<CheckpointSummary> { unimplemented!() }
    pub fn stats(&self) -> JobStats { unimplemented!() }
    /// Ends the attempt in order: stops the schedule, lets running uploads end. State after the last checkpoint is dropped with it.
    pub fn close(self) -> Result<()> { unimplemented!() }
}

#[derive(Debug)]
pub struct PendingCheckpoint;
impl PendingCheckpoint {
    pub fn id(&self) -> CheckpointId { unimplemented!() }
    /// Blocks until it is durable, or aborted (timeout, failure).
    pub fn wait(self) -> Result<CheckpointReport> { unimplemented!() }
    pub fn abort(self) { unimplemented!() }
}
// it is also a Future (IntoFuture) with the same output

/// A checkpoint that became durable.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointReport {
    pub id: CheckpointId,
    pub version: u64,
    /// From the job's start (monotonic clock) to the trigger, ms.
    pub start_ms: f64,
    /// Trigger until the manifest is durable.
    pub duration_ms: f64,
    /// Longest time an operator thread spent in `cut`.
    pub cut_ms: f64,
    /// Bytes PUT for this checkpoint alone: deltas (inline and as objects; in native mode SST files and index), manifest.
    pub delta_bytes: u64, pub sst_bytes: u64, pub manifest_bytes: u64,
    /// PUT requests for it.
    pub puts: u64,
    /// Bytes uploaded after the trigger (what the checkpoint had to wait for).
    pub bytes_after_trigger: u64, pub largest_object: u64,
    /// What a restore of it has to read.
    pub full_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct CheckpointSummary { pub id: CheckpointId, pub version: u64, pub unix_millis: u64, pub full_bytes: u64 }

/// A finished materialization.
#[derive(Debug, Clone, Serialize)]
pub struct MaterializationReport { pub subtask: SubtaskIndex, pub start_ms: f64, pub duration_ms: f64, pub seq: DeltaSeq, pub new_bytes: u64, pub new_files: u64, pub reused_files: u64 }

pub trait CheckpointListener: Send + Sync + std::fmt::Debug {
    fn completed(&self, report: &CheckpointReport) {}
    fn failed(&self, id: CheckpointId, error: &Error) {}
    fn materialized(&self, report: &MaterializationReport) {}
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct RemoteCounters { pub puts: u64, pub put_bytes: u64, pub gets: u64, pub get_bytes: u64, pub lists: u64, pub deletes: u64, pub retries: u64, pub failures: u64 }

#[derive(Debug, Clone, Serialize)]
pub struct JobStats { pub remote: RemoteCounters, pub checkpoints_completed: u64, pub checkpoints_failed: u64, pub stores: Vec<StoreStats> , /// RocksDB options in force, for reports
    pub table_options: Vec<(String, String)> }

#[derive(Debug, Clone, Default, Serialize)]
pub struct RestoreReport {
    pub checkpoint: Option<CheckpointId>,
    pub bytes_downloaded: u64, pub bytes_reused: u64, pub objects: u64, pub deltas: u64, pub entries_replayed: u64,
    pub download_ms: f64, pub open_ms: f64, pub replay_ms: f64,
    /// Checkpoints that were skipped (fallback) and why.
    pub skipped: Vec<(CheckpointId, String)>,
}

// Reading a job from outside (no Open record is created):
/// What `alluvium inspect` shows. Serialize.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection { pub max_parallelism: u16, pub newest_version: u64, pub epochs: Vec<u64>, pub records: Vec<InspectedRecord>, pub live_bytes: u64, pub live_objects: u64, pub total_bytes: u64, pub total_objects: u64 }
#[derive(Debug, Clone, Serialize)]
pub struct InspectedRecord { pub version: u64, pub epoch: u64, /// None: an Open record
    pub checkpoint: Option<InspectedCheckpoint> }
#[derive(Debug, Clone, Serialize)]
pub struct InspectedCheckpoint { pub id: CheckpointId, pub retained: bool, pub mode: CheckpointMode, pub unix_millis: u64, pub object_bytes: u64, pub full_bytes: u64, pub metadata_bytes: u64, pub states: Vec<String>, pub subtasks: Vec<InspectedSubtask> }
#[derive(Debug, Clone, Serialize)]
pub struct InspectedSubtask { pub subtask: SubtaskIndex, pub range: String, pub base_seq: Option<u64>, pub base_bytes: u64, pub base_files: u64, pub deltas: u64, pub delta_bytes: u64, pub seq: u64 }
pub fn inspect(url: &str, store_options: &[(String, String)]) -> Result<Inspection> { unimplemented!() }
