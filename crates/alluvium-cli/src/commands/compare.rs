//! `alluvium compare`: the modes in turn on the same workload, side by side.

use std::path::PathBuf;
use std::time::Duration;

use alluvium::{Env, ErrorKind, OpenMode};
use clap::Args;

use crate::display::explain::explain;
use crate::display::table::{self, Column};
use crate::failure::{Failure, Result};
use crate::harness::options::{RunArgs, VerifyArgs, WorkloadArgs};
use crate::harness::progress::Progress;
use crate::harness::scenario::ScenarioArgs;
use crate::harness::session::{After, Finished, Session, SteadyStage, judge};
use crate::harness::store::{RunStore, StoreArgs};
use crate::output::OutputArgs;
use crate::result::{Mode, Prices, ResultFile, RunResult};
use crate::scratch::{Scratch, TempDirArgs};
use crate::signals::{Grace, be_quiet, interrupted};
use crate::spelling::check_url;
use crate::units::{self, parse_count, parse_duration};

const KEYS: u64 = 500_000;

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct CompareArgs {
    /// Where checkpoints go, the job of each run below a folder of its own: a directory, file:///…,
    /// memory:///, or s3://, az://, gs:// if built with that feature [default: a temporary directory]
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// The modes to run, in this order
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODES", action = clap::ArgAction::Set, default_value = "changelog,native,none")]
    modes: Vec<Mode>,
    /// Run all modes so many times, in turns (A B A B …), and compare them pair by pair
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Results of earlier runs, or of other systems, to show beside those of this one; may be repeated
    #[arg(long, value_name = "FILE.json", num_args = 1.., action = clap::ArgAction::Append)]
    with: Vec<PathBuf>,
    #[command(flatten)]
    temp: TempDirArgs,
    /// Length of the steady stretch after the measured one: slow, so that a checkpoint's own bytes are
    /// few, with a materialization halfway (changelog) and the compactions that come (both). It shows
    /// whether a checkpoint pays for rewritten SST files. 0 leaves it out
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = parse_duration)]
    steady: Duration,
    /// Records per second in the steady stretch
    #[arg(long, value_name = "N", default_value = "5k", value_parser = parse_count)]
    steady_rate: u64,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    pub(crate) scenario: ScenarioArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    object_store: StoreArgs,
    #[command(flatten)]
    prices: Prices,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    args.run.validate()?;
    check_url(args.url.as_deref())?;
    if args.steady_rate == 0 && !args.steady.is_zero() {
        return Err(Failure::usage("--steady-rate must be above 0; --steady 0 leaves the stretch out"));
    }
    args.workload.or_default(KEYS)?;
    let others: Vec<ResultFile> =
        args.with.iter().map(|path| ResultFile::read(path)).collect::<Result<_>>()?;
    let mut output = args.output.open()?;
    if args.output.quiet {
        be_quiet();
    }
    let scratch = Scratch::new(args.temp.dir())?;

    let mut results: Vec<RunResult> = Vec::new();
    let (mut failure, mut grace) = (None, None);
    'runs: for repeat in 1..=args.repeat {
        for mode in &args.modes {
            match run_one(args, *mode, repeat, &scratch, &mut grace) {
                Ok(finished) => {
                    results.push(finished.result);
                    // A later run may end badly.
                    output.keep(&results)?;
                    failure = finished.failure;
                }
                Err(error) => failure = Some(error),
            }
            if failure.is_some() || interrupted() {
                break 'runs;
            }
        }
    }
    let verdicts: Vec<_> = results.iter().map(judge).collect();
    if results.is_empty() {
        return failure.map_or(Ok(()), Err);
    }
    output.write(&results, || text(&results, &others, &verdicts))?;
    match failure {
        Some(failure) => Err(failure),
        None => verdicts.into_iter().try_for_each(|verdict| verdict.map(drop)),
    }
}

