//! One uploader for all subtasks of a process: it joins their sealed deltas into few objects, and
//! knows which of these objects are still needed.
//!
//! Stores and the packer send messages; an [`Outlet`] receives the results. Nothing in this module
//! knows of receipts, commits or the job.

mod gather;
mod owned;
mod task;
#[cfg(test)]
mod tests;

#[cfg(all(test, feature = "test-util"))]
pub(crate) use gather::MAX_OBJECT;
pub(crate) use gather::PARALLEL_DELTAS;
pub(crate) use task::{Arrival, Outlet, Uploads, UploadsTask};
