//! Restore: from a checkpoint's record to an open table. A plan (pure) says what to fetch, the
//! bases are fetched, and the changelog is fetched and replayed batch by batch. Every byte is
//! verified.

mod batch;
mod elements;
mod fetch;
mod layout;
mod load;
mod local;
mod plan;
mod reads;
mod replay;
mod report;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use elements::{Dealt, gather};
pub(crate) use layout::{Layout, OperatorLayout, Resolved, Target, Targets};
pub(crate) use reads::{Read, coalesce};
pub use report::RestoreReport;
pub(crate) use run::{Restoration, Restored, Restorer};
