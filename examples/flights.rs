//! A small stream processor over real input: all flights that left New York City in 2013, counted
//! per aircraft and per route, with a checkpoint every 20,000 rows. It is one file, so that it reads
//! from top to bottom.
//!
//! ```text
//! cargo run --all-features --example flights -- --store ./job --dir ./local --out flights.csv
//! ```
//!
//! One thread reads rows and sends each to the subtask that owns the key group of its key. A barrier
//! travels in the same channels: when an operator meets it, it cuts its store. `--kill-at ROW` ends
//! the process there with SIGKILL; the same command without it goes on after the row of the last
//! checkpoint and writes the same result, byte for byte, as a run that was never killed.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use alluvium::{
    CheckpointId, CheckpointMode, ErrorKind, Job, JobOptions, MaxParallelism, OpenMode, Opened,
    PendingCheckpoint, StateStore, ValueState,
};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Rows between two checkpoints.
const CHECKPOINT_ROWS: u64 = 20_000;
/// Messages that may wait in front of one operator; the reader waits when they are more.
const CHANNEL_CAPACITY: usize = 1024;

/// Counts flights per aircraft and per route, with checkpoints.
#[derive(Debug, Parser)]
struct Args {
    /// Flights as CSV with a header line; compressed if the name ends in .zst.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv.zst"))]
    input: PathBuf,
    /// Where checkpoints go: a directory or the URL of an object store.
    #[arg(long, value_name = "URL")]
    store: String,
    /// Directory for local files.
    #[arg(long, value_name = "LOCAL_DIR")]
    dir: PathBuf,
    /// Where the result goes.
    #[arg(long, value_name = "OUT.csv")]
    out: PathBuf,
    /// Number of parallel subtasks; the same as before when a job goes on.
    #[arg(long, default_value_t = 2)]
    subtasks: u32,
    /// How checkpoints are taken.
    #[arg(long, value_enum, default_value_t = Mode::Changelog)]
    mode: Mode,
    /// Kill this process with SIGKILL once this row, counted from 1, has been processed.
    #[arg(long, value_name = "ROW")]
    kill_at: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Changelog,
    Native,
}

impl From<Mode> for CheckpointMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Changelog => Self::Changelog,
            Mode::Native => Self::NativeIncremental,
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            // What starts this again reads from it whether that would help.
            let code = error.downcast_ref::<alluvium::Error>().map_or(1, alluvium::Error::exit_code);
            ExitCode::from(code)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let options =
        JobOptions::new(&args.dir, OpenMode::CreateOrOpen).subtasks(args.subtasks).mode(args.mode.into());
    let Opened { job, stores, restored, metadata, .. } = Job::open(&args.store, options)?;

    let start = metadata.as_deref().map(row_of).transpose()?.unwrap_or(0);
    match restored.checkpoint {
        Some(id) => eprintln!("resuming after row {start} from checkpoint {id}"),
        None => eprintln!("starting at the first row"),
    }
    for store in &stores {
        // Barriers travel in line with the rows, so every subtask has cut at the same row.
        let own = store.restored_metadata().map(row_of).transpose()?.unwrap_or(0);
        if own != start {
            return Err(format!("subtask {} stands at row {own}, the job at {start}", store.subtask()).into());
        }
    }

    let router = Router::new(&stores);
    let (senders, receivers): (Vec<_>, Vec<_>) =
        stores.iter().map(|_| sync_channel(CHANNEL_CAPACITY)).unzip();
    let mut totals = thread::scope(|scope| -> Result<Vec<(String, Totals)>> {
        let operators: Vec<_> = stores
            .into_iter()
            .zip(receivers)
            .map(|(store, messages)| scope.spawn(move || operate(store, &messages)))
            .collect();
        // On the reader's return the channels close, and the operators come to their end.
        let read = Reader { job: &job, router, senders, pending: None, kill_at: args.kill_at }
            .read(&args.input, start);
        let mut totals = Vec::new();
        for operator in operators {
            // An operator's error is the cause, the reader's "has stopped" only the consequence.
            totals.extend(operator.join().map_err(|_| "an operator panicked")??);
        }
        if let Some(last) = read? {
            finish(last)?;
        }
        Ok(totals)
    })?;
    job.close()?;

    totals.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    write_csv(&args.out, &totals)
}

/// The row number that a checkpoint carries as its metadata.
fn row_of(metadata: &[u8]) -> Result<u64> {
    let bytes = metadata.try_into().map_err(|_| "the checkpoint's metadata is not a row number")?;
    Ok(u64::from_be_bytes(bytes))
}

