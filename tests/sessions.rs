//! The example `sessions` on real input: its result must be that of a plain computation in memory,
//! which shares neither code nor parser with it, after crashes and in both modes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv.zst");

/// One job in a directory that goes away.
struct Job {
    dir: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Job {
    fn new(subtasks: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, arguments: vec!["--subtasks".into(), subtasks.to_string()] }
    }

    fn input(mut self, csv: &str) -> Self {
        let input = self.dir.path().join("input.csv");
        fs::write(&input, csv).expect("the input is written");
        self.arguments.extend(["--input".into(), input.display().to_string()]);
        self
    }

    fn start(&self, more: &[&str]) -> Output {
        Command::new(example())
            .arg("--store")
            .arg(self.dir.path().join("store"))
            .arg("--dir")
            .arg(self.dir.path().join("local"))
            .arg("--out")
            .arg(self.dir.path().join("out.csv"))
            .args(&self.arguments)
            .args(more)
            .output()
            .expect("the example starts")
    }

    /// Ends as in a crash after departure `number`.
    fn killed_at(&self, number: u64, more: &[&str]) {
        let number = number.to_string();
        let output = self.start(&[&["--kill-at", &number], more].concat());
        assert!(!output.status.success(), "at departure {number}: {output:?}");
        assert!(!self.dir.path().join("out.csv").exists(), "a killed run wrote a result");
    }

    /// Runs to the end; gives what it said and the result.
    fn to_the_end(&self, more: &[&str]) -> (String, String) {
        let output = self.start(more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (said, fs::read_to_string(self.dir.path().join("out.csv")).expect("the run wrote its result"))
    }
}

/// Cargo builds examples for `cargo test`, next to the directory of the test programs.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples/sessions");
    assert!(
        path.exists(),
        "{} is missing: `cargo test` builds it, but `cargo test --test all` does not; \
         run `cargo build --all-features --examples` first",
        path.display()
    );
    path
}

/// Fails with the first line that differs: the whole tables would fill the screen.
fn assert_result(result: &str, expected: &str) {
    for (number, (got, want)) in result.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "line {}", number + 1);
    }
    assert_eq!(result.lines().count(), expected.lines().count(), "number of lines");
}

/// The result as a plain program computes it: all departures of an aircraft in order, split where there is
/// none for a day.
fn computed() -> &'static str {
    static COMPUTED: OnceLock<String> = OnceLock::new();
    COMPUTED.get_or_init(|| {
        let text = zstd::decode_all(fs::File::open(INPUT).expect("the input")).expect("zstd");
        let text = String::from_utf8(text).expect("UTF-8");
        let mut aircraft: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
        let (mut day, mut before) = (0, 0);
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            // Cancelled flights come last within their day.
            let clock: i64 = fields[0].parse().unwrap_or(9999);
            day += i64::from(clock < before);
            before = clock;
            if clock < 9999 {
                let delay: i64 = fields[1].parse().expect("minutes");
                let mut time = day * 1440 + clock / 100 * 60 + clock % 100;
                // The rows of a day are those planned for it.
                while time - delay < day * 1440 {
                    time += 1440;
                }
                aircraft.entry(fields[2]).or_default().push((time, delay));
            }
        }
        assert_eq!(day, 364);

        let mut lines = "tailnum,first,last,departures,delay\n".to_owned();
        for (tailnum, mut departures) in aircraft {
            departures.sort_unstable();
            for session in departures.chunk_by(|a, b| b.0 - a.0 < 1440) {
                let show = |(time, _): (i64, i64)| {
                    format!("{} {:02}:{:02}", time / 1440 + 1, time % 1440 / 60, time % 60)
                };
                let (first, last) = (show(session[0]), show(session[session.len() - 1]));
                let delay: i64 = session.iter().map(|(_, delay)| delay).sum();
                writeln!(lines, "{tailnum},{first},{last},{},{delay}", session.len()).expect("a string");
            }
        }
        lines
    })
}

#[test]
fn i1_killed_and_started_again_in_the_other_mode_equals_the_plain_computation() {
    let job = Job::new(3);
    job.killed_at(70_001, &["--mode", "native"]);
    job.killed_at(199_999, &["--mode", "changelog"]);
    let (said, result) = job.to_the_end(&["--mode", "native"]);
    assert!(said.contains("starting after departure 180000"), "{said}");
    assert_result(&result, computed());
}

#[test]
fn a_flight_past_midnight_joins_two_sessions() {
    // On day 2 the first row is of a flight that was planned for then, and left on day 3 at 0:30; only the row after
    // it shows what happened in between.
    let job = Job::new(2).input(
        "dep_time,dep_delay,tailnum\n\
         1200,10,N1\n\
         1300,0,N2\n\
         30,60,N1\n\
         1130,-5,N1\n\
         NA,NA,N1\n\
         1400,1,N2\n",
    );
    let (said, result) = job.to_the_end(&[]);
    let expected = "tailnum,first,last,departures,delay\n\
                    N1,1 12:00,3 00:30,3,65\n\
                    N2,1 13:00,1 13:00,1,0\n\
                    N2,3 14:00,3 14:00,1,1\n";
    assert_eq!(result, expected);
    assert!(said.contains("1 times"), "{said}");
}
