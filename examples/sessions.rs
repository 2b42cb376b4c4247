//! Session windows that merge: when each aircraft was in service from New York City in 2013. Departures
//! with less than a day between them are one session.
//!
//! ```text
//! cargo run --all-features --example sessions -- --store ./job --dir ./local --out sessions.csv
//! ```
//!
//! The aircraft is the key, the session the namespace: every departure begins as a session of its own, and is
//! merged with those that it touches. Rows are in order of the day that a flight was *planned* for, so one that left
//! after midnight comes a day early, and may later turn out to be in the middle of a session. A session
//! is over when no later row can reach it; a list keeps what was. `--kill-at N` ends the process there; the
//! same command without it goes on after the last checkpoint, to the same result.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alluvium::{
    CheckpointMode, Job, JobOptions, ListState, Namespaced, OpenMode, Opened, ReducingState, StateStore,
};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Departures between two checkpoints.
const CHECKPOINT_DEPARTURES: u64 = 20_000;
/// Departures that are less than this apart are of one session. In minutes, as all times here.
const GAP: u32 = DAY;
const DAY: u32 = 24 * 60;

/// When each aircraft was in service.
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
    /// Number of parallel subtasks; the same as before when a job goes on.
    #[arg(long, default_value_t = 2)]
    subtasks: u32,
    /// How checkpoints are taken.
    #[arg(long, value_enum, default_value_t = Mode::Changelog)]
    mode: Mode,
    /// End this process as a crash would once this departure, counted from 1, has been processed.
    #[arg(long, value_name = "N")]
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
    let start = match &metadata {
        Some(number) => std::str::from_utf8(number)?.parse()?,
        None => 0,
    };
    eprintln!("starting after departure {start}");

    let mut subtasks = stores.into_iter().map(Subtask::new).collect::<Result<Vec<_>>>()?;
    let mut merges = 0;
    let mut departures = Departures::open(&args.input)?;
    while let Some(departure) = departures.next()? {
        let number = departures.number;
        // What the checkpoint has seen already is in the state.
        if number <= start {
            continue;
        }
        let owner = subtasks.iter_mut().find(|subtask| subtask.owns(&departure.tailnum));
        merges += owner.ok_or("the subtasks own every key group")?.depart(&departure)?;
        if number % CHECKPOINT_DEPARTURES == 0 {
            checkpoint(&job, &mut subtasks, number)?;
        }
        if args.kill_at == Some(number) {
            std::process::abort();
        }
    }
    eprintln!("{merges} times two sessions turned out to be one");
    write_csv(&args.out, &mut subtasks)?;
    job.close()?;
    Ok(())
}

fn checkpoint(job: &Job, subtasks: &mut [Subtask], number: u64) -> Result<()> {
    let pending = job.trigger(number.to_string())?;
    for subtask in subtasks {
        subtask.store.cut(pending.id(), "")?;
    }
    pending.wait()?;
    Ok(())
}

/// The times of the first and the last departure of a session, since the beginning of the first day.
type Session = (u32, u32);

/// What is known about a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Service {
    departures: u32,
    /// Minutes; early departures count negative.
    delay: i64,
}

impl Service {
    fn and(self, other: Self) -> Self {
        Self { departures: self.departures + other.departures, delay: self.delay + other.delay }
    }
}

/// One subtask: its store, and in it the sessions of each aircraft.
struct Subtask {
    store: StateStore,
    /// Sessions that may still grow.
    open: ReducingState<Service, Namespaced<Session>>,
    /// Sessions that are over, in their order.
    over: ListState<(Session, Service)>,
}

impl Subtask {
    fn new(mut store: StateStore) -> Result<Self> {
        let open = store.register(ReducingState::descriptor("open", Service::and).namespaced())?;
        let over = store.register(ListState::descriptor("over"))?;
        Ok(Self { store, open, over })
    }

    fn owns(&self, tailnum: &str) -> bool {
        self.store.range().contains(self.store.max_parallelism().group_of_key(tailnum))
    }

