//! Alluvium: keyed state of a stream processor in RocksDB, with checkpoints that cost only what changed.

mod changelog;
mod config;
mod delta;
mod env;
mod error;
mod gc;
mod ids;
mod inspect;
mod job;
mod key;
mod key_group;
mod manifest;
mod materialize;
mod remote;
mod restore;
mod state;
mod store;
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
