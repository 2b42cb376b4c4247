//! How much of a store each state takes up.

use serde::Serialize;

use super::description::StateDescription;

/// A state of a store or checkpoint, and what it takes up.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StateUsage {
    /// The state as it is recorded.
    pub state: StateDescription,
    /// Whether this attempt has registered the state. A state that no attempt registers stays in
    /// every checkpoint until it is dropped
    /// ([`JobOptions::drop_state`](crate::JobOptions::drop_state)). None for a checkpoint that is
    /// read from outside.
    pub registered: Option<bool>,
    /// Number of entries. None for a running store, because counting would read them all.
    pub entries: Option<u64>,
    /// Bytes that the state takes up. For a running store an estimate: the compressed bytes in the
    /// table's files, without what memory holds. For a checkpoint exact: the bytes of keys (each
    /// with 6 bytes for key group and state) and values.
    pub bytes: u64,
}
