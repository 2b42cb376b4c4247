//! What the page's script draws: the charts of all sections, and what is shaded behind them.

use serde::Serialize;

use super::charts::{Chart, Line, charts_of};
use super::sections::Section;
use crate::result::RunResult;

/// All that the script needs.
#[derive(Debug, Serialize)]
pub(crate) struct Model<'a> {
    groups: Vec<Key<'a>>,
    charts: Vec<Chart>,
    marks: Vec<Mark>,
    /// Each section's first among the groups.
    #[serde(skip)]
    first_groups: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Key<'a> {
    name: &'a str,
    colour: usize,
}

/// What happened meanwhile, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Mark {
    section: usize,
    group: usize,
    kind: Kind,
    from: f64,
    to: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Materialization,
    Compaction,
    Outage,
    Failure,
}

impl<'a> Model<'a> {
    /// The charts for which at least one run has data, section by section.
    pub(crate) fn of(sections: &'a [Section<'_>]) -> Self {
        let (mut keys, mut charts, mut marks, mut first_groups) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, section) in sections.iter().enumerate() {
            let first = keys.len();
            first_groups.push(first);
            keys.extend(section.groups.iter().map(|group| Key { name: &group.name, colour: group.colour }));
            charts.extend(charts_of(section).into_iter().map(|chart| Chart {
                section: index,
                lines:
                    chart.lines.into_iter().map(|line| Line { group: first + line.group, ..line }).collect(),
                ..chart
            }));
            marks.extend(
                section_marks(section, index)
                    .into_iter()
                    .map(|mark| Mark { group: first + mark.group, ..mark }),
            );
        }
        Self { groups: keys, charts, marks, first_groups }
    }

    pub(crate) fn charts(&self, section: usize) -> impl Iterator<Item = &Chart> {
        self.charts.iter().filter(move |chart| chart.section == section)
    }

    /// The number that the first group of a section has among all.
    pub(crate) fn first_group(&self, section: usize) -> usize {
        self.first_groups[section]
    }

    /// Whether some chart shows a group, counted among all.
    pub(crate) fn draws(&self, group: usize) -> bool {
        self.charts.iter().any(|chart| chart.lines.iter().any(|line| line.group == group))
    }

    /// Whether anything of a kind is shaded, for the legend.
    pub(crate) fn shades(&self, section: usize) -> Shades {
        let any = |kind| self.marks.iter().any(|mark| mark.section == section && mark.kind == kind);
        Shades {
            materializations: any(Kind::Materialization),
            compactions: any(Kind::Compaction),
            outages: any(Kind::Outage),
            failures: any(Kind::Failure),
        }
    }
}

fn section_marks(section: &Section<'_>, index: usize) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let all = section.groups.iter().enumerate().flat_map(|(index, group)| marks_of(index, group.first()));
    for mark in all {
        // It was an outage of the one store that all of them used.
        let like = |other: &Mark| (other.kind, other.from, other.to) == (Kind::Outage, mark.from, mark.to);
        if mark.kind != Kind::Outage || !marks.iter().any(like) {
            marks.push(Mark { section: index, ..mark });
        }
    }
    marks
}

/// Which kinds of marks there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shades {
    pub(crate) materializations: bool,
    pub(crate) compactions: bool,
    pub(crate) outages: bool,
    pub(crate) failures: bool,
}

/// What is shaded, of one run.
fn marks_of(group: usize, run: &RunResult) -> Vec<Mark> {
    let mark = |kind, from: f64, to: f64| Mark { section: 0, group, kind, from, to };
    let mut marks: Vec<Mark> =
        run.materializations.iter().map(|m| mark(Kind::Materialization, m.start_s, m.end_s)).collect();
    for pair in run.samples.windows(2) {
        let [before, after] = pair else { continue };
        if after.running_compactions.is_none_or(|running| running == 0) {
            continue;
        }
        match marks.last_mut() {
            // The same one goes on.
            Some(last) if last.kind == Kind::Compaction && last.to == before.t_s => last.to = after.t_s,
            _ => marks.push(mark(Kind::Compaction, before.t_s, after.t_s)),
        }
    }
    let outages = run.store_model.iter().flat_map(|model| &model.outages);
    marks.extend(outages.map(|outage| mark(Kind::Outage, outage.start_s, outage.end_s)));
    let failures = run.checkpoints.iter().flat_map(|checkpoints| &checkpoints.failed_at_s);
    marks.extend(failures.map(|at| mark(Kind::Failure, *at, *at)));
    marks.retain(|mark| mark.from.is_finite() && mark.to.is_finite());
    marks
}
