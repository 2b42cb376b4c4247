//! Restore: from a checkpoint's record back to an open table, by way of a plan (pure), a fetch
//! (everything verified) and a replay.

mod fetch;
mod local;
mod plan;
mod replay;
mod report;
mod run;
#[cfg(test)]
mod tests;

pub use report::RestoreReport;
pub(crate) use run::{Restoration, Restorer, Target};