/// What is kept for one aircraft or route.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Totals {
    flights: u64,
    cancelled: u64,
    dep_delay_sum: i64,
    /// None as long as no flight had a delay (or an early departure) on record.
    dep_delay_max: Option<i32>,
}

impl Totals {
    fn add(&mut self, departure: Departure) {
        self.flights += 1;
        self.cancelled += u64::from(departure.cancelled);
        self.dep_delay_sum += i64::from(departure.delay.unwrap_or(0));
        self.dep_delay_max = self.dep_delay_max.max(departure.delay);
    }
}

/// What a row says about its aircraft and its route.
#[derive(Debug, Clone, Copy)]
struct Departure {
    cancelled: bool,
    /// Minutes; negative if early.
    delay: Option<i32>,
}

/// What travels to an operator, in order.
enum Message {
    Record {
        key: String,
        departure: Departure,
    },
    Barrier {
        checkpoint: CheckpointId,
        row: u64,
    },
    /// Answered once everything before it has been processed.
    Flush(SyncSender<()>),
}

/// One subtask: owns its store, applies records, cuts at barriers; at the end it reads its state out.
fn operate(mut store: StateStore, messages: &Receiver<Message>) -> Result<Vec<(String, Totals)>> {
    let totals: ValueState<Totals> = store.register(ValueState::descriptor("totals"))?;
    for message in messages {
        match message {
            Message::Record { key, departure } => {
                store.set_key(&key)?;
                let mut value = totals.get(&store)?.unwrap_or_default();
                value.add(departure);
                totals.put(&mut store, &value)?;
            }
            Message::Barrier { checkpoint, row } => {
                store.cut(checkpoint, row.to_be_bytes())?;
            }
            // The reader may have given up waiting; then nobody needs the answer.
            Message::Flush(done) => _ = done.send(()),
        }
    }
    let mut all = Vec::new();
    for group in store.range().groups() {
        for entry in totals.entries::<str>(&store, group)? {
            all.push(entry?);
        }
    }
    Ok(all)
}

/// Which subtask owns which key.
struct Router {
    max_parallelism: MaxParallelism,
    subtasks: u32,
}

impl Router {
    fn new(stores: &[StateStore]) -> Self {
        let max_parallelism =
            stores.first().map_or_else(MaxParallelism::default, StateStore::max_parallelism);
        Self { max_parallelism, subtasks: stores.len() as u32 }
    }

    fn subtask_of(&self, key: &str) -> usize {
        let group = self.max_parallelism.group_of_key(key);
        let subtask = self.max_parallelism.subtask_of(group, self.subtasks);
        subtask.expect("a job has a subtask for each of its key groups").0 as usize
    }
}

/// Reads the input, routes its rows, and coordinates checkpoints.
struct Reader<'a> {
    job: &'a Job,
    router: Router,
    senders: Vec<SyncSender<Message>>,
    /// The checkpoint that is still on its way; the stream flows on meanwhile.
    pending: Option<PendingCheckpoint>,
    kill_at: Option<u64>,
}

impl Reader<'_> {
    /// Reads everything after row `start`; returns the checkpoint that is still on its way.
    fn read(mut self, input: &Path, start: u64) -> Result<Option<PendingCheckpoint>> {
        let mut csv = csv::Reader::from_reader(open(input)?);
        let columns = Columns::find(csv.headers()?)?;
        let mut row = 0;
        let mut record = csv::StringRecord::new();
        while csv.read_record(&mut record)? {
            row += 1;
            // What the checkpoint has seen already is in the state.
            if row <= start {
                continue;
            }
            let parsed = columns.parse(&record).map_err(|error| format!("row {row}: {error}"))?;
            self.route(&parsed)?;
            if row % CHECKPOINT_ROWS == 0 {
                self.checkpoint(row)?;
            }
            if self.kill_at == Some(row) {
                self.flush()?;
                kill_this_process()?;
            }
        }
        if row < start {
            return Err(
                format!("the input ends at row {row}, but the job stands at row {start} already").into()
            );
        }
        Ok(self.pending)
    }

    fn route(&self, row: &Row<'_>) -> Result<()> {
        let departure = row.departure;
        let aircraft = row.tailnum.map(|tailnum| format!("aircraft/{tailnum}"));
        let route = format!("route/{}-{}", row.origin, row.dest);
        for key in aircraft.into_iter().chain([route]) {
            self.send(self.router.subtask_of(&key), Message::Record { key, departure })?;
        }
        Ok(())
    }

    /// Sends a barrier down every channel; what follows it belongs to the next checkpoint.
    fn checkpoint(&mut self, row: u64) -> Result<()> {
        if let Some(previous) = self.pending.take() {
            finish(previous)?;
        }
        let pending = self.job.trigger(row.to_be_bytes())?;
        for subtask in 0..self.senders.len() {
            self.send(subtask, Message::Barrier { checkpoint: pending.id(), row })?;
        }
        self.pending = Some(pending);
        Ok(())
    }

    /// Waits until the operators have processed all that was sent.
    fn flush(&self) -> Result<()> {
        let (done, answers) = sync_channel(self.senders.len());
        for subtask in 0..self.senders.len() {
            self.send(subtask, Message::Flush(done.clone()))?;
        }
        drop(done);
        if answers.iter().count() == self.senders.len() {
            Ok(())
        } else {
            Err("an operator has stopped".into())
        }
    }

    fn send(&self, subtask: usize, message: Message) -> Result<()> {
        self.senders[subtask].send(message).map_err(|_| format!("operator {subtask} has stopped").into())
    }
}

