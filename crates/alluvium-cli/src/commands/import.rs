//! `alluvium import`: what `export` wrote, into a job.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use alluvium::{
    CheckpointMode, CheckpointReader, ErrorKind, Job, JobOptions, KeyGroup, MaxParallelism, OpenMode,
    OperatorSpec, ReaderOptions, RestoreFrom, State, StateDescription, StateStore,
};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::commands::bar::bar;
use crate::commands::job_args::JobArgs;
use crate::failure::{Failure, Result, io};
use crate::output::Output;
use crate::portable::{EntryReader, Header};
use crate::scratch::{Scratch, TempDirArgs};
use crate::signals::waiting;
use crate::units::{self, parse_bytes};

/// Bytes of a value that are written at a time.
const PIECE: usize = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    job: JobArgs,
    /// What `alluvium export` wrote, in either format; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write into states that hold something already. Keys of the file replace theirs; other keys stay
    #[arg(long)]
    into_existing: bool,
    /// Give a state of the file another name in the job; may be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_rename)]
    rename: Vec<(String, String)>,
    /// Write into this operator, of a job that names its operators; a new one if the job has none of this
    /// id. Of a job that does not exist yet it becomes the first
    #[arg(long, value_name = "ID")]
    operator: Option<String>,
    /// Parallel subtasks of the job, or of the operator, while it imports [default: as many as its newest checkpoint has, 1
    /// for a new job]. Another number is refused if the job's subtasks have stored source offsets
    #[arg(long, value_name = "N")]
    subtasks: Option<u32>,
    #[command(flatten)]
    temp: TempDirArgs,
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
    let scratch = Scratch::new(args.temp.dir())?;
    let input = Input::of(&args.file, &scratch)?;
    let bar = bar(args.quiet, 2 * input.length);
    // All of the file is read once before anything is written, so that one that is refused leaves nothing behind.
    let (mut header, source) = input.open(&bar)?;
    check(source, &input.name)?;
    header.states = renamed(header.states, &args.rename)?;
    // Looked at from outside first, so that a job that must be left alone is not even opened.
    let existing = look(args, &header, &scratch)?;

    let options = JobOptions::new(scratch.path("local"), OpenMode::CreateOrOpen)
        // Straight into files: there is nothing to coalesce, and no changelog to replay afterwards.
        .mode(CheckpointMode::NativeIncremental)
        .memory(args.memory);
    let options = shaped(options, args, existing, MaxParallelism::new(header.max_parallelism)?);
    let location = args.job.location();
    let mut opened = location.ask(|job| Job::open(job, options))?;
    let (_, source) = input.open(&bar)?;
    let wanted = opened.stores.iter_mut().filter(|store| store.operator() == args.operator.as_deref());
    let entries = fill(&mut wanted.collect::<Vec<_>>(), &header, source, &input.name)?;
    bar.finish_and_clear();

    let pending = opened.job.trigger(opened.metadata.unwrap_or_default())?;
    let checkpoint = pending.id().to_string();
    for store in &mut opened.stores {
        let offset = store.restored_metadata().map(<[u8]>::to_vec).unwrap_or_default();
        store.cut(pending.id(), offset)?;
    }
    waiting(location.name(), || pending.wait().and_then(|_| opened.job.close()))
        .map_err(|error| location.blame(error.into()))?;
    let states = header.states.iter().map(|state| state.name().to_owned()).collect();
    let imported = Imported { checkpoint, entries, states };
    let output = Output::of_anything(args.json);
    output.write(&imported, || {
        let count = units::count(imported.entries as f64);
        format!("{count} entries of {} are in checkpoint {}", imported.states.join(", "), imported.checkpoint)
    })
}

/// Reads to the end, which tells whether the file is whole.
fn check<R: BufRead>(mut source: EntryReader<R>, name: &str) -> Result<()> {
    while source.next().map_err(|error| Failure::new(format!("{name}: {error}")))?.is_some() {}
    Ok(())
}

fn parse_rename(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("write it as in old=new".to_owned()),
    }
}

/// The states as they are called in the job.
fn renamed(mut states: Vec<StateDescription>, renames: &[(String, String)]) -> Result<Vec<StateDescription>> {
    for (old, new) in renames {
        let index = states.iter().position(|state| state.name() == old).ok_or_else(|| {
            let names: Vec<_> = states.iter().map(StateDescription::name).collect();
            Failure::usage(format!("the file has no state {old:?}; it has {}", names.join(", ")))
        })?;
        if states.iter().any(|state| state.name() == new) {
            return Err(Failure::usage(format!("the file has a state {new:?} already")));
        }
        states[index] = states[index].renamed(new)?;
    }
    Ok(states)
}

/// The newest checkpoint of the job.
struct Existing {
    /// Of the job, or of the operator if it has that.
    subtasks: Option<u32>,
    operators: Vec<OperatorSpec>,
}

