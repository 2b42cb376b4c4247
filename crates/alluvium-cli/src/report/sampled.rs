//! Charts of what was sampled while a run went on, drawn together over spans of time.

use super::charts::{Chart, Draw, Line, TIME, axis, lines};
use super::groups::Group;
use crate::result::{RunResult, Sample};

/// How many points a line of samples has at most; more run into one another.
const POINTS: f64 = 300.0;

/// A chart of one field of the samples, which are drawn together over spans of time. Of a level or a
/// latency the largest is drawn, since it is the worst.
pub(super) struct Sampled {
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

pub(super) const THROUGHPUT: Sampled = Sampled {
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

pub(super) const LATENCY: Sampled = Sampled {
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

pub(super) const LAG: Sampled = Sampled {
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

pub(super) const L0_FILES: Sampled = Sampled {
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

pub(super) const PENDING: Sampled = Sampled {
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

pub(super) fn sampled(groups: &[Group<'_>], sampled: Sampled) -> Chart {
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
