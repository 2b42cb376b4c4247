//! A job seen from outside: what is stored for it, its savepoints, its pins. No attempt begins, so a running job is
//! not fenced and goes on undisturbed.

mod inspect;
mod outside;
mod pins;
mod savepoints;

pub use inspect::{
    InspectedCheckpoint, InspectedOrigin, InspectedRecord, InspectedSubtask, Inspection, inspect,
};
pub(crate) use outside::Outside;
pub use pins::{InspectedPin, PinHolder, Pins};
pub use savepoints::{Savepoint, Savepoints};
