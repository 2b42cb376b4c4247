//! Garbage collection without clocks.
//!
//! Live is what a retained or pinned checkpoint refers to, and what a running attempt may have on
//! its way. Everything else of ours may go; what is not ours is never touched (I3).
//!
//! - [`plan`]: what may be deleted, from plain facts.
//! - [`run`]: finds out the facts, and deletes: manifests first, what they referred to after.
//! - [`pin`]: how a reader from outside keeps a checkpoint alive.
//! - [`savepoint`]: how a user does, by name.

mod pin;
mod plan;
mod run;
pub(crate) mod savepoint;
#[cfg(test)]
mod tests;

pub(crate) use pin::{Holder, ListedPin, Pin, choose, list as list_pins, release_earlier};
pub(crate) use run::Collector;
