//! Starts the processes of a job together on one machine, and all of them again when one fails.
//!
//! A job's processes talk to each other, so that one of them alone cannot be replaced: when one
//! fails, the others are ended (SIGTERM, after a grace SIGKILL) and all start again, which restores
//! the newest checkpoint. Restarts come after growing delays ([`Policy::backoff`]) and up to a limit
//! ([`Policy::limit`]). There is none after an exit code that says that it would not help
//! ([`Exit::is_final`]).
//!
//! **Correctness never depends on a supervisor.** Each start of a job of Alluvium fences all earlier
//! ones, so that none, one, or two supervisors at once are safe. What a supervisor adds is that
//! somebody starts the job again.
//!
//! - [`Supervisor::run`] is the whole of it; `alluvium run-job` is its command line.
//! - [`Place::from_env`] reads in a process what its supervisor has told it. Whatever else starts the
//!   processes (systemd, Kubernetes) sets the same [variables](Place).
//! - [`Exit`] is the table of exit codes.
//!
//! This crate is for the processes of one machine. It knows no hosts and sends no heartbeats: a
//! process that hangs has to be ended by itself or by what it fails to do. For a job of Alluvium that
//! is `JobOptions::tolerable_failed_checkpoints`.

mod env;
mod error;
mod exit;
mod gang;
mod notice;
mod output;
mod place;
mod policy;
mod process;
mod supervisor;
#[cfg(test)]
mod supervisor_tests;

pub use error::{Error, Result};
pub use exit::Exit;
pub use notice::{Ended, Notice, Outcome};
pub use place::{Place, Secret};
pub use policy::Policy;
pub use supervisor::{Program, Supervisor};

/// The example in README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
