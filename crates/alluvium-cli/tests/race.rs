//! Two supervisors race on one job, while processes and supervisors are killed at random: its output is exact,
//! because each start fences all earlier ones. The program that they supervise is this test program itself.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use alluvium::{Job, JobOptions, OpenMode, Opened, StateStore, ValueState};
use alluvium_supervisor::Place;
use alluvium_testkit::now;

use crate::run::command;

/// Where the race takes place, and who the supervisor is: both only for the program that is supervised.
const HOME: &str = "ALLUVIUM_TEST_RACE";
const RACER: &str = "ALLUVIUM_TEST_RACER";

/// Numbers between two checkpoints.
const CHUNK: u64 = 50;
/// Keys that are counted.
const KEYS: u64 = 10;
/// The longest that a process, or a supervisor, lives before it is killed: long enough that some get on.
const LIFE: Duration = Duration::from_secs(3);
/// After this the race is taken to hang. Long, because a machine may be busy with other things.
const STUCK: Duration = Duration::from_secs(3600);

/// What must have happened before the race ends.
struct Goal {
    killed_processes: usize,
    killed_supervisors: usize,
    fenced: usize,
    chunks: usize,
}

#[test]
fn i2_two_supervisors_at_once_harm_nothing() {
    race(&Goal { killed_processes: 3, killed_supervisors: 2, fenced: 3, chunks: 20 });
}

#[test]
#[ignore = "takes some minutes; scripts/nightly.sh runs it"]
fn i2_two_supervisors_at_once_harm_nothing_for_long() {
    race(&Goal { killed_processes: 40, killed_supervisors: 20, fenced: 40, chunks: 500 });
}

/// The files of a race.
struct Home(PathBuf);

impl Home {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Once it is there nothing is killed any more, and the job comes to its end.
    fn is_enough(&self) -> bool {
        self.path("enough").exists()
    }

    fn deaths(&self) -> usize {
        fs::read_to_string(self.path("deaths")).unwrap_or_default().lines().count()
    }

    fn options(&self, racer: &str, workers: u32) -> JobOptions {
        JobOptions::new(self.path(&format!("local-{racer}")), OpenMode::CreateOrOpen)
            .subtasks(workers)
            .memory(u64::from(workers) * 8_000_000)
    }

    fn open(&self, options: JobOptions) -> alluvium::Result<Opened> {
        Job::open(self.path("job").display().to_string(), options)
    }

    /// The finished parts of the output, in order.
    fn parts(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.path("out")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }
}

/// What has happened to supervisors.
#[derive(Debug, Default)]
struct Counts {
    killed: AtomicUsize,
    fenced: AtomicUsize,
}

impl Counts {
    fn reach(&self, goal: &Goal, home: &Home) -> bool {
        home.deaths() >= goal.killed_processes
            && self.killed.load(Ordering::Relaxed) >= goal.killed_supervisors
            && self.fenced.load(Ordering::Relaxed) >= goal.fenced
            && home.parts().len() >= goal.chunks
    }
}

fn race(goal: &Goal) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home(dir.path().to_owned());
    for name in ["out", "staged"] {
        fs::create_dir(home.path(name)).unwrap();
    }
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let counts = Counts::default();
    std::thread::scope(|scope| {
        let start = |(name, seed)| {
            let (mut racer, counts) = (Racer { name, home: &home, chance: Chance(seed) }, &counts);
            scope.spawn(move || racer.race(counts))
        };
        let racers = [("0", seed), ("1", !seed)].map(start);
        // One that ends before has failed, and says why below.
        let failed = || racers.iter().any(ScopedJoinHandle::is_finished);
        let start = now();
        while !counts.reach(goal, &home) && !failed() && start.elapsed() < STUCK {
            std::thread::sleep(Duration::from_millis(20));
        }
        File::create(home.path("enough")).unwrap();
    });
    println!("{} processes killed, {counts:?}", home.deaths());
    assert!(counts.reach(goal, &home), "it is stuck: {} parts of the output", home.parts().len());
    assert_exact(&home);
    assert_only_expected_failures(&home);
}

/// Every number once, with the count that a job without any failure gives it.
fn assert_exact(home: &Home) {
    let Opened { job, metadata, .. } = home.open(home.options("end", 1)).unwrap();
    let last = Position::read(&metadata.unwrap()).last;
    drop(job);
    let mut counts = [0; KEYS as usize];
    let rows = (1..=last).map(|number| {
        let count = &mut counts[(number % KEYS) as usize];
        *count += 1;
        row(number, *count)
    });
    let parts = home.parts();
    let written: Vec<_> = parts.iter().map(|part| fs::read_to_string(part).unwrap()).collect();
    assert!(written.concat() == rows.collect::<String>(), "of {last} numbers in {} parts", parts.len());
    assert_eq!(last, parts.len() as u64 * CHUNK);
}

/// A failure that restarts hide is still one.
fn assert_only_expected_failures(home: &Home) {
    for racer in ["0", "1"] {
        let log = fs::read_to_string(home.path(&format!("log-{racer}"))).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        // Another attempt took over, or one that was just killed still had the local directory.
        let expected = ["[0] error: fenced", "[0] error: locked", "error: process 0 ended with exit code 3"];
        let other = log.lines().filter(|line| line.contains("error: "));
        let other: Vec<_> =
            other.filter(|line| !expected.iter().any(|known| line.starts_with(known))).collect();
        assert!(other.is_empty(), "{other:#?}");
    }
}

/// Chance from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.draw() as f64 / u64::MAX as f64)
    }
}

