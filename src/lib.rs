//! API sketch.
#![allow(dead_code, unused_variables, missing_docs)]
mod config;
mod env;
mod error;
mod ids;
mod job;
mod key;
mod key_group;
mod state;
mod store;

pub use config::{CheckpointMode, JobOptions, MaterializationOptions, OpenMode, RestoreFrom};
pub use env::{Clock, Env, NonceSource, SeededNonces};
pub use error::{Error, ErrorKind, Result};
pub use ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
pub use job::*;
pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT, MaxParallelism};
pub use state::*;
pub use store::*;
