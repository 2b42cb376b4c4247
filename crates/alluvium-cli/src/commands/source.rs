//! Which checkpoint of which job a command reads, and reading it so that no pin stays behind.

use std::time::Duration;

use alluvium::admin::Pins;
use alluvium::{CheckpointId, CheckpointReader, JobLocation, ReaderOptions, RestoreFrom};
use clap::Args;

use crate::commands::job_args::JobArgs;
use crate::failure::Result;
use crate::location::Location;
use crate::output::tell;
use crate::scratch::{Scratch, TempDirArgs};
use crate::signals::{AtEnd, Grace, Interrupt, waiting};
use crate::units::parse_bytes;

/// What `--help` puts above the options of [`WhichArgs`], and above no others.
const SOURCE: &str = "Source";
/// After a signal: time to release the pin. If the store does not answer by then, the pin stays.
const RELEASE: Duration = Duration::from_millis(800);

#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
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
    /// Read the state of this operator, of a job that names several
    #[arg(long, help_heading = SOURCE, value_name = "ID")]
    pub(crate) operator: Option<String>,
    /// Write nothing into the job's store: credentials that may list and read are enough. If the running job
    /// collects the checkpoint meanwhile, reading fails and says so; savepoints stay
    #[arg(long, help_heading = SOURCE)]
    no_pin: bool,
    #[command(flatten)]
    temp: TempDirArgs,
    /// Memory for block cache and memtables
    #[arg(long, help_heading = SOURCE, value_name = "SIZE", default_value = "128MB", value_parser = parse_bytes)]
    memory: u64,
}

impl SourceArgs {
    pub(crate) fn location(&self) -> Location<'_> {
        self.job.location()
    }

    /// Opens the checkpoint, has `work` done on it, and closes it whatever becomes of that.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&CheckpointReader, &Interrupt) -> Result<T>) -> Result<T> {
        let (which, location) = (&self.which, self.location());
        let scratch = Scratch::new(which.temp_dir())?;
        let pin = !which.no_pin;
        let options = ReaderOptions::new().memory(which.memory).pin(pin).dir(scratch.path(""));
        let options = which.operator.iter().fold(options, ReaderOptions::operator);
        let from = which.from();
        let _grace = Grace::of(RELEASE);
        let reader = {
            let url = self.job.url.clone();
            let _hint = AtEnd::new(move || {
                if pin {
                    tell(format_args!("a pin may have stayed behind: see alluvium pin list {url}"));
                }
            });
            location.ask(|job| CheckpointReader::open(job, &from, options))?
        };
        let _release = reader.pin_id().map(|id| {
            let job = location.job();
            AtEnd::new(move || release(job, &id))
        });
        // What is fetched on the way may take as long as the store lets it.
        let what = format!("checkpoint {} of {}", reader.checkpoint(), location.name());
        let done = Interrupt.check().and_then(|()| waiting(what, || work(&reader, &Interrupt)));
        let closed = waiting(location.name(), || reader.close());
        let done = done.map_err(|failure| location.blame(failure))?;
        closed.map_err(|error| location.blame(error.into()))?;
        Ok(done)
    }
}

/// Releases the pin of a reader that can't do so any more.
fn release(job: JobLocation, id: &str) {
    if let Err(error) = Pins::open(job).and_then(|pins| pins.release(id)) {
        tell(format_args!("pin {id} stays behind, see alluvium pin release: {error}"));
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

    pub(crate) fn temp_dir(&self) -> Option<&std::path::Path> {
        self.temp.dir()
    }
}
