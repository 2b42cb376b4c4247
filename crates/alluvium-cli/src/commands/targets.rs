//! `alluvium targets`: runs what the table of targets needs, in turns, and prints it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::failure::{Failure, Result, io};
use crate::output::{print, tell};
use crate::result::{ResultFile, RunResult};
use crate::signals::{AtEnd, interrupted};
use crate::targets::{Load, Run, Side, Turn, runs, sheet};

/// Turns, without --runs.
const TURNS: u32 = 3;

#[derive(Debug, Args)]
pub(crate) struct TargetsArgs {
    /// Where the result of each run goes; a file of that name is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Do all runs so many times, in turns (A B A B …) [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
    /// Run each for seconds on a twentieth of keys and memory, to see that it works. The figures do not count
    #[arg(long)]
    quick: bool,
    /// An earlier build of this program, which takes part in the rows that compare with it
    #[arg(long, value_name = "BINARY")]
    before: Option<PathBuf>,
    /// Only the rows of these loads
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LOADS")]
    only: Vec<Load>,
    /// Take the results that are in --out already, of a table that was interrupted, and run what is left
    #[arg(long)]
    resume: bool,
}

pub(crate) fn run(args: &TargetsArgs) -> Result<()> {
    let this = std::env::current_exe().map_err(io("find this program"))?;
    std::fs::create_dir_all(&args.out).map_err(io(format!("create {}", args.out.display())))?;
    let runs = runs(&args.only, args.before.is_some());
    let turns = args.runs.unwrap_or(if args.quick { 1 } else { TURNS });
    let all = turns as usize * runs.len();
    let mut table = Vec::new();
    for turn in 1..=turns {
        let mut results = Turn::default();
        for (index, run) in runs.iter().enumerate() {
            let number = (turn as usize - 1) * runs.len() + index + 1;
            tell(format_args!("run {number} of {all}: {run}, turn {turn} of {turns}"));
            let program = match (run.side, &args.before) {
                (Side::Before, Some(before)) => before,
                _ => &this,
            };
            results.add(*run, result(args, *run, turn, program)?);
        }
        table.push(results);
    }
    if args.quick {
        print("Quick: short runs on little state. These figures do not count.")?;
    }
    print(&sheet(&table))
}

/// The result of one run: measured now, unless it is there already and may be taken.
fn result(args: &TargetsArgs, run: Run, turn: u32, program: &Path) -> Result<RunResult> {
    let file = args.out.join(run.file_name(turn));
    if args.resume && file.exists() {
        return only(&file);
    }
    // What lies there under its final name is whole.
    let part = file.with_extension("part");
    measure(program, &run.arguments(args.quick), &part)?;
    let result = only(&part)?;
    if interrupted() || result.ended_early.is_some() {
        return Err(Failure::interrupted("").hint("--resume goes on from here"));
    }
    std::fs::rename(&part, &file).map_err(io(format!("write {}", file.display())))?;
    Ok(result)
}

fn only(file: &Path) -> Result<RunResult> {
    let mut results = ResultFile::read(file)?.results;
    match (results.pop(), results.is_empty()) {
        (Some(result), true) => Ok(result),
        _ => Err(Failure::new(format!("{} holds more than one result", file.display()))),
    }
}

/// Runs the program, which shows its own progress, and has its result in `file` afterwards.
fn measure(program: &Path, arguments: &[String], file: &Path) -> Result<()> {
    let result = File::create(file).map_err(io(format!("write {}", file.display())))?;
    let mut command = Command::new(program);
    // Every build prints its result that way, if nothing follows.
    command.args(arguments).arg("--json").stdin(Stdio::null()).stdout(result);
    let started = command.spawn();
    let mut child = started.map_err(io(format!("start {}", program.display())))?;
    let id = child.id();
    // A signal to this process alone must not leave the run behind.
    let _ends = AtEnd::new(move || {
        let _ = Command::new("kill").arg(id.to_string()).status();
    });
    let status = child.wait().map_err(io("wait for the run"))?;
    if status.success() {
        return Ok(());
    }
    let line = arguments.join(" ");
    Err(Failure::new(format!("a run failed ({status}): {} {line}", program.display()))
        .hint("--resume goes on from here"))
}
