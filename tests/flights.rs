//! I1 on real input: the example `flights` is killed with SIGKILL at many points and started again;
//! its result must be that of a run without interruption and that of a plain computation in memory,
//! which shares neither code nor parser with the example.
#![cfg(unix)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv.zst");
const ROWS: u64 = 336_776;
/// Rows between two checkpoints of the example.
const CHECKPOINT_ROWS: u64 = 20_000;
const SIGKILL: i32 = 9;

/// One job: its store, its local directory and its result, in a directory that goes away.
struct Job {
    dir: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Job {
    fn new(subtasks: u32, mode: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let arguments = vec!["--subtasks".into(), subtasks.to_string(), "--mode".into(), mode.into()];
        Self { dir, arguments }
    }

    fn input(mut self, file: &Path) -> Self {
        self.arguments.extend(["--input".into(), file.display().to_string()]);
        self
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out.csv")
    }

    fn start(&self, more: &[&str]) -> Output {
        Command::new(example())
            .arg("--store")
            .arg(self.dir.path().join("store"))
            .arg("--dir")
            .arg(self.dir.path().join("local"))
            .arg("--out")
            .arg(self.out())
            .args(&self.arguments)
            .args(more)
            .output()
            .expect("the example starts")
    }

    /// Runs until the process kills itself after `row`; gives the row that it had started after.
    fn killed_at(&self, row: u64) -> u64 {
        let output = self.start(&["--kill-at", &row.to_string()]);
        assert_eq!(output.status.signal(), Some(SIGKILL), "at row {row}: {}", text(&output));
        assert!(!self.out().exists(), "a killed run wrote a result");
        started_after(&output)
    }

    /// Runs to the end; gives the row that it had started after, and the result.
    fn to_the_end(&self) -> (u64, String) {
        let output = self.start(&[]);
        assert!(output.status.success(), "{}", text(&output));
        (started_after(&output), fs::read_to_string(self.out()).expect("the run wrote its result"))
    }
}

/// Cargo builds examples for `cargo test`, next to the directory of the test programs.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples/flights");
    assert!(
        path.exists(),
        "{} is missing: `cargo test` builds it, but `cargo test --test all` does not; \
         run `cargo build --all-features --examples` first",
        path.display()
    );
    path
}

fn text(output: &Output) -> String {
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

fn started_after(output: &Output) -> u64 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let row = stderr.lines().find_map(|line| line.strip_prefix("resuming after row "));
    row.map_or(0, |rest| {
        let digits = rest.split(' ').next().expect("split gives at least one part");
        digits.parse().expect("a row number")
    })
}

/// The last row whose checkpoint must be durable when the process dies after `row`: the reader waits
/// for a checkpoint before it starts the next, so the newest may be lost, the one before may not.
fn durable_by(row: u64) -> u64 {
    (row / CHECKPOINT_ROWS).saturating_sub(1) * CHECKPOINT_ROWS
}

fn assert_resumed(resumed: u64, killed: u64) {
    assert_eq!(resumed % CHECKPOINT_ROWS, 0, "resumed after row {resumed}, where no checkpoint is taken");
    let durable = durable_by(killed)..=killed;
    assert!(
        durable.contains(&resumed),
        "killed at {killed}, resumed after row {resumed}, not in {durable:?}"
    );
}

/// Fails with the first line that differs: the whole tables would fill the screen.
fn assert_result(result: &str, expected: &str) {
    for (number, (got, want)) in result.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "line {}", number + 1);
    }
    assert_eq!(result.lines().count(), expected.lines().count(), "number of lines");
    assert!(result == expected, "the results differ in their line ends");
}

/// The result that a plain computation gives. The input has no quoted fields, so splitting at commas
/// is all the parsing there is.
fn computed() -> &'static str {
    static RESULT: OnceLock<String> = OnceLock::new();
    RESULT.get_or_init(|| {
        let bytes = zstd::decode_all(fs::File::open(INPUT).expect("the input")).expect("zstd");
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert!(!text.contains('"'));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("dep_time,dep_delay,tailnum,origin,dest"));

        // Per key: flights, cancelled, all known delays.
        let mut totals: HashMap<String, (u64, u64, Vec<i64>)> = HashMap::new();
        let mut rows = 0;
        for line in lines {
            rows += 1;
            let &[time, delay, tailnum, origin, dest] = line.split(',').collect::<Vec<_>>().as_slice() else {
                panic!("{line}");
            };
            let mut keys = vec![format!("route/{origin}-{dest}")];
            if tailnum != "NA" {
                keys.push(format!("aircraft/{tailnum}"));
            }
            for key in keys {
                let (flights, cancelled, delays) = totals.entry(key).or_default();
                *flights += 1;
                if time == "NA" {
                    *cancelled += 1;
                }
                if delay != "NA" {
                    delays.push(delay.parse().expect("minutes"));
                }
            }
        }
        assert_eq!(rows, ROWS);

        let mut totals: Vec<_> = totals.into_iter().collect();
        totals.sort();
        let lines: String = totals
            .iter()
            .map(|(key, (flights, cancelled, delays))| {
                let max = delays.iter().max().map(ToString::to_string).unwrap_or_default();
                format!("{key},{flights},{cancelled},{},{max}\n", delays.iter().sum::<i64>())
            })
            .collect();
        format!("key,flights,cancelled,dep_delay_sum,dep_delay_max\n{lines}")
    })
}

