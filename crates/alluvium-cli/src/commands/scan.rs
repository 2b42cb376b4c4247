//! `alluvium scan`: a state of a checkpoint, line by line.

use std::io::{BufWriter, Write};

use alluvium::{Env, KeyGroup, KeyGroupRange};
use clap::Args;
use serde::Serialize;

use crate::commands::source::SourceArgs;
use crate::display::tagged::{KeyFormat, Tagged, plain};
use crate::display::typed::{KeyParts, Shape, ShownValue};
use crate::failure::{Failure, Result, io};
use crate::output::tell;

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The state's name
    #[arg(value_name = "STATE")]
    state: String,
    /// Only keys that begin with this: the beginning of a text or of bytes, or the first components of a
    /// tuple as a JSON array
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// How PREFIX is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "typed")]
    key_format: KeyFormat,
    /// Only this namespace, written as a key of its type
    #[arg(long, value_name = "NAMESPACE", allow_negative_numbers = true, conflicts_with = "raw")]
    namespace: Option<String>,
    /// Only this key group
    #[arg(long, value_name = "GROUP")]
    group: Option<u16>,
    /// Stop after so many entries [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print what has expired by the state's recorded TTL as well
    #[arg(long)]
    show_expired: bool,
    /// Print one JSON document a line, with key group, key and value, instead of columns
    #[arg(long)]
    json: bool,
    /// Decode nothing: print keys and values as they are stored, expired or not
    #[arg(long)]
    raw: bool,
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    group: KeyGroup,
    #[serde(flatten)]
    parts: KeyParts,
    #[serde(flatten)]
    held: ShownValue,
}

/// A line of `--json --raw`.
#[derive(Debug, Serialize)]
struct RawLine {
    group: KeyGroup,
    key: Tagged,
    value: Tagged,
}

pub(crate) fn run(args: &ScanArgs) -> Result<()> {
    args.source.read(|reader, interrupt| {
        let shape = Shape::find(reader, &args.state)?;
        let prefix = shape.prefix(&args.prefix, args.key_format)?;
        let namespace = args.namespace.as_deref().map(|text| shape.namespace(text)).transpose()?;
        let now = Env::default().clock.unix_millis();
        let (mut left, mut note) = (args.limit.unwrap_or(usize::MAX), None);
        let scan = match args.group.map(KeyGroup) {
            Some(group) => {
                reader.scan_groups(&args.state, KeyGroupRange { first: group, last: group }, &prefix)?
            }
            None => reader.scan(&args.state, &prefix)?,
        };
        let mut out = BufWriter::new(std::io::stdout().lock());
        for entry in scan {
            if left == 0 {
                break;
            }
            interrupt.check()?;
            let (group, key, value) = entry?;
            let line = if args.raw {
                raw_line(args, group, &key, &value)?
            } else {
                let (parts, held) = (shape.key_parts(&key)?, shape.held(&value, now, args.show_expired)?);
                let hidden = held.expired && !args.show_expired;
                if hidden || namespace.is_some() && parts.namespace != namespace {
                    continue;
                }
                note = note.or_else(|| shape.note(held.value.as_ref()));
                if args.json {
                    json(&Line { group, parts, held })?
                } else {
                    let columns = [vec![group.to_string()], parts.columns(true), held.columns()];
                    columns.concat().join("\t")
                }
            };
            if !written(writeln!(out, "{line}"))? {
                return Ok(());
            }
            left -= 1;
        }
        let whole = written(out.flush())?;
        if let Some(note) = note.filter(|_| whole) {
            tell(format_args!("note: {note}"));
        }
        Ok(())
    })
}

fn raw_line(args: &ScanArgs, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<String> {
    if args.json {
        return json(&RawLine { group, key: Tagged::of(key), value: Tagged::of(value) });
    }
    Ok(format!("{group}\t{}\t{}", plain(key), plain(value)))
}

fn json(line: &impl Serialize) -> Result<String> {
    serde_json::to_string(line)
        .map_err(|error| Failure::new(format!("cannot write an entry as JSON: {error}")))
}

/// False if the reader has gone away (`| head`), which is no failure.
fn written(result: std::io::Result<()>) -> Result<bool> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).map_err(io("write to standard output")),
    }
}
