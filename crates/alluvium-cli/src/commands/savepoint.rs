//! `alluvium savepoint`: named checkpoints that stay until they are released.

use alluvium::CheckpointId;
use alluvium::admin::{Savepoint, Savepoints};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::job_args::JobArgs;
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
    /// What it alone kept is deleted by the running job's next garbage collection, or that of the next
    /// attempt. Whoever reads from it or goes on from it meanwhile is not disturbed.
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
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What `release --json` prints.
#[derive(Debug, Serialize)]
struct Released<'a> {
    name: &'a str,
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
        SavepointCommand::Release(args) => {
            args.job.location().ask(|job| Savepoints::open(job)?.release(&args.name))?;
            let released = Released { name: &args.name, released: true };
            Output::of_job(args.json).write(&released, || format!("savepoint {} is released", args.name))
        }
    }
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
