//! `alluvium run-job`: the processes of a job on this machine, and who starts them again.

use std::ffi::OsString;
use std::time::Duration;

use alluvium_supervisor::{Exit, Outcome, Policy, Program, Supervisor};
use clap::Args;

use crate::failure::{Failure, Result};
use crate::output::tell;
use crate::signals::{Grace, interrupt_flag};
use crate::units::parse_duration;

/// Beside the processes' own grace: what it takes to kill them, and to pass their last lines on.
const LAST: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct RunJobArgs {
    /// Processes to start
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    processes: u32,
    /// Workers in each process; only told to the processes
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    workers: u32,
    /// Restarts within --restart-window; one failure more, and the command ends with exit code 6. `none`: any number
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_limit)]
    max_restarts: Limit,
    /// Restarts are counted within this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    restart_window: Duration,
    /// Delay of the first restart; it doubles until the job has run for a minute, and chance shortens it by up to its
    /// half
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    backoff: Duration,
    /// The longest delay
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    max_backoff: Duration,
    /// How long processes may take to end after SIGTERM, before they are killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// Say nothing of starts, ends and restarts
    #[arg(long, short)]
    quiet: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// A number, or none at all. A type of its own, because clap gives `Option` a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(Option<u32>);

fn parse_limit(text: &str) -> std::result::Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|number| Limit(Some(number)))
            .map_err(|_| "write a number, as in 10, or none for no limit".to_owned()),
    }
}

impl RunJobArgs {
    fn policy(&self) -> Policy {
        Policy::default()
            .backoff(self.backoff, self.max_backoff)
            .grace(self.grace)
            .limit(self.max_restarts.0, self.restart_window)
    }
}

pub(crate) fn run(args: &RunJobArgs) -> Result<()> {
    let Some((program, arguments)) = args.program.split_first() else {
        return Err(Failure::usage("name the program to run"));
    };
    // A first signal ends the processes in order, a second one ends this program, and they are killed with it.
    let _grace = Grace::of(args.grace.saturating_add(LAST));
    let supervisor = Supervisor::new(Program::new(program).args(arguments))
        .processes(args.processes)
        .workers(args.workers)
        .policy(args.policy());
    let outcome = supervisor.run(interrupt_flag(), &mut |notice| {
        if !args.quiet {
            tell(format_args!("run-job: {notice}"));
        }
    });
    judge(&outcome.map_err(|error| Failure::usage(error.to_string()))?)
}

fn judge(outcome: &Outcome) -> Result<()> {
    match outcome.exit() {
        Exit::Well => Ok(()),
        exit => Err(Failure::passed_on(exit, outcome.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(parse_limit("0"), Ok(Limit(Some(0))));
        assert_eq!(parse_limit("none"), Ok(Limit(None)));
        for wrong in ["", "-1", "many", "4294967296"] {
            parse_limit(wrong).unwrap_err();
        }
    }
}
