//! `alluvium restore-test`: a process of its own restores what `load` left behind.

use std::path::PathBuf;

use alluvium::{CheckpointId, Env, JobOptions, OpenMode, RestoreFrom};
use clap::Args;

use crate::commands::earlier::EarlierRun;
use crate::display::table;
use crate::failure::{Failure, Result, io};
use crate::harness::meter;
use crate::harness::options::VerifyArgs;
use crate::harness::progress::Progress;
use crate::harness::session::{judge, restore};
use crate::harness::store::{RunStore, StoreArgs};
use crate::output::OutputArgs;
use crate::result::{RunResult, Settings};
use crate::signals::be_quiet;
use crate::units::parse_bytes;

#[derive(Debug, Args)]
pub(crate) struct RestoreTestArgs {
    /// The job that `alluvium load` left: a directory, file:///…, or s3://, az://, gs:// if built with that
    /// feature
    #[arg(value_name = "URL")]
    url: String,
    /// Local directory to restore into; must be empty or not exist yet. It is left there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Restore this retained checkpoint, as in 3-17 [default: the newest]
    #[arg(long, value_name = "ID", conflicts_with = "savepoint")]
    checkpoint: Option<CheckpointId>,
    /// Restore this savepoint
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
    /// Go back to the newest intact checkpoint where the wanted one is damaged
    #[arg(long)]
    fallback: bool,
    /// Parallel subtasks to restore with [default: those of the run]
    #[arg(long, value_name = "N")]
    subtasks: Option<u32>,
    /// Memory for deltas, caches of records, memtables and block caches of all subtasks together
    #[arg(long, value_name = "SIZE", default_value = "512MB", value_parser = parse_bytes)]
    memory: u64,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    object_store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &RestoreTestArgs) -> Result<()> {
    let output = args.output.open()?;
    must_be_empty(&args.dir)?;
    if args.output.quiet {
        be_quiet();
    }
    let from = match (args.checkpoint, &args.savepoint) {
        (Some(id), _) => RestoreFrom::Checkpoint(id),
        (None, Some(name)) => RestoreFrom::Savepoint(name.clone()),
        (None, None) => RestoreFrom::Latest,
    };
    // Before anything is written: opening a job fences its owner.
    let earlier = EarlierRun::find(args.object_store.location(&args.url), &from, args.fallback)?;
    let EarlierRun { checkpoint, mode, workload, past_damage } = earlier;
    let streams = workload.streams().map_err(Failure::new)?;
    let subtasks = args.subtasks.unwrap_or(workload.subtasks);
    if subtasks == 0 {
        return Err(Failure::usage("--subtasks must be above 0"));
    }
    if subtasks > u32::from(workload.max_parallelism) {
        return Err(Failure::usage(format!(
            "{subtasks} subtasks are more than the {} key groups of the run",
            workload.max_parallelism
        )));
    }
    let run_store = RunStore::open(&args.url, &args.object_store, workload.seed, false)?;
    let progress = Progress::new("restore", args.output.quiet);
    progress.say(&format!("checkpoint {checkpoint} with {subtasks} subtask(s)"));

    let env = Env::default();
    let options = JobOptions::new(&args.dir, OpenMode::Existing).subtasks(subtasks).memory(args.memory);
    let named = from != RestoreFrom::Latest;
    let options = options.restore_from(from).fallback(args.fallback || past_damage);
    let machine = meter::machine();
    let verify = args.verify.or(false);
    let (mut restored, used) = restore(&run_store, mode, options, &streams, &workload, None, verify, &env)?;
    // The newest may be a newer one by now.
    if named && used != Some(checkpoint) && !args.fallback {
        return Err(Failure::new(format!("checkpoint {checkpoint} is damaged, and cannot be restored")));
    }
    restored.new_process = Some(true);
    let settings = Settings {
        rate: 0.0,
        duration_s: 0.0,
        warm_up_s: 0.0,
        checkpoint_interval_ms: None,
        materialization_interval_ms: None,
        memory_bytes: args.memory,
        read_cache_bytes: None,
        store: Some(run_store.kind.clone()),
        scenario: None,
    };
    let mut result = RunResult::new(mode, workload.spec(), settings, machine, 0.0, 0);
    result.label = Some("restore-test".to_owned());
    result.store_model = run_store.spec(&[]);
    result.rss_peak_bytes = meter::rss_peak_bytes();
    result.notes.push(match restored.page_cache_warm {
        Some(true) => "The page cache was warm: most of the store's bytes were in memory already.".to_owned(),
        Some(false) => "The page cache was cold: the store's bytes came from the disk.".to_owned(),
        None => "The page cache has no part in it: the store is not a local directory.".to_owned(),
    });
    result.restore = Some(restored);
    let verdict = judge(&result);
    output.write(&result, || {
        let mut text = table::single(&result);
        text += &format!("\n\n{}", result.notes.join("\n"));
        if let Ok(Some(verdict)) = &verdict {
            text += &format!("\nVerified {verdict}.");
        }
        text
    })?;
    verdict.map(drop)
}

/// What lies in a local directory would be used, and the restore would look faster than it is.
fn must_be_empty(dir: &std::path::Path) -> Result<()> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!("--dir {} is not empty", dir.display()))
                .hint("a restore is timed into an empty directory; choose another one")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(format!("look into {}", dir.display()))(error)),
    }
}
