//! Garbage collection without clocks.
//!
//! Live is everything that a retained or pinned checkpoint refers to, and everything that a running
//! attempt may have on its way. The job's other objects may go. Objects that are not Alluvium's are
//! never touched (I3).
//!
//! - [`plan`]: what may be deleted, from plain facts.
//! - [`confirmed`]: the proof that is needed to delete anything.
//! - [`collector`]: finds out the facts, and deletes: manifests first, what they referred to after.
//! - [`open_records`]: what need not be looked at again.
//! - [`pin`]: how a reader from outside keeps a checkpoint alive.
//! - [`savepoint`]: how a user does, by name. [`slots`]: what a name stands for.

mod collector;
mod confirmed;
mod open_records;
mod pin;
mod plan;
pub(crate) mod savepoint;
mod savepoint_lookup;
mod savepoint_record;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use collector::{Collection, Collector};
pub(crate) use pin::{
    Holder, ListedPin, Pin, choose, find_to_read, find_wanted, list as list_pins, release_earlier,
};
