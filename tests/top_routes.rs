//! The example `top_routes` on real input: its result must be that of a plain computation in memory,
//! which shares neither code nor parser with it, at any parallelism, in both modes, and after crashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv.zst");

/// One job in a directory that goes away.
struct Job {
    dir: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn start(&self, arguments: &[&str]) -> Output {
        Command::new(example())
            .arg("--store")
            .arg(self.dir.path().join("store"))
            .arg("--dir")
            .arg(self.dir.path().join("local"))
            .arg("--out")
            .arg(self.dir.path().join("out.csv"))
            .args(arguments)
            .output()
            .expect("the example starts")
    }

    /// Runs to the end; gives what it said and the result.
    fn to_the_end(&self, arguments: &[&str]) -> (String, String) {
        let output = self.start(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (said, fs::read_to_string(self.dir.path().join("out.csv")).expect("the run wrote its result"))
    }
}

/// Cargo builds examples for `cargo test`, next to the directory of the test programs.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples/top_routes");
    assert!(
        path.exists(),
        "{} is missing: `cargo test` builds it, but `cargo test --test all` does not; \
         run `cargo build --all-features --examples` first",
        path.display()
    );
    path
}

/// The result as a plain program computes it.
fn computed() -> &'static str {
    static COMPUTED: OnceLock<String> = OnceLock::new();
    COMPUTED.get_or_init(|| {
        let file = fs::File::open(INPUT).expect("the input");
        let text = zstd::decode_all(file).expect("zstd");
        let text = String::from_utf8(text).expect("text");
        let mut days: Vec<BTreeMap<(&str, &str), u32>> = Vec::new();
        let mut before = i32::MAX;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            // Cancelled flights come last within their day.
            let time: i32 = fields[0].parse().unwrap_or(i32::MAX);
            if time < before {
                days.push(BTreeMap::new());
            }
            before = time;
            if time < i32::MAX {
                let day = days.last_mut().expect("a day has begun");
                *day.entry((fields[3], fields[4])).or_default() += 1;
            }
        }
        assert_eq!(days.len(), 365);
        let mut result = "day,origin,rank,dest,departures\n".to_owned();
        for (number, day) in (1..).zip(&days) {
            for origin in ["EWR", "JFK", "LGA"] {
                let of_origin = day.iter().filter(|((from, _), _)| *from == origin);
                let mut routes: Vec<_> =
                    of_origin.map(|((_, to), count)| (std::cmp::Reverse(*count), *to)).collect();
                routes.sort_unstable();
                for (rank, (count, to)) in (1..=5).zip(routes) {
                    result += &format!("{number},{origin},{rank},{to},{}\n", count.0);
                }
            }
        }
        result
    })
}

/// Not `assert_eq`: the result has some 5,000 lines.
fn assert_result(result: &str) {
    let different = result.lines().zip(computed().lines()).find(|(mine, plain)| mine != plain);
    assert_eq!(different, None, "the first line that differs, from the plain computation on the right");
    assert_eq!(result.len(), computed().len());
}

#[test]
fn the_result_is_that_of_a_plain_computation() {
    for arguments in [["--subtasks", "1"], ["--subtasks", "3"], ["--mode", "native"]] {
        let (_, result) = Job::new().to_the_end(&arguments);
        assert_result(&result);
    }
}

#[test]
fn i1_crashes_neither_lose_nor_repeat_a_day() {
    for mode in ["changelog", "native"] {
        let job = Job::new();
        for row in ["9000", "100000", "100001", "250000"] {
            let output = job.start(&["--mode", mode, "--kill-at", row]);
            assert!(!output.status.success(), "{output:?}");
        }
        let (said, result) = job.to_the_end(&["--mode", mode]);
        assert!(!said.contains("after row 0 "), "{said}");
        assert_result(&result);
    }
}

#[test]
fn wrong_input_is_refused_with_a_precise_message() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let input = dir.path().join("wrong.csv");
    for (csv, message) in [
        ("dep_time,origin\n1,EWR\n", "no column dest"),
        ("dep_time,origin,dest\n1,EWR,IAH\nnoon,EWR,IAH\n", "row 2: dep_time \"noon\""),
    ] {
        fs::write(&input, csv).expect("a file");
        let output = Job::new().start(&["--input", &input.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(message), "{said}");
    }
}
