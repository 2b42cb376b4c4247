//! `alluvium compare`: both modes in turn on the same workload, side by side.

use std::path::PathBuf;
use std::time::Duration;

use alluvium::{CheckpointMode, Env, ErrorKind, OpenMode};
use clap::Args;
use serde::Serialize;

use crate::explain::explain;
use crate::failure::{Failure, Result};
use crate::job::Location;
use crate::options::{OutputArgs, RunArgs, Scratch, WorkloadArgs, parse_store_option};
use crate::progress::Progress;
use crate::report::{RunReport, SCHEMA};
use crate::session::{After, Session, SteadyStage, judge, mode_name};
use crate::table::{self, Ratio};
use crate::units::{self, parse_count, parse_duration};

const KEYS: u64 = 500_000;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Where checkpoints go, each mode below a folder of its own: a directory, file:///…, memory:///,
    /// or s3://, az://, gs:// if built with that feature [default: a temporary directory]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    store_option: Vec<(String, String)>,
    /// Directory for RocksDB's local files, in a folder that is removed at the end [default: the
    /// system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Length of the steady stretch after the measured one: slow, so that a checkpoint's own bytes are
    /// few, with a materialization halfway (changelog) and the compactions that come (both). It shows
    /// whether a checkpoint pays for rewritten SST files. 0 leaves it out
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = parse_duration)]
    steady: Duration,
    /// Records per second in the steady stretch
    #[arg(long, value_name = "N", default_value = "5k", value_parser = parse_count)]
    steady_rate: u64,
    /// Skip the check of every key after the restore
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `compare --json` writes.
#[derive(Debug, Serialize)]
struct Comparison<'a> {
    schema: u32,
    results: [&'a RunReport; 2],
    ratios: Vec<Ratio>,
    explanation: Vec<String>,
}

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    args.run.validate()?;
    if args.steady_rate == 0 && !args.steady.is_zero() {
        return Err(Failure::usage("--steady-rate must be above 0; --steady 0 leaves the stretch out"));
    }
    let workload = args.workload.or_default(KEYS)?;
    let output = args.output.open()?;
    let scratch = Scratch::new(args.dir.as_deref())?;
    let env = Env::default();

    let run_mode = |mode: CheckpointMode| -> Result<RunReport> {
        let name = mode_name(mode);
        let store = match &args.store {
            None => scratch.path(&format!("store-{name}")).display().to_string(),
            Some(url) => format!("{}/{name}", url.trim_end_matches('/')),
        };
        let local = scratch.path(&format!("local-{name}"));
        let restored = scratch.path(&format!("restored-{name}"));
        let interval = args.run.materialization_interval;
        let session = Session {
            mode,
            location: Location::new(&store, &args.store_option),
            dir: local.clone(),
            run: args.run.clone(),
            materialization_interval: interval.map_or(Some(args.run.duration / 2), |interval| interval.0),
            steady: (!args.steady.is_zero())
                .then_some(SteadyStage { rate: args.steady_rate, duration: args.steady }),
            after: After::Restore { dir: restored.clone(), verify: !args.no_verify },
        };
        let mut progress = Progress::new(name, args.output.quiet);
        let opened = session.open(OpenMode::Create, workload.subtasks, &env).map_err(|failure| {
            if failure.kind == Some(ErrorKind::AlreadyExists) {
                return Failure::usage(failure.to_string())
                    .hint("compare needs a --store without earlier runs");
            }
            failure
        })?;
        let report = session.drive(opened, &workload, &env, &mut progress)?;
        // The second run shall find the same room on the disk as the first.
        let _ = std::fs::remove_dir_all(local);
        let _ = std::fs::remove_dir_all(restored);
        Ok(report)
    };
    let changelog = run_mode(CheckpointMode::Changelog)?;
    let native = run_mode(CheckpointMode::NativeIncremental)?;

    let comparison = Comparison {
        schema: SCHEMA,
        results: [&changelog, &native],
        ratios: table::ratios(&changelog, &native),
        explanation: explain(&changelog, &native),
    };
    let verdicts = [judge(&changelog), judge(&native)];
    output.write(&comparison, || {
        let mut text = headline(&changelog);
        text += "\n\n";
        text += &table::side_by_side(&changelog, &native);
        text += "\n\nWhere the difference comes from\n";
        for sentence in &comparison.explanation {
            text += &format!("\n{}\n", wrap(sentence));
        }
        for verdict in verdicts.iter().flatten().flatten() {
            text += &format!("\nVerified {verdict}.");
        }
        text
    })?;
    verdicts.into_iter().try_for_each(|verdict| verdict.map(drop))
}

/// What was run, on what.
fn headline(report: &RunReport) -> String {
    let workload = &report.workload;
    let machine = match (report.machine.cores, report.machine.memory) {
        (Some(cores), Some(memory)) => format!(", on {cores} cores and {}", units::bytes(memory as f64)),
        _ => String::new(),
    };
    let rate = match report.settings.rate {
        rate if rate > 0.0 => format!("{} records/s", units::count(rate)),
        _ => "full speed".to_owned(),
    };
    format!(
        "{} of {} keys, {} B values, {}, {} subtasks; {rate} for {} s, a checkpoint every {}{machine}",
        workload.operation,
        units::count(workload.keys as f64),
        workload.value_bytes,
        workload.distribution,
        workload.subtasks,
        units::three_digits(report.settings.duration_s),
        units::millis(report.settings.checkpoint_interval_ms),
    )
}

/// Breaks a sentence into lines of at most 100 columns, the later ones indented.
fn wrap(text: &str) -> String {
    const COLUMNS: usize = 100;
    let mut lines = vec!["-".to_owned()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_wrapped_between_words() {
        let text = wrap(&"word ".repeat(60));
        assert!(text.lines().all(|line| line.chars().count() <= 100));
        assert!(text.starts_with("- word word"));
        assert!(text.lines().nth(1).unwrap().starts_with("  word"));
        assert_eq!(text.split_whitespace().filter(|word| *word == "word").count(), 60);
    }
}
