//! The manifest chain: numbered objects, each created once, that together say which checkpoints of a
//! job exist and who may add the next one.
//!
//! - [`model`]: the content of a manifest, and the rules it obeys.
//! - [`origin`]: the state that a rescaled subtask has taken over from other subtasks.
//! - [`elements`]: state of an operator that is not keyed.
//! - [`mod@format`]: its bytes; [`body`]: their main part; [`wire_v1`]: that part in format 1.
//! - [`carried`], [`retained`]: parts that one manifest carries and later ones refer to.
//! - [`protocol`]: the meaning of each answer of the store, as pure state machines.
//! - [`chain`]: the protocol carried out: open an attempt, commit, notice that one is fenced.
//! - [`read`]: reads a chain without taking part in it.
//!
//! The only primitive that the protocol needs of a store is "create unless it exists", because it is
//! the only one that every backend has. It needs no clock: see [`protocol`] for why.

mod body;
mod carried;
mod chain;
#[cfg(test)]
mod chain_tests;
#[cfg(feature = "test-util")]
mod costs;
mod elements;
mod errors;
mod format;
mod inline;
mod live;
mod model;
#[cfg(test)]
mod model_check;
mod open;
mod origin;
mod protocol;
mod read;
mod references;
mod restore_from;
mod retained;
mod roots;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod scripted;
mod state_info;
mod state_lists;
mod tries;
mod value_info;
mod varint;
mod wire_v1;

pub(crate) use carried::States;
pub(crate) use chain::{Chain, CommitDraft, Committed};
#[cfg(feature = "test-util")]
pub use costs::{ManifestCosts, ManifestShape, manifest_costs};
pub(crate) use elements::{Elements, Spread};
pub(crate) use errors::fenced_by;
pub(crate) use inline::Inline;
pub use model::CheckpointMode;
#[cfg(test)]
pub(crate) use model::Record;
pub(crate) use model::{CheckpointRecord, Manifest, OperatorPart, OperatorRecord, RecordKind, SubtaskRecord};
pub use open::OpenMode;
pub(crate) use origin::{Origin, Segment};
#[cfg(test)]
pub(crate) use read::retained_now;
pub(crate) use read::{
    ChainEntry, Damaged, Top, list_chain, newest_attempt, read_kind, read_manifest, read_newest,
    read_newest_list, read_top,
};
pub(crate) use references::{BaseRef, DeltaRef};
pub use restore_from::RestoreFrom;
pub(crate) use retained::{Entry, Retained};
pub(crate) use roots::{Found, Roots};
pub(crate) use state_info::{JoinedStates, StateInfo, TtlInfo, ValueInfo};
pub(crate) use state_lists::StateLists;
