//! The report in words: what was run, on what, and what must be known before any figure.

use std::fmt::Write;

use maud::{Markup, html};

use super::groups::Group;
use super::model::Shades;
use super::phrases::{and, machine, model, rate, span};
use super::sections::Section;
use crate::result::metric;
use crate::units;

/// With a capital at its start.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Keeps numbers and their units in one line.
fn unbroken(sentence: &str) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "µs", "ms", "s", "min", "%"];
    let mut joined = String::new();
    for word in sentence.split(' ') {
        let unit = word.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '%');
        let unit = unit.strip_suffix("/s").unwrap_or(unit);
        let after_number = joined.ends_with(|c: char| c.is_ascii_digit());
        if !joined.is_empty() {
            joined.push(if after_number && UNITS.contains(&unit) { '\u{a0}' } else { ' ' });
        }
        joined.push_str(word);
    }
    joined
}

fn names(groups: &[Group<'_>]) -> Vec<String> {
    groups.iter().map(|group| group.name.clone()).collect()
}

pub(crate) fn headline(sections: &[Section<'_>]) -> String {
    let [section] = sections else {
        let groups = sections.iter().map(|section| section.groups.len()).sum::<usize>();
        return format!("{groups} configurations under {} loads", sections.len());
    };
    let groups = &section.groups;
    let text = if groups.len() > super::findings::IN_WORDS + 1 {
        format!("{} configurations", groups.len())
    } else {
        capital(&and(&names(groups)))
    };
    match groups.as_slice() {
        [_] => format!("{text} under load"),
        _ => format!("{text} under the same load"),
    }
}

pub(crate) fn lead(sections: &[Section<'_>]) -> String {
    let all = || sections.iter().flat_map(|section| &section.groups);
    let Some(run) = all().next().map(Group::first) else { return String::new() };
    let mut text = match sections {
        [_] => format!(
            "{} on {} keys, {}",
            run.workload.operation,
            units::count(run.workload.keys as f64),
            rate(run)
        ),
        _ => "Each load has a section of its own, and runs are compared within it".to_owned(),
    };
    if let (Some(ms), [_]) = (run.settings.checkpoint_interval_ms, sections) {
        let _ = write!(text, ", a checkpoint every {}", span(ms / 1e3));
    }
    if let Some(machine) = machine(run) {
        let _ = write!(text, "; {machine}");
    }
    if let Some(day) = run.started_at.as_deref().and_then(|at| at.get(..10)) {
        let _ = write!(text, "; {day}");
    }
    capital(&text) + "."
}

/// What must be seen before any figure.
pub(crate) fn warnings(groups: &[Group<'_>]) -> Markup {
    let mut warnings = Vec::new();
    for group in groups {
        let name = &group.name;
        for (index, run) in group.runs.iter().enumerate() {
            let which =
                if group.runs.len() > 1 { format!("{name}, run {},", index + 1) } else { name.clone() };
            if let Some(reason) = &run.ended_early {
                warnings
                    .push(format!("{which} ended early after {}: {reason}", metric::seconds(run.measured_s)));
            }
            let wrong = run.restore.as_ref().map(|restore| {
                [restore.missing_keys, restore.wrong_keys, restore.extra_keys].map(Option::unwrap_or_default)
            });
            if let Some([missing, wrong, extra]) =
                wrong.filter(|counts| counts.iter().any(|count| *count > 0))
            {
                warnings.push(format!("{which} lost state: {missing} keys missing, {wrong} wrong, {extra} extra after the restore"));
            }
        }
        let failed: u64 = group.runs.iter().filter_map(|run| Some(run.checkpoints.as_ref()?.failed)).sum();
        if failed > 0 {
            warnings.push(format!("{name}: {failed} checkpoint(s) failed; they are not in the durations"));
        }
    }
    html! { @for warning in &warnings { p class="warning" role="note" { (warning) "." } } }
}

pub(crate) fn words(groups: &[Group<'_>], baseline: Option<usize>) -> Markup {
    let list = |title: &str, sentences: Vec<String>| {
        html! {
            div class="card" {
                h2 { (title) }
                ul { @for sentence in &sentences { li { (unbroken(&capital(sentence))) } } }
            }
        }
    };
    html! {
        (list("What was measured", measured(groups)))
        (list("What it shows", super::findings::findings(groups, baseline)))
        (list("What it does not show", super::caveats::caveats(groups)))
    }
}

fn measured(groups: &[Group<'_>]) -> Vec<String> {
    let mut sentences = Vec::new();
    let Some(run) = groups.first().map(Group::first) else { return sentences };
    let work = &run.workload;
    sentences.push(format!(
        "{} on {} keys with values of {}, drawn {}, by {} subtask(s).",
        work.operation,
        units::count(work.keys as f64),
        units::bytes(work.value_bytes as f64),
        work.distribution,
        work.subtasks
    ));
    sentences.push(if run.settings.rate > 0.0 {
        format!(
            "Paced at {}, open loop, for {}: a record's latency counts from when it was due, so a stall shows in \
             every record that it delayed.",
            rate(run),
            span(run.settings.duration_s)
        )
    } else {
        format!("As fast as it goes for {}; latency is the time of an update itself.", span(run.settings.duration_s))
    });
    sentences.push(
        "Clock and CPU meter stop only when every change is applied and durable: deferred work does not flatter.".to_owned(),
    );
    let mut store = match (&run.settings.store, &run.store_model) {
        (_, Some(spec)) => format!("The object store is a model: {}.", model(spec)),
        (Some(kind), None) => format!("The object store is {}, as it is.", kind_name(kind)),
        (None, None) => String::new(),
    };
    if let Some(ms) = run.settings.checkpoint_interval_ms {
        let _ = write!(store, " A checkpoint every {}", span(ms / 1e3));
        let base = groups.iter().find_map(|group| group.first().settings.materialization_interval_ms);
        store += &base.map_or(".".to_owned(), |ms| format!(", a new base every {}.", span(ms / 1e3)));
    }
    if !store.is_empty() {
        sentences.push(store.trim_start().to_owned());
    }
    let mut machine = machine(run).map_or(String::new(), |machine| format!("On {machine}; "));
    let _ = write!(
        machine,
        "{} for deltas, caches of records, memtables and block caches together.",
        units::bytes(run.settings.memory_bytes as f64)
    );
    sentences.push(machine);
    let counts: Vec<String> = groups
        .iter()
        .filter_map(|group| {
            let n: u64 = group.runs.iter().filter_map(|run| Some(run.checkpoints.as_ref()?.n)).sum();
            let runs =
                if group.runs.len() > 1 { format!(" in {} runs", group.runs.len()) } else { String::new() };
            (n > 0).then(|| format!("{} of {}{runs}", units::count(n as f64), group.name))
        })
        .collect();
    if !counts.is_empty() {
        sentences.push(format!("Completed checkpoints: {}.", and(&counts)));
    }
    sentences
}

fn kind_name(kind: &str) -> &str {
    match kind {
        "file" => "a directory of this machine",
        "memory" => "this process's memory",
        other => other,
    }
}

/// What the shading in the charts means.
pub(crate) fn shades(groups: &[Group<'_>], shades: Shades) -> Markup {
    let all = [
        (shades.materializations, "key", "a base is being uploaded"),
        (shades.compactions, "key compaction", "compaction runs"),
        (shades.outages, "key outage", "the store does not answer"),
        (shades.failures, "key failure", "a checkpoint failed"),
    ];
    let keys: Vec<_> = all.into_iter().filter(|(shown, ..)| *shown).collect();
    if keys.is_empty() {
        return Markup::default();
    }
    let whose = if groups.iter().any(|group| group.runs.len() > 1) { ", of the first run each" } else { "" };
    html! {
        "Behind the charts, in the colour of its run" (whose) ": "
        @for (index, (_, class, says)) in keys.iter().enumerate() {
            @if index > 0 { ", " }
            span class=(class) { (says) }
        }
        "."
    }
}

pub(crate) fn about_figures(groups: &[Group<'_>], baseline: Option<usize>) -> String {
    let mut text = String::new();
    if groups.iter().any(|group| group.runs.len() > 1) {
        text += "Of repetitions the median, and below it the range; ratios are taken pair by pair. ";
    }
    if let Some(base) = baseline.and_then(|index| groups.get(index)) {
        let _ = write!(text, "Ratios are to {}; differences below 2 % are not judged. ", base.name);
    }
    text + "A 99.9th percentile is given only where there are 1000 samples for it; – was not measured. The physical limit is what the \
     store's latency and bandwidth allow for the bytes that were still to go at the trigger."
}
