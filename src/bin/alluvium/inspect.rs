//! `alluvium inspect`: what lies in a job's object store.

use alluvium::{InspectedCheckpoint, Inspection};
use clap::Args;

use crate::failure::Result;
use crate::options::{Output, parse_store_option};
use crate::table::{cell, empty, right};
use crate::units;

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
    let inspection = alluvium::inspect(&args.url, &args.store_option)?;
    let output = if args.json { Output::JsonOnly } else { Output::Text };
    output.write(&inspection, || text(&args.url, &inspection))
}

fn text(url: &str, inspection: &Inspection) -> String {
    let checkpoints = || inspection.records.iter().filter_map(|record| record.checkpoint.as_ref());
    let size = |bytes: u64| units::bytes(bytes as f64);
    let mut text = format!(
        "{url}\n\
         {} key groups; newest version {}; {} attempt(s), the newest is epoch {}\n\
         {} in {} objects, of which the retained checkpoints need {} in {}",
        inspection.max_parallelism,
        inspection.newest_version,
        inspection.epochs.len(),
        inspection.epochs.last().map_or("–".to_owned(), u64::to_string),
        size(inspection.total_bytes),
        inspection.total_objects,
        size(inspection.live_bytes),
        inspection.live_objects,
    );

    text += "\n\nManifest chain\n";
    let mut chain =
        empty(["version", "epoch", "record", "mode", "taken (UTC)", "own bytes", "to restore", "retained"]);
    for record in &inspection.records {
        let (version, epoch) = (record.version.to_string(), record.epoch.to_string());
        match &record.checkpoint {
            None => chain.add_row([cell(&version), right(&epoch), right("open")]),
            Some(checkpoint) => chain.add_row([
                cell(&version),
                right(&epoch),
                right(&format!("checkpoint {}", checkpoint.id)),
                right(crate::session::mode_name(checkpoint.mode)),
                right(&utc(checkpoint.unix_millis)),
                right(&size(record.bytes)),
                right(&size(checkpoint.full_bytes)),
                right(if checkpoint.retained { "yes" } else { "no" }),
            ]),
        };
    }
    text += &chain.trim_fmt();

    match checkpoints().next_back() {
        None => text += "\n\nNo checkpoint yet.",
        Some(newest) => text += &subtasks(newest),
    }
    text
}

/// What the newest checkpoint consists of.
fn subtasks(checkpoint: &InspectedCheckpoint) -> String {
    let size = |bytes: u64| units::bytes(bytes as f64);
    let mut table = empty([
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

/// `2024-02-29 23:59:58`, by Howard Hinnant's days-to-civil algorithm.
fn utc(unix_millis: u64) -> String {
    let seconds = unix_millis / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years; March is the first month of the year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_709_251_198_500), "2024-02-29 23:59:58");
        assert_eq!(utc(1_735_689_599_000), "2024-12-31 23:59:59");
    }
}