/// Waits for a checkpoint. One that was given up harms nothing: the next carries what it had.
fn finish(pending: PendingCheckpoint) -> Result<()> {
    let id = pending.id();
    match pending.wait() {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable) => {
            eprintln!("checkpoint {id} failed, going on: {error}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A row of the input, as far as it matters here.
struct Row<'a> {
    tailnum: Option<&'a str>,
    origin: &'a str,
    dest: &'a str,
    departure: Departure,
}

/// Where the columns are, found by their names.
struct Columns {
    dep_time: usize,
    dep_delay: usize,
    tailnum: usize,
    origin: usize,
    dest: usize,
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Self> {
        let find = |name: &str| {
            header
                .iter()
                .position(|column| column == name)
                .ok_or_else(|| format!("the input has no column {name}"))
        };
        Ok(Self {
            dep_time: find("dep_time")?,
            dep_delay: find("dep_delay")?,
            tailnum: find("tailnum")?,
            origin: find("origin")?,
            dest: find("dest")?,
        })
    }

    fn parse<'a>(&self, record: &'a csv::StringRecord) -> Result<Row<'a>> {
        // The csv reader refuses rows that are shorter or longer than the header.
        let known = |column: usize| Some(&record[column]).filter(|value| *value != "NA");
        let delay = known(self.dep_delay)
            .map(|text| text.parse().map_err(|_| format!("dep_delay {text:?} is not a number of minutes")))
            .transpose()?;
        Ok(Row {
            tailnum: known(self.tailnum),
            origin: &record[self.origin],
            dest: &record[self.dest],
            departure: Departure { cancelled: known(self.dep_time).is_none(), delay },
        })
    }
}

fn open(input: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(input).map_err(|error| format!("cannot open {}: {error}", input.display()))?;
    if input.extension().is_some_and(|extension| extension == "zst") {
        Ok(Box::new(zstd::Decoder::new(file)?))
    } else {
        Ok(Box::new(BufReader::new(file)))
    }
}

/// Writes beside `out` first and renames, so that `out` is never half a result.
fn write_csv(out: &Path, totals: &[(String, Totals)]) -> Result<()> {
    let part = out.with_extension("part");
    let context = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", part.display());
    let mut csv = csv::Writer::from_path(&part).map_err(|error| context(&error))?;
    csv.write_record(["key", "flights", "cancelled", "dep_delay_sum", "dep_delay_max"])?;
    for (key, totals) in totals {
        csv.write_record([
            key.as_str(),
            &totals.flights.to_string(),
            &totals.cancelled.to_string(),
            &totals.dep_delay_sum.to_string(),
            &totals.dep_delay_max.map_or_else(String::new, |max| max.to_string()),
        ])?;
    }
    csv.flush().map_err(|error| context(&error))?;
    std::fs::rename(&part, out)
        .map_err(|error| format!("cannot rename {} to {}: {error}", part.display(), out.display()).into())
}

/// As `kill -9` from outside: no destructor runs, nothing is flushed. The shell's own `kill` is used,
/// because a minimal system has no program of that name.
fn kill_this_process() -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", "kill -KILL \"$1\"", "sh", &std::process::id().to_string()])
        .status()?;
    // Only reached if the signal has not arrived yet, or if it was refused.
    if !status.success() {
        return Err("cannot kill this process".into());
    }
    loop {
        thread::park();
    }
}
