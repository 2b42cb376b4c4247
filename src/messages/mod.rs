//! What a store and the job that it belongs to tell each other.
//!
//! Both sides see only this module of each other: a store knows no job, and a coordinator no store's insides.
//! The messages are plain values, so that they can cross processes where stores and coordinator are not in one.
//! Neither side waits for an answer to a message, and a lost one costs time, never state: the coordinator
//! commits only what receipts say, and gives a checkpoint up whose receipts do not come.

mod down;
mod up;

pub(crate) use down::ToStore;
pub(crate) use up::{Committer, FromStore};
