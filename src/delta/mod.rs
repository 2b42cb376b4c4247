//! The delta: all changes of one subtask between two cuts, one entry per key.

mod entry;

pub(crate) use entry::{Entry, MergeOp};
