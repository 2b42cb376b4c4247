//! `alluvium load`: one mode, one workload.

use std::path::PathBuf;

use alluvium::{CheckpointMode, Env, ErrorKind, OpenMode};
use clap::{Args, ValueEnum};

use crate::failure::{Failure, Result};
use crate::job::Location;
use crate::options::{OutputArgs, RunArgs, Scratch, WorkloadArgs, parse_store_option};
use crate::progress::Progress;
use crate::session::{After, Session, judge, mode_name};
use crate::table;
use crate::workload::Workload;

const KEYS: u64 = 1_000_000;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// How checkpoints are taken
    #[arg(long, value_enum, default_value = "changelog")]
    mode: Mode,
    /// Where checkpoints go: a directory, file:///…, memory:///, or s3://, az://, gs:// if built with
    /// that feature [default: a temporary directory]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    store_option: Vec<(String, String)>,
    /// Local directory for RocksDB [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on from the last checkpoint that an earlier run left at --store. Workload options that are
    /// left out are those of the earlier run
    #[arg(long, requires = "store")]
    resume: bool,
    /// Open the job again with an empty local directory afterwards, and report how long it took
    #[arg(long)]
    restore: bool,
    /// Check every key after the restore against the state that the stream must lead to (implies
    /// --restore)
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Log every change; SST files follow in the background
    Changelog,
    /// RocksDB's own incremental checkpoints
    Native,
}

impl From<Mode> for CheckpointMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Changelog => Self::Changelog,
            Mode::Native => Self::NativeIncremental,
        }
    }
}

pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    args.run.validate()?;
    let fresh = args.workload.or_default(KEYS)?;
    let output = args.output.open()?;
    // The restored copy lies beside the run's own local files, on the same file system.
    let scratch = Scratch::new(args.dir.as_deref().and_then(|dir| dir.parent()))?;
    let store = args.store.clone().unwrap_or_else(|| scratch.path("store").display().to_string());
    let location = Location::new(&store, &args.store_option);
    let interval = args.run.materialization_interval;
    let session = Session {
        mode: args.mode.into(),
        dir: args.dir.clone().unwrap_or_else(|| scratch.path("local")),
        materialization_interval: interval.map_or(Some(std::time::Duration::from_secs(600)), |i| i.0),
        run: args.run.clone(),
        steady: None,
        after: if args.restore || args.verify {
            After::Restore { dir: scratch.path("restored"), verify: args.verify }
        } else {
            After::Nothing
        },
        location,
    };

    let env = Env::default();
    let (opened, workload) = if args.resume {
        let subtasks = match args.workload.subtasks {
            Some(subtasks) => subtasks,
            None => earlier_subtasks(&store, &args.store_option)?.unwrap_or(fresh.subtasks),
        };
        let opened = session.open(OpenMode::Existing, subtasks, &env)?;
        let workload = match &opened.metadata {
            // The earlier run ended before its first checkpoint.
            None => Workload { subtasks, ..fresh },
            Some(metadata) => args.workload.resumed(&earlier_workload(metadata)?)?,
        };
        (opened, workload)
    } else {
        let opened = session.open(OpenMode::Create, fresh.subtasks, &env).map_err(|failure| {
            if failure.kind == Some(ErrorKind::AlreadyExists) {
                let refused = Failure::usage(failure.to_string());
                return refused.hint("--resume goes on from its last checkpoint; or choose another --store");
            }
            failure
        })?;
        (opened, fresh)
    };

    let mut progress = Progress::new(mode_name(session.mode), args.output.quiet);
    if let Some(checkpoint) = opened.restored.checkpoint {
        progress.say(&format!("resuming from checkpoint {checkpoint}"));
    }
    let report = session.drive(opened, &workload, &env, &mut progress)?;
    let verdict = judge(&report);
    output.write(&report, || {
        let mut text = table::single(&report);
        if let Ok(Some(verdict)) = &verdict {
            text += &format!("\n\nVerified {verdict}.");
        }
        text
    })?;
    verdict.map(drop)
}

fn earlier_workload(metadata: &[u8]) -> Result<Workload> {
    serde_json::from_slice(metadata).map_err(|error| {
        Failure::new(format!(
            "the checkpoint was not written by `alluvium load`: its metadata is not a workload: {error}"
        ))
    })
}

/// The number of subtasks of the newest checkpoint.
fn earlier_subtasks(url: &str, options: &[(String, String)]) -> Result<Option<u32>> {
    if url.starts_with("memory:") {
        return Err(Failure::usage("nothing can be resumed from memory:///, which ends with its process"));
    }
    let inspection = alluvium::inspect(url, options)?;
    let newest = inspection.records.iter().rev().find_map(|record| record.checkpoint.as_ref());
    Ok(newest.map(|checkpoint| checkpoint.subtasks.len() as u32))
}
