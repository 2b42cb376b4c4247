//! Restore: from a checkpoint's record back to an open table, by way of a plan (pure), a fetch of the
//! bases, and a changelog that is fetched and replayed batch by batch. Every byte is verified.

mod batch;
mod fetch;
mod local;
mod plan;
mod replay;
mod report;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use plan::{Read, coalesce};
pub use report::RestoreReport;
pub(crate) use run::{Restoration, Restorer, Target};
