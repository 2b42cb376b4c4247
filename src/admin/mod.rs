//! A job seen from outside: its objects, its savepoints, its pins. No attempt begins, so a running job is not
//! fenced and goes on undisturbed.

mod inspect;
mod inspection;
mod intact;
mod outside;
mod pins;
mod savepoints;

use crate::error::{Error, ErrorKind};
pub use inspect::inspect;
pub use inspection::{
    InspectedCheckpoint, InspectedOperator, InspectedOrigin, InspectedRecord, InspectedSubtask, Inspection,
};
pub(crate) use outside::Outside;
pub use pins::{InspectedPin, PinHolder, Pins};
pub use savepoints::{Savepoint, Savepoints};

/// Manifests read at the same time.
const PARALLEL_READS: usize = 16;

fn no_job() -> Error {
    Error::new(ErrorKind::NotFound, "there is no job at this place").advise("check the URL")
}
