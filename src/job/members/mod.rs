//! The subtasks of a job that other processes hold, and the links to these.

mod assignment;
mod link;
mod options;
mod seat;

pub use assignment::Assignment;
pub(super) use assignment::assign;
#[cfg(all(test, feature = "test-util"))]
pub(super) use link::LinkTask;
pub(crate) use link::Outbox;
pub(super) use link::{Heard, MemberLink};
pub(crate) use options::elsewhere;
pub(super) use options::validate;
pub(super) use seat::Seat;
