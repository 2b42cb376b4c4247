//! A job's reports on its checkpoints.

use serde::Serialize;

use crate::error::Error;
use crate::ids::CheckpointId;
use crate::materialize::MaterializationReport;
use crate::remote::RemoteCounters;
use crate::store::StoreStats;

/// A checkpoint that became durable. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Its version in the manifest chain.
    pub version: u64,
    /// The trigger, since the job's clock began.
    pub start_ms: f64,
    /// From the trigger until the manifest was durable.
    pub duration_ms: f64,
    /// The longest time that an operator's thread spent in its cut.
    pub cut_ms: f64,
    /// All bytes PUT for this checkpoint, before its trigger and after it: new deltas, SST files
    /// and the manifest. Deltas inside the manifest count once.
    pub bytes: u64,
    /// Bytes of deltas that this checkpoint added, as objects or inside the manifest.
    pub delta_bytes: u64,
    /// Bytes of SST files and base indexes uploaded for this checkpoint (native mode).
    pub sst_bytes: u64,
    /// Size of the manifest, with the deltas inside it.
    pub manifest_bytes: u64,
    /// PUT requests that the checkpoint had to wait for, the manifest's included.
    pub puts: u64,
    /// Bytes PUT after the cut: what the checkpoint had to wait for.
    pub bytes_after_trigger: u64,
    /// The largest object among them.
    pub largest_object: u64,
    /// What a restore of it has to read.
    pub full_bytes: u64,
}

/// A checkpoint that can be restored.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Its version in the manifest chain.
    pub version: u64,
    /// When it was committed, in milliseconds since 1970 UTC.
    pub unix_millis: u64,
    /// What a restore of it has to read, in bytes.
    pub full_bytes: u64,
}

/// What is in use of [`JobOptions::memory`](crate::JobOptions::memory), by purpose, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What the job was given.
    pub limit: u64,
    /// Deltas of all subtasks that are not yet applied or not yet durable, ...
    pub deltas: u64,
    /// ... and what they may hold. At the bound, writes wait.
    pub deltas_limit: u64,
    /// Memory of applied deltas, kept to be used again. The part that is not cleared yet counts against
    /// `deltas_limit` as well, and is freed before a write waits.
    pub recycled: u64,
    /// The caches of records of all subtasks, with their indexes and what they have reserved, ...
    pub records: u64,
    /// ... and what they may always hold. What they do not hold is memtables' and blocks'. Beyond it
    /// they hold memory of the deltas' that these do not need.
    pub records_limit: u64,
    /// Memtables of all tables, including those that only readers still hold, ...
    pub memtables: u64,
    /// ... and what they may hold. At the bound, the background waits for a flush, and in native mode the writer.
    pub memtables_limit: u64,
    /// Blocks of files, with indexes and filters, and the memtables, which are charged to the same cache.
    pub cache: u64,
    /// The part of the cache that is in use now and cannot be evicted.
    pub cache_pinned: u64,
    /// What the cache may hold: less while the caches of records hold more.
    pub cache_limit: u64,
    /// How often a write to a table waited for memtables.
    pub memtable_waits: u64,
    /// How long these writes waited, in milliseconds.
    pub memtable_wait_ms: f64,
}

/// Numbers of a job since it was opened.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobStats {
    /// Requests to the object store and their bytes.
    pub remote: RemoteCounters,
    /// Checkpoints that became durable.
    pub checkpoints_completed: u64,
    /// Checkpoints that were given up.
    pub checkpoints_failed: u64,
    /// Each subtask's store.
    pub stores: Vec<StoreStats>,
    /// How the memory is used.
    pub memory: MemoryStats,
    /// The RocksDB options in force, by name.
    pub table_options: Vec<(String, String)>,
}

/// Receives the outcome of checkpoints and other events, on a background thread that should not be
/// kept busy.
///
/// A sink with transactions commits its output here. Each checkpoint's output is in a transaction that
/// was flushed before the cut; a durable checkpoint commits its own transaction and all earlier ones.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use alluvium::{CheckpointId, CheckpointListener, CheckpointReport, Job, JobOptions, OpenMode};
///
/// #[derive(Debug, Default)]
/// struct Sink {
///     flushed: Mutex<Vec<CheckpointId>>,
/// }
///
/// impl Sink {
///     /// Must be idempotent: after a crash the next attempt commits again.
///     fn commit_through(&self, checkpoint: CheckpointId) {
///         self.flushed.lock().unwrap().retain(|flushed| *flushed > checkpoint);
///     }
/// }
///
/// impl CheckpointListener for Sink {
///     fn completed(&self, report: &CheckpointReport) {
///         self.commit_through(report.id);
///     }
///
///     fn adopted(&self, id: CheckpointId) {
///         self.commit_through(id);
///     }
/// }
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let sink = Arc::new(Sink::default());
/// let options = JobOptions::new(dir, OpenMode::CreateOrOpen).listener(sink.clone());
/// let mut opened = Job::open(&url, options)?;
///
/// let checkpoint = opened.job.trigger("")?;
/// sink.flushed.lock().unwrap().push(checkpoint.id());
/// opened.stores[0].cut(checkpoint.id(), "")?;
/// checkpoint.wait()?;
/// # Ok(())
/// # }
/// ```
pub trait CheckpointListener: Send + Sync + std::fmt::Debug {
    /// A checkpoint was triggered, by a call or by the schedule, and is due ([`Job::due`](crate::Job::due)). A source
    /// that is asleep can be woken here, to send the barrier.
    fn triggered(&self, id: CheckpointId) {
        let _ = id;
    }

    /// A checkpoint became durable.
    fn completed(&self, report: &CheckpointReport) {
        let _ = report;
    }

    /// A checkpoint was given up. The state is unharmed, and the next checkpoint carries its
    /// changes. If the commit was in doubt, [`adopted`](Self::adopted) may follow.
    fn failed(&self, id: CheckpointId, error: &Error) {
        let _ = (id, error);
    }

    /// The attempt has failed by `error`, and can commit nothing more. Called once at most, when the coordinator
    /// notices: when the next scheduled checkpoint is due at the latest. Operators may hang meanwhile. Where somebody
    /// starts the process again, it may end right here, by `std::process::exit(error.exit_code().into())`; nothing is
    /// lost by that. A job that is closed or dropped has not failed.
    fn ended(&self, error: &Error) {
        let _ = error;
    }

    /// A checkpoint that was given up with its commit in doubt turns out to be durable.
    fn adopted(&self, id: CheckpointId) {
        let _ = id;
    }

    /// A job that was started from another job has its first checkpoint. It no longer needs the
    /// other job.
    fn independent(&self) {}

    /// The restore has been waiting for the object store for `waited`. It keeps trying for
    /// [`JobOptions::restore_patience`](crate::JobOptions::restore_patience). Called about every 10
    /// seconds.
    fn restore_waits(&self, error: &Error, waited: std::time::Duration) {
        let _ = (error, waited);
    }

    /// A new base is in the object store.
    fn materialized(&self, report: &MaterializationReport) {
        let _ = report;
    }
}
