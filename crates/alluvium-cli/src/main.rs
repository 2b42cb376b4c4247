//! The command line: try the checkpoint modes under a load, and look into a job's object store.
//!
//! From the bottom up: [`failure`], [`output`], [`units`], [`result`] (what was measured), [`display`] and
//! [`report`] (how it is shown), [`harness`] (how it is measured), [`commands`].

// `missing_docs` is for a library's users; here a doc comment is a help text.
#![allow(missing_docs)]

#[cfg(test)]
mod alike;
mod allocator;
mod commands;
mod display;
mod document;
#[cfg(test)]
mod documented;
mod failure;
mod harness;
mod location;
mod logging;
mod output;
mod portable;
mod report;
mod result;
mod scratch;
mod signals;
mod spelling;
mod targets;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use commands::{
    compare, export, get, import, inspect, load, pin, restore_test, run_job, savepoint, scan, state,
};
use failure::{Failure, Result};
use harness::scenario;

const EXAMPLES: &str = "\
Examples:
  alluvium compare
      All modes on the default workload in a temporary directory, under two minutes.
  alluvium compare --scenario reference -o reference.json
      A named scenario, with the store modelled as a remote one; figures as a table and as JSON.
  alluvium compare --scenario full-speed --repeat 3 --modes changelog,native
      In turns, compared pair by pair.
  alluvium load ./job --duration 30s --verify
  alluvium load ./job --duration 30s --resume
  alluvium restore-test ./job --dir ./restored --verify
      Restore in a process of its own, and check every key.
  alluvium inspect ./job
  alluvium savepoint create ./job before-upgrade
  alluvium state list ./job
  alluvium scan ./job reference --limit 10 --savepoint before-upgrade
  alluvium get ./job reference base64:AAAAAAAAAAU=
      A state and a key of a job that `alluvium load` has left; keys as `scan` prints them.
  alluvium state rename ./job reference=counts --into ./new-job
  alluvium export ./job --state reference -o reference.jsonl
  alluvium import ./another-job reference.jsonl
  alluvium report result.json -o report.html
  alluvium run-job -n 2 -w 2 -- ./my-job --store s3://bucket/job
      Start two processes of your own program, and both again when one of them fails.

Exit codes: 0 ended well (also when Ctrl-C ended a run early; then nothing was verified), 1 failed, or verification found the state
wrong, or damage was found, 2 wrong usage, 3 fenced by a later attempt of the same job, 4 lost the connection to another process of
the job, 5 more checkpoints failed in a row than are tolerated, 6 a supervisor has restarted the job as often as it may, 130 ended by
a signal. run-job starts the processes again after any code but 0, 2 and 3, and ends with the code that it did not start them after.
With --json, why a command failed is JSON on standard error.";

/// Keyed state of a stream processor in RocksDB, with checkpoints that cost only what changed.
///
/// `compare` runs a workload with log-based checkpoints, with RocksDB's own incremental ones and without
/// any, and says what differs and why; `load` runs one of them; `restore-test` restores what it left;
/// `report` makes a page of results; `inspect` shows what a job keeps in its store.
#[derive(Debug, Parser)]
#[command(name = "alluvium", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Give up when an object store has not answered once for so long
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = parse_contact_timeout)]
    contact_timeout: Duration,
    /// Show more of what happens in the background; -vv and -vvv still more. Warnings are always shown, and RUST_LOG, as
    /// in alluvium=debug, goes before this
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

