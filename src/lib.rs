//! Alluvium: keyed state of a stream processor in RocksDB, with checkpoints that cost only what changed.

mod env;
mod error;
#[allow(dead_code, unused_imports)]
mod gc;
mod ids;
mod key;
mod key_group;
#[allow(dead_code, unused_imports)]
mod manifest;
#[allow(dead_code, unused_imports)]
mod remote;

pub use env::{Clock, Env, NonceSource, SeededNonces};
pub use error::{Error, ErrorKind, Result};
pub use ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT, MaxParallelism};
pub use manifest::{CheckpointMode, OpenMode};
pub use remote::{RateLimiter, RemoteCounters};
