//! `alluvium get`: what a state of a checkpoint has for a key.

use std::io::Write;

use alluvium::{CheckpointReader, Env, KeyGroup, KeyGroupRange};
use clap::Args;
use serde::Serialize;

use crate::commands::source::SourceArgs;
use crate::display::tagged::KeyFormat;
use crate::display::typed::{KeyParts, Lookup, Question, Shape, ShownValue};
use crate::failure::{Failure, Result, io};
use crate::output::{Output, tell};
use crate::signals::Interrupt;

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The state's name
    #[arg(value_name = "STATE")]
    state: String,
    /// The key
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    key: String,
    /// How KEY is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "typed")]
    key_format: KeyFormat,
    /// Only this namespace, written as a key of its type
    #[arg(long, value_name = "NAMESPACE", allow_negative_numbers = true)]
    namespace: Option<String>,
    /// Only this entry of the map, written as a key of its type
    #[arg(long, value_name = "KEY", allow_negative_numbers = true)]
    map_key: Option<String>,
    /// The key group that the key was put in [default: the key's own]
    #[arg(long, value_name = "GROUP")]
    group: Option<u16>,
    /// Print what has expired by the state's recorded TTL as well
    #[arg(long)]
    show_expired: bool,
    /// Print a JSON document with state, key group, key and value, or with a list of entries
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Decode nothing: write the stored bytes of the one value as they are, without a line end
    #[arg(long)]
    raw: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Got<T> {
    checkpoint: String,
    state: String,
    group: KeyGroup,
    #[serde(flatten)]
    what: T,
}

/// One entry, and what tells it apart.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    parts: KeyParts,
    #[serde(flatten)]
    held: ShownValue,
}

/// The entries of a key.
#[derive(Debug, Serialize)]
struct Entries {
    entries: Vec<Entry>,
}

pub(crate) fn run(args: &GetArgs) -> Result<()> {
    args.source.read(|reader, interrupt| {
        let shape = Shape::find(reader, &args.state)?;
        let question = Question {
            key: &args.key,
            format: args.key_format,
            namespace: args.namespace.as_deref(),
            map_key: args.map_key.as_deref(),
            group: args.group.map(KeyGroup),
        };
        let lookup = shape.lookup(question, reader.max_parallelism())?;
        let stored = find(args, reader, &shape, &lookup, interrupt)?;
        let nothing = |what: &str| {
            Failure::new(format!(
                "state {:?} of checkpoint {} has no key {} in group {}{what}",
                args.state,
                reader.checkpoint(),
                args.key,
                lookup.group
            ))
        };
        if stored.is_empty() {
            return Err(nothing(""));
        }
        if args.raw {
            let [(_, value)] = stored.as_slice() else {
                return Err(Failure::usage(format!(
                    "--raw writes one value, and there are {}",
                    stored.len()
                ))
                .hint("choose one by --namespace and --map-key"));
            };
            let mut out = std::io::stdout();
            return out.write_all(value).and_then(|()| out.flush()).map_err(io("write to standard output"));
        }
        let now = Env::default().clock.unix_millis();
        let mut entries = Vec::new();
        for (key, value) in &stored {
            let (parts, held) = (shape.key_parts(key)?, shape.held(value, now, args.show_expired)?);
            if args.show_expired || !held.expired {
                entries.push(Entry { parts, held });
            }
        }
        if entries.is_empty() {
            return Err(nothing(" that has not expired").hint("--show-expired shows what has"));
        }
        let note = entries.iter().find_map(|entry| shape.note(entry.held.value.as_ref()));
        print(args, reader, &lookup, entries)?;
        if let Some(note) = note {
            tell(format_args!("note: {note}"));
        }
        Ok(())
    })
}

/// The stored keys and values.
fn find(
    args: &GetArgs,
    reader: &CheckpointReader,
    shape: &Shape,
    lookup: &Lookup,
    interrupt: &Interrupt,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if lookup.exact {
        let value = reader.get_in(&args.state, lookup.group, &lookup.stored)?;
        return Ok(value.map(|value| (lookup.stored.clone(), value)).into_iter().collect());
    }
    let here = KeyGroupRange { first: lookup.group, last: lookup.group };
    let mut found = Vec::new();
    for entry in reader.scan_groups(&args.state, here, shape.scan_prefix(lookup))? {
        interrupt.check()?;
        let (_, key, value) = entry?;
        if shape.is_of(lookup, &key) {
            found.push((key, value));
        }
    }
    Ok(found)
}

fn print(args: &GetArgs, reader: &CheckpointReader, lookup: &Lookup, mut entries: Vec<Entry>) -> Result<()> {
    let output = Output::of_anything(args.json);
    let columns = |entry: &Entry| {
        let mut columns = if lookup.exact { Vec::new() } else { entry.parts.columns(false) };
        columns.extend(entry.held.columns());
        columns.join("\t")
    };
    let text = entries.iter().map(columns).collect::<Vec<_>>().join("\n");
    let (checkpoint, state, group) = (reader.checkpoint().to_string(), args.state.clone(), lookup.group);
    match entries.pop() {
        Some(what) if lookup.exact => output.write(&Got { checkpoint, state, group, what }, || text),
        last => {
            entries.extend(last);
            output.write(&Got { checkpoint, state, group, what: Entries { entries } }, || text)
        }
    }
}
