//! `alluvium state`: what states a checkpoint holds, and a new job without some of them or under other names.

use alluvium::{
    CheckpointMode, Job, JobOptions, OpenMode, Opened, OperatorSpec, SourceJob, StateDescription, StateUsage,
};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::source::SourceArgs;
use crate::display::table::{cell, empty, right};
use crate::display::width::fit;
use crate::failure::{Failure, Result};
use crate::location::Location;
use crate::output::Output;
use crate::scratch::Scratch;
use crate::signals::waiting;
use crate::units::{self, parse_bytes};

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// List the states of a checkpoint with their types, numbers of entries and bytes
    ///
    /// Reads all of the checkpoint, so that the numbers are exact. Only states that the program drops
    /// (JobOptions::drop_state) leave a job: compare the list with what the program registers.
    List(ListArgs),
    /// Make a new job of a checkpoint or savepoint, without some of its states
    ///
    /// The job that it comes from stays as it is, and may be running.
    Drop(DropArgs),
    /// Make a new job of a checkpoint or savepoint, with other names for some of its states
    ///
    /// The job that it comes from stays as it is, and may be running.
    Rename(RenameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The states to leave out
    #[arg(value_name = "STATE", required = true)]
    states: Vec<String>,
    #[command(flatten)]
    into: IntoArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The states with their new names
    #[arg(value_name = "FROM=TO", required = true, value_parser = parse_rename)]
    states: Vec<(String, String)>,
    #[command(flatten)]
    into: IntoArgs,
}

#[derive(Debug, Args)]
struct IntoArgs {
    /// Where the new job goes: an empty place
    #[arg(long, value_name = "URL")]
    into: String,
    /// Memory for block caches and memtables of all subtasks of the new job together
    #[arg(long, value_name = "SIZE", default_value = "256MB", value_parser = parse_bytes)]
    job_memory: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn parse_rename(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("write the old name, =, and the new one, as in clicks=hits".to_owned()),
    }
}

pub(crate) fn run(command: &StateCommand) -> Result<()> {
    match command {
        StateCommand::List(args) => list(args),
        StateCommand::Drop(args) => {
            let revise = Revise {
                job: &|options| args.states.iter().fold(options, JobOptions::drop_state),
                operator: &|spec| args.states.iter().fold(spec, OperatorSpec::drop_state),
            };
            let from = args.states.iter().map(String::as_str);
            revised(&args.source, &args.into, &Names { from: from.collect(), to: Vec::new() }, &revise)
        }
        StateCommand::Rename(args) => {
            let revise = Revise {
                job: &|options| {
                    args.states.iter().fold(options, |options, (from, to)| options.rename_state(from, to))
                },
                operator: &|spec| {
                    args.states.iter().fold(spec, |spec, (from, to)| spec.rename_state(from, to))
                },
            };
            let (from, to) = args.states.iter().map(|(from, to)| (from.as_str(), to.as_str())).unzip();
            revised(&args.source, &args.into, &Names { from, to }, &revise)
        }
    }
}

fn list(args: &ListArgs) -> Result<()> {
    let (checkpoint, states) = args.source.read(|reader, interrupt| {
        let mut states = Vec::new();
        for state in reader.states() {
            interrupt.check()?;
            states.push(reader.usage(state.name())?);
        }
        Ok((reader.checkpoint(), states))
    })?;
    let output = Output::of_job(args.json);
    output.write(&states, || match states.as_slice() {
        [] => format!("Checkpoint {checkpoint} has no states."),
        states => format!("Checkpoint {checkpoint}\n{}", table(states)),
    })
}

fn table(states: &[StateUsage]) -> String {
    let mut table = empty(&["state", "kind", "keys", "values", "entries", "bytes"]);
    for usage in states {
        let state = &usage.state;
        let or_none = |text: &str| if text.is_empty() { "–".to_owned() } else { text.to_owned() };
        table.add_row([
            cell(state.name()),
            cell(state.kind()),
            cell(&or_none(state.key_type())),
            cell(&or_none(state.value_type())),
            right(&usage.entries.map_or("–".to_owned(), |entries| entries.to_string())),
            right(&units::bytes(usage.bytes as f64)),
        ]);
    }
    fit(&table)
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made {
    job: String,
    checkpoint: String,
    states: Vec<String>,
}

/// The states that are meant, and what they are called afterwards; no new names where they are dropped.
struct Names<'a> {
    from: Vec<&'a str>,
    to: Vec<&'a str>,
}

