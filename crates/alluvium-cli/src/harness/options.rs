//! Options that `load` and `compare` share.

use std::time::Duration;

use alluvium::JobOptions;
use clap::Args;

use crate::failure::{Failure, Result};
use crate::harness::store::PlannedOutage;
use crate::harness::workload::{Distribution, Operation, Workload};
use crate::units::{Interval, parse_bytes, parse_count, parse_duration, parse_interval};

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
        let fields = |workload| match serde_json::to_value(workload) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (had, asked) = (fields(earlier), fields(&wanted));
        let differ = asked.iter().filter(|(name, value)| had.get(*name) != Some(value));
        let differ = differ.map(|(name, value)| match had.get(name) {
            Some(had) => format!("\n  {name}: it had {had}, you asked for {value}"),
            None => format!("\n  {name}: you asked for {value}"),
        });
        Err(Failure::usage(format!(
            "the run that is to be resumed had another workload{}",
            differ.collect::<String>()
        ))
        .hint("leave the workload's options out, or choose another URL; restore-test restores at any --subtasks"))
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

/// Whether a restored state is checked.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct VerifyArgs {
    /// Check every key after the restore against the state that the stream must lead to; exit code 1 if any is
    /// missing, wrong or extra. `load` restores for it [default: compare: true, otherwise false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    verify: Option<bool>,
}

impl VerifyArgs {
    pub(crate) fn or(self, default: bool) -> bool {
        self.verify.unwrap_or(default)
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
    /// Memory for deltas, caches of records, memtables and block caches of all subtasks together
    #[arg(long, value_name = "SIZE", default_value = "512MB", value_parser = parse_bytes)]
    pub(crate) memory: u64,
    /// Flushes and compactions of RocksDB at a time [default: by cores]
    #[arg(long, value_name = "N")]
    pub(crate) background_jobs: Option<usize>,
    /// SST files that all subtasks together keep open [default: by the limit of open files]
    #[arg(long, value_name = "N")]
    pub(crate) max_open_files: Option<u32>,
    /// Set an option of RocksDB, as in compression=kZSTD; may be given several times. The error for
    /// one that may not be set lists those that may
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_assignment)]
    pub(crate) rocksdb: Vec<(String, String)>,
    /// Let the store fail every request for a time of the measured stretch, as in 30s@60s: for 30 s, from
    /// second 60; several with a comma between
    #[arg(long, value_name = "LENGTH@START", value_delimiter = ',', action = clap::ArgAction::Set)]
    pub(crate) outage: Vec<PlannedOutage>,
    /// End the run when nothing has got on for so long, with the figures so far
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub(crate) patience: Duration,
    /// What the report calls this run [default: the scenario's name]
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
}

fn parse_assignment(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has the form NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl RunArgs {
    /// What a job's options say about memory and RocksDB.
    pub(crate) fn tune(&self, mut options: JobOptions) -> JobOptions {
        options = options.memory(self.memory);
        if let Some(jobs) = self.background_jobs {
            options = options.background_jobs(jobs);
        }
        if let Some(files) = self.max_open_files {
            options = options.max_open_files(files);
        }
        let set = |options: JobOptions, (name, value): &(String, String)| options.rocksdb_option(name, value);
        self.rocksdb.iter().fold(options, set)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let options = [
            ("--duration", self.duration),
            ("--checkpoint-interval", self.checkpoint_interval),
            ("--patience", self.patience),
        ];
        match options.iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => Err(Failure::usage(format!("{name} must be longer than 0"))),
            None => Ok(()),
        }
    }
}
