//! The command line: try the two checkpoint modes under a load, and look into a job's object store.
//!
//! `workload` says what every record does, `driver` runs it on any [`backend`], `report` makes figures
//! of what was measured, `session` joins them for one run; a command is a thin layer above.

// `missing_docs` is for a library's users; here a doc comment is a help text.
#![allow(missing_docs)]

mod backend;
mod compare;
mod driver;
mod expected;
mod explain;
mod failure;
#[cfg(test)]
mod fake;
mod figure;
mod html;
mod inspect;
mod job;
mod load;
mod meter;
mod options;
mod progress;
mod recorder;
mod report;
#[allow(dead_code)] // the first user is being written
mod result;
mod session;
mod table;
mod units;
mod workload;
mod zipf;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  alluvium compare
      Both modes on the reference workload in a temporary directory, about a minute and a half.
  alluvium compare --operation put --distribution zipf:0.99 --json result.json
      Blind writes to hot keys; figures as a table and as JSON.
  alluvium compare --rate 20k --duration 60s --checkpoint-interval 500ms
      A paced load, for latency.
  alluvium load --store ./job --duration 30s --verify
  alluvium load --store ./job --duration 30s --resume
  alluvium inspect ./job
  alluvium report result.json -o report.html

Exit codes: 0 all right, 1 failed or verification found the state wrong, 2 wrong usage,
3 fenced by a later attempt of the same job.";

/// Keyed state of a stream processor in RocksDB, with checkpoints that cost only what changed.
///
/// `compare` runs a workload with log-based checkpoints and with RocksDB's own incremental ones and
/// says what differs and why; `load` runs one of them; `inspect` shows what a job keeps in its store.
#[derive(Debug, Parser)]
#[command(name = "alluvium", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload in both modes in turn and print them side by side
    ///
    /// Each mode loads all keys, settles, runs the measured stretch, settles again (clock and CPU meter
    /// stop only when all deferred work is done), then a slow steady stretch; afterwards the job is
    /// opened again with an empty local directory and every key is checked against the state that the
    /// stream must lead to.
    Compare(Box<compare::CompareArgs>),
    /// Run a workload in one mode
    ///
    /// Refuses a store that holds an earlier run, unless --resume says to go on from it. The parameters
    /// of the workload ride in each checkpoint, and so does each subtask's position in its stream.
    Load(Box<load::LoadArgs>),
    /// Show a job's manifest chain, checkpoints and sizes
    ///
    /// Reads only: the job may be running meanwhile.
    Inspect(inspect::InspectArgs),
    /// Show results as one self-contained page
    ///
    /// Charts of checkpoints, throughput, latency and compaction over time, all figures with their ratios,
    /// the store's cost per month, and in words what was measured and what was not. The page loads
    /// nothing from anywhere.
    Report(html::ReportArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Report(args) => html::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}
