//! The state of one subtask: an active delta on the operator's thread, frozen deltas on their way,
//! and the table, behind one read view.
//!
//! ```text
//!  put ─▶ active ──cut──▶ frozen ─┬─▶ task: seal, upload, receipt
//!                                 └─▶ applier ─▶ table
//!  get ◀─ active ◀─ frozen ◀─ table
//! ```
//!
//! In native mode there are no deltas: writes go straight into the table, and a cut is its flush.

mod applier;
mod appliers;
mod attempt;
mod base_trouble;
#[cfg(test)]
mod cache_tests;
mod compatibility;
mod current;
mod cut;
mod description;
mod elements;
mod engine;
mod event;
mod first_keys;
mod heads;
mod key_name;
mod kind;
mod layer;
mod layer_cursor;
mod lists;
pub(crate) mod metadata;
mod presence;
mod registry;
mod renewals;
mod revision;
mod scan;
#[cfg(test)]
pub(crate) mod scan_work;
mod shared;
mod state_options;
mod state_store;
mod stats;
mod task;
mod usage;
mod value;

pub(crate) use appliers::Appliers;
pub(crate) use attempt::Attempt;
pub(crate) use current::KeyType;
pub use cut::Cut;
pub use description::StateDescription;
pub(crate) use elements::HeldElements;
pub(crate) use engine::Mode;
pub(crate) use event::{Event, EventSender};
pub(crate) use heads::Head;
pub(crate) use key_name::name_key;
pub(crate) use kind::{Layout, StateKind};
pub(crate) use registry::Registry;
pub(crate) use revision::{Revised, Revision, revise, validate as validate_revisions};
pub use scan::Scan;
pub(crate) use shared::StoreShared;
pub use state_options::{State, StateOptions};
pub use state_store::StateStore;
pub(crate) use state_store::{Hold, OperatorPlace, StoreParts, check_value};
pub use stats::StoreStats;
pub(crate) use task::{TaskParts, guarded, start as start_task};
pub use usage::StateUsage;
pub use value::Value;
#[cfg(all(test, feature = "test-util"))]
pub(crate) use {
    appliers::Applier,
    event::PendingCut,
    layer::{ChargedLayer, Layer},
};
