//! The changelog of a subtask: which deltas are held, being uploaded or durable, how they are
//! packed, and what a subtask contributes to a checkpoint.

#[cfg(test)]
mod flat_tests;
mod joined;
mod pack;
mod receipt;
mod tail;
#[cfg(test)]
mod tail_model_tests;
#[cfg(test)]
mod tail_tests;

pub(crate) use joined::{LARGE, Moved, Portion, Upload, join, lay_out};
pub(crate) use pack::{Pack, Sizes, due as packing_due};
pub use receipt::Receipt;
pub(crate) use receipt::{ReceiptBase, ReceiptCost, ReceiptDelta};
pub(crate) use tail::{Action, Flush, Retired, Tail};