fn parse_contact_timeout(text: &str) -> std::result::Result<Duration, String> {
    match units::parse_duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        timeout => Ok(timeout),
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload in all modes in turn and print them side by side
    ///
    /// Each mode loads all keys and rewrites all files, so that every mode begins alike. Then come the measured
    /// stretch and a slow steady stretch. The clock and the CPU meter of a stretch stop only when all deferred work is
    /// done. At the end the job is opened again with an empty local directory, and every key is checked against the
    /// state that the stream must lead to.
    Compare(Box<compare::CompareArgs>),
    /// Run a workload in one mode
    ///
    /// A store that holds an earlier run is refused, unless --resume is given. Each checkpoint holds the
    /// parameters of the workload and each subtask's position in its stream. Ctrl-C and SIGTERM end the run
    /// early, with its result.
    Load(Box<load::LoadArgs>),
    /// Restore what `load` left, in this new process, and time it
    ///
    /// Works on jobs of `load` alone, because it finds the workload's parameters in the checkpoint. It is no rehearsal
    /// beside a running job: it opens the job, which fences a `load` that still runs on it and writes the record of an
    /// attempt. At another number of subtasks it may also upload new bases. `get`, `scan` and `export` restore a
    /// checkpoint of any job, and do neither.
    RestoreTest(Box<restore_test::RestoreTestArgs>),
    /// Show a job's manifest chain, checkpoints, savepoints, pins and sizes
    ///
    /// Reads only: the job may be running meanwhile.
    Inspect(inspect::InspectArgs),
    /// Make, list and release savepoints: named checkpoints that stay until they are released
    ///
    /// Works on a running job without disturbing it.
    #[command(subcommand)]
    Savepoint(savepoint::SavepointCommand),
    /// List the pins that keep checkpoints alive for readers, and release those that killed readers have left
    ///
    /// Works on a running job without disturbing it.
    #[command(subcommand)]
    Pin(pin::PinCommand),
    /// Print what a state of a checkpoint has for a key
    ///
    /// KEY is written as the state's recorded type of key says: a number, true or false, text as it is, bytes as
    /// text, hex:… or base64:…, tuples and options as JSON (["JFK", 7]). A map shows all its entries, a state with
    /// namespaces all of them, and timers those of the key, one a line. --namespace and --map-key choose one.
    ///
    /// Numbers, text, and what the standard library makes of them are shown as such. Values of other types, and what
    /// is not printable, are shown as base64:…; see --json and --raw.
    ///
    /// Only the subtask that owns the key is fetched. The job may be running: its checkpoint is pinned meanwhile,
    /// which writes a small object into the store, unless --no-pin is given.
    Get(get::GetArgs),
    /// Print a state of a checkpoint, one entry a line: key group, key, value
    ///
    /// Entries ascend by key group, and by key within a group. The namespace and the key of a map stand between key
    /// and value. A timer has domain and time before its key, and no value. Keys and values are shown as by `get`;
    /// --json tells text from base64:….
    ///
    /// The job may be running: its checkpoint is pinned meanwhile, which writes a small object into the store, unless
    /// --no-pin is given.
    Scan(scan::ScanArgs),
    /// Write the states of a checkpoint into a file that any program can read
    ///
    /// The file has JSON lines: a header with the states' descriptions, then one entry a line with state, kind, key
    /// group, key and value, sorted, and a last line with the number of entries and a checksum. Keys and values are
    /// {"text": …} if they are UTF-8 and {"base64": …} if not, so that `import` gets back the very same bytes.
    ///
    /// The job may be running: its checkpoint is pinned meanwhile, which writes a small object into the store, unless
    /// --no-pin is given.
    Export(export::ExportArgs),
    /// Bring what `export` wrote into a job, new or existing
    ///
    /// Begins an attempt, which fences a running one: stop the job first. The whole file is checked before anything is
    /// written, and the import commits one checkpoint. If it fails on the way, nothing is committed, and a new job
    /// keeps the record that it was begun.
    ///
    /// The states must be absent or empty, unless --into-existing is given. The job's other states and its source
    /// offsets stay as they are. A file that was made or changed by hand may leave crc32c out of its last line.
    Import(import::ImportArgs),
    /// List a checkpoint's states with their sizes, or make a new job without some of them or under other names
    #[command(subcommand)]
    State(state::StateCommand),
    /// Start the processes of a job on this machine, and all of them again when one fails
    ///
    /// Everything after -- is the program and its arguments. Each process finds its place in its environment:
    /// ALLUVIUM_PROCESS (its index), ALLUVIUM_PROCESSES, ALLUVIUM_WORKERS, ALLUVIUM_INSTANCE (a name of this start),
    /// ALLUVIUM_RESTARTS, ALLUVIUM_ADDRESSES (host:port of each, by index) and ALLUVIUM_SECRET. What it prints is passed
    /// on with its index before each line.
    ///
    /// When one process fails, the others get SIGTERM, after --grace SIGKILL, and all start again. They do not after the
    /// exit codes 2 (wrong usage) and 3 (fenced). Ctrl-C and SIGTERM end all in the same way, for good; a second signal
    /// at once. The job stays right with none, one, or two of these commands at a time, because a later start fences
    /// all earlier ones. Another number of processes or workers may be given at every start.
    RunJob(run_job::RunJobArgs),
    /// Show results as one self-contained page
    ///
    /// It has charts of checkpoints, throughput, latency, memory and compaction over time, all figures with their
    /// ratios, the store's cost per month, and a text that says what was measured and what was not. The page loads
    /// nothing from anywhere.
    Report(report::ReportArgs),
    /// Run what the table of targets needs, and print it: a few hours
    ///
    /// For those who work on this program; `scripts/bench.sh --table` calls it.
    #[command(hide = true)]
    Targets(commands::targets::TargetsArgs),
}

