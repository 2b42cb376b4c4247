//! `alluvium get`: one value of a checkpoint.

use std::io::Write;

use alluvium::KeyGroup;
use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Result, io};
use crate::options::Output;
use crate::source::SourceArgs;
use crate::tagged::{KeyFormat, Tagged, plain};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The state's name
    #[arg(value_name = "STATE")]
    state: String,
    /// The key
    #[arg(value_name = "KEY")]
    key: String,
    /// How KEY is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    key_format: KeyFormat,
    /// The key group that the key was put in [default: the key's own]
    #[arg(long, value_name = "GROUP")]
    group: Option<u16>,
    /// Print a JSON document with state, key group, key and value
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write the value's bytes as they are, without a line end
    #[arg(long)]
    raw: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Got {
    checkpoint: String,
    state: String,
    group: KeyGroup,
    key: Tagged,
    value: Tagged,
}

pub(crate) fn run(args: &GetArgs) -> Result<()> {
    let key = args.key_format.read(&args.key).map_err(Failure::usage)?;
    let (checkpoint, group, value) = args.source.read(|reader, _| {
        let group = args.group.map_or_else(|| reader.max_parallelism().group_of(&key), KeyGroup);
        Ok((reader.checkpoint(), group, reader.get_in(&args.state, group, &key)?))
    })?;
    let Some(value) = value else {
        return Err(Failure::new(format!(
            "state {:?} of checkpoint {checkpoint} has no key {} in group {group}",
            args.state,
            plain(&key)
        )));
    };
    if args.raw {
        let mut out = std::io::stdout();
        return out.write_all(&value).and_then(|()| out.flush()).map_err(io("write to standard output"));
    }
    let got = Got {
        checkpoint: checkpoint.to_string(),
        state: args.state.clone(),
        group,
        key: Tagged::of(&key),
        value: Tagged::of(&value),
    };
    let output = if args.json { Output::JsonOnly } else { Output::Text };
    output.write(&got, || plain(&value))
}