/// Somebody who starts supervisors, one after the other.
struct Racer<'a> {
    name: &'static str,
    home: &'a Home,
    chance: Chance,
}

impl Racer<'_> {
    /// Until the job is done.
    fn race(&mut self, counts: &Counts) {
        loop {
            let mut supervisor = self.start();
            let life = self.chance.up_to(LIFE * 3);
            match self.ends(&mut supervisor, life) {
                None => counts.killed.fetch_add(1, Ordering::Relaxed),
                Some(3) => counts.fenced.fetch_add(1, Ordering::Relaxed),
                Some(0) => return,
                Some(code) => panic!("supervisor {} ended with exit code {code}", self.name),
            };
            // Time for the other one to get on.
            std::thread::sleep(self.chance.up_to(LIFE / 3));
        }
    }

    fn start(&mut self) -> Child {
        let log = self.home.path(&format!("log-{}", self.name));
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let workers = (1 + self.chance.draw() % 3).to_string();
        let options =
            ["-w", &workers, "--max-restarts", "none", "--backoff", "20ms", "--max-backoff", "200ms"];
        let program = std::env::current_exe().unwrap().display().to_string();
        let program = [&program, "--exact", "race::the_job", "--ignored", "--nocapture"];
        command(&[&["run-job"], &options[..], &["--"], &program[..]].concat())
            .env(HOME, &self.home.0)
            .env(RACER, self.name)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Its exit code; None: it was killed after `life`.
    fn ends(&self, supervisor: &mut Child, life: Duration) -> Option<i32> {
        let start = now();
        loop {
            if let Some(status) = supervisor.try_wait().unwrap() {
                return Some(status.code().expect("nobody else kills it"));
            }
            if start.elapsed() > life && !self.home.is_enough() {
                supervisor.kill().unwrap();
                // It may have ended by itself just before.
                return supervisor.wait().unwrap().code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
#[ignore = "the program that supervisors run"]
fn the_job() {
    let (Some(home), Some(racer)) = (std::env::var_os(HOME), std::env::var_os(RACER)) else { return };
    let place = Place::from_env().unwrap().expect("a supervisor has started it");
    let home = Home(home.into());
    die_at_some_time(&home);
    let options = home.options(racer.to_str().unwrap(), place.workers);
    let code = match count(&home, options) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    };
    std::process::exit(code.into());
}

/// Kills this process as `kill -9` from outside would, at a random moment.
fn die_at_some_time(home: &Home) {
    let (enough, deaths) = (home.path("enough"), home.path("deaths"));
    let life = Chance(u64::from(std::process::id())).up_to(LIFE);
    std::thread::spawn(move || {
        std::thread::sleep(life);
        if enough.exists() {
            return;
        }
        writeln!(OpenOptions::new().create(true).append(true).open(deaths).unwrap(), "x").unwrap();
        let this = std::process::id().to_string();
        Command::new("kill").args(["-s", "KILL", &this]).status().unwrap();
    });
}

/// How far the job is, as its checkpoints carry it.
struct Position {
    last: u64,
    /// The output of the last chunk, which may not be in its place yet.
    staged: String,
}

impl Position {
    fn read(metadata: &[u8]) -> Self {
        let text = std::str::from_utf8(metadata).unwrap();
        let (last, staged) = text.split_once(' ').unwrap();
        Self { last: last.parse().unwrap(), staged: staged.to_owned() }
    }

    fn written(&self) -> String {
        format!("{} {}", self.last, self.staged)
    }

    /// Brings the output of a durable checkpoint into its place. A later attempt may have done so already.
    fn publish(&self, home: &Home) {
        let part = home.path("out").join(format!("{:012}", self.last));
        if let Err(error) = fs::rename(home.path("staged").join(&self.staged), &part) {
            assert!(part.exists(), "{}: {error}", part.display());
        }
    }
}

fn row(number: u64, count: u64) -> String {
    format!("{number} {count}\n")
}

/// Counts numbers by key until it is enough; the output of each chunk is published by its checkpoint.
fn count(home: &Home, options: JobOptions) -> alluvium::Result<()> {
    let Opened { job, mut stores, metadata, .. } = home.open(options)?;
    let mut last = 0;
    if let Some(metadata) = metadata {
        let position = Position::read(&metadata);
        position.publish(home);
        last = position.last;
    }
    loop {
        let enough = home.is_enough();
        let mut rows = String::new();
        for number in last + 1..=last + CHUNK {
            rows += &row(number, count_one(&mut stores, number)?);
        }
        last += CHUNK;
        // No other attempt has this name.
        let position = Position { last, staged: format!("{}-{last}", job.epoch()) };
        fs::write(home.path("staged").join(&position.staged), rows).unwrap();
        let checkpoint = job.trigger(position.written())?;
        for store in &mut stores {
            store.cut(checkpoint.id(), "")?;
        }
        checkpoint.wait()?;
        position.publish(home);
        if enough {
            return job.close();
        }
    }
}

/// How many numbers of this key there were by now.
fn count_one(stores: &mut [StateStore], number: u64) -> alluvium::Result<u64> {
    let key = format!("key {}", number % KEYS);
    let owns = |store: &StateStore| store.range().contains(store.max_parallelism().group_of_key(&key));
    let owner = stores.iter_mut().find(|store| owns(store));
    let store = owner.expect("each key group has an owner");
    let counts = store.register(ValueState::<u64>::descriptor("counts"))?;
    store.set_key(&key)?;
    let count = counts.get(store)?.unwrap_or(0) + 1;
    counts.put(store, &count)?;
    Ok(count)
}