impl Names<'_> {
    /// Refuses a name that is taken. Opening the new job would refuse it as well, but only after it has begun that job
    /// and pinned the old one's checkpoint.
    fn check(&self, states: &[StateDescription]) -> Result<()> {
        let stays =
            |name: &str| states.iter().any(|state| state.name() == name) && !self.from.contains(&name);
        for (index, name) in self.to.iter().enumerate() {
            if stays(name) || self.to[..index].contains(name) {
                return Err(Failure::usage(format!("two states would be called {name:?}"))
                    .hint("choose another name, or drop one of them first"));
            }
        }
        Ok(())
    }
}

/// What is done to the states of a job, or of one of its operators.
struct Revise<'a> {
    job: &'a dyn Fn(JobOptions) -> JobOptions,
    operator: &'a dyn Fn(OperatorSpec) -> OperatorSpec,
}

impl Revise<'_> {
    /// Options for a job with these operators, the chosen one revised.
    fn options(&self, options: JobOptions, operators: Vec<OperatorSpec>, chosen: Option<&str>) -> JobOptions {
        if operators.is_empty() {
            return (self.job)(options);
        }
        // The reader has refused to choose among several.
        let is_chosen = |spec: &OperatorSpec| chosen.is_none_or(|chosen| spec.id() == chosen);
        let revised =
            operators.into_iter().map(|spec| if is_chosen(&spec) { (self.operator)(spec) } else { spec });
        options.operators(revised)
    }
}

/// Makes the new job, with one checkpoint.
fn revised(source: &SourceArgs, into: &IntoArgs, names: &Names<'_>, revise: &Revise<'_>) -> Result<()> {
    let (subtasks, operators) = source.read(|reader, _| {
        for name in &names.from {
            // Has the reader say which there are.
            reader.scan(name, b"")?;
        }
        names.check(&reader.states())?;
        Ok((reader.subtasks().count(), reader.operators()))
    })?;
    let subtasks =
        u32::try_from(subtasks).map_err(|_| Failure::new("the checkpoint has too many subtasks"))?;
    let scratch = Scratch::new(source.which.temp_dir())?;
    let from = SourceJob::new(source.location().job(), source.which.from());
    let options = JobOptions::new(scratch.path("local"), OpenMode::Create)
        .subtasks(subtasks)
        // One checkpoint of files as they are, and nothing to replay.
        .mode(CheckpointMode::NativeIncremental)
        .memory(into.job_memory)
        .start_from(from);
    let new = Location::new(&into.into, &source.job.store_option);
    let options = revise.options(options, operators, source.which.operator.as_deref());
    let Opened { job, mut stores, metadata, .. } = new.ask(|job| Job::open(job, options))?;
    if names.to.is_empty() {
        // What was dropped shall not be copied.
        job.compact()?;
    }
    let pending = job.trigger(metadata.unwrap_or_default())?;
    let checkpoint = pending.id().to_string();
    let mut states = Vec::new();
    for store in &mut stores {
        let offset = store.restored_metadata().map(<[u8]>::to_vec).unwrap_or_default();
        if source.which.operator.is_none() || store.operator() == source.which.operator.as_deref() {
            states = store.states()?.iter().map(|usage| usage.state.name().to_owned()).collect();
        }
        store.cut(pending.id(), offset)?;
    }
    waiting(new.name(), || pending.wait().and_then(|_| job.close()))
        .map_err(|error| new.blame(error.into()))?;
    let made = Made { job: into.into.clone(), checkpoint, states };
    let output = Output::of_anything(into.json);
    output.write(&made, || match made.states.as_slice() {
        [] => format!("{} has checkpoint {}, without states", made.job, made.checkpoint),
        states => format!("{} has checkpoint {} with {}", made.job, made.checkpoint, states.join(", ")),
    })
}
