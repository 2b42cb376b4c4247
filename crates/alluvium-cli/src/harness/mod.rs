//! The load test: what every record does, on what it is driven, and what was measured.
//!
//! `workload` says what every record does, `driver` runs it on any [`backend`], `evaluate` makes a
//! [`crate::result`] of what was measured, `session` joins them for one run.

pub(crate) mod backend;
pub(crate) mod driver;
pub(crate) mod evaluate;
pub(crate) mod expected;
#[cfg(test)]
mod fake;
pub(crate) mod job;
pub(crate) mod meter;
pub(crate) mod options;
pub(crate) mod progress;
pub(crate) mod random;
pub(crate) mod recorder;
pub(crate) mod scenario;
pub(crate) mod session;
pub(crate) mod stage;
pub(crate) mod store;
pub(crate) mod workload;
pub(crate) mod zipf;
