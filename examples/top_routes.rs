//! The five busiest routes of each airport on each day, from all flights that left New York City in
//! 2013: a map for each airport and day, and a timer in event time that reads it out when the day is over.
//!
//! ```text
//! cargo run --all-features --example top_routes -- --store ./job --dir ./local --out top.csv
//! ```
//!
//! The airport is the key, the day the namespace. The source's watermark is the beginning of the day
//! that it reads; when it moves on, the timers of the day before fire. Results are written at once, and
//! each checkpoint carries the length of the file: a run that goes on from a checkpoint cuts off what was
//! written after it, so that nothing is in it twice. `--kill-at ROW` ends the process there; the same
//! command without it goes on.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alluvium::{
    CheckpointMode, Job, JobOptions, MapState, Namespaced, OpenMode, Opened, StateStore, TimeDomain,
    TimerService,
};
use clap::{Parser, ValueEnum};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Days between two checkpoints.
const CHECKPOINT_DAYS: u32 = 20;
/// Routes of an airport and day that are written.
const TOP: usize = 5;
/// Event time is in minutes since the beginning of the first day.
const MINUTES_PER_DAY: i64 = 24 * 60;

/// The busiest routes of each airport and day.
#[derive(Debug, Parser)]
struct Args {
    /// Flights as CSV with a header line, in order of day; compressed if the name ends in .zst.
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
    /// Number of parallel subtasks.
    #[arg(long, default_value_t = 2)]
    subtasks: u32,
    /// How checkpoints are taken.
    #[arg(long, value_enum, default_value_t = Mode::Changelog)]
    mode: Mode,
    /// End this process as a crash would once this row, counted from 1, has been processed.
    #[arg(long, value_name = "ROW")]
    kill_at: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Changelog,
    Native,
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
    let mode = match args.mode {
        Mode::Changelog => CheckpointMode::Changelog,
        Mode::Native => CheckpointMode::NativeIncremental,
    };
    let options = JobOptions::new(&args.dir, OpenMode::CreateOrOpen).subtasks(args.subtasks).mode(mode);
    let Opened { job, stores, metadata, .. } = Job::open(&args.store, options)?;
    let start = metadata.as_deref().map(Position::decode).transpose()?.unwrap_or_default();
    eprintln!("starting after row {} on day {}", start.row, start.day);

    let out = Output::open(&args.out, start.written)?;
    let subtasks = stores.into_iter().map(Subtask::new).collect::<Result<Vec<_>>>()?;
    let mut program = Program { job, subtasks, out, day: start.day };
    let mut rows = Rows::open(&args.input)?;
    while let Some(row) = rows.next()? {
        // What the checkpoint has seen already is in the state.
        if rows.row <= start.row {
            continue;
        }
        if row.day > program.day {
            program.advance_to(row.day)?;
            // The rows before this one belong to the checkpoint.
            if program.day.is_multiple_of(CHECKPOINT_DAYS) {
                program.checkpoint(rows.row - 1)?;
            }
        }
        program.process(&row)?;
        if args.kill_at == Some(rows.row) {
            std::process::abort();
        }
    }
    program.advance_to(u32::MAX)?;
    program.job.close()?;
    Ok(())
}

/// What a checkpoint carries.
#[derive(Debug, Default)]
struct Position {
    /// The last row that it has seen, and the day that the rows after it belong to.
    row: u64,
    day: u32,
    /// Length of the result in bytes.
    written: u64,
}

impl Position {
    fn encode(&self) -> String {
        format!("{} {} {}", self.row, self.day, self.written)
    }

    fn decode(metadata: &[u8]) -> Result<Self> {
        let mut numbers = std::str::from_utf8(metadata)?.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().ok_or("the checkpoint's metadata is not a position");
        Ok(Self { row: next()??, day: u32::try_from(next()??)?, written: next()?? })
    }
}

struct Program {
    job: Job,
    subtasks: Vec<Subtask>,
    out: Output,
    /// The day that is under way; before the first it is 0.
    day: u32,
}

impl Program {
    fn process(&mut self, row: &Row) -> Result<()> {
        // A cancelled flight tells the day, but has not departed.
        if row.cancelled {
            return Ok(());
        }
        let owner = self.subtasks.iter_mut().find(|subtask| subtask.owns(&row.origin));
        owner.ok_or("the subtasks own every key group")?.count(row)
    }

    /// Moves the watermark to the beginning of `day`, and writes what fires.
    fn advance_to(&mut self, day: u32) -> Result<()> {
        self.day = day;
        let mut fired = Vec::new();
        for subtask in &mut self.subtasks {
            subtask.fire(beginning_of(day), &mut fired)?;
        }
        // Each subtask's are in order.
        fired.sort_by(|a, b| (a.day, &a.origin).cmp(&(b.day, &b.origin)));
        fired.iter().try_for_each(|day| self.out.write(day))?;
        Ok(self.out.file.flush()?)
    }

    fn checkpoint(&mut self, row: u64) -> Result<()> {
        self.out.file.get_ref().sync_data()?;
        let position = Position { row, day: self.day, written: self.out.written };
        let pending = self.job.trigger(position.encode())?;
        for subtask in &mut self.subtasks {
            subtask.store.cut(pending.id(), "")?;
        }
        pending.wait()?;
        Ok(())
    }
}

