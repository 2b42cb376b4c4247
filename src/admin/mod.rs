//! A job seen from outside: what is stored for it, its savepoints, its pins. No attempt begins, so a running job is
//! not fenced and goes on undisturbed.

mod inspect;
mod intact;
mod outside;
mod pins;
mod savepoints;

use crate::error::{Error, ErrorKind};
pub use inspect::{
    InspectedCheckpoint, InspectedOrigin, InspectedRecord, InspectedSubtask, Inspection, inspect,
};
pub(crate) use outside::Outside;
pub use pins::{InspectedPin, PinHolder, Pins};
pub use savepoints::{Savepoint, Savepoints};

fn no_job() -> Error {
    Error::new(ErrorKind::NotFound, "there is no job at this place").advise("check the URL")
}
