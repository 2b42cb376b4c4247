//! What a base took.

use serde::{Deserialize, Serialize};

use crate::ids::{DeltaSeq, SubtaskIndex};

/// A base that was taken in the background.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaterializationReport {
    /// Whose state it holds.
    pub subtask: SubtaskIndex,
    /// When it began, in milliseconds since the job's clock began.
    pub start_ms: f64,
    /// How long it took, snapshot and uploads, in milliseconds.
    pub duration_ms: f64,
    /// The last delta in it.
    pub seq: DeltaSeq,
    /// Bytes of the files that were uploaded.
    pub new_bytes: u64,
    /// Number of files that were uploaded.
    pub new_files: u64,
    /// Bytes of the files that the store had already.
    pub reused_bytes: u64,
    /// Number of files that the store had already.
    pub reused_files: u64,
}
