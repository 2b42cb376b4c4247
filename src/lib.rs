//! Alluvium: keyed state of a stream processor in RocksDB, with checkpoints that cost only what changed.

#[allow(dead_code)]
mod delta;
mod env;
mod error;
mod ids;
mod key;
mod key_group;
#[allow(dead_code)]
mod table;

pub use env::{Clock, Env, NonceSource, SeededNonces};
pub use error::{Error, ErrorKind, Result};
pub use ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT, MaxParallelism};
pub use table::TableStats;
