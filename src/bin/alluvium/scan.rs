//! `alluvium scan`: a state of a checkpoint, line by line.

use std::io::{BufWriter, Write};

use alluvium::{KeyGroup, KeyGroupRange};
use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Result, io};
use crate::source::SourceArgs;
use crate::tagged::{KeyFormat, Tagged, plain};

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The state's name
    #[arg(value_name = "STATE")]
    state: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// How PREFIX is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    key_format: KeyFormat,
    /// Only this key group
    #[arg(long, value_name = "GROUP")]
    group: Option<u16>,
    /// Stop after so many entries [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON document a line, with key group, key and value, instead of columns
    #[arg(long)]
    json: bool,
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    group: KeyGroup,
    key: Tagged,
    value: Tagged,
}

pub(crate) fn run(args: &ScanArgs) -> Result<()> {
    let prefix = args.key_format.read(&args.prefix).map_err(Failure::usage)?;
    args.source.read(|reader, interrupt| {
        let scan = match args.group.map(KeyGroup) {
            Some(group) => {
                reader.scan_groups(&args.state, KeyGroupRange { first: group, last: group }, &prefix)?
            }
            None => reader.scan(&args.state, &prefix)?,
        };
        let mut out = BufWriter::new(std::io::stdout().lock());
        for entry in scan.take(args.limit.unwrap_or(usize::MAX)) {
            interrupt.check()?;
            let (group, key, value) = entry?;
            let line = if args.json {
                let line = Line { group, key: Tagged::of(&key), value: Tagged::of(&value) };
                serde_json::to_string(&line)
                    .map_err(|error| Failure::new(format!("cannot write an entry as JSON: {error}")))?
            } else {
                format!("{group}\t{}\t{}", plain(&key), plain(&value))
            };
            if !written(writeln!(out, "{line}"))? {
                return Ok(());
            }
        }
        written(out.flush()).map(drop)
    })
}

/// False if the reader has gone away (`| head`), which is no failure.
fn written(result: std::io::Result<()>) -> Result<bool> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).map_err(io("write to standard output")),
    }
}
