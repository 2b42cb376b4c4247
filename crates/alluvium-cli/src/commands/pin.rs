//! `alluvium pin`: what keeps checkpoints alive for readers, and what killed ones have left.

use alluvium::admin::{InspectedPin, PinHolder, Pins};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::job_args::JobArgs;
use crate::display::table::{cell, empty, right};
use crate::display::width::fit;
use crate::failure::{Failure, Result};
use crate::output::{Output, print};
use crate::units::{self, utc};

#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// List the pins of a job, oldest first
    List(ListArgs),
    /// Release a pin that its reader has left behind
    ///
    /// Only says what would be released, unless --yes is given: from a pin it cannot be told whether its
    /// reader was killed or is slow, and a reader that still holds it fails when it fetches what is gone. What the pin
    /// alone kept is deleted by the running job's next garbage collection, or that of the next attempt.
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The pin, as `alluvium pin list` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Release it: no reader is at work that holds it
    #[arg(long)]
    yes: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What `release --json` prints.
#[derive(Debug, Serialize)]
struct Released {
    pin: InspectedPin,
    released: bool,
}

pub(crate) fn run(command: &PinCommand) -> Result<()> {
    match command {
        PinCommand::List(args) => {
            let pins = args.job.location().ask(|job| Pins::open(job)?.list())?;
            let output = Output::of_job(args.json);
            output.write(&pins, || if pins.is_empty() { "No pins.".to_owned() } else { table(&pins) })
        }
        PinCommand::Release(args) => {
            let pin = if args.yes {
                args.job.location().ask(|job| Pins::open(job)?.release(&args.id))?
            } else {
                find(&args.job, &args.id)?
            };
            let released = Released { pin, released: args.yes };
            if args.json {
                return Output::JobDocument.write(&released, String::new);
            }
            print(&words(&released))
        }
    }
}

fn find(job: &JobArgs, id: &str) -> Result<InspectedPin> {
    let listed = job.location().ask(|job| Pins::open(job)?.list())?;
    let known: Vec<_> = listed.iter().map(|pin| pin.id.clone()).collect();
    listed.into_iter().find(|pin| pin.id == id).ok_or_else(|| match known.as_slice() {
        [] => Failure::new(format!("the job has no pin {id}; it has no pins")),
        known => Failure::new(format!("the job has no pin {id}; choose one of [{}]", known.join(", "))),
    })
}

fn words(released: &Released) -> String {
    let pin = &released.pin;
    let keeps = match (pin.checkpoint, pin.version) {
        (Some(checkpoint), _) => format!("keeps checkpoint {checkpoint}"),
        (None, Some(version)) => format!("keeps nothing: version {version} is gone"),
        (None, None) => "cannot be read".to_owned(),
    };
    let made = utc(pin.unix_millis);
    if released.released {
        return format!("pin {} of {} is released", pin.id, holder(&pin.holder));
    }
    let end = match pin.holder {
        PinHolder::Attempt { fenced: false, .. } => {
            "It will not be released: the attempt takes it away by itself."
        }
        PinHolder::OtherJob { .. } => {
            "Nothing was released; --yes does it. Say so only if that job is gone: it takes the pin away by itself."
        }
        _ => "Nothing was released; --yes does it. Say so only if no reader is at work that holds it.",
    };
    format!("pin {} of {}, made {made} (UTC), {keeps}\n{end}", pin.id, holder(&pin.holder))
}

pub(crate) fn table(pins: &[InspectedPin]) -> String {
    let mut table = empty(&["pin", "of", "checkpoint", "version", "made (UTC)", "to restore"]);
    for pin in pins {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        table.add_row([
            cell(&pin.id),
            cell(&holder(&pin.holder)),
            right(&or_none(pin.checkpoint.map(|checkpoint| checkpoint.to_string()))),
            right(&or_none(pin.version.map(|version| version.to_string()))),
            right(&utc(pin.unix_millis)),
            right(&or_none(pin.full_bytes.map(|bytes| units::bytes(bytes as f64)))),
        ]);
    }
    fit(&table)
}

fn holder(holder: &PinHolder) -> String {
    match holder {
        PinHolder::Reader => "a reader".to_owned(),
        PinHolder::Attempt { epoch, fenced: false } => format!("the newest attempt, epoch {epoch}"),
        PinHolder::Attempt { epoch, fenced: true } => format!("a fenced attempt, epoch {epoch}"),
        PinHolder::OtherJob { job, epoch } => format!("another job ({job}), epoch {epoch}"),
        PinHolder::Damaged { problem } => format!("nobody knows: {problem}"),
        _ => "someone that this tool does not know".to_owned(),
    }
}