fn main() -> ExitCode {
    allocator::limit_arenas();
    if asks_for_json(std::env::args_os()) {
        output::tell_failures_as_json();
    }
    let outcome = parse().and_then(|cli| run(&cli));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::fail(&failure);
            failure.exit.into()
        }
    }
}

/// Whether a program reads what is said: then also why it failed.
fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    // What comes after -- is for another program.
    arguments.take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

fn run(cli: &Cli) -> Result<()> {
    signals::watch()?;
    logging::show(cli.verbose, std::env::var("RUST_LOG").ok().as_deref())?;
    location::set_contact_timeout(cli.contact_timeout);
    match &cli.command {
        Command::Compare(args) => compare::run(args),
        Command::Load(args) => load::run(args),
        Command::RestoreTest(args) => restore_test::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Savepoint(command) => savepoint::run(command),
        Command::Pin(command) => pin::run(command),
        Command::Get(args) => get::run(args),
        Command::Scan(args) => scan::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::State(command) => state::run(command),
        Command::RunJob(args) => run_job::run(args),
        Command::Report(args) => report::run(args),
        Command::Targets(args) => commands::targets::run(args),
    }
}

/// Ends the program where it is asked for help, or where a person has made a mistake.
fn read(line: &[OsString]) -> Result<Cli> {
    Cli::try_parse_from(line).map_err(|error| {
        if let Some(failure) = spelling::spelled_now(line, &error) {
            return failure;
        }
        if !error.use_stderr() || !output::failures_are_json() {
            error.exit();
        }
        Failure::usage(error.to_string().trim_start_matches("error: ").trim_end())
    })
}

/// The command line, with a scenario's options before the user's own.
fn parse() -> Result<Cli> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let cli = read(&line)?;
    let scenario = match &cli.command {
        Command::Compare(args) => args.scenario.arguments()?,
        Command::Load(args) => args.scenario.arguments()?,
        _ => None,
    };
    let Some((name, options)) = scenario else { return Ok(cli) };
    // By itself first, so that a mistake in it is not taken for one of the user's.
    let alone: Vec<OsString> =
        line[..scenario::through_command(&line)].iter().cloned().chain(options.iter().cloned()).collect();
    if let Err(error) = Cli::try_parse_from(&alone) {
        let moved = spelling::spelled_now(&alone, &error).map(|failure| failure.to_string());
        let said = moved.unwrap_or_else(|| error.to_string());
        return Err(Failure::usage(format!("in {name}: {}", said.trim_start_matches("error: "))));
    }
    read(&scenario::expand(&line, options))
}
