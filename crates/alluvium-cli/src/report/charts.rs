//! The charts as the page's script draws them: plain series with units, and what is shaded behind them.

use serde::Serialize;

use super::groups::Group;
use super::sampled::{L0_FILES, LAG, LATENCY, PENDING, THROUGHPUT, sampled};
use super::sections::Section;
use crate::result::{CheckpointPoint, RunResult};

/// Above this ratio of the largest to the smallest value an axis is logarithmic.
const LOG_FROM: f64 = 25.0;

/// One chart. Its title and explanation are in the page.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chart {
    pub(crate) id: String,
    pub(super) section: usize,
    #[serde(skip)]
    pub(crate) title: &'static str,
    #[serde(skip)]
    pub(crate) about: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) draw: Draw,
    /// Whether materializations, compactions and outages are shown.
    pub(super) shaded: bool,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Axis {
    /// `s`, `ms`, `B`, `/s`, `%`, `files`, `checkpoints`
    unit: &'static str,
    name: &'static str,
    log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Draw {
    Line,
    Step,
    Points,
}

/// One run's series, ascending in x.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    pub(super) group: usize,
    pub(super) x: Vec<f64>,
    pub(super) y: Vec<f64>,
}

pub(super) const TIME: Axis = Axis { unit: "s", name: "time", log: false };

/// Logarithmic where values differ that much.
pub(super) fn axis(unit: &'static str, name: &'static str, lines: &[Line]) -> Axis {
    let values = || lines.iter().flat_map(|line| &line.y).copied();
    let smallest = values().fold(f64::INFINITY, f64::min);
    let log = smallest > 0.0 && values().fold(0.0, f64::max) / smallest > LOG_FROM;
    Axis { unit, name, log }
}

/// One line per run, of all points that are numbers.
pub(super) fn lines(groups: &[Group<'_>], points: impl Fn(&RunResult) -> Vec<(f64, f64)>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (group, of) in groups.iter().enumerate() {
        for run in &of.runs {
            let mut points = points(run);
            points.retain(|(x, y)| x.is_finite() && y.is_finite());
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if !points.is_empty() {
                let (x, y) = points.into_iter().map(|(x, y)| (brief(x), brief(y))).unzip();
                lines.push(Line { group, x, y });
            }
        }
    }
    lines
}

/// To six significant digits: more cannot be seen, and pages stay small.
fn brief(number: f64) -> f64 {
    format!("{number:.5e}").parse().unwrap_or(number)
}

fn checkpoints(groups: &[Group<'_>], of: fn(&CheckpointPoint) -> f64) -> Vec<Line> {
    lines(groups, |run| run.checkpoint_series.iter().map(|point| (point.start_s, of(point))).collect())
}

fn durations(groups: &[Group<'_>]) -> Chart {
    let lines = checkpoints(groups, |point| point.duration_ms);
    Chart {
        id: "checkpoint-duration".to_owned(),
        section: 0,
        title: "Checkpoint duration",
        about: "From the trigger until the manifest is durable, one point per checkpoint".to_owned(),
        x: TIME,
        y: axis("ms", "duration", &lines),
        draw: Draw::Points,
        shaded: true,
        lines,
    }
}

/// The share of checkpoints that took at most so long, of all repetitions together.
fn distribution(groups: &[Group<'_>]) -> Chart {
    let mut lines = Vec::new();
    for (group, of) in groups.iter().enumerate() {
        let series = of.runs.iter().flat_map(|run| &run.checkpoint_series);
        let mut x: Vec<f64> =
            series.map(|point| brief(point.duration_ms)).filter(|ms| ms.is_finite()).collect();
        x.sort_by(f64::total_cmp);
        let n = x.len() as f64;
        let y = (1..=x.len()).map(|rank| brief(rank as f64 * 100.0 / n)).collect();
        if !x.is_empty() {
            lines.push(Line { group, x, y });
        }
    }
    let turned: Vec<Line> = lines.iter().map(|line| Line { y: line.x.clone(), ..line.clone() }).collect();
    Chart {
        id: "checkpoint-cdf".to_owned(),
        section: 0,
        title: "Distribution of checkpoint durations",
        about: "Share of all checkpoints that took at most so long".to_owned(),
        x: axis("ms", "duration", &turned),
        y: Axis { unit: "%", name: "checkpoints", log: false },
        draw: Draw::Step,
        shaded: false,
        lines,
    }
}

fn bytes(groups: &[Group<'_>]) -> Chart {
    let lines = checkpoints(groups, |point| point.bytes as f64);
    Chart {
        id: "checkpoint-bytes".to_owned(),
        section: 0,
        title: "Bytes per checkpoint",
        about: "What the checkpoint itself put into the store, one point per checkpoint".to_owned(),
        x: TIME,
        y: axis("B", "uploaded", &lines),
        draw: Draw::Points,
        shaded: true,
        lines,
    }
}

/// The charts of a section for which at least one run has data.
pub(super) fn charts_of(section: &Section<'_>) -> Vec<Chart> {
    let groups = &section.groups;
    let mut charts = vec![
        durations(groups),
        distribution(groups),
        bytes(groups),
        sampled(groups, THROUGHPUT),
        sampled(groups, LATENCY),
        sampled(groups, LAG),
        sampled(groups, L0_FILES),
        sampled(groups, PENDING),
    ];
    charts.retain(|chart| !chart.lines.is_empty());
    for chart in &mut charts {
        // The first group lies on top.
        chart.lines.reverse();
        chart.id += &section.id;
    }
    charts
}
