//! How the memory was divided over a run, as areas above one another.
//!
//! Drawn here and not by the page's script, which has one line for each run and no areas.

use std::fmt::Write;

use maud::{Markup, html};

use super::groups::Group;
use super::phrases::span;
use crate::result::metric::percent;
use crate::result::{MemoryParts, RunResult};
use crate::units;

/// The picture's own units; the page stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;
/// More points are not seen, and make the page large.
const POINTS: usize = 300;

/// At a time in seconds.
type Point = (f64, MemoryParts);

/// An area: its name, and which bytes are in it.
type Area = (&'static str, fn(&MemoryParts) -> u64);

/// From the bottom up.
const AREAS: [Area; 4] = [
    ("cache of records", |parts| parts.records),
    ("RocksDB's blocks", |parts| parts.blocks),
    ("RocksDB's memtables", |parts| parts.memtables),
    ("deltas", |parts| parts.deltas + parts.recycled),
];

/// A picture for each group that has samples of it.
pub(super) fn memory(groups: &[Group<'_>], id: &str) -> Markup {
    let drawn: Vec<(&Group<'_>, &RunResult, Vec<Point>)> = groups
        .iter()
        .filter_map(|group| {
            group.runs.iter().map(|run| (group, *run, points(run))).find(|drawn| drawn.2.len() > 1)
        })
        .collect();
    if drawn.is_empty() {
        return Markup::default();
    }
    html! {
        section aria-labelledby={ "memory" (id) } {
            h2 id={ "memory" (id) } { "Memory" }
            p class="about" {
                "How the memory was divided over the measured stretch. The line is what all parts together were given."
            }
            div class="card" {
                ul class="phases" {
                    @for (index, (name, _)) in AREAS.iter().enumerate() {
                        li { i class={ "p-" (index) } {} (name) }
                    }
                }
                div class="split pictures" {
                    @for (group, run, points) in &drawn {
                        div class={ "run-" (group.colour) } {
                            p class="run-line" {
                                b class="dot" { (group.name) }
                                span { (in_words(run)) }
                            }
                            (picture(points, run.settings.memory_bytes as f64))
                            p class="ends" {
                                @for (t, _) in [points.first(), points.last()].into_iter().flatten() {
                                    span { (span(t.round())) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// At most [`POINTS`] of the samples, evenly.
fn points(run: &RunResult) -> Vec<Point> {
    let all: Vec<_> = run.samples.iter().filter_map(|sample| Some((sample.t_s, sample.memory?))).collect();
    let each = all.len().div_ceil(POINTS).max(1);
    all.into_iter().step_by(each).filter(|(t, _)| t.is_finite()).collect()
}

fn picture(points: &[Point], limit: f64) -> Markup {
    let (from, to) = match points {
        [(first, _), .., (last, _)] if last > first => (*first, *last),
        _ => return Markup::default(),
    };
    let most = points.iter().map(|(_, parts)| parts.sum() as f64).fold(limit, f64::max).max(1.0);
    let x = |t: f64| (t - from) / (to - from) * WIDTH;
    let y = |bytes: f64| HEIGHT - bytes / (most * 1.04) * HEIGHT;
    let mut below = vec![0.0; points.len()];
    let areas: Vec<String> = AREAS
        .iter()
        .map(|(_, of)| {
            let above: Vec<f64> =
                below.iter().zip(points).map(|(below, (_, parts))| below + of(parts) as f64).collect();
            let edge = |heights: &[f64]| -> Vec<(f64, f64)> {
                points.iter().zip(heights).map(|((t, _), bytes)| (x(*t), y(*bytes))).collect()
            };
            let area = outline(&edge(&above), &edge(&below));
            below = above;
            area
        })
        .collect();
    html! {
        svg class="areas" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
            @for (index, area) in areas.iter().enumerate() { path class={ "p-" (index) } d=(area) {} }
            line x1="0" x2=(WIDTH) y1=(y(limit)) y2=(y(limit)) {}
        }
    }
}

/// Along the upper edge, and back along the lower one.
fn outline(upper: &[(f64, f64)], lower: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, (x, y)) in upper.iter().chain(lower.iter().rev()).enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
    }
    path + "Z"
}

/// Hit rate, cache, peak.
fn in_words(run: &RunResult) -> String {
    let count = |n: u64| units::count(n as f64);
    let mut words = Vec::new();
    if let Some(cache) = run.record_cache {
        words.extend(cache.hit_rate.map(|rate| format!("hit rate {}", percent(rate))));
        words.extend(cache.entries.map(|n| format!("{} records", count(n))));
        words.extend(cache.evictions.map(|n| format!("{} evicted", count(n))));
    }
    words.extend(run.memory.map(|memory| format!("{} at most", units::bytes(memory.peak.sum() as f64))));
    words.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn parts(records: u64, blocks: u64) -> MemoryParts {
        MemoryParts { records: records * MB, blocks: blocks * MB, ..MemoryParts::default() }
    }

    #[test]
    fn areas_lie_above_one_another_and_the_limit_above_them() {
        // The scale ends at 104 MB: a megabyte is one of 104 parts of the height.
        let at = |mb: f64| format!("{:.1}", HEIGHT - mb / 104.0 * HEIGHT);
        let drawn = picture(&[(0.0, parts(26, 52)), (10.0, parts(52, 0))], 100.0 * MB as f64).into_string();
        let records = format!("d=\"M0.0 {}L600.0 {}L600.0 100.0L0.0 100.0Z\"", at(26.0), at(52.0));
        let blocks =
            format!("d=\"M0.0 {}L600.0 {}L600.0 {}L0.0 {}Z\"", at(78.0), at(52.0), at(52.0), at(26.0));
        assert!(drawn.contains(&records) && drawn.contains(&blocks), "{drawn}");
        assert!(drawn.contains(&format!("y1=\"{}", HEIGHT - 100.0 / 104.0 * HEIGHT)), "{drawn}");
    }

    #[test]
    fn no_time_is_no_picture() {
        assert_eq!(picture(&[(1.0, parts(1, 1)), (1.0, parts(1, 1))], 1.0).into_string(), "");
        assert_eq!(picture(&[], 1.0).into_string(), "");
    }
}
