//! The manifest chain: numbered objects, each created once, that together say which checkpoints of a
//! job exist and who may add the next one.
//!
//! - [`model`]: what a manifest says, and the rules it obeys.
//! - [`origin`]: what a rescaled subtask has taken over from others.
//! - [`format`]: its bytes.
//! - [`protocol`]: which answer of the store means what, as pure state machines.
//! - [`chain`]: the protocol carried out: open an attempt, commit, notice that one is fenced.
//! - [`read`]: looking at a chain without taking part in it.
//!
//! The only primitive that the protocol needs of a store is "create unless it exists", because it is
//! the only one that every backend has. It needs no clock: see [`protocol`] for why.

mod chain;
#[cfg(test)]
mod chain_tests;
mod format;
mod model;
#[cfg(test)]
mod model_check;
mod open;
mod origin;
mod protocol;
mod read;
mod roots;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod scripted;
mod state_info;
mod wire;

pub use chain::OpenMode;
pub(crate) use chain::{Chain, CommitDraft, Committed, fenced};
pub(crate) use format::Inline;
pub use model::CheckpointMode;
#[cfg(test)]
pub(crate) use model::Record;
pub(crate) use model::{BaseRef, CheckpointRecord, DeltaRef, Manifest, RecordKind, Retained, SubtaskRecord};
pub(crate) use origin::{Origin, Segment};
pub(crate) use read::{list_chain, newest_attempt, read_kind, read_manifest, read_newest};
pub(crate) use roots::{Found, Roots};
pub(crate) use state_info::{StateInfo, TtlInfo, ValueInfo};