/// The job's operators and subtasks: as they are, but for what the arguments say.
fn shaped(
    options: JobOptions,
    args: &ImportArgs,
    existing: Option<Existing>,
    groups: MaxParallelism,
) -> JobOptions {
    let Existing { subtasks, operators } =
        existing.unwrap_or(Existing { subtasks: None, operators: Vec::new() });
    let subtasks = args.subtasks.or(subtasks).unwrap_or(1);
    let Some(id) = &args.operator else { return options.subtasks(subtasks).max_parallelism(groups) };
    let own = OperatorSpec::new(id, subtasks).max_parallelism(groups);
    let is_new = operators.iter().all(|spec| spec.id() != id);
    let there = operators.into_iter().map(|spec| if spec.id() == id { own.clone() } else { spec });
    options.operators(there.collect::<Vec<_>>().into_iter().chain(is_new.then(|| own.clone())))
}

/// The job's newest checkpoint, if there is one that the file may go into.
fn look(args: &ImportArgs, header: &Header, scratch: &Scratch) -> Result<Option<Existing>> {
    // Without a pin, because a signal would leave it behind.
    let options = ReaderOptions::new().dir(scratch.path("look")).pin(false);
    let location = args.job.location();
    let mut reader = match location.ask(|job| CheckpointReader::open(job, &RestoreFrom::Latest, options)) {
        Ok(reader) => reader,
        // No job, or no checkpoint of it.
        Err(failure) if failure.kind == Some(ErrorKind::NotFound) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let operators = reader.operators();
    let ids: Vec<_> = operators.iter().map(OperatorSpec::id).collect();
    match &args.operator {
        Some(id) if ids.contains(&id.as_str()) => reader.select(id)?,
        // It begins empty.
        Some(_) if !ids.is_empty() => {
            waiting(location.name(), || reader.close())?;
            return Ok(Some(Existing { subtasks: None, operators }));
        }
        Some(_) => return Err(Failure::usage("the job names no operators").hint("leave --operator out")),
        None if !ids.is_empty() => {
            let hint = format!("choose one of [{}], or a new one, by --operator", ids.join(", "));
            return Err(Failure::usage("the job has operators: whose state is it?").hint(&hint));
        }
        None => {}
    }
    let subtasks = reader.subtasks().count();
    let offsets = reader.subtasks().any(|(_, _, metadata)| !metadata.is_empty());
    let fits = match args.subtasks {
        // It is not known which offsets would belong to which subtask.
        Some(wanted) if offsets && wanted as usize != subtasks => Err(Failure::usage(format!(
            "the job's {subtasks} subtask(s) have stored what they go on from, which cannot be given to {wanted}"
        ))
        .hint("leave --subtasks out; the job itself may be restored at any number")),
        _ => fits(args, header, &reader),
    };
    waiting(location.name(), || reader.close())?;
    fits.map(|()| Some(Existing { subtasks: u32::try_from(subtasks).ok(), operators }))
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

/// Puts a value. What was appended to a list may be longer than what may be put at a time.
fn put(store: &mut StateStore, state: State, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> {
    let (first, mut rest) = value.split_at(value.len().min(PIECE));
    store.put(state, group, key, first)?;
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(PIECE));
        store.append(state, group, key, next)?;
        rest = after;
    }
    Ok(())
}

fn fill<R: BufRead>(
    stores: &mut [&mut StateStore],
    header: &Header,
    mut source: EntryReader<R>,
    name: &str,
) -> Result<u64> {
    let mut states: Vec<Vec<State>> = Vec::new();
    for store in stores.iter_mut() {
        let all = header.states.iter().map(|state| store.described_state(state));
        states.push(all.collect::<Result<_, _>>()?);
    }
    let mut entries = 0;
    while let Some(entry) = source.next().map_err(|error| Failure::new(format!("{name}: {error}")))? {
        let group = KeyGroup(entry.group);
        let owner = stores.iter().position(|store| store.range().contains(group));
        let wrong = || Failure::new(format!("no subtask owns key group {group}"));
        let owner = owner.ok_or_else(wrong)?;
        let state = *states.get(owner).and_then(|states| states.get(entry.state)).ok_or_else(wrong)?;
        put(stores[owner], state, group, &entry.key, &entry.value)?;
        entries += 1;
    }
    Ok(entries)
}

/// What is imported: a file that can be read twice.
struct Input {
    path: PathBuf,
    /// As messages name it.
    name: String,
    length: u64,
}

impl Input {
    /// The file; standard input is written to one first.
    fn of(path: &Path, scratch: &Scratch) -> Result<Self> {
        if path.as_os_str() != "-" {
            let name = path.display().to_string();
            let length = std::fs::metadata(path).map_err(io(format!("read {name}")))?.len();
            return Ok(Self { path: path.to_owned(), name, length });
        }
        let name = "standard input".to_owned();
        let path = scratch.path("input");
        let failed = || io(format!("keep standard input in {}", path.display()));
        let mut file = File::create(&path).map_err(failed())?;
        let (mut stdin, mut buffer, mut length) = (std::io::stdin().lock(), vec![0; 1 << 20], 0);
        loop {
            let read = stdin.read(&mut buffer).map_err(io(format!("read {name}")))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            file.write_all(bytes).map_err(failed())?;
            length += bytes.len() as u64;
        }
        Ok(Self { path, name, length })
    }

    /// Moves the bar along with what is read.
    fn open(&self, bar: &ProgressBar) -> Result<(Header, EntryReader<impl BufRead + use<>>)> {
        let file = File::open(&self.path).map_err(io(format!("read {}", self.name)))?;
        EntryReader::open(BufReader::with_capacity(1 << 20, bar.wrap_read(file)), &self.name)
    }
}
