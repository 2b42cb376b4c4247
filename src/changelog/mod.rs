//! The durable short-term log: what of it is held, on its way or durable, and what a subtask hands to
//! the committer at a checkpoint.

mod pack;
mod receipt;
mod tail;
#[cfg(test)]
mod tail_tests;

pub(crate) use pack::{due as packing_due, runs as runs_of};
pub use receipt::Receipt;
pub(crate) use receipt::{ReceiptBase, ReceiptCost, ReceiptDelta};
pub(crate) use tail::{Action, Flush, Packed, Tail, Upload};