    /// Adds a departure to its session; says how many times it made one of two.
    fn depart(&mut self, departure: &Departure) -> Result<usize> {
        let store = &mut self.store;
        store.set_key(departure.tailnum.as_str())?;
        let time = departure.time;
        let mut merged = (time, time);
        let mut touched = Vec::new();
        for session in self.open.namespaces(store)? {
            let session @ (first, last) = session?;
            if last + GAP <= departure.watermark {
                let service = self.open.at(&session).get(store)?.ok_or("a session without departures")?;
                self.open.at(&session).clear(store)?;
                self.over.append(store, &(session, service))?;
            } else if first < time + GAP && time < last + GAP {
                merged = (merged.0.min(first), merged.1.max(last));
                touched.push(session);
            }
        }
        self.open.merge(store, &merged, &touched)?;
        let service = Service { departures: 1, delay: departure.delay };
        self.open.at(&merged).add(store, service)?;
        Ok(touched.len().saturating_sub(1))
    }

    /// All sessions of all aircraft.
    fn sessions(&mut self) -> Result<Vec<(String, Session, Service)>> {
        let store = &mut self.store;
        let mut all = Vec::new();
        for group in store.range().groups() {
            for tailnum in self.over.keys::<str>(store, group)? {
                let tailnum = tailnum?;
                store.set_key(tailnum.as_str())?;
                let over = self.over.get(store)?;
                all.extend(over.into_iter().map(|(session, service)| (tailnum.clone(), session, service)));
            }
            for place in self.open.keys_and_namespaces::<str>(store, group)? {
                let (tailnum, session) = place?;
                store.set_key(tailnum.as_str())?;
                let service = self.open.at(&session).get(store)?.ok_or("a session without departures")?;
                all.push((tailnum, session, service));
            }
        }
        Ok(all)
    }
}

fn write_csv(out: &Path, subtasks: &mut [Subtask]) -> Result<()> {
    let mut sessions = Vec::new();
    for subtask in subtasks {
        sessions.extend(subtask.sessions()?);
    }
    sessions.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut csv =
        csv::Writer::from_path(out).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    csv.write_record(["tailnum", "first", "last", "departures", "delay"])?;
    for (tailnum, (first, last), Service { departures, delay }) in sessions {
        let numbers = [departures.to_string(), delay.to_string()];
        csv.write_record([&tailnum, &show(first), &show(last), &numbers[0], &numbers[1]])?;
    }
    Ok(csv.flush()?)
}

/// Day of the year, hour and minute.
fn show(time: u32) -> String {
    format!("{} {:02}:{:02}", time / DAY + 1, time % DAY / 60, time % 60)
}

/// A row of the input, as far as it matters here.
struct Departure {
    tailnum: String,
    time: u32,
    delay: i64,
    /// No later row has an earlier time.
    watermark: u32,
}

/// The flights that did depart. The input has no date, but the order of a day's rows: by time of departure, cancelled
/// flights last. So a day begins where the time goes back, or is known again.
struct Departures {
    csv: csv::Reader<Box<dyn Read>>,
    /// Where the columns are: `dep_time`, `dep_delay`, `tailnum`.
    columns: [usize; 3],
    /// Of the last one that was read, counted from 1.
    number: u64,
    /// From 0.
    day: u32,
    /// `dep_time` of the last row. None if it was cancelled.
    last: Option<u32>,
}

impl Departures {
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
            let column = header.iter().position(|column| column == name);
            column.ok_or_else(|| format!("the input has no column {name}"))
        };
        let columns = [find("dep_time")?, find("dep_delay")?, find("tailnum")?];
        Ok(Self { csv, columns, number: 0, day: 0, last: Some(0) })
    }

    fn next(&mut self) -> Result<Option<Departure>> {
        let mut record = csv::StringRecord::new();
        while self.csv.read_record(&mut record)? {
            // The csv reader refuses rows that are shorter or longer than the header.
            let [time, delay, tailnum] = self.columns.map(|column| &record[column]);
            if time == "NA" {
                self.last = None;
                continue;
            }
            self.number += 1;
            let wrong = |name| format!("departure {}: {name} is not a number", self.number);
            let clock: u32 = time.parse().map_err(|_| wrong("dep_time"))?;
            let delay: i64 = delay.parse().map_err(|_| wrong("dep_delay"))?;
            if self.last.is_none_or(|last| clock < last) {
                self.day += 1;
            }
            self.last = Some(clock);
            let minute = clock / 100 * 60 + clock % 100;
            // What was to depart before midnight has departed on the next day, or later still.
            let late = (delay - i64::from(minute)).max(0) as u32;
            return Ok(Some(Departure {
                tailnum: tailnum.to_owned(),
                time: (self.day + late.div_ceil(DAY)) * DAY + minute,
                delay,
                // The day is that of the plan, and nothing leaves an hour before its time.
                watermark: (self.day * DAY).saturating_sub(60),
            }));
        }
        Ok(None)
    }
}
