//! The figures that a reader looks for first, and the parts of a restore, as bars.

use maud::{Markup, html};

use super::groups::Group;
use crate::result::Restore;
use crate::result::metric::{METRICS, Metric, Standing, times};
use crate::units;

/// A figure with the word for being less or more of it.
struct Tile {
    title: &'static str,
    about: &'static str,
    figure: (&'static str, &'static str),
    less: &'static str,
    more: &'static str,
}

const DURATION: Tile = Tile {
    title: "Checkpoint duration",
    about: "99th percentile",
    figure: ("checkpoint", "duration p99"),
    less: "shorter",
    more: "longer",
};
const BYTES: Tile = Tile {
    title: "Bytes per checkpoint",
    about: "median",
    figure: ("checkpoint", "bytes p50"),
    less: "fewer",
    more: "more",
};
const LATENCY: Tile = Tile {
    title: "Record latency",
    about: "99th percentile",
    figure: ("throughput", "record latency p99"),
    less: "lower",
    more: "higher",
};
const RECORDS: Tile = Tile {
    title: "Throughput",
    about: "records per second",
    figure: ("throughput", "records/s"),
    less: "fewer",
    more: "more",
};
const RESTORE: Tile = Tile {
    title: "Restore",
    about: "into an empty directory",
    figure: ("restore into an empty directory", "total"),
    less: "shorter",
    more: "longer",
};
const CPU: Tile = Tile {
    title: "CPU time",
    about: "per million records",
    figure: ("throughput", "CPU per million records"),
    less: "less",
    more: "more",
};

