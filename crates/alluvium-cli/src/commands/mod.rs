//! The commands, each a thin layer above the library and the harness.

mod bar;
pub(crate) mod compare;
mod earlier;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod inspect;
mod job_args;
pub(crate) mod load;
pub(crate) mod pin;
pub(crate) mod restore_test;
pub(crate) mod run_job;
pub(crate) mod savepoint;
pub(crate) mod scan;
mod source;
pub(crate) mod state;
pub(crate) mod targets;
