//! `alluvium pin`: what keeps checkpoints alive for readers, and what killed ones have left.

use alluvium::admin::{InspectedPin, PinHolder, Pins};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::job_args::{JobArgs, none_such, not_confirmed};
use crate::display::table::{cell, empty, right};
use crate::display::width::fit;
use crate::failure::Result;
use crate::output::Output;
use crate::units::{self, utc};

#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// List the pins of a job, oldest first
    List(ListArgs),
    /// Release a pin that its reader has left behind
    ///
    /// Without --yes it only says what would be released, and ends with exit code 2. A pin does not tell whether its
    /// reader was killed or is slow, and a reader that still holds it fails when it fetches what is gone. The
    /// running job's next garbage collection, or that of the next attempt, deletes what the pin alone kept.
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
    /// Release it. Say so only if no reader is at work that holds it
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
            Output::of_job(args.json).write(&released, || words(&released))?;
            if args.yes {
                Ok(())
            } else {
                Err(not_confirmed(&format!("pin {}", args.id), when(&released.pin.holder)))
            }
        }
    }
}

fn find(job: &JobArgs, id: &str) -> Result<InspectedPin> {
    let listed = job.location().ask(|job| Pins::open(job)?.list())?;
    let ids: Vec<_> = listed.iter().map(|pin| pin.id.as_str()).collect();
    let missing = none_such(&format!("pin {id}"), "pins", &ids);
    listed.into_iter().find(|pin| pin.id == id).ok_or(missing)
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
    format!("pin {} of {}, made {made} (UTC), {keeps}", pin.id, holder(&pin.holder))
}

/// When a pin may be released.
fn when(holder: &PinHolder) -> &'static str {
    match holder {
        PinHolder::Attempt { fenced: false, .. } => {
            "not even --yes releases it: the attempt that made it takes it away by itself"
        }
        PinHolder::OtherJob { .. } => {
            "--yes releases it. Say so only if that job is gone: it takes the pin away by itself"
        }
        _ => "--yes releases it. Say so only if no reader is at work that holds it",
    }
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
        PinHolder::Damaged { problem } => format!("not known: {problem}"),
        _ => "someone that this tool does not know".to_owned(),
    }
}
