//! How much of a store each state takes up.

use serde::Serialize;

use super::description::StateDescription;

/// A state of a store or checkpoint, and what it takes up.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StateUsage {
    /// The state as it is recorded.
    pub state: StateDescription,
    /// Whether this attempt has registered it. One that nobody registers stays in every checkpoint until it is dropped
    /// ([`JobOptions::drop_state`](crate::JobOptions::drop_state)). Unknown, None, of a checkpoint that is read from outside.
    pub registered: Option<bool>,
    /// Number of its entries. Of a running store None: counting them would mean to read them all.
    pub entries: Option<u64>,
    /// Bytes that it takes up. Of a running store about: those of the table's files, as they are compressed, without what memory
    /// holds. Of a checkpoint exactly: those of keys (each with 6 bytes for key group and state) and values.
    pub bytes: u64,
}
