//! Alluvium: keyed state of a stream processor in RocksDB, with checkpoints that cost only what changed.

#[allow(dead_code)]
mod changelog;
mod config;
#[allow(dead_code)]
mod delta;
mod env;
mod error;
#[allow(dead_code)]
mod gc;
mod ids;
mod inspect;
mod job;
mod key;
mod key_group;
#[allow(dead_code)]
mod manifest;
#[allow(dead_code)]
mod materialize;
#[allow(dead_code)]
mod remote;
#[allow(dead_code)]
mod restore;
mod state;
mod store;
#[allow(dead_code)]
mod table;
mod wait;

pub use changelog::Receipt;
pub use config::{JobOptions, MaterializationOptions, RestoreFrom};
pub use delta::TableKind;
pub use env::{Clock, Env, NonceSource, SeededNonces};
pub use error::{Error, ErrorKind, Result};
pub use ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
pub use inspect::{InspectedCheckpoint, InspectedRecord, InspectedSubtask, Inspection, inspect};
pub use job::{
    CheckpointListener, CheckpointReport, CheckpointSummary, Job, JobStats, MaterializationReport, Opened,
    PendingCheckpoint,
};
pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT, MaxParallelism};
pub use manifest::{CheckpointMode, OpenMode};
pub use remote::RemoteCounters;
pub use restore::RestoreReport;
pub use state::{ValueDescriptor, ValueEntries, ValueState};
pub use store::{Cut, Scan, State, StateOptions, StateStore, StoreStats, Value};
pub use table::TableStats;
