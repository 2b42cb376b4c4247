//! `alluvium export`: the states of a checkpoint into a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use alluvium::{CheckpointReader, KeyGroup, KeyGroupRange, StateDescription};
use clap::Args;
use serde::Serialize;

use crate::commands::bar::bar;
use crate::commands::source::SourceArgs;
use crate::failure::{Failure, Result, io};
use crate::output::{Output, tell};
use crate::portable::{Header, JsonWriter, RawWriter, Sink};
use crate::scratch::Doomed;
use crate::signals::Interrupt;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Export this state; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    state: Vec<String>,
    /// Write to this file, which appears when it is whole [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Length-prefixed bytes instead of JSON lines: smaller and faster
    #[arg(long)]
    raw: bool,
    /// Print JSON: what was written to the file, or without a file the entries, which are JSON lines
    #[arg(long)]
    json: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// What `--json` prints of a file.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    file: &'a str,
    checkpoint: String,
    entries: u64,
    states: Vec<&'a str>,
}

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    if args.json && args.raw && args.output.is_none() {
        return Err(Failure::usage("--raw without --output writes bytes that are not JSON")
            .hint("leave --json out, or write to a file by --output"));
    }
    args.source.read(|reader, interrupt| {
        let states = chosen(reader.states(), &args.state, reader)?;
        let header = Header::new(reader.max_parallelism().get(), states);
        match &args.output {
            None => {
                let out = BufWriter::new(std::io::stdout().lock());
                match export(args, reader, interrupt, &header, out, "standard output") {
                    Err(failure) if failure.reader_gone => Ok(()),
                    exported => exported.map(drop),
                }
            }
            Some(path) => {
                let partial = Partial::create(path)?;
                let name = path.display().to_string();
                let out = BufWriter::new(&partial.file);
                let entries = export(args, reader, interrupt, &header, out, &name)?;
                partial.finish()?;
                if args.json {
                    let checkpoint = reader.checkpoint().to_string();
                    let states = header.states.iter().map(StateDescription::name).collect();
                    let exported = Exported { file: &name, checkpoint, entries, states };
                    return Output::of_anything(true).write(&exported, String::new);
                }
                if !args.quiet {
                    let count = units::count(entries as f64);
                    tell(format_args!("{count} entries of checkpoint {} in {name}", reader.checkpoint()));
                }
                Ok(())
            }
        }
    })
}

/// The states that were asked for, in their order.
fn chosen(
    mut states: Vec<StateDescription>,
    names: &[String],
    reader: &CheckpointReader,
) -> Result<Vec<StateDescription>> {
    for name in names {
        // Has the reader say which there are.
        reader.scan(name, b"")?;
    }
    let unkeyed: Vec<_> =
        states.iter().filter(|state| !state.is_keyed()).map(StateDescription::name).collect();
    if names.is_empty() && !unkeyed.is_empty() {
        tell(format_args!("left out, because they are not keyed: {}", unkeyed.join(", ")));
    }
    states.retain(StateDescription::is_keyed);
    if !names.is_empty() {
        states.retain(|state| names.iter().any(|name| name == state.name()));
    }
    Ok(states)
}

fn export(
    args: &ExportArgs,
    reader: &CheckpointReader,
    interrupt: &Interrupt,
    header: &Header,
    out: impl Write,
    name: &str,
) -> Result<u64> {
    let failed = || io(format!("write to {name}"));
    let mut sink: Box<dyn Sink> = if args.raw {
        Box::new(RawWriter::begin(out, header).map_err(failed())?)
    } else {
        Box::new(JsonWriter::begin(out, header.clone()).map_err(failed())?)
    };
    let groups = header.max_parallelism;
    let bar = bar(args.quiet, header.states.len() as u64 * u64::from(groups));
    for (index, state) in header.states.iter().enumerate() {
        for group in (0..groups).map(KeyGroup) {
            interrupt.check()?;
            let here = KeyGroupRange { first: group, last: group };
            for entry in reader.scan_groups(state.name(), here, b"")? {
                let (group, key, value) = entry?;
                sink.entry(index, group.0, &key, &value).map_err(failed())?;
            }
            bar.inc(1);
        }
    }
    let entries = sink.end().map_err(failed())?;
    bar.finish_and_clear();
    Ok(entries)
}

/// A file under another name until it is whole.
struct Partial {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    done: bool,
    _doomed: Doomed,
}

impl Partial {
    fn create(path: &Path) -> Result<Self> {
        // What appears at the end takes the place of whatever is there.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Failure::usage(format!("{} is not a regular file", path.display()))
                .hint("leave -o out and redirect standard output, or choose another name"));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(io(format!("write {}", partial.display())))?;
        let doomed = Doomed::new(&partial);
        Ok(Self { file, partial, path: path.to_owned(), done: false, _doomed: doomed })
    }

    fn finish(mut self) -> Result<()> {
        self.file.sync_all().map_err(io(format!("write {}", self.partial.display())))?;
        std::fs::rename(&self.partial, &self.path).map_err(io(format!(
            "rename {} to {}",
            self.partial.display(),
            self.path.display()
        )))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            // What it is good for is nothing; the failure itself was reported.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
