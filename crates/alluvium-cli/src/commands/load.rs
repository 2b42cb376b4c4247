//! `alluvium load`: one mode, one workload.

use std::path::PathBuf;
use std::time::Duration;

use alluvium::{Env, ErrorKind, OpenMode, RestoreFrom};
use clap::Args;

use crate::commands::earlier::EarlierRun;
use crate::display::table;
use crate::failure::{Failure, Result};
use crate::harness::options::{RunArgs, VerifyArgs, WorkloadArgs};
use crate::harness::progress::Progress;
use crate::harness::scenario::ScenarioArgs;
use crate::harness::session::{After, Session, judge};
use crate::harness::store::{RunStore, StoreArgs};
use crate::output::OutputArgs;
use crate::result::{Mode, Prices};
use crate::scratch::Scratch;
use crate::signals::{Grace, be_quiet};
use crate::spelling::check_url;

const KEYS: u64 = 1_000_000;

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct LoadArgs {
    /// How checkpoints are taken
    #[arg(long, value_enum, value_name = "MODE", default_value = "changelog")]
    mode: Mode,
    /// The job, where checkpoints go: a directory, file:///…, memory:///, or s3://, az://, gs:// if built
    /// with that feature [default: a temporary directory]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Local directory of the job, for RocksDB. It is left there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on from the last checkpoint that an earlier run left at URL. Workload options that are
    /// left out are those of the earlier run. All files are rewritten first, as before every run
    #[arg(long, requires = "url")]
    resume: bool,
    /// Open the job again with an empty local directory afterwards, and report how long it took
    #[arg(long)]
    restore: bool,
    #[command(flatten)]
    verify: VerifyArgs,
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
    check_url(args.url.as_deref())?;
    let verify = args.verify.or(false);
    if !args.mode.takes_checkpoints() && (verify || args.restore) {
        return Err(Failure::usage(
            "--mode none keeps no checkpoints: there is nothing to restore or verify",
        ));
    }
    let fresh = args.workload.or_default(KEYS)?;
    let output = args.output.open()?;
    if args.output.quiet {
        be_quiet();
    }
    // The restored copy lies beside the run's own local files, on the same file system.
    let scratch = Scratch::new(args.dir.as_deref().and_then(|dir| dir.parent()))?;
    let store = args.url.clone().unwrap_or_else(|| scratch.path("store").display().to_string());
    if args.resume && store.starts_with("memory:") {
        return Err(Failure::usage("nothing can be resumed from memory:///, which ends with its process"));
    }
    // Before anything is written: a job that is refused must not even be opened, which fences its owner.
    let earlier = match args.resume {
        true => Some(EarlierRun::find(args.object_store.location(&store), &RestoreFrom::Latest, false)?),
        false => None,
    };
    let workload = match &earlier {
        Some(earlier) => args.workload.resumed(&earlier.workload)?,
        None => fresh,
    };
    let interval = args.run.materialization_interval;
    let session = Session {
        mode: args.mode,
        run_store: RunStore::open(&store, &args.object_store, workload.seed, !args.resume)?,
        dir: args.dir.clone().unwrap_or_else(|| scratch.path("local")),
        materialization_interval: interval.map_or(Some(Duration::from_secs(600)), |interval| interval.0),
        run: args.run.clone(),
        scenario: args.scenario.name(),
        prices: args.prices,
        steady: None,
        after: if args.restore || verify {
            After::Restore { dir: scratch.path("restored"), verify }
        } else {
            After::Nothing
        },
    };

    let env = Env::default();
    let mode = if args.resume { OpenMode::Existing } else { OpenMode::Create };
    let opened = session.open(mode, workload.subtasks, &env).map_err(|failure| {
        if failure.kind == Some(ErrorKind::AlreadyExists) {
            let refused = Failure::usage(format!("{store} holds an earlier run"));
            return refused.hint("--resume goes on from its last checkpoint; or choose another URL");
        }
        failure
    })?;

    // From here on there is a result to keep.
    let _grace = Grace::until_done();
    let mut progress = Progress::new(session.mode.name(), args.output.quiet);
    if let Some(checkpoint) = opened.restored.checkpoint {
        progress.say(&format!("resuming from checkpoint {checkpoint}"));
    }
    let finished = session.drive(opened, &workload, &env, &mut progress)?;
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
