//! The durable short-term log: what of it is held, on its way or durable, and what a subtask hands to
//! the committer at a checkpoint.

mod joined;
mod pack;
mod receipt;
mod tail;
#[cfg(test)]
mod tail_tests;

pub(crate) use joined::{LARGE, Moved, Portion, Upload, join, lay_out};
pub(crate) use pack::{Pack, due as packing_due};
pub use receipt::Receipt;
pub(crate) use receipt::{ReceiptBase, ReceiptCost, ReceiptDelta};
pub(crate) use tail::{Action, Flush, Retired, Tail};
