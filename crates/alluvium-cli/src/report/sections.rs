//! Which runs are compared with one another: those that did the same work. Each work has a section of its own, with its
//! own baseline; runs that only restored something are apart.

use super::groups::{Group, baseline, groups};
use super::phrases::rate;
use crate::result::RunResult;
use crate::units;

/// Groups of runs that did the same work.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    /// Ends the ids of its elements; empty where it is the only one.
    pub(crate) id: String,
    /// What was done; None where the page's own head says it.
    pub(crate) title: Option<String>,
    pub(crate) groups: Vec<Group<'a>>,
    /// What the other groups are compared with.
    pub(crate) baseline: Option<usize>,
}

/// What a page shows.
#[derive(Debug)]
pub(crate) struct Sections<'a> {
    pub(crate) measured: Vec<Section<'a>>,
    /// Runs that only restored what another one had left.
    pub(crate) restores: Vec<Group<'a>>,
}

impl<'a> Sections<'a> {
    pub(crate) fn of(results: &'a [RunResult]) -> Self {
        let (restores, measured): (Vec<_>, Vec<_>) = results.iter().partition(|run| only_restores(run));
        // A page of nothing but restores is as good as any other.
        let (restores, measured) =
            if measured.is_empty() { (measured, restores) } else { (restores, measured) };
        let mut works: Vec<Vec<&RunResult>> = Vec::new();
        for run in measured {
            match works.iter_mut().find(|work| same_work(work[0], run)) {
                Some(work) => work.push(run),
                None => works.push(vec![run]),
            }
        }
        let several = works.len() > 1;
        let section = |(index, runs): (usize, Vec<&'a RunResult>)| {
            let groups = groups(&runs);
            Section {
                id: if index == 0 { String::new() } else { format!("-{}", index + 1) },
                title: several.then(|| title(runs[0])),
                baseline: baseline(&groups),
                groups,
            }
        };
        let measured = works.into_iter().enumerate().map(section).collect();
        Self { measured, restores: groups(&restores) }
    }
}

fn only_restores(run: &RunResult) -> bool {
    run.records == 0 && run.measured_s == 0.0 && run.restore.is_some()
}

/// Whether figures of both may be compared.
fn same_work(a: &RunResult, b: &RunResult) -> bool {
    let store = |run: &RunResult| {
        // When an outage began is not the same to the millisecond.
        run.store_model.clone().map(|model| crate::result::StoreModelSpec { outages: Vec::new(), ..model })
    };
    // A run without checkpoints has neither, and is the ceiling of all that have.
    let alike = |a: Option<String>, b: Option<String>| a.is_none() || b.is_none() || a == b;
    let interval = |run: &RunResult| run.settings.checkpoint_interval_ms.map(|ms| ms.to_string());
    let store = |run: &RunResult| store(run).map(|model| format!("{model:?}"));
    a.workload == b.workload
        && a.settings.rate == b.settings.rate
        && alike(interval(a), interval(b))
        && alike(store(a), store(b))
}

/// The work of a run in a few words.
fn title(run: &RunResult) -> String {
    let work = &run.workload;
    let mut title = format!(
        "{} on {} keys of {}, {}",
        work.operation,
        units::count(work.keys as f64),
        units::bytes(work.value_bytes as f64),
        rate(run)
    );
    if work.distribution != "uniform" {
        title += &format!(", {}", work.distribution);
    }
    if let Some(label) = &run.label {
        title = format!("{label}: {title}");
    }
    title
}
