//! Materialization: bringing the table's own files into the object store, so that the changelog
//! before them can be dropped.
//!
//! A run starts from a RocksDB checkpoint (hard links, made elsewhere), uploads the files that the
//! store lacks, and ends in one small *base index* that lists all of them. It never waits for a
//! checkpoint of the job, nor a checkpoint for it.

mod file_id;
mod index;
mod known;
mod names;
mod options;
mod parallel;
mod policy;
mod report;
mod upload;
#[cfg(test)]
mod upload_tests;

pub(crate) use file_id::FileId;
pub(crate) use index::{BaseFile, BaseIndex, FileLocation};
pub(crate) use known::{Known, Stamp};
pub(crate) use names::NameSource;
pub use options::MaterializationOptions;
pub(crate) use parallel::{blocking, run_all};
pub(crate) use policy::{Decision, History, Settings, Share, decide, is_news};
pub use report::MaterializationReport;
pub(crate) use upload::{CopySource, Uploaded, Uploader};
