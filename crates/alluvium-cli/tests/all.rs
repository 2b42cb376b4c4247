//! All tests of the command line, in one program: each links RocksDB for jobs that it prepares.

#[path = "common/results.rs"]
mod results;

mod cli;
mod cli_access;
mod cli_typed;
mod export;
mod report;
mod report_browser;
mod states;
