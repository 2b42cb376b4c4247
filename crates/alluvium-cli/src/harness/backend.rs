//! What the driver drives: a job's operators and the job behind them, so that the driver and the
//! report can be held against a fake whose pauses, bytes and durations are known.

use std::sync::Mutex;
use std::time::Duration;

use alluvium::{CheckpointId, KeyGroup, RemoteCounters};

use crate::failure::Result;
use crate::harness::stage::StageKind;
use crate::result::MemoryParts;

/// One subtask's state, as its operator thread holds it.
pub(crate) trait Operator: Send {
    fn read<T>(&self, group: KeyGroup, key: &[u8], with: impl FnOnce(Option<&[u8]>) -> T) -> Result<T>;
    fn put(&mut self, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()>;
    fn append(&mut self, group: KeyGroup, key: &[u8], element: &[u8]) -> Result<()>;
    fn delete(&mut self, group: KeyGroup, key: &[u8]) -> Result<()>;
    /// Deletes all keys of a group that begin with `prefix`.
    fn delete_prefix(&mut self, group: KeyGroup, prefix: &[u8]) -> Result<()>;
    /// The groups that this subtask owns, ascending.
    fn groups(&self) -> Vec<KeyGroup>;
    /// All keys and values of a group.
    fn scan(&self, group: KeyGroup, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<()>;
    /// The checkpoint that this subtask has not cut for yet.
    fn due(&self) -> Option<CheckpointId>;
    /// The barrier, with the number of records that this subtask has processed. An aborted checkpoint
    /// is no failure.
    fn cut(&mut self, id: CheckpointId, position: u64) -> Result<()>;
}

/// Asked again and again during a wait. An error ends the wait.
pub(crate) type GoOn<'a> = &'a mut dyn FnMut() -> Result<()>;

/// The job behind the operators. Its checkpoints and materializations arrive in [`Events`].
pub(crate) trait Backend: Sync {
    /// A stage begins now.
    fn begins(&self, stage: StageKind);
    /// Takes a checkpoint and waits until it is durable; the operators must be cutting meanwhile.
    fn checkpoint(&self, go_on: GoOn<'_>) -> Result<()>;
    /// Waits until all deferred work is done.
    fn settle(&self, go_on: GoOn<'_>) -> Result<()>;
    /// Brings local state and object store to where every mode begins alike: one sorted run, all of it
    /// durable.
    fn level(&self, go_on: GoOn<'_>) -> Result<()>;
    /// Asks for a new base of every subtask.
    fn materialize(&self);
    /// The error that ended the job, if any.
    fn health(&self) -> Result<()>;
    fn gauges(&self) -> Gauges;
    /// What keeps checkpoints from becoming durable, as far as it is known.
    fn trouble(&self) -> Option<alluvium::Error>;
    /// Gives everything up, so that no operator waits any longer.
    fn abandon(&self);
}

/// Counters and levels at one moment, summed over the subtasks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    pub(crate) remote: RemoteCounters,
    pub(crate) pending_compaction_bytes: u64,
    pub(crate) l0_files: u64,
    pub(crate) live_sst_bytes: u64,
    pub(crate) running_compactions: u64,
    /// Bytes of deltas that are not yet applied or not yet durable.
    pub(crate) held_bytes: u64,
    pub(crate) blocked_writes: u64,
    pub(crate) blocked_ms: f64,
    /// The caches of records, as of each subtask's last cut.
    pub(crate) records: RecordCounters,
    pub(crate) memory: MemoryParts,
    /// Bytes that lie in the object store.
    pub(crate) stored_bytes: u64,
    pub(crate) last_checkpoint: Option<Checkpoint>,
}

/// What caches of records have counted since the job was opened, and what they hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecordCounters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) evictions: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// What they may always hold; 0 where there is no such cache.
    pub(crate) limit_bytes: u64,
}

/// Time as the driver sees it. `now` is monotonic.
pub(crate) trait Time: Sync {
    fn now(&self) -> Duration;
    fn sleep_until(&self, moment: Duration);
}

/// A checkpoint that became durable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) id: CheckpointId,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) bytes: u64,
    pub(crate) puts: u64,
    /// Bytes that were still to be put at the trigger.
    pub(crate) bytes_after_trigger: u64,
    /// The largest object among them.
    pub(crate) largest_object: u64,
}

/// A base that became usable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Materialization {
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// What happened in the background, in the driver's time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Which checkpoints failed, and when.
    pub(crate) failed: Vec<(CheckpointId, Duration)>,
    /// Why the last of them failed, if none has become durable since.
    pub(crate) last_failure: Option<alluvium::Error>,
    pub(crate) materializations: Vec<Materialization>,
}

/// The log, as the background writes it and the report reads it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    log: Mutex<Log>,
}

impl Events {
    pub(crate) fn record(&self, write: impl FnOnce(&mut Log)) {
        // A log that another thread left while panicking is still a log.
        write(&mut self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
