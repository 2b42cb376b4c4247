//! One uploader for all subtasks of a process: it joins their sealed deltas into few objects, and knows
//! which of these objects are still needed.
//!
//! Messages go in, from stores and the packer; what comes of them is told to an [`Outlet`]. Nothing in here
//! knows of barriers' receipts, of commits or of the job.

mod gather;
mod owned;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use gather::PARALLEL_DELTAS;
pub(crate) use task::{Arrival, Outlet, Uploads, UploadsTask};