/// At most four tiles, of what was measured.
pub(crate) fn tiles(groups: &[Group<'_>], baseline: Option<usize>) -> Markup {
    let paced = groups.iter().any(|group| group.first().settings.rate > 0.0);
    let order = if paced {
        [DURATION, BYTES, LATENCY, RESTORE, CPU, RECORDS]
    } else {
        [DURATION, BYTES, RECORDS, RESTORE, CPU, LATENCY]
    };
    let tiles = order.iter().filter_map(|one| tile(one, groups, baseline)).take(4);
    html! { @for tile in tiles { (tile) } }
}

fn tile(tile: &Tile, groups: &[Group<'_>], baseline: Option<usize>) -> Option<Markup> {
    let figure = METRICS.iter().find(|figure| (figure.group, figure.name) == tile.figure)?;
    let values: Vec<(&Group<'_>, f64)> =
        groups.iter().filter_map(|group| Some((group, group.median(figure.of)?))).collect();
    let largest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let share = |value: f64| if largest > 0.0 { value / largest * 100.0 } else { 0.0 };
    let verdict = verdict(tile, figure, groups, baseline).or_else(|| {
        let (_, value) = values.first()?;
        Some(html! { p class="verdict" { ((figure.show)(*value)) } })
    })?;
    Some(html! {
        article class="tile" {
            h3 { (tile.title) " " span { (tile.about) } }
            (verdict)
            dl class="bars" {
                @for (group, value) in &values {
                    div class={ "run-" (group.colour) } style={ "--share:" (format!("{:.2}", share(*value))) "%" } {
                        dt { (group.name) }
                        dd {
                            ((figure.show)(*value))
                            @if let Some(beside) = beside(tile, figure, group, groups, baseline) { (beside) }
                        }
                    }
                }
            }
        }
    })
}

/// Where several are compared, each one's ratio to the baseline.
fn beside(
    tile: &Tile,
    figure: &Metric,
    group: &Group<'_>,
    groups: &[Group<'_>],
    baseline: Option<usize>,
) -> Option<Markup> {
    let base = groups.get(baseline?).filter(|base| groups.len() > 2 && base.name != group.name)?;
    let (class, words) = standing(tile, figure, group.ratio(base, figure)?.median);
    Some(html! { small class=(class) { (words) } })
}

/// How good a ratio is, and what it says.
fn standing(tile: &Tile, figure: &Metric, ratio: f64) -> (&'static str, String) {
    match figure.better.standing(ratio) {
        Standing::Even => ("even", "about equal".to_owned()),
        _ if ratio <= 0.0 => ("good", format!("∞ {}", tile.less)),
        standing => {
            let (factor, word) = if ratio < 1.0 { (1.0 / ratio, tile.less) } else { (ratio, tile.more) };
            (if standing == Standing::Better { "good" } else { "bad" }, format!("{} {word}", times(factor)))
        }
    }
}

/// The first group beside the baseline, in words.
fn verdict(tile: &Tile, figure: &Metric, groups: &[Group<'_>], baseline: Option<usize>) -> Option<Markup> {
    let base = groups.get(baseline?)?;
    let ratios = groups.iter().enumerate().filter(|(index, _)| Some(*index) != baseline);
    let (name, ratio) =
        ratios.filter_map(|(_, group)| Some((&group.name, group.ratio(base, figure)?))).next()?;
    let (class, words) = standing(tile, figure, ratio.median);
    // Of two the other one is meant.
    let whose = if groups.len() > 2 { format!("{name} ") } else { String::new() };
    let than = if class == "even" { "to" } else { "than" };
    Some(html! {
        p class={ "verdict " (class) } { (words) " " small { (whose) (than) " " (base.name) } }
    })
}

/// The parts of a restore; they may overlap, because objects are fetched while others are opened.
pub(crate) fn restore(groups: &[Group<'_>], id: &str) -> Markup {
    let restores: Vec<(&Group<'_>, &Restore)> = groups
        .iter()
        .filter_map(|group| Some((group, group.runs.iter().find_map(|run| run.restore.as_ref())?)))
        .collect();
    let longest = restores.iter().map(|(_, restore)| extent(restore)).fold(0.0, f64::max);
    if longest <= 0.0 {
        return Markup::default();
    }
    let width = |ms: f64| format!("width:{:.2}%", ms / longest * 100.0);
    html! {
        section aria-labelledby={ "restore" (id) } {
            h2 id={ "restore" (id) } { "Restore" }
            p class="about" { "Opening the job again with an empty local directory, split in its parts." }
            div class="card" {
                ul class="phases" {
                    @for (index, (name, _)) in parts(restores[0].1).iter().enumerate() {
                        li { i class={ "p-" (index) } {} (name) }
                    }
                }
                div class="split" {
                    @for (group, restore) in &restores {
                        div class={ "run-" (group.colour) } {
                            p class="run-line" {
                                b class="dot" { (group.name) }
                                span { (in_words(restore)) }
                            }
                            div class="stack" aria-hidden="true" {
                                @for (index, (_, ms)) in parts(restore).iter().enumerate().filter(|(_, (_, ms))| *ms > 0.0) {
                                    i class={ "p-" (index) } style=(width(*ms)) {}
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Download, open, replay, and what is not in them.
fn parts(restore: &Restore) -> [(&'static str, f64); 4] {
    let known =
        [restore.download_ms, restore.open_ms, restore.replay_ms].map(|ms| ms.unwrap_or(0.0).max(0.0));
    let rest = (restore.total_ms - known.iter().sum::<f64>()).max(0.0);
    [
        ("download", known[0]),
        ("open RocksDB", known[1]),
        ("replay the changelog", known[2]),
        ("all else", rest),
    ]
}

fn extent(restore: &Restore) -> f64 {
    parts(restore).iter().map(|(_, ms)| ms).sum()
}

fn in_words(restore: &Restore) -> String {
    let mut words = vec![format!("{} in all", units::millis(restore.total_ms))];
    let parts = [("download", restore.download_ms), ("open", restore.open_ms), ("replay", restore.replay_ms)];
    words.extend(parts.iter().filter_map(|(name, ms)| Some(format!("{name} {}", units::millis((*ms)?)))));
    words.extend(restore.first_record_ms.map(|ms| format!("first record after {}", units::millis(ms))));
    if let (Some(bytes), Some(objects)) = (restore.bytes, restore.objects) {
        words.push(format!("{} in {} objects", units::bytes(bytes as f64), units::count(objects as f64)));
    }
    words.join(" · ")
}
