//! Options that `load` and `compare` share.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Result, io};
use crate::units::{Interval, parse_bytes, parse_count, parse_duration, parse_interval};
use crate::workload::{Distribution, Operation, Workload};

/// What is done, on what. All optional, so that a resumed run can take what is not said from the run
/// before.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workload")]
pub(crate) struct WorkloadArgs {
    /// Number of keys; the load phase writes each of them once [default: 1M, compare: 500k]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) keys: Option<u64>,
    /// Size of a value [default: 100]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) value_bytes: Option<u64>,
    /// Parallel subtasks, one operator thread and one state store each [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) subtasks: Option<u32>,
    /// What a record does to its key [default: read-modify-write]
    #[arg(long, value_enum, value_name = "OP")]
    pub(crate) operation: Option<Operation>,
    /// Which keys are hit: uniform, or zipf:S with exponent S [default: uniform]
    #[arg(long, value_name = "D")]
    pub(crate) distribution: Option<Distribution>,
    /// Seed of the stream; 0 is the reference stream [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

impl WorkloadArgs {
    /// What is not said has its default.
    pub(crate) fn or_default(&self, keys: u64) -> Result<Workload> {
        self.or(&Workload {
            keys,
            value_bytes: 100,
            subtasks: 2,
            max_parallelism: alluvium::MaxParallelism::default().get(),
            operation: Operation::ReadModifyWrite,
            distribution: Distribution::Uniform,
            seed: 0,
        })
    }

    /// The workload of an earlier run, if nothing that was said contradicts it.
    pub(crate) fn resumed(&self, earlier: &Workload) -> Result<Workload> {
        let wanted = self.or(earlier)?;
        if wanted == *earlier {
            return Ok(wanted);
        }
        let json = |workload| serde_json::to_string(workload).unwrap_or_default();
        Err(Failure::usage(format!(
            "the run that is to be resumed had another workload\n  it had     {}\n  asked for  {}",
            json(earlier),
            json(&wanted)
        ))
        .hint("leave the workload's options out, or choose another --store"))
    }

    fn or(&self, other: &Workload) -> Result<Workload> {
        let workload = Workload {
            keys: self.keys.unwrap_or(other.keys),
            value_bytes: self.value_bytes.map_or(other.value_bytes, |bytes| bytes as usize),
            subtasks: self.subtasks.unwrap_or(other.subtasks),
            max_parallelism: other.max_parallelism,
            operation: self.operation.unwrap_or(other.operation),
            distribution: self.distribution.unwrap_or(other.distribution),
            seed: self.seed.unwrap_or(other.seed),
        };
        workload.validate().map_err(Failure::usage)?;
        Ok(workload)
    }
}

/// How the workload is driven and the job configured.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// Records per second of all subtasks together, open loop: what a stall delays is sent afterwards,
    /// and its latency counts from when it was due. 0: as fast as it goes
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count)]
    pub(crate) rate: u64,
    /// Length of the measured stretch
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Run this long before measuring
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,
    /// Time between two checkpoints
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(crate) checkpoint_interval: Duration,
    /// Time between two bases of a subtask in changelog mode, or none [default: load: 10m, compare:
    /// half the duration]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub(crate) materialization_interval: Option<Interval>,
    /// Memory for block caches, memtables and deltas of all subtasks together
    #[arg(long, value_name = "SIZE", default_value = "512MB", value_parser = parse_bytes)]
    pub(crate) memory: u64,
}

impl RunArgs {
    pub(crate) fn validate(&self) -> Result<()> {
        if self.duration.is_zero() {
            return Err(Failure::usage("--duration must be longer than 0"));
        }
        if self.checkpoint_interval.is_zero() {
            return Err(Failure::usage("--checkpoint-interval must be longer than 0"));
        }
        Ok(())
    }
}

/// Where results go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print the result as JSON instead of a table; with a FILE, write it there beside the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// The place of the JSON, opened before the run, so that a wrong path does not cost the result.
#[derive(Debug)]
pub(crate) enum Output {
    Text,
    JsonOnly,
    JsonFile(File, PathBuf),
}

impl OutputArgs {
    pub(crate) fn open(&self) -> Result<Output> {
        Ok(match &self.json {
            None => Output::Text,
            Some(path) if path.as_os_str() == "-" => Output::JsonOnly,
            Some(path) => {
                let file = File::create(path).map_err(io(format!("write {}", path.display())))?;
                Output::JsonFile(file, path.clone())
            }
        })
    }
}

impl Output {
    /// Prints the text or the JSON to standard output, as was asked for.
    pub(crate) fn write(self, result: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let json = || {
            serde_json::to_string_pretty(result)
                .map_err(|error| Failure::new(format!("cannot write the result as JSON: {error}")))
        };
        match self {
            Self::Text => print(&text()),
            Self::JsonOnly => print(&json()?),
            Self::JsonFile(mut file, path) => {
                writeln!(file, "{}", json()?).map_err(io(format!("write {}", path.display())))?;
                print(&text())
            }
        }
    }
}

/// Prints to standard output; a reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// `KEY=VALUE` of an object store's option.
pub(crate) fn parse_store_option(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE, as in aws_region=eu-central-1".to_owned())
}

/// Local directories of a run: below a given one, or temporary.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Removed at the end.
    temporary: tempfile::TempDir,
}

impl Scratch {
    /// A new directory, removed at the end, below `parent` or where the system keeps such.
    pub(crate) fn new(parent: Option<&std::path::Path>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("alluvium-");
        let temporary = match parent {
            None => builder.tempdir().map_err(io("create a temporary directory"))?,
            Some(parent) => {
                std::fs::create_dir_all(parent).map_err(io(format!("create {}", parent.display())))?;
                builder
                    .tempdir_in(parent)
                    .map_err(io(format!("create a directory in {}", parent.display())))?
            }
        };
        Ok(Self { temporary })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }
}
