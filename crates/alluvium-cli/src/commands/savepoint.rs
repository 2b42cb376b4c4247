//! `alluvium savepoint`: named checkpoints that stay until they are released.

use alluvium::admin::{Savepoint, Savepoints};
use alluvium::{CheckpointId, ErrorKind};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::job_args::{JobArgs, none_such, not_confirmed};
use crate::display::table::{cell, empty, right};
use crate::display::width::fit;
use crate::failure::Result;
use crate::output::Output;
use crate::units;
use crate::units::utc;

#[derive(Debug, Subcommand)]
pub(crate) enum SavepointCommand {
    /// Keep a checkpoint under a name
    ///
    /// The newest, or any other that the job still retains. Copies nothing: garbage collection
    /// leaves what the checkpoint needs alone until the savepoint is released.
    Create(CreateArgs),
    /// List the savepoints of a job
    List(ListArgs),
    /// Let a savepoint go
    ///
    /// Without --yes it only says what would be released, and ends with exit code 2. The running job's next garbage
    /// collection, or that of the next attempt, deletes what the savepoint alone kept. A reader that reads it and a
    /// job that goes on from it meanwhile are not disturbed.
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Its name: 1 to 100 letters, digits, '-', '_' and '.', beginning with a letter or digit
    #[arg(value_name = "NAME")]
    name: String,
    /// The checkpoint to keep, as in 3-17 [default: the newest]
    #[arg(long, value_name = "ID")]
    checkpoint: Option<CheckpointId>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Release it. Its checkpoint may be deleted then
    #[arg(long)]
    yes: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What `release --json` prints.
#[derive(Debug, Serialize)]
struct Released<'a> {
    name: &'a str,
    /// Absent if it is damaged, and once it is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    savepoint: Option<Savepoint>,
    released: bool,
}

pub(crate) fn run(command: &SavepointCommand) -> Result<()> {
    match command {
        SavepointCommand::Create(args) => {
            let made =
                args.job.location().ask(|job| Savepoints::open(job)?.create(&args.name, args.checkpoint))?;
            let text = || format!("savepoint {} keeps checkpoint {}", made.name, made.checkpoint);
            Output::of_job(args.json).write(&made, text)
        }
        SavepointCommand::List(args) => {
            let savepoints = args.job.location().ask(|job| Savepoints::open(job)?.list())?;
            let none = || "No savepoints.".to_owned();
            Output::of_job(args.json)
                .write(&savepoints, || if savepoints.is_empty() { none() } else { table(&savepoints) })
        }
        SavepointCommand::Release(args) => release(args),
    }
}

fn release(args: &ReleaseArgs) -> Result<()> {
    let name = &args.name;
    if args.yes {
        args.job.location().ask(|job| Savepoints::open(job)?.release(name))?;
        let released = Released { name, savepoint: None, released: true };
        return Output::of_job(args.json).write(&released, || format!("savepoint {name} is released"));
    }
    let kept = Released { name, savepoint: find(&args.job, name)?, released: false };
    Output::of_job(args.json).write(&kept, || match &kept.savepoint {
        Some(kept) => table(std::slice::from_ref(kept)),
        None => format!("A savepoint of the job cannot be read, so that it is not known what {name} keeps"),
    })?;
    Err(not_confirmed(
        &format!("savepoint {name}"),
        "--yes releases it. Its checkpoint may then be deleted, for good",
    ))
}

/// None if savepoints are damaged: releasing a damaged one is a way out.
fn find(job: &JobArgs, name: &str) -> Result<Option<Savepoint>> {
    let listed = match job.location().ask(|job| Savepoints::open(job)?.list()) {
        Ok(listed) => listed,
        Err(failure) if matches!(failure.kind, Some(ErrorKind::Corrupt | ErrorKind::UnsupportedVersion)) => {
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    let names: Vec<_> = listed.iter().map(|savepoint| savepoint.name.as_str()).collect();
    let missing = none_such(&format!("savepoint {name}"), "savepoints", &names);
    listed.into_iter().find(|savepoint| savepoint.name == *name).map(Some).ok_or(missing)
}

pub(crate) fn table(savepoints: &[Savepoint]) -> String {
    let mut table = empty(&["savepoint", "checkpoint", "version", "made (UTC)", "to restore"]);
    for savepoint in savepoints {
        let size = savepoint.full_bytes.map(|bytes| units::bytes(bytes as f64));
        table.add_row([
            cell(&savepoint.name),
            right(&savepoint.checkpoint.to_string()),
            right(&savepoint.version.to_string()),
            right(&utc(savepoint.unix_millis)),
            right(size.as_deref().unwrap_or("lost")),
        ]);
    }
    fit(&table)
}
