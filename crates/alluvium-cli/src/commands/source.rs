//! Which checkpoint of which job a command reads, and reading it so that no pin stays behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alluvium::{CheckpointId, CheckpointReader, ReaderOptions, RestoreFrom};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::{Failure, Result, io};
use crate::store_option::{location, parse_store_option};
use crate::units::parse_bytes;

/// The exit code of a process that was interrupted a second time.
const INTERRUPTED: i32 = 130;

/// What `--help` puts above the options of [`WhichArgs`], and above no others.
const SOURCE: &str = "Source";

#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The job: a directory, file:///…, or s3://, az://, gs:// if built with that feature
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// Read this retained checkpoint, as in 3-17 [default: the newest]
    #[arg(long, help_heading = SOURCE, value_name = "ID", conflicts_with = "savepoint")]
    checkpoint: Option<CheckpointId>,
    /// Read this savepoint
    #[arg(long, help_heading = SOURCE, value_name = "NAME")]
    savepoint: Option<String>,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated
    #[arg(long, help_heading = SOURCE, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    store_option: Vec<(String, String)>,
    /// Where a directory for the checkpoint's files is made, and removed at the end [default: the
    /// system's place for temporary files]
    #[arg(long, help_heading = SOURCE, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Memory for block cache and memtables
    #[arg(long, help_heading = SOURCE, value_name = "SIZE", default_value = "128MB", value_parser = parse_bytes)]
    memory: u64,
}

impl SourceArgs {
    /// Opens the checkpoint, has `work` done on it, and closes it whatever becomes of that.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&CheckpointReader, &Interrupt) -> Result<T>) -> Result<T> {
        let which = &self.which;
        let from = which.from();
        let mut options = ReaderOptions::new().memory(which.memory);
        if let Some(dir) = &which.dir {
            options = options.dir(dir);
        }
        let interrupt = Interrupt::new()?;
        let reader = CheckpointReader::open(location(&self.url, &which.store_option), &from, options)?;
        let done = work(&reader, &interrupt);
        let closed = reader.close();
        let done = done?;
        closed?;
        Ok(done)
    }
}

impl WhichArgs {
    pub(crate) fn from(&self) -> RestoreFrom {
        match (self.checkpoint, &self.savepoint) {
            (Some(id), _) => RestoreFrom::Checkpoint(id),
            (None, Some(name)) => RestoreFrom::Savepoint(name.clone()),
            (None, None) => RestoreFrom::Latest,
        }
    }

    pub(crate) fn store_options(&self) -> &[(String, String)] {
        &self.store_option
    }

    pub(crate) fn dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }
}

/// Notices Ctrl-C, so that what was begun can be ended in order. A second one ends the process at once.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn new() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first sets the flag, the second finds it set.
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(io("handle interrupts"))?;
        }
        Ok(Self(flag))
    }

    /// # Errors
    /// If there was one.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::new("interrupted")) } else { Ok(()) }
    }
}
