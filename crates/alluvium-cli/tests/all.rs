//! All tests of the command line, in one program: each links RocksDB for jobs that it prepares.

#[path = "common/results.rs"]
mod results;
#[path = "common/run.rs"]
mod run;

mod cli;
mod cli_access;
mod cli_typed;
mod damage;
mod export;
mod interrupted;
mod operators;
mod output;
mod race;
mod refused;
mod report;
mod report_browser;
mod run_job;
mod runs;
mod states;
mod targets;
mod waits;