/// One mode once.
fn run_one(
    args: &CompareArgs,
    mode: Mode,
    repeat: u32,
    scratch: &Scratch,
    grace: &mut Option<Grace>,
) -> Result<Finished> {
    let env = Env::default();
    let workload = args.workload.or_default(KEYS)?;
    let name = if args.repeat > 1 { format!("{}-{repeat}", mode.name()) } else { mode.name().to_owned() };
    let store = match &args.url {
        Some(url) if url.starts_with("memory:") => url.clone(),
        Some(url) => format!("{}/{name}", url.trim_end_matches('/')),
        None => scratch.path(&format!("store-{name}")).display().to_string(),
    };
    let (local, restored) =
        (scratch.path(&format!("local-{name}")), scratch.path(&format!("restored-{name}")));
    let interval = args.run.materialization_interval;
    let session = Session {
        mode,
        run_store: RunStore::open(&store, &args.object_store, workload.seed, true)?,
        dir: local.clone(),
        run: args.run.clone(),
        scenario: args.scenario.name(),
        prices: args.prices,
        materialization_interval: interval.map_or(Some(args.run.duration / 2), |interval| interval.0),
        steady: (!args.steady.is_zero())
            .then_some(SteadyStage { rate: args.steady_rate, duration: args.steady }),
        after: After::Restore { dir: restored.clone(), verify: args.verify.or(true) },
    };
    let mut progress = Progress::new(name, args.output.quiet);
    let opened = session.open(OpenMode::Create, workload.subtasks, &env).map_err(|failure| {
        if failure.kind == Some(ErrorKind::AlreadyExists) {
            return Failure::usage(failure.to_string()).hint("compare needs a URL without earlier runs");
        }
        failure
    })?;
    // From here on there are results to keep, those of earlier modes as well.
    grace.get_or_insert_with(Grace::until_done);
    let mut finished = session.drive(opened, &workload, &env, &mut progress)?;
    finished.result.repeat = (args.repeat > 1).then_some(repeat);
    // The next run shall find the same room on the disk as this one.
    let _ = std::fs::remove_dir_all(local);
    let _ = std::fs::remove_dir_all(restored);
    if args.url.is_none() {
        let _ = std::fs::remove_dir_all(store);
    }
    Ok(finished)
}

fn text(results: &[RunResult], others: &[ResultFile], verdicts: &[Result<Option<String>>]) -> String {
    let mut text = headline(&results[0]);
    let all = results.iter().chain(others.iter().flat_map(|file| &file.results));
    let columns = Column::of(all);
    text += &format!("\n\n{}", table::side_by_side(&columns));
    let differing = table::differing_options(&columns);
    if !differing.is_empty() {
        text += &format!("\n\nRocksDB options that differ\n{differing}");
    }
    let of = |mode| results.iter().find(|result| result.mode == mode);
    if let (Some(changelog), Some(native)) = (of(Mode::Changelog), of(Mode::Native)) {
        let pairs = results.iter().filter(|result| result.mode == Mode::Native).count();
        text += "\n\nWhere the difference comes from";
        if pairs > 1 {
            text += &format!(" (the first of {pairs} pairs)");
        }
        text += "\n";
        for sentence in explain(changelog, native) {
            text += &format!("\n{}\n", wrap(&sentence));
        }
    }
    for verdict in verdicts.iter().flatten().flatten() {
        text += &format!("\nVerified {verdict}.");
    }
    for result in results {
        if let Some(reason) = &result.ended_early {
            text += &format!("\nThe run in mode {} ended early: {reason}.", result.mode.name());
        }
    }
    text
}

/// What was run, on what.
fn headline(result: &RunResult) -> String {
    let workload = &result.workload;
    let machine = match (result.machine.cores, result.machine.memory) {
        (Some(cores), Some(memory)) => format!(", on {cores} cores and {}", units::bytes(memory as f64)),
        _ => String::new(),
    };
    let rate = match result.settings.rate {
        rate if rate > 0.0 => format!("{} records/s", units::count(rate)),
        _ => "full speed".to_owned(),
    };
    let interval = result.settings.checkpoint_interval_ms;
    format!(
        "{} of {} keys, {} B values, {}, {} subtasks; {rate} for {} s{}{machine}",
        workload.operation,
        units::count(workload.keys as f64),
        workload.value_bytes,
        workload.distribution,
        workload.subtasks,
        units::three_digits(result.settings.duration_s),
        interval.map_or(String::new(), |ms| format!(", a checkpoint every {}", units::millis(ms))),
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
