//! What a restore did, for people and programs.

use serde::Serialize;

use crate::ids::CheckpointId;

/// What was restored, what it cost, and how long each step took.
///
/// Subtasks restore in parallel: bytes, objects and entries are sums over them, times are those of
/// the slowest.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The checkpoint that the state is now that of; None after a fresh start.
    pub checkpoint: Option<CheckpointId>,
    /// Bytes read from the object store: base indexes, files and deltas. What several subtasks need is
    /// read once.
    pub bytes_downloaded: u64,
    /// Bytes of files that were found on the local disk with the same content, and not downloaded.
    pub bytes_reused: u64,
    /// Bytes of keys and values that were copied from the files of one old subtask to those of
    /// another. That is necessary if a new subtask has key groups of both and the files cannot be
    /// joined as they are. 0 at an unchanged parallelism.
    pub bytes_rewritten: u64,
    /// Requests made to the object store: one per object. Parts of one object that lie far apart,
    /// or that must not be in memory at the same time, take a request each.
    pub objects: u64,
    /// Deltas after the bases; several that were packed into one count once.
    pub deltas: u64,
    /// Entries applied by the replay, after deltas that were in memory together were merged to the last
    /// value per key.
    pub entries_replayed: u64,
    /// Milliseconds spent waiting for the object store: until the bases were on this machine and
    /// verified, and for deltas. Deltas are fetched while earlier ones are replayed; only the time
    /// that the replay had to wait counts.
    pub download_ms: f64,
    /// Milliseconds that RocksDB took to open.
    pub open_ms: f64,
    /// Milliseconds to bring the data of several old subtasks together.
    pub join_ms: f64,
    /// Milliseconds to check, decode, merge and apply the deltas.
    pub replay_ms: f64,
    /// Newer checkpoints that could not be restored, and why. Empty unless the caller allowed to
    /// fall back.
    pub skipped: Vec<(CheckpointId, String)>,
    /// Versions at the top of the manifest chain that could not be read, and why; newest first.
    /// Each may have been a checkpoint newer than the restored one, or only the record of an
    /// attempt. Empty unless the caller allowed to fall back.
    pub damaged: Vec<(u64, String)>,
}
