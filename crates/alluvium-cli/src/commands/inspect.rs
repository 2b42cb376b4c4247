//! `alluvium inspect`: what lies in a job's object store.

use alluvium::admin::{InspectedCheckpoint, Inspection};
use clap::Args;

use crate::commands::pin;
use crate::commands::savepoint;
use crate::display::table::{cell, empty, right};
use crate::failure::Result;
use crate::harness::job::mode_of;
use crate::output::Output;
use crate::store_option::{location, parse_store_option};
use crate::units::{self, utc};

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The job: a directory, file:///…, or s3://, az://, gs:// if built with that feature
    #[arg(value_name = "URL")]
    url: String,
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option)]
    store_option: Vec<(String, String)>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let inspection = alluvium::admin::inspect(location(&args.url, &args.store_option))?;
    let output = if args.json { Output::JsonOnly } else { Output::Text };
    output.write(&inspection, || text(&args.url, &inspection))
}

fn text(url: &str, inspection: &Inspection) -> String {
    let checkpoints = || inspection.records.iter().filter_map(|record| record.checkpoint.as_ref());
    let size = |bytes: u64| units::bytes(bytes as f64);
    let mut text = format!(
        "{url}\n\
         {} key groups; newest version {}; {} attempt(s), the newest is epoch {}\n\
         {} in {} objects, of which the retained checkpoints need {} in {}, savepoints and pins beside that {} in {}",
        inspection.max_parallelism,
        inspection.newest_version,
        inspection.epochs.len(),
        inspection.epochs.last().map_or("–".to_owned(), u64::to_string),
        size(inspection.total_bytes),
        inspection.total_objects,
        size(inspection.live_bytes),
        inspection.live_objects,
        size(inspection.held_bytes),
        inspection.held_objects,
    );

    if inspection.staged_files > 0 {
        text += &format!(
            "\nbeside them {} in {} file(s) that are being written, or that a killed process has left; the next start \
             of the job removes those of earlier attempts",
            size(inspection.staged_bytes),
            inspection.staged_files,
        );
    }

    text += "\n\nManifest chain\n";
    let mut chain =
        empty(&["version", "epoch", "record", "mode", "taken (UTC)", "own bytes", "to restore", "retained"]);
    for record in &inspection.records {
        let (version, epoch) = (record.version.to_string(), record.epoch.to_string());
        match &record.checkpoint {
            None => chain.add_row([cell(&version), right(&epoch), right("open")]),
            Some(checkpoint) => chain.add_row([
                cell(&version),
                right(&epoch),
                right(&format!("checkpoint {}", checkpoint.id)),
                right(mode_of(checkpoint.mode).name()),
                right(&utc(checkpoint.unix_millis)),
                right(&size(record.bytes)),
                right(&size(checkpoint.full_bytes)),
                right(if checkpoint.retained { "yes" } else { "no" }),
            ]),
        };
    }
    text += &chain.trim_fmt();

    if !inspection.savepoints.is_empty() {
        text += "\n\nSavepoints\n";
        text += &savepoint::table(&inspection.savepoints);
    }
    for (version, problem) in &inspection.damaged_versions {
        text += &format!("\n\nVersion {version} of the manifest chain cannot be read: {problem}");
    }
    for damaged in &inspection.damaged {
        text += &format!(
            "\n\nA savepoint cannot be read, and nothing is collected before it is released: {damaged}"
        );
    }
    if !inspection.pins.is_empty() {
        text += "\n\nPins: what readers hold, or killed ones have left (alluvium pin release)\n";
        text += &pin::table(&inspection.pins);
    }

    match checkpoints().next_back() {
        None => text += "\n\nNo checkpoint yet.",
        Some(newest) => text += &subtasks(newest),
    }
    text
}

/// What the newest checkpoint consists of.
fn subtasks(checkpoint: &InspectedCheckpoint) -> String {
    let size = |bytes: u64| units::bytes(bytes as f64);
    let mut table = empty(&[
        "subtask",
        "key groups",
        "base at delta",
        "base",
        "files",
        "deltas",
        "delta bytes",
        "state at delta",
    ]);
    for subtask in &checkpoint.subtasks {
        table.add_row([
            cell(&subtask.subtask.to_string()),
            right(&subtask.range),
            right(&subtask.base_seq.map_or("–".to_owned(), |seq| seq.to_string())),
            right(&size(subtask.base_bytes)),
            right(&subtask.base_files.to_string()),
            right(&subtask.deltas.to_string()),
            right(&size(subtask.delta_bytes)),
            right(&subtask.seq.to_string()),
        ]);
        // Rescaled, and without a base of its own: what it has taken over, below it.
        for origin in &subtask.origins {
            let from: Vec<_> = origin.subtasks.iter().map(ToString::to_string).collect();
            table.add_row([
                cell(&format!("  from {}", from.join(", "))),
                right(&origin.range),
                right(&origin.base_seq.map_or("–".to_owned(), |seq| seq.to_string())),
                right(&size(origin.base_bytes)),
                right(&origin.base_files.to_string()),
                right(&origin.deltas.to_string()),
                right(&size(origin.delta_bytes)),
                right(""),
            ]);
        }
    }
    let states = match checkpoint.states.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    format!(
        "\n\nCheckpoint {}: states {states}; {} of metadata\n{}",
        checkpoint.id,
        size(checkpoint.metadata_bytes),
        table.trim_fmt()
    )
}
