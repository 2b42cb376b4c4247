//! Alluvium keeps the keyed state of a stream processor in RocksDB, with checkpoints that cost only
//! what changed.
//!
//! Every change goes into a *changelog* as well as into RocksDB. A checkpoint uploads the end of
//! the changelog, whatever RocksDB's compaction is doing; the SST files follow in the background.
//! The idea is Apache Flink's generic log-based incremental checkpoint (FLIP-158). RocksDB's own
//! incremental checkpoints are built in as well ([`CheckpointMode::NativeIncremental`]).
//!
//! Alluvium is not a stream processor (no operators, sources or exchange), not a database server,
//! and not a log for your data. After a crash the state is that of the last checkpoint, and the
//! source must start again from the offset that the checkpoint carries.
//!
//! **All cuts of a checkpoint must lie at one place in the stream.** With several operators,
//! trigger at the source and send the checkpoint's id down the channels as a barrier, in line with
//! the records ([`Job::trigger`], [`StateStore::cut`]).
//!
//! # Example
//!
//! ```
//! use alluvium::{Job, JobOptions, OpenMode, ValueState};
//!
//! # fn main() -> alluvium::Result<()> {
//! # let place = tempfile::tempdir().unwrap();
//! # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
//! // A job lives below a URL and has one store for each subtask.
//! let options = JobOptions::new(dir, OpenMode::CreateOrOpen);
//! let mut opened = Job::open(&url, options.clone())?;
//! let store = &mut opened.stores[0];
//! let clicks = store.register(ValueState::<u64>::descriptor("clicks"))?;
//! store.set_key("page/1")?;
//! clicks.put(store, &1)?;
//!
//! // A barrier: each store cuts with its own metadata, the job commits once all are in.
//! let checkpoint = opened.job.trigger("coordinator's metadata")?;
//! store.cut(checkpoint.id(), "source offset 1")?;
//! checkpoint.wait()?;
//! drop(opened);
//!
//! // A later attempt goes on from there, and fences the earlier one.
//! let mut opened = Job::open(&url, options)?;
//! let store = &mut opened.stores[0];
//! assert_eq!(store.restored_metadata(), Some("source offset 1".as_bytes()));
//! let clicks = store.register(ValueState::<u64>::descriptor("clicks"))?;
//! store.set_key("page/1")?;
//! assert_eq!(clicks.get(store)?, Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go from here
//!
//! - [`Job`] opens, triggers and commits; [`JobOptions`] configures it. [`Job::status`] says how it
//!   is doing, and a [`CheckpointListener`] receives the outcome of checkpoints.
//! - An operator's thread holds a [`StateStore`]. Typed state is read and written under its current
//!   key: [`ValueState`], [`ListState`], [`MapState`], [`ReducingState`], [`AggregatingState`],
//!   with [`Namespaced`] windows and [`Ttl`]. [`TimerService`] has timers in event and processing
//!   time.
//! - A program with several stateful operators names them ([`JobOptions::operators`]); all have one
//!   commit. [`OperatorListState`] and [`BroadcastState`] belong to no key.
//! - A job may be opened with another number of [`subtasks`](JobOptions::subtasks): each gets the
//!   key groups that it owns now. [`Opened::subtask_metadata`] has the old offsets.
//! - Subtasks may live in several processes: [`JobOptions::members`], [`Member`]. [`Receipt`] joins cut
//!   and commit where the host has its own way between them.
//! - From outside: [`Savepoints`](admin::Savepoints) keep a checkpoint until it is released, [`CheckpointReader`]
//!   reads one with the program's own descriptors, [`inspect`](admin::inspect()) looks at a whole job, [`Pins`](admin::Pins) at
//!   its readers.
//! - Cargo features, none by default: `aws`, `azure`, `gcp` for object stores beyond `file://` and
//!   `memory://`; `test-util` for a model of an object store and for one with faults. The
//!   command line is the crate `alluvium-cli`.
//! - Invariants are cited as I1 to I9; `docs/design.md` lists them.
//! - `docs/` in the repository: `quickstart.md`, `embedding.md` (barriers, offsets, exactly-once
//!   output), `object-stores.md`, `operations.md`, `tuning.md` and `errors.md` for users,
//!   `design.md` for how it works.

// docs.rs alone sets this: it shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod admin;
mod budget;
mod cache;
mod changelog;
mod delta;
mod env;
mod error;
#[cfg(any(test, feature = "test-util"))]
mod fault_store;
mod frame;
mod gc;
mod ids;
#[cfg(any(test, feature = "test-util"))]
mod intercept;
mod job;
mod key;
mod key_group;
mod machine;
mod manifest;
mod materialize;
mod member;
mod messages;
mod reader;
mod remote;
mod restore;
mod runtime;
mod shape;
pub mod state;
mod state_map;
mod store;
#[cfg(feature = "test-util")]
mod store_model;
mod table;
mod uploads;
mod wait;

pub use changelog::Receipt;
pub use delta::TableKind;
pub use env::{Clock, Env, NonceSource, SeededNonces};
pub use error::{Error, ErrorKind, Result};
pub use ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
pub use job::{
    Assignment, CheckpointListener, CheckpointReport, CheckpointSummary, Health, Job, JobOptions, JobStats,
    JobStatus, MemoryStats, Opened, OperatorSpec, Owes, PendingCheckpoint, SourceJob, StoreState,
    SubtaskStatus, UnderWay,
};
pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT, MaxParallelism};
pub use manifest::{CheckpointMode, OpenMode, RestoreFrom};
pub use materialize::{MaterializationOptions, MaterializationReport};
pub use member::{Member, MemberOptions, MemberStats, OpenedMember};
pub use reader::{CheckpointReader, CheckpointScan, ReaderOptions, StateReader};
pub use remote::{JobLocation, RemoteCounters};
pub use restore::RestoreReport;
pub use state::{
    Aggregate, AggregatingState, BroadcastState, ListState, MapState, Namespaced, OperatorListState,
    ReducingState, StateDescriptor, TimeDomain, Timer, TimerDescriptor, TimerService, Ttl, TtlUpdate,
    TtlVisibility, ValueState,
};
pub use store::{
    Cut, Scan, State, StateDescription, StateOptions, StateStore, StateUsage, StoreStats, Value,
};
pub use table::TableStats;

/// Decorators to put around any object store (cargo feature `test-util`): a model of its latency and
/// bandwidth for load tests, and faults that a test decides.
#[cfg(feature = "test-util")]
pub mod test_util {
    pub use crate::fault_store::{
        Answer, Call, Conditions, Fault, FaultPolicy, FaultStore, Gate, Link, ListingEdit, Op,
    };
    pub use crate::manifest::{ManifestCosts, ManifestShape, manifest_costs};
    pub use crate::store_model::{Latency, StoreModel, StoreModelOptions, open_store};
}

/// The examples in README and documentation compile and run.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/quickstart.md")]
    struct Quickstart;
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
}
