//! What the figures do not show.

use super::groups::Group;
use super::phrases::and;
use crate::result::RunResult;
use crate::units;

/// Below this many checkpoints a 99th percentile is the slowest one or next to it.
const ENOUGH_FOR_P99: u64 = 100;

/// A load average above this is other work that shows in the figures.
const IDLE: f64 = 0.3;

/// What a reader might take from the figures, but must not.
pub(crate) fn caveats(groups: &[Group<'_>]) -> Vec<String> {
    let mut sentences = Vec::new();
    let runs: Vec<&RunResult> = groups.iter().flat_map(|group| group.runs.iter().copied()).collect();
    let any = |of: &dyn Fn(&RunResult) -> bool| runs.iter().any(|run| of(run));
    sentences.push("Other keys, values, rates and machines: this is one workload on one machine.".to_owned());
    if any(&|run| run.store_model.is_some()) {
        sentences.push(
            "A real store: the model has latency and bandwidth, but no TLS, HTTP or signing, which cost CPU time.".to_owned(),
        );
    } else if any(&|run| matches!(run.settings.store.as_deref(), Some("file" | "memory"))) {
        sentences.push(
            "A real object store: this one is on the same machine, without a network, and shares its disk and CPU.".to_owned(),
        );
    }
    if groups.iter().any(|group| group.runs.len() == 1) {
        sentences.push("Chance: without repetitions, a difference of a few percent may be none.".to_owned());
    }
    let few: Vec<String> = groups
        .iter()
        .filter_map(|group| {
            let n =
                group.runs.iter().filter_map(|run| Some(run.checkpoints.as_ref()?.duration_ms?.n)).min()?;
            (n < ENOUGH_FOR_P99).then(|| format!("{n} of {}", group.name))
        })
        .collect();
    if !few.is_empty() {
        sentences.push(format!(
            "The tail of the durations: with {} checkpoints a 99th percentile is the slowest one or next to it.",
            and(&few)
        ));
    }
    sentences.extend(about_restores(&runs));
    let busiest = runs.iter().filter_map(|run| run.machine.load_average_before).fold(0.0, f64::max);
    if busiest > IDLE {
        sentences.push(format!(
            "An idle machine: other work was running before (load average up to {}).",
            units::three_digits(busiest)
        ));
    } else if any(&|run| run.machine.load_average_before.is_none()) {
        sentences.push("Whether the machine did other work at the time: that was not recorded.".to_owned());
    }
    let lacking: Vec<String> = groups
        .iter()
        .filter(|group| group.runs.iter().all(|run| run.cpu_s_per_million_records.is_none()))
        .map(|group| group.name.clone())
        .collect();
    if !lacking.is_empty() {
        sentences.push(format!("The CPU time of {}: it could not be had.", and(&lacking)));
    }
    for group in groups {
        let debt = |end: bool| {
            group.median(|run| {
                let debt = run.compaction_debt?;
                Some(if end { debt.end } else { debt.start }.pending_bytes as f64)
            })
        };
        if let (Some(start), Some(end)) = (debt(false), debt(true))
            && end > start + 1e6
        {
            sentences.push(format!(
                "All of its work: {} ended with {} of compaction still to do, {} at the start.",
                group.name,
                units::bytes(end),
                units::bytes(start)
            ));
        }
    }
    sentences.extend(notes(groups));
    sentences
}

/// What the runs say themselves, once where several say the same.
fn notes(groups: &[Group<'_>]) -> Vec<String> {
    let has = |group: &Group<'_>, note: &String| group.runs.iter().any(|run| run.notes.contains(note));
    let mut seen: Vec<&String> = Vec::new();
    for note in groups.iter().flat_map(|group| group.runs.iter().flat_map(|run| &run.notes)) {
        if !seen.contains(&note) {
            seen.push(note);
        }
    }
    let say = |note: &String| {
        let of: Vec<String> =
            groups.iter().filter(|group| has(group, note)).map(|group| group.name.clone()).collect();
        if of.len() == groups.len() { note.clone() } else { format!("{}: {note}", and(&of)) }
    };
    seen.into_iter().map(say).collect()
}

fn about_restores(runs: &[&RunResult]) -> Vec<String> {
    let restores: Vec<_> = runs.iter().filter_map(|run| run.restore.as_ref()).collect();
    let mut sentences = Vec::new();
    if restores.is_empty() {
        return vec!["A restore: none was tried.".to_owned()];
    }
    if restores.iter().any(|restore| restore.page_cache_warm == Some(true)) {
        sentences.push(
            "A restore on a fresh machine: the operating system had the objects in memory already."
                .to_owned(),
        );
    } else if restores.iter().any(|restore| restore.page_cache_warm.is_none()) {
        sentences
            .push("Whether the restore read from disk: the state of the page cache is not known.".to_owned());
    }
    if restores.iter().any(|restore| restore.new_process == Some(false)) {
        sentences.push("A restore by a new process: the same one opened the job again.".to_owned());
    }
    if restores.iter().any(|restore| restore.missing_keys.is_none()) {
        sentences.push("That the restored state is right: verification was not asked for.".to_owned());
    }
    sentences
}
