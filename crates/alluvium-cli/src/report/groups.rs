//! Which runs are repetitions of one another, and how such groups compare.

use crate::result::metric::Metric;
use crate::result::{Mode, RunResult, Spread};

/// Repetitions of one system in one mode on one workload.
#[derive(Debug, Clone)]
pub(crate) struct Group<'a> {
    /// Unique among the groups of a page, and as short as that allows.
    pub(crate) name: String,
    /// Number of its colour in the style: 0 changelog, 1 native, 2 none, then others.
    pub(crate) colour: usize,
    pub(crate) runs: Vec<&'a RunResult>,
}

/// Number of colours in the style.
const COLOURS: usize = 8;

impl<'a> Group<'a> {
    /// The first run: what all have in common can be read off it.
    pub(crate) fn first(&self) -> &'a RunResult {
        self.runs[0]
    }

    pub(crate) fn mode(&self) -> Mode {
        self.first().mode
    }

    /// Over all runs that have this figure.
    pub(crate) fn spread(&self, of: impl Fn(&RunResult) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| of(run)).collect())
    }

    pub(crate) fn median(&self, of: impl Fn(&RunResult) -> Option<f64>) -> Option<f64> {
        Some(self.spread(of)?.median)
    }

    /// This group's figure over the other's, pair by pair where runs have the same number (or, without
    /// numbers, the same place), else median over median. None where a figure is missing or the other's is 0.
    pub(crate) fn ratio(&self, other: &Self, figure: &Metric) -> Option<Spread> {
        let pairs = self.runs.iter().enumerate().filter_map(|(index, run)| {
            let partner = match run.repeat {
                Some(_) => other.runs.iter().find(|partner| partner.repeat == run.repeat),
                None => other.runs.get(index),
            };
            let (ours, theirs) = ((figure.of)(run)?, (figure.of)(partner?)?);
            (theirs != 0.0).then(|| ours / theirs)
        });
        Spread::of(pairs.collect()).or_else(|| {
            let (ours, theirs) = (self.median(figure.of)?, other.median(figure.of)?);
            (theirs != 0.0).then(|| Spread { median: ours / theirs, min: ours / theirs, max: ours / theirs })
        })
    }
}

/// All groups, in the order of their first runs.
pub(crate) fn groups<'a>(results: &[&'a RunResult]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in results {
        match groups.iter_mut().find(|group| is_repetition(group.first(), run)) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name: String::new(), colour: 0, runs: vec![run] }),
        }
    }
    name(&mut groups);
    colour(&mut groups);
    groups
}

fn is_repetition(a: &RunResult, b: &RunResult) -> bool {
    let model = |run: &RunResult| {
        // When an outage began is not the same to the millisecond.
        run.store_model.clone().map(|model| crate::result::StoreModelSpec { outages: Vec::new(), ..model })
    };
    (&a.system, &a.version, a.mode, &a.label) == (&b.system, &b.version, b.mode, &b.label)
        && (&a.workload, &a.settings) == (&b.workload, &b.settings)
        && model(a) == model(b)
}

/// Mode alone where that is enough; system, version and label where they differ.
fn name(groups: &mut [Group<'_>]) {
    let firsts: Vec<&RunResult> = groups.iter().map(Group::first).collect();
    let differ = |of: fn(&RunResult) -> &str| firsts.windows(2).any(|pair| of(pair[0]) != of(pair[1]));
    let (systems, labels) =
        (differ(|run| &run.system), differ(|run| run.label.as_deref().unwrap_or_default()));
    let versions =
        firsts.iter().any(|a| firsts.iter().any(|b| a.system == b.system && a.version != b.version));
    let mut names: Vec<String> = Vec::new();
    for run in &firsts {
        let mut parts = Vec::new();
        if systems {
            parts.push(run.system.as_str());
        }
        if versions {
            parts.push(&run.version);
        }
        parts.push(match run.mode {
            Mode::None => "no checkpoints",
            mode => mode.name(),
        });
        let mut name = parts.join(" ");
        match &run.label {
            Some(label) if labels => name = format!("{name}, {label}"),
            _ => {}
        }
        // The rest that can differ is in the table of settings.
        let like =
            names.iter().filter(|other| **other == name || other.starts_with(&format!("{name} #"))).count();
        if like > 0 {
            name = format!("{name} #{}", like + 1);
        }
        names.push(name);
    }
    for (group, name) in groups.iter_mut().zip(names) {
        group.name = name;
    }
}

/// The first group of a mode has the mode's colour, so that it is the same on every page.
fn colour(groups: &mut [Group<'_>]) {
    let mut taken = [false; 3];
    let mut next = taken.len();
    for group in groups {
        let own = match group.mode() {
            Mode::Changelog => 0,
            Mode::Native => 1,
            Mode::None => 2,
        };
        if taken[own] {
            group.colour = next;
            next = if next + 1 < COLOURS { next + 1 } else { taken.len() };
        } else {
            taken[own] = true;
            group.colour = own;
        }
    }
}

/// What the others are compared with: native, else without checkpoints, else the first. None for one
/// group alone.
pub(crate) fn baseline(groups: &[Group<'_>]) -> Option<usize> {
    let of = |mode| groups.iter().position(|group| group.mode() == mode);
    (groups.len() > 1).then(|| of(Mode::Native).or_else(|| of(Mode::None)).unwrap_or(0))
}
