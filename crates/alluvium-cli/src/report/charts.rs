//! The charts as the page's script draws them: plain series with units, and what is shaded behind them.

use serde::Serialize;

use super::groups::Group;
use super::sections::Section;
use crate::result::{CheckpointPoint, RunResult, Sample};

/// Above this ratio of the largest to the smallest value an axis is logarithmic.
const LOG_FROM: f64 = 25.0;

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

/// One chart. Its title and explanation are in the page.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chart {
    pub(crate) id: String,
    section: usize,
    #[serde(skip)]
    pub(crate) title: &'static str,
    #[serde(skip)]
    pub(crate) about: String,
    x: Axis,
    y: Axis,
    draw: Draw,
    /// Whether materializations, compactions and outages are shown.
    shaded: bool,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Axis {
    /// `s`, `ms`, `B`, `/s`, `%`, `files`, `checkpoints`
    unit: &'static str,
    name: &'static str,
    log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Draw {
    Line,
    Step,
    Points,
}

/// One run's series, ascending in x.
#[derive(Debug, Clone, Serialize)]
struct Line {
    group: usize,
    x: Vec<f64>,
    y: Vec<f64>,
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

fn charts_of(section: &Section<'_>) -> Vec<Chart> {
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

fn section_marks(section: &Section<'_>, index: usize) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let all = section.groups.iter().enumerate().flat_map(|(index, group)| marks_of(index, group.first()));
    for mark in all {
        // One store had it, whoever used it.
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

const TIME: Axis = Axis { unit: "s", name: "time", log: false };

/// Logarithmic where values differ that much.
fn axis(unit: &'static str, name: &'static str, lines: &[Line]) -> Axis {
    let values = || lines.iter().flat_map(|line| &line.y).copied();
    let smallest = values().fold(f64::INFINITY, f64::min);
    let log = smallest > 0.0 && values().fold(0.0, f64::max) / smallest > LOG_FROM;
    Axis { unit, name, log }
}

/// One line per run, of all points that are numbers.
fn lines(groups: &[Group<'_>], points: impl Fn(&RunResult) -> Vec<(f64, f64)>) -> Vec<Line> {
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

/// How many points a line of samples has at most; more run into one another.
const POINTS: f64 = 300.0;

/// A chart of one field of the samples, which are drawn together over spans of time. Of a level or a
/// latency the largest is drawn, since it is the worst.
struct Sampled {
    id: &'static str,
    title: &'static str,
    about: &'static str,
    unit: &'static str,
    name: &'static str,
    draw: Draw,
    /// What comes and goes with checkpoints is drawn once for so many of them, lest it hatch the chart.
    per_checkpoint: Option<f64>,
    fold: Fold,
    of: fn(&RunResult) -> Vec<(f64, f64)>,
}

#[derive(Debug, Clone, Copy)]
enum Fold {
    Largest,
    Mean,
}

const THROUGHPUT: Sampled = Sampled {
    id: "throughput",
    title: "Throughput",
    about: "Records of all subtasks",
    unit: "/s",
    name: "records",
    draw: Draw::Line,
    per_checkpoint: Some(1.0),
    fold: Fold::Mean,
    of: rates,
};

const LATENCY: Sampled = Sampled {
    id: "record-latency",
    title: "Record latency, 99th percentile",
    about: "Paced: counted from when a record was due",
    unit: "ms",
    name: "latency",
    draw: Draw::Line,
    per_checkpoint: Some(2.0),
    fold: Fold::Largest,
    of: |run| of_samples(run, |sample| sample.latency_p99_ms),
};

const LAG: Sampled = Sampled {
    id: "durable-lag",
    title: "Durable lag",
    about: "Age of the newest record that would survive a loss of the machine",
    unit: "ms",
    name: "age",
    draw: Draw::Line,
    per_checkpoint: Some(2.0),
    fold: Fold::Largest,
    of: |run| of_samples(run, |sample| sample.durable_lag_ms),
};

const L0_FILES: Sampled = Sampled {
    id: "l0-files",
    title: "Files in level 0",
    about: "RocksDB's newest files, not yet compacted; every read may have to look into each",
    unit: "files",
    name: "level 0",
    draw: Draw::Step,
    per_checkpoint: None,
    fold: Fold::Largest,
    of: |run| of_samples(run, |sample| Some(sample.l0_files? as f64)),
};

const PENDING: Sampled = Sampled {
    id: "pending-compaction",
    title: "Pending compaction",
    about: "RocksDB's estimate of the bytes that compaction has yet to rewrite",
    unit: "B",
    name: "pending",
    draw: Draw::Line,
    per_checkpoint: None,
    fold: Fold::Largest,
    of: |run| of_samples(run, |sample| Some(sample.pending_compaction_bytes? as f64)),
};

fn sampled(groups: &[Group<'_>], sampled: Sampled) -> Chart {
    let span = span(groups, sampled.per_checkpoint);
    let all = lines(groups, sampled.of);
    let lines = lines(groups, |run| fold((sampled.of)(run), span, sampled.fold));
    let mut about = sampled.about.to_owned();
    let points = |lines: &[Line]| lines.iter().map(|line| line.x.len()).sum::<usize>();
    if points(&lines) < points(&all) {
        about += match sampled.fold {
            Fold::Largest => "; the largest of every ",
            Fold::Mean => "; the mean of every ",
        };
        about += &super::phrases::span(span);
    }
    Chart {
        id: sampled.id.to_owned(),
        section: 0,
        title: sampled.title,
        about,
        x: TIME,
        y: axis(sampled.unit, sampled.name, &lines),
        draw: sampled.draw,
        shaded: true,
        lines,
    }
}

/// Time that is drawn as one point.
fn span(groups: &[Group<'_>], per_checkpoint: Option<f64>) -> f64 {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let longest = runs().map(|run| run.measured_s).fold(0.0, f64::max);
    let interval = runs().filter_map(|run| run.settings.checkpoint_interval_ms).fold(0.0, f64::max) / 1e3;
    // Not so long that hardly anything is left of a short run.
    let wanted = per_checkpoint.map_or(0.0, |checkpoints| (checkpoints * interval).min(longest / 20.0));
    if wanted > longest / POINTS { wanted } else { round_up(longest / POINTS) }
}

/// To 1, 2 or 5 times a power of ten.
fn round_up(span: f64) -> f64 {
    let power = 10_f64.powf(span.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= span);
    power * digit.unwrap_or(10.0)
}

/// One point for each span that has any, at its end.
fn fold(points: Vec<(f64, f64)>, span: f64, fold: Fold) -> Vec<(f64, f64)> {
    let mut folded: Vec<(f64, f64)> = Vec::new();
    let mut count = 0.0;
    for (t, value) in points {
        let end = (t / span).ceil() * span;
        match folded.last_mut() {
            Some((last, so_far)) if *last == end => {
                count += 1.0;
                match fold {
                    Fold::Largest => *so_far = so_far.max(value),
                    Fold::Mean => *so_far += (value - *so_far) / count,
                }
            }
            _ => {
                folded.push((end, value));
                count = 1.0;
            }
        }
    }
    folded
}

fn of_samples(run: &RunResult, of: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    run.samples.iter().filter_map(|sample| Some((sample.t_s, of(sample)?))).collect()
}

/// As sampled, or else from the counts of records.
fn rates(run: &RunResult) -> Vec<(f64, f64)> {
    let sampled = of_samples(run, |sample| sample.records_per_s);
    if !sampled.is_empty() {
        return sampled;
    }
    let rate = |pair: &[Sample]| match pair {
        [a, b] if b.t_s > a.t_s => {
            Some((b.t_s, b.records.saturating_sub(a.records) as f64 / (b.t_s - a.t_s)))
        }
        _ => None,
    };
    run.samples.windows(2).filter_map(rate).collect()
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
