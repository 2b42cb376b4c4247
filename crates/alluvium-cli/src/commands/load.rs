//! `alluvium load`: one mode, one workload.

use std::path::PathBuf;
use std::time::Duration;

use alluvium::{Env, ErrorKind, OpenMode};
use clap::Args;

use crate::display::table;
use crate::failure::{Failure, Result};
use crate::harness::options::{RunArgs, WorkloadArgs, modes};
use crate::harness::progress::Progress;
use crate::harness::scenario::ScenarioArgs;
use crate::harness::session::{After, Session, judge};
use crate::harness::store::{RunStore, StoreArgs};
use crate::harness::workload::Workload;
use crate::output::OutputArgs;
use crate::result::{Mode, Prices};
use crate::scratch::Scratch;
use crate::signals::interrupt_flag;
use crate::store_option::location;

const KEYS: u64 = 1_000_000;

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct LoadArgs {
    /// How checkpoints are taken
    #[arg(long, value_parser = modes(), default_value = "changelog")]
    mode: Mode,
    /// Where checkpoints go: a directory, file:///…, memory:///, or s3://, az://, gs:// if built with
    /// that feature [default: a temporary directory]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Local directory for RocksDB [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on from the last checkpoint that an earlier run left at --store. Workload options that are
    /// left out are those of the earlier run. All files are rewritten first, as before every run
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
    pub(crate) scenario: ScenarioArgs,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    object_store: StoreArgs,
    #[command(flatten)]
    prices: Prices,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    args.run.validate()?;
    if args.mode == Mode::None && (args.verify || args.restore) {
        return Err(Failure::usage(
            "--mode none keeps no checkpoints: there is nothing to restore or verify",
        ));
    }
    let fresh = args.workload.or_default(KEYS)?;
    let output = args.output.open()?;
    let interrupt = interrupt_flag()?;
    // The restored copy lies beside the run's own local files, on the same file system.
    let scratch = Scratch::new(args.dir.as_deref().and_then(|dir| dir.parent()))?;
    let store = args.store.clone().unwrap_or_else(|| scratch.path("store").display().to_string());
    if args.resume && store.starts_with("memory:") {
        return Err(Failure::usage("nothing can be resumed from memory:///, which ends with its process"));
    }
    let interval = args.run.materialization_interval;
    let session = Session {
        mode: args.mode,
        place: RunStore::open(&store, &args.object_store, fresh.seed, !args.resume)?,
        dir: args.dir.clone().unwrap_or_else(|| scratch.path("local")),
        materialization_interval: interval.map_or(Some(Duration::from_secs(600)), |interval| interval.0),
        run: args.run.clone(),
        scenario: args.scenario.name(),
        prices: args.prices,
        steady: None,
        after: if args.restore || args.verify {
            After::Restore { dir: scratch.path("restored"), verify: args.verify }
        } else {
            After::Nothing
        },
    };

    let env = Env::default();
    let (opened, workload) = if args.resume {
        let subtasks = match args.workload.subtasks {
            Some(subtasks) => subtasks,
            None => earlier_subtasks(&store, &args.object_store)?.unwrap_or(fresh.subtasks),
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
                let refused = Failure::usage(format!("{store} holds an earlier run"));
                return refused.hint("--resume goes on from its last checkpoint; or choose another --store");
            }
            failure
        })?;
        (opened, fresh)
    };

    let mut progress = Progress::new(session.mode.name(), args.output.quiet);
    if let Some(checkpoint) = opened.restored.checkpoint {
        progress.say(&format!("resuming from checkpoint {checkpoint}"));
    }
    let finished = session.drive(opened, &workload, &env, &mut progress, &interrupt)?;
    let verdict = judge(&finished.result);
    output.write(&finished.result, || {
        let mut text = table::single(&finished.result);
        if let Ok(Some(verdict)) = &verdict {
            text += &format!("\n\nVerified {verdict}.");
        }
        text
    })?;
    match finished.failure {
        Some(failure) => Err(failure),
        None => verdict.map(drop),
    }
}

/// The workload that rides in a checkpoint.
pub(crate) fn earlier_workload(metadata: &[u8]) -> Result<Workload> {
    serde_json::from_slice(metadata).map_err(|_| {
        Failure::new("the checkpoint was not written by `alluvium load`: its metadata is not a workload")
    })
}

/// The number of subtasks of the newest checkpoint.
fn earlier_subtasks(url: &str, store: &StoreArgs) -> Result<Option<u32>> {
    let inspection = alluvium::admin::inspect(location(url, &store.store_option))?;
    let newest = inspection.records.iter().rev().find_map(|record| record.checkpoint.as_ref());
    Ok(newest.map(|checkpoint| checkpoint.subtasks.len() as u32))
}
