//! The table: where state rests, one RocksDB per subtask.
//!
//! A table holds the state as of one delta of the changelog, and says which: [`Table::apply`]
//! brings in a whole delta together with its sequence number in one atomic step, so every view of
//! the table, a snapshot as well as a checkpoint on disk, stands between two deltas and never
//! inside one (I1).
//!
//! The write-ahead log is off. What a crash loses is in the changelog, and a local directory is a
//! cache of the object store that is never trusted by itself.
//!
//! One thread writes (the applier, or the operator in native mode) and any number of threads read.

mod deleted_ranges;
mod division;
mod error;
mod ffi;
mod files;
mod filter;
mod join;
mod log_format;
mod long_lists;
mod marker;
mod memtables;
mod merge;
mod options;
mod owned;
mod reads;
mod rescale;
#[cfg(test)]
mod rescale_tests;
mod rocks;
mod snapshot;
mod stats;
mod status;
#[cfg(test)]
mod tests;
mod trouble;
mod tuning;
mod upkeep;
mod writes;

pub(crate) use files::TableFiles;
pub(crate) use filter::{Expiries, Expiry, is_expired};
pub(crate) use merge::OPERATOR_NAME;
pub(crate) use options::TableResources;
pub(crate) use owned::OwnedCursor;
pub(crate) use reads::TableValue;
pub(crate) use rescale::SourceTable;
pub(crate) use rocks::Table;
pub use stats::TableStats;
pub(crate) use tuning::Tuning;