/// Kills the job after each row of `kills` in turn, then lets it run to its end.
fn killed_and_restarted(subtasks: u32, mode: &str, kills: &[u64]) {
    let job = Job::new(subtasks, mode);
    let mut last_kill = 0;
    for &kill in kills {
        let resumed = job.killed_at(kill);
        assert_resumed(resumed, last_kill);
        last_kill = kill;
    }
    let (resumed, result) = job.to_the_end();
    assert_resumed(resumed, last_kill);
    assert_result(&result, computed());
}

#[test]
fn an_uninterrupted_run_equals_the_plain_computation() {
    for (subtasks, mode) in [(2, "changelog"), (2, "native")] {
        let job = Job::new(subtasks, mode);
        let (started, result) = job.to_the_end();
        assert_eq!(started, 0);
        assert_result(&result, computed());
    }
}

#[test]
fn a_finished_job_started_again_gives_the_same_result() {
    let job = Job::new(2, "changelog");
    let (_, first) = job.to_the_end();
    let (resumed, second) = job.to_the_end();
    assert_eq!(resumed, ROWS / CHECKPOINT_ROWS * CHECKPOINT_ROWS);
    assert_result(&second, &first);
    assert_result(&second, computed());
}

#[test]
fn i1_killed_before_the_first_checkpoint() {
    killed_and_restarted(2, "changelog", &[1]);
    killed_and_restarted(2, "native", &[19_999]);
}

#[test]
fn i1_killed_while_a_checkpoint_is_being_committed() {
    // All subtasks have cut; the manifest may or may not be there.
    killed_and_restarted(2, "changelog", &[20_000]);
    killed_and_restarted(2, "changelog", &[100_000]);
    killed_and_restarted(2, "native", &[40_000]);
}

#[test]
fn i1_killed_right_after_a_checkpoint() {
    killed_and_restarted(2, "changelog", &[20_001]);
    killed_and_restarted(2, "native", &[20_001]);
}

#[test]
fn i1_killed_in_the_middle() {
    killed_and_restarted(1, "changelog", &[170_123]);
    killed_and_restarted(3, "native", &[170_123]);
}

#[test]
fn i1_killed_near_the_end() {
    killed_and_restarted(3, "changelog", &[336_775]);
    killed_and_restarted(1, "native", &[ROWS]);
}

#[test]
fn i1_killed_several_times() {
    killed_and_restarted(2, "changelog", &[50_000, 200_000]);
    // The second attempt dies before it has taken a checkpoint of its own.
    killed_and_restarted(3, "changelog", &[90_000, 90_001, 260_000]);
    killed_and_restarted(2, "native", &[50_000, 200_000]);
}

#[test]
fn i1_the_mode_may_change_between_two_attempts() {
    let mut job = Job::new(2, "changelog");
    job.killed_at(130_000);
    job.arguments = Job::new(2, "native").arguments;
    let resumed = job.killed_at(210_000);
    assert_resumed(resumed, 130_000);
    job.arguments = Job::new(2, "changelog").arguments;
    let (resumed, result) = job.to_the_end();
    assert_resumed(resumed, 210_000);
    assert_result(&result, computed());
}

#[test]
fn columns_are_found_by_name_and_missing_values_count_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("small.csv.zst");
    // Other columns around the known ones, in another order.
    let csv = "dest,year,tailnum,dep_delay,origin,dep_time,carrier\n\
               IAH,2013,N1,2,EWR,517,UA\n\
               IAH,2013,N1,-7,EWR,533,UA\n\
               IAH,2013,N1,NA,EWR,NA,UA\n\
               MIA,2013,NA,NA,JFK,NA,AA\n\
               MIA,2013,N10,-3,JFK,600,AA\n\
               BQN,2013,N2,NA,JFK,NA,B6\n";
    fs::write(&input, zstd::encode_all(csv.as_bytes(), 1).unwrap()).unwrap();
    let (_, result) = Job::new(2, "changelog").input(&input).to_the_end();
    let expected = "key,flights,cancelled,dep_delay_sum,dep_delay_max\n\
                    aircraft/N1,3,1,-5,2\n\
                    aircraft/N10,1,0,-3,-3\n\
                    aircraft/N2,1,1,0,\n\
                    route/EWR-IAH,3,1,-5,2\n\
                    route/JFK-BQN,1,1,0,\n\
                    route/JFK-MIA,2,1,-3,-3\n";
    assert_result(&result, expected);
}

#[test]
fn wrong_input_is_refused_with_a_precise_message() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("wrong.csv");
    for (csv, message) in [
        ("dep_time,dep_delay,origin,dest\n1,2,EWR,IAH\n", "no column tailnum"),
        (
            "dep_time,dep_delay,tailnum,origin,dest\n1,2,N1,EWR,IAH\n1,x,N1,EWR,IAH\n",
            "row 2: dep_delay \"x\"",
        ),
        ("dep_time,dep_delay,tailnum,origin,dest\n1,2,N1,EWR\n", "fields"),
    ] {
        fs::write(&input, csv).unwrap();
        let job = Job::new(1, "changelog").input(&input);
        let output = job.start(&[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(message), "{}", text(&output));
        assert!(!job.out().exists());
    }
    let output = Job::new(1, "changelog").input(&dir.path().join("absent.csv.zst")).start(&[]);
    assert!(text(&output).contains("cannot open") && text(&output).contains("absent.csv.zst"));
}
