//! API sketch: StateStore, what a subtask's operator thread holds.
use crate::{error::Result, ids::*, key_group::*, config::*};
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind { Hash, Ordered }

/// Options of a named raw state. `StateOptions::new("name")`, `.table(TableKind::Ordered)` for states that are scanned or prefix-deleted often (default Hash).
#[derive(Debug, Clone)]
pub struct StateOptions { pub(crate) name: String, pub(crate) table: TableKind }
impl StateOptions { pub fn new(name: impl Into<String>) -> Self { unimplemented!() } #[must_use] pub fn table(self, t: TableKind) -> Self { unimplemented!() } }

/// Handle of a registered state; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct State { pub(crate) id: StateId, pub(crate) table: TableKind }

/// A value read: derefs to its bytes.
#[derive(Debug)]
pub struct Value<'a>(std::marker::PhantomData<&'a ()>);
impl std::ops::Deref for Value<'_> { type Target = [u8]; fn deref(&self) -> &[u8] { unimplemented!() } }

/// Snapshot iterator, ordered by key within one key group: writes made after `scan` are not seen. 'static.
#[derive(Debug)]
pub struct Scan;
impl Iterator for Scan { type Item = Result<(Vec<u8>, Vec<u8>)>; fn next(&mut self) -> Option<Self::Item> { unimplemented!() } }

/// One subtask's state. `Send`, not `Sync`; methods are synchronous and never do remote I/O.
#[derive(Debug)]
pub struct StateStore { _p: std::marker::PhantomData<std::cell::Cell<()>> }

impl StateStore {
    pub fn subtask(&self) -> SubtaskIndex { unimplemented!() }
    pub fn range(&self) -> KeyGroupRange { unimplemented!() }
    pub fn max_parallelism(&self) -> MaxParallelism { unimplemented!() }
    /// max_parallelism().group_of(key)
    pub fn group_of(&self, key: &[u8]) -> KeyGroup { unimplemented!() }
    /// Registers (or finds again) a named state.
    pub fn state(&mut self, options: StateOptions) -> Result<State> { unimplemented!() }
    /// This subtask's metadata of the checkpoint the job was restored from (e.g. its source offset); None on a fresh start.
    pub fn restored_metadata(&self) -> Option<&[u8]> { unimplemented!() }

    pub fn get(&self, state: State, group: KeyGroup, key: &[u8]) -> Result<Option<Value<'_>>> { unimplemented!() }
    pub fn multi_get(&self, state: State, keys: &[(KeyGroup, &[u8])]) -> Result<Vec<Option<Value<'_>>>> { unimplemented!() }
    pub fn put(&mut self, state: State, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> { unimplemented!() }
    pub fn delete(&mut self, state: State, group: KeyGroup, key: &[u8]) -> Result<()> { unimplemented!() }
    /// Appends `operand` to the value (byte concatenation; O(1), never reads the value).
    pub fn append(&mut self, state: State, group: KeyGroup, key: &[u8], operand: &[u8]) -> Result<()> { unimplemented!() }
    pub fn delete_prefix(&mut self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<()> { unimplemented!() }
    pub fn scan_prefix(&self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<Scan> { unimplemented!() }
    /// start inclusive, end exclusive (None: to the end of the state in that group)
    pub fn scan_range(&self, state: State, group: KeyGroup, start: &[u8], end: Option<&[u8]>) -> Result<Scan> { unimplemented!() }

    /// Err(WouldBlock) if the next write would have to wait at the memory bound.
    pub fn try_reserve(&self) -> Result<()> { unimplemented!() }
    /// The first background failure, if any; never blocks.
    pub fn health(&self) -> Result<()> { unimplemented!() }

    /// The checkpoint that was triggered and that this store has not cut for yet. A load of an atomic: call it between records.
    pub fn due(&self) -> Option<CheckpointId> { unimplemented!() }
    /// The barrier: all writes so far belong to checkpoint `id`. O(1) in changelog mode; flush + hard links in native mode.
    /// The receipt goes to the job by itself; a caller with a committer elsewhere takes it from the returned `Cut`.
    pub fn cut(&mut self, id: CheckpointId, metadata: impl Into<Vec<u8>>) -> Result<Cut> { unimplemented!() }
    pub fn stats(&self) -> StoreStats { unimplemented!() }
}

/// A cut whose bytes may still be on their way.
#[derive(Debug)]
pub struct Cut;
impl Cut {
    pub fn id(&self) -> CheckpointId { unimplemented!() }
    /// Blocks until everything is durable or ready to be inlined.
    pub fn wait(self) -> Result<Receipt> { unimplemented!() }
}

/// What one subtask contributes to a checkpoint. A value: serde-serializable, may cross processes.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {}

#[derive(Debug, Clone, Default, Serialize)]
pub struct StoreStats {
    /// Entries and bytes in the active delta.
    pub active_entries: u64, pub active_bytes: u64,
    /// Bytes of deltas that are not yet applied or not yet durable.
    pub held_bytes: u64, pub unapplied_deltas: u64,
    pub deltas_sealed: u64, pub sealed_bytes: u64,
    /// How often and how long writes waited at the memory bound.
    pub blocked_writes: u64, pub blocked_ms: f64,
    pub pending_compaction_bytes: u64, pub l0_files: u64, pub live_sst_bytes: u64, pub running_compactions: u64,
}
