//! `alluvium inspect`: what lies in a job's object store.

use alluvium::admin::{InspectedCheckpoint, InspectedOperator, Inspection, PinHolder};
use clap::Args;

use crate::commands::earlier::workload;
use crate::commands::job_args::JobArgs;
use crate::commands::pin;
use crate::commands::savepoint;
use crate::display::table::{cell, empty, right};
use crate::display::tagged::plain;
use crate::display::width::fit;
use crate::failure::{Failure, Result};
use crate::harness::job::mode_of;
use crate::output::Output;
use crate::units::{self, utc};

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let inspection = args.job.location().ask(alluvium::admin::inspect)?;
    let output = Output::of_job(args.json);
    let damage = damage(&args.job.url, &inspection);
    output.write(&inspection, || match &damage {
        None => text(&args.job.url, &inspection),
        Some(damage) => format!("{damage}\n\n{}", text(&args.job.url, &inspection)),
    })?;
    match damage {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!("{} is damaged", args.job.url))),
    }
}

/// What is damaged, what is still intact and what can be done; None for a sound job.
fn damage(url: &str, inspection: &Inspection) -> Option<String> {
    let mut lines = Vec::new();
    for (version, problem) in &inspection.damaged_versions {
        lines.push(format!("Version {version} of the manifest chain cannot be read: {problem}"));
    }
    let retained = || {
        let checkpoints = inspection.records.iter().filter_map(|record| record.checkpoint.as_ref());
        checkpoints.filter(|checkpoint| checkpoint.retained)
    };
    for checkpoint in retained() {
        lines.extend(shortened(
            &checkpoint.damage,
            &format!("Checkpoint {} cannot be restored", checkpoint.id),
        ));
    }
    for damaged in &inspection.damaged {
        lines.push(format!(
            "A savepoint cannot be read, and nothing is collected before it is released: {damaged}"
        ));
    }
    let lost = inspection.savepoints.iter().filter(|savepoint| savepoint.full_bytes.is_none());
    lines.extend(lost.map(|savepoint| format!("The checkpoint of savepoint {} is gone", savepoint.name)));
    for pin in &inspection.pins {
        if let PinHolder::Damaged { problem } = &pin.holder {
            lines.push(format!(
                "Pin {} cannot be read, and nothing is collected before it is released: {problem}",
                pin.id
            ));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let way_out = match retained().rfind(|checkpoint| checkpoint.damage.is_empty()) {
        Some(intact) => format!(
            "The newest intact checkpoint is {id}, taken {taken} (UTC). Try it: {trial}. A job goes on from it by \
             JobOptions::restore_from or fallback(true); its sources then start from the offsets of that checkpoint.",
            id = intact.id,
            taken = utc(intact.unix_millis),
            trial = trial(url, intact),
        ),
        None => "No retained checkpoint is intact. Look for the objects in the versions of the bucket, or in a backup."
            .to_owned(),
    };
    Some(format!("DAMAGED\n  {}\n{way_out}", lines.join("\n  ")))
}

/// The command that shows whether a checkpoint can be restored. `restore-test` knows the state that a load must lead
/// to. Of any other job, `state list` reads all of the checkpoint.
fn trial(url: &str, checkpoint: &InspectedCheckpoint) -> String {
    let id = checkpoint.id;
    match workload(&checkpoint.metadata) {
        Ok(_) => format!("alluvium restore-test {url} --dir DIR --checkpoint {id} --verify"),
        Err(_) => format!("alluvium state list {url} --checkpoint {id}"),
    }
}

/// The first few of many problems.
fn shortened(problems: &[String], what: &str) -> Option<String> {
    const MOST: usize = 3;
    let first = problems.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    match problems.len() {
        0 => None,
        n if n <= MOST => Some(format!("{what}: {first}")),
        n => Some(format!("{what}: {first}; and {} more, see --json", n - MOST)),
    }
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
                right(match (checkpoint.retained, checkpoint.damage.is_empty()) {
                    (false, _) => "no",
                    (true, true) => "yes",
                    (true, false) => "damaged",
                }),
            ]),
        };
    }
    text += &fit(&chain);

    if !inspection.savepoints.is_empty() {
        text += "\n\nSavepoints\n";
        text += &savepoint::table(&inspection.savepoints);
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
        "metadata",
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
            cell(&shown(&subtask.metadata)),
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
                cell(""),
            ]);
        }
    }
    let states = match checkpoint.operators.as_slice() {
        [] => format!("states {}", listed(&checkpoint.states)),
        operators => operators.iter().map(operator).collect::<Vec<_>>().join("; "),
    };
    format!(
        "\n\nCheckpoint {}: {states}; {} of metadata: {}\n{}",
        checkpoint.id,
        size(checkpoint.metadata_bytes),
        shown(&checkpoint.metadata),
        fit(&table)
    )
}

fn operator(operator: &InspectedOperator) -> String {
    let subtasks = match operator.subtasks.as_slice() {
        [only] => format!("subtask {only}"),
        [first, .., last] => format!("subtasks {first} to {last}"),
        [] => "no subtask".to_owned(),
    };
    format!(
        "operator {} ({subtasks}; {} key groups): states {}",
        plain(operator.id.as_bytes()),
        operator.max_parallelism,
        listed(&operator.states)
    )
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Metadata, up to 1 MiB of any bytes, as one line: offsets are short, and their beginning tells most
/// of what is long.
fn shown(metadata: &[u8]) -> String {
    const LONGEST: usize = 40;
    let text = plain(metadata);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "–".to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_one_short_line() {
        assert_eq!(shown(b""), "–");
        assert_eq!(shown(b"offset 17"), "offset 17");
        assert_eq!(shown(&[0, 0, 0, 17]), "base64:AAAAEQ==");
        assert_eq!(shown("ä".repeat(1 << 20).as_bytes()), format!("{}…", "ä".repeat(40)));
    }
}