/// Minutes from the beginning of day 1 to that of `day`.
fn beginning_of(day: u32) -> i64 {
    (i64::from(day) - 1) * MINUTES_PER_DAY
}

/// One subtask: its store, and in it departures by airport, day and destination, and a timer for each airport's day.
struct Subtask {
    store: StateStore,
    departures: MapState<String, u64, Namespaced<u32>>,
    ends: TimerService<str, u32>,
}

/// The busiest routes of an airport on one day.
struct TopRoutes {
    day: u32,
    origin: String,
    /// Destination and departures, the most first.
    routes: Vec<(String, u64)>,
}

impl Subtask {
    fn new(mut store: StateStore) -> Result<Self> {
        let departures = store.register(MapState::descriptor("departures").namespaced())?;
        let ends = store.timer_service(TimerService::descriptor("ends of days"))?;
        Ok(Self { store, departures, ends })
    }

    fn owns(&self, origin: &str) -> bool {
        self.store.range().contains(self.store.max_parallelism().group_of_key(origin))
    }

    fn count(&mut self, row: &Row) -> Result<()> {
        let store = &mut self.store;
        store.set_key(row.origin.as_str())?;
        let departures = self.departures.at(&row.day);
        let count = departures.get(store, &row.dest)?.unwrap_or(0);
        departures.put(store, &row.dest, &(count + 1))?;
        // Each row registers the same timer; it is there once.
        self.ends.register(store, TimeDomain::Event, beginning_of(row.day + 1), &row.day)?;
        Ok(())
    }

    fn fire(&mut self, watermark: i64, fired: &mut Vec<TopRoutes>) -> Result<()> {
        let store = &mut self.store;
        while let Some(timer) = self.ends.pop_due(store, TimeDomain::Event, watermark)? {
            store.set_key(timer.key.as_str())?;
            let departures = self.departures.at(&timer.namespace);
            let mut routes = departures.iter(store)?.collect::<alluvium::Result<Vec<_>>>()?;
            departures.clear(store)?;
            routes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            routes.truncate(TOP);
            fired.push(TopRoutes { day: timer.namespace, origin: timer.key, routes });
        }
        Ok(())
    }
}

/// The result, which grows as days end.
struct Output {
    file: BufWriter<File>,
    written: u64,
}

impl Output {
    /// Goes on behind the first `written` bytes.
    fn open(path: &Path, written: u64) -> Result<Self> {
        let context = |error| format!("cannot open {}: {error}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).write(true).open(path).map_err(context)?;
        if file.metadata()?.len() < written {
            return Err(format!("{} is shorter than the checkpoint says", path.display()).into());
        }
        file.set_len(written)?;
        file.seek(SeekFrom::End(0))?;
        let mut output = Self { file: BufWriter::new(file), written };
        if written == 0 {
            output.line("day,origin,rank,dest,departures")?;
        }
        Ok(output)
    }

    fn write(&mut self, top: &TopRoutes) -> Result<()> {
        for (rank, (dest, departures)) in (1..).zip(&top.routes) {
            self.line(&format!("{},{},{rank},{dest},{departures}", top.day, top.origin))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}")?;
        self.written += line.len() as u64 + 1;
        Ok(())
    }
}

/// A row of the input, as far as it matters here.
struct Row {
    /// From 1.
    day: u32,
    origin: String,
    dest: String,
    cancelled: bool,
}

/// The input. It has no date, but the order of a day's rows: by time of departure, cancelled flights
/// last. So a day begins where the time goes back, or is known again.
struct Rows {
    csv: csv::Reader<Box<dyn Read>>,
    dep_time: usize,
    origin: usize,
    dest: usize,
    /// The last row that was read, counted from 1.
    row: u64,
    day: u32,
    /// Time of departure of the last row, 2400 at most. None if it was cancelled.
    last: Option<u32>,
}

impl Rows {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        let input: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "zst") {
            Box::new(zstd::Decoder::new(file)?)
        } else {
            Box::new(BufReader::new(file))
        };
        let mut csv = csv::Reader::from_reader(input);
        let header = csv.headers()?.clone();
        let find = |name: &str| {
            header
                .iter()
                .position(|column| column == name)
                .ok_or_else(|| format!("the input has no column {name}"))
        };
        let (dep_time, origin, dest) = (find("dep_time")?, find("origin")?, find("dest")?);
        Ok(Self { csv, dep_time, origin, dest, row: 0, day: 1, last: Some(0) })
    }

    fn next(&mut self) -> Result<Option<Row>> {
        let mut record = csv::StringRecord::new();
        if !self.csv.read_record(&mut record)? {
            return Ok(None);
        }
        self.row += 1;
        // The csv reader refuses rows that are shorter or longer than the header.
        let time = match &record[self.dep_time] {
            "NA" => None,
            text => Some(text.parse::<u32>().map_err(|_| {
                format!("row {}: dep_time {text:?} is not a time of day as in 1830", self.row)
            })?),
        };
        if time.is_some_and(|time| self.last.is_none_or(|last| time < last)) {
            self.day += 1;
        }
        self.last = time;
        Ok(Some(Row {
            day: self.day,
            origin: record[self.origin].to_owned(),
            dest: record[self.dest].to_owned(),
            cancelled: time.is_none(),
        }))
    }
}
