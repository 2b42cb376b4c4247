//! `alluvium import`: what `export` wrote, into a job.

use std::fs::File;
use std::io::{BufReader, Read, Stdin};
use std::path::PathBuf;

use alluvium::{
    CheckpointMode, CheckpointReader, ErrorKind, Job, JobOptions, KeyGroup, MaxParallelism, OpenMode,
    ReaderOptions, RestoreFrom, State, StateStore,
};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::export::bar;
use crate::failure::{Failure, Result, io};
use crate::options::{Output, Scratch};
use crate::place::parse_store_option;
use crate::portable::{Header, Source};
use crate::source::Interrupt;
use crate::units::{self, parse_bytes};

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The job, new or existing: a directory, file:///…, or s3://, az://, gs:// if built with that feature
    #[arg(value_name = "URL")]
    url: String,
    /// What `alluvium export` wrote, in either format; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write into states that hold something already: keys of the file replace theirs, others stay
    #[arg(long)]
    into_existing: bool,
    /// Parallel subtasks of the job while it imports [default: as many as its newest checkpoint has, 1
    /// for a new job]. Another number than it has is refused where they have stored source offsets
    #[arg(long, value_name = "N")]
    subtasks: Option<u32>,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated. What is not given is taken
    /// from the environment, as in AWS_ACCESS_KEY_ID
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    store_option: Vec<(String, String)>,
    /// Where local files go, in a directory that is removed at the end [default: the system's place for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Memory for block caches and memtables of all subtasks together
    #[arg(long, value_name = "SIZE", default_value = "256MB", value_parser = parse_bytes)]
    memory: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Imported {
    checkpoint: String,
    entries: u64,
    states: Vec<String>,
}

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    let interrupt = Interrupt::new()?;
    let (input, name, length) = Input::open(&args.file)?;
    let bar = bar(args.quiet, length);
    let (header, source) = Source::open(BufReader::with_capacity(1 << 20, input.shown(&bar)), &name)?;
    let scratch = Scratch::new(args.dir.as_deref())?;
    // Looked at from outside first, so that a job that must be left alone is not even opened.
    let existing = look(args, &header, &scratch)?;

    let mut options = JobOptions::new(scratch.path("local"), OpenMode::CreateOrOpen)
        .subtasks(args.subtasks.or(existing).unwrap_or(1))
        .max_parallelism(MaxParallelism::new(header.max_parallelism)?)
        // Straight into files: there is nothing to coalesce, and no changelog to replay afterwards.
        .mode(CheckpointMode::NativeIncremental)
        .memory(args.memory);
    for (key, value) in &args.store_option {
        options = options.store_option(key, value);
    }
    let mut opened = Job::open(&args.url, options)?;
    let entries = fill(&mut opened.stores, &header, source, &name, &interrupt)?;
    bar.finish_and_clear();

    let pending = opened.job.trigger(opened.metadata.unwrap_or_default())?;
    let checkpoint = pending.id().to_string();
    for store in &mut opened.stores {
        let offset = store.restored_metadata().map(<[u8]>::to_vec).unwrap_or_default();
        store.cut(pending.id(), offset)?;
    }
    pending.wait()?;
    opened.job.close()?;
    let states = header.states.iter().map(|state| state.name().to_owned()).collect();
    let imported = Imported { checkpoint, entries, states };
    let output = if args.json { Output::JsonOnly } else { Output::Text };
    output.write(&imported, || {
        let count = units::count(imported.entries as f64);
        format!("{count} entries of {} are in checkpoint {}", imported.states.join(", "), imported.checkpoint)
    })
}

/// The number of subtasks of the job's newest checkpoint, if there is one that the file may go into.
fn look(args: &ImportArgs, header: &Header, scratch: &Scratch) -> Result<Option<u32>> {
    let mut options = ReaderOptions::new().dir(scratch.path("look"));
    for (key, value) in &args.store_option {
        options = options.store_option(key, value);
    }
    let reader = match CheckpointReader::open(&args.url, &RestoreFrom::Latest, options) {
        Ok(reader) => reader,
        // No job, or no checkpoint of it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let subtasks = reader.subtasks().count();
    let offsets = reader.subtasks().any(|(_, _, metadata)| !metadata.is_empty());
    let fits = match args.subtasks {
        // Nobody here can tell what of it would belong to whom.
        Some(wanted) if offsets && wanted as usize != subtasks => Err(Failure::usage(format!(
            "the job's {subtasks} subtask(s) have stored what they go on from, which cannot be given to {wanted}"
        ))
        .hint("leave --subtasks out; the job itself may be restored at any number")),
        _ => fits(args, header, &reader),
    };
    reader.close()?;
    fits.map(|()| u32::try_from(subtasks).ok())
}

fn fits(args: &ImportArgs, header: &Header, reader: &CheckpointReader) -> Result<()> {
    let groups = reader.max_parallelism().get();
    if groups != header.max_parallelism {
        return Err(Failure::new(format!(
            "the file is of a job with {} key groups, this one has {groups}: keys would not be found",
            header.max_parallelism
        )));
    }
    let there = reader.states();
    for state in &header.states {
        let Some(known) = there.iter().find(|known| known.name() == state.name()) else { continue };
        if known != state {
            return Err(Failure::new(format!(
                "state {:?} of the job is {}, with another schema than that of the file, which is {}",
                state.name(),
                known.kind(),
                state.kind()
            )));
        }
        if !args.into_existing && reader.scan(state.name(), b"")?.next().transpose()?.is_some() {
            return Err(Failure::new(format!("state {:?} of the job is not empty", state.name()))
                .hint("say --into-existing to write into it; keys of the file replace its own"));
        }
    }
    Ok(())
}

fn fill<R: std::io::BufRead>(
    stores: &mut [StateStore],
    header: &Header,
    mut source: Source<R>,
    name: &str,
    interrupt: &Interrupt,
) -> Result<u64> {
    let mut states: Vec<Vec<State>> = Vec::new();
    for store in stores.iter_mut() {
        let all = header.states.iter().map(|state| store.described_state(state));
        states.push(all.collect::<Result<_, _>>()?);
    }
    let mut entries = 0;
    while let Some(entry) = source.next().map_err(|error| Failure::new(format!("{name}: {error}")))? {
        interrupt.check()?;
        let group = KeyGroup(entry.group);
        let owner = stores.iter().position(|store| store.range().contains(group));
        let wrong = || Failure::new(format!("no subtask owns key group {group}"));
        let owner = owner.ok_or_else(wrong)?;
        let state = *states.get(owner).and_then(|states| states.get(entry.state)).ok_or_else(wrong)?;
        stores[owner].put(state, group, &entry.key, &entry.value)?;
        entries += 1;
    }
    Ok(entries)
}

/// Where the file is read from.
enum Input {
    File(File),
    Stdin(Stdin),
}

impl Input {
    /// The input, its name, and its length if it has one.
    fn open(path: &std::path::Path) -> Result<(Self, String, u64)> {
        if path.as_os_str() == "-" {
            return Ok((Self::Stdin(std::io::stdin()), "standard input".to_owned(), 0));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(io(format!("read {name}")))?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        Ok((Self::File(file), name, length))
    }

    /// Moves the bar along with what is read.
    fn shown(self, bar: &ProgressBar) -> impl Read + use<> {
        bar.wrap_read(self)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Stdin(stdin) => stdin.read(buffer),
        }
    }
}
