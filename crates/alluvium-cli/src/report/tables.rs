//! The page's tables: one column per group of runs, and beside each the ratio to the baseline.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::groups::Group;
use crate::result::metric::{self, METRICS, Metric, Standing, dollars};
use crate::result::{MonthlyCost, Prices, RunResult, Spread};
use crate::units;

/// The group of figures that a restore has.
const RESTORE: &str = "restore into an empty directory";

/// A table with a column for each group. Screen readers lose its structure where the style shows it as a list; roles
/// keep it.
fn table(groups: &[Group<'_>], first: &str, baseline: Option<usize>, rows: &Markup) -> Markup {
    html! {
        div class="card table" role="region" aria-label="Table" tabindex="0" {
            table role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { (first) }
                        @for (index, group) in groups.iter().enumerate() {
                            th scope="col" role="columnheader" class={ "run-" (group.colour) } {
                                span class="dot" { (group.name) }
                            }
                            @if let Some(base) = baseline.filter(|base| *base != index) {
                                th scope="col" role="columnheader" { "÷ " (groups[base].name) }
                            }
                        }
                    }
                }
                tbody role="rowgroup" { (rows) }
            }
        }
    }
}

/// A row of cells that belong to `name`.
fn row(name: &str, cells: &Markup) -> Markup {
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { (name) }
            (cells)
        }
    }
}

fn value(group: &Group<'_>, shown: &str, small: Option<String>) -> Markup {
    html! {
        td role="cell" class={ "value run-" (group.colour) } data-run=(group.name) {
            span {
                (shown)
                @if let Some(small) = small { small { (small) } }
            }
        }
    }
}

/// From the least to the greatest, if they differ.
fn range(spread: Spread, show: fn(f64) -> String) -> Option<String> {
    let (min, max) = (show(spread.min), show(spread.max));
    (min != max).then(|| format!("{min} to {max}"))
}

/// Every figure that some run has.
pub(crate) fn figures(groups: &[Group<'_>], baseline: Option<usize>) -> Markup {
    let columns = if baseline.is_some() { 2 * groups.len() } else { groups.len() + 1 };
    let mut heading = "";
    let rows = html! {
        @for figure in METRICS {
            @let spreads: Vec<Option<Spread>> = groups.iter().map(|group| group.spread(figure.of)).collect();
            @if spreads.iter().any(Option::is_some) {
                @if std::mem::replace(&mut heading, figure.group) != figure.group {
                    tr role="row" {
                        th scope="rowgroup" role="rowheader" colspan=(columns) { (figure.group) }
                    }
                }
                (row(figure.name, &cells(figure, groups, &spreads, baseline)))
            }
        }
    };
    table(groups, "figure", baseline, &rows)
}

/// A figure of each group, and beside it the ratio to the baseline.
fn cells(
    figure: &Metric,
    groups: &[Group<'_>],
    spreads: &[Option<Spread>],
    baseline: Option<usize>,
) -> Markup {
    html! {
        @for (index, (group, spread)) in groups.iter().zip(spreads).enumerate() {
            @let shown = spread.map_or("–".to_owned(), |spread| (figure.show)(spread.median));
            (value(group, &shown, spread.and_then(|spread| range(spread, figure.show))))
            @if let Some(base) = baseline.filter(|base| *base != index) {
                (ratio(figure, group.ratio(&groups[base], figure)))
            }
        }
    }
}

fn ratio(figure: &Metric, ratio: Option<Spread>) -> Markup {
    let Some(ratio) = ratio else { return html! { td role="cell" class="ratio" {} } };
    let (class, mark) = match figure.better.standing(ratio.median) {
        Standing::Better => ("good", " ✓"),
        Standing::Worse => ("bad", " ✗"),
        Standing::Even => ("even", ""),
    };
    let (factor, word) = factor(ratio);
    html! {
        td role="cell" class={ "ratio " (class) } {
            (times(factor.median)) i { (word) (mark) }
            @if let Some(range) = range(factor, times) { small { (range) } }
        }
    }
}

/// `∞` where the other one is 0.
fn times(factor: f64) -> String {
    if factor.is_finite() { metric::times(factor) } else { "∞".to_owned() }
}

/// As the terminal says it, `8.00× lower`: how many times, and in which direction.
fn factor(ratio: Spread) -> (Spread, &'static str) {
    if times(ratio.median) == times(1.0) {
        (ratio, "")
    } else if ratio.median > 1.0 {
        (ratio, " higher")
    } else {
        (Spread { median: 1.0 / ratio.median, min: 1.0 / ratio.max, max: 1.0 / ratio.min }, " lower")
    }
}

/// What a month of each group's requests and bytes would cost.
pub(crate) fn cost(groups: &[Group<'_>], prices: &Prices, id: &str) -> Markup {
    let month = |run: &RunResult| prices.month(run.store.as_ref()?, run.measured_s);
    let stored: Vec<Group<'_>> =
        groups.iter().filter(|group| group.runs.iter().any(|run| month(run).is_some())).cloned().collect();
    if stored.is_empty() {
        return Markup::default();
    }
    type CostRow =
        (&'static str, fn(&MonthlyCost) -> Option<f64>, fn(&RunResult) -> Option<f64>, fn(f64) -> String);
    let requests: fn(f64) -> String = |n| format!("{} requests", units::count(n));
    let parts: [CostRow; 4] = [
        (
            "PUT and LIST requests",
            |m| Some(m.puts_and_lists),
            |r| a_month(r, r.store.as_ref()?.puts + r.store.as_ref()?.lists),
            requests,
        ),
        ("GET requests", |m| Some(m.gets), |r| a_month(r, r.store.as_ref()?.gets), requests),
        ("storage", |m| m.storage, |r| Some(r.store.as_ref()?.live_bytes_end? as f64), units::bytes),
        ("in all", MonthlyCost::total, |_| None, requests),
    ];
    let usd = |group: &Group<'_>, of: fn(&MonthlyCost) -> Option<f64>| {
        group.median(|run| of(&month(run)?)).map_or("–".to_owned(), dollars)
    };
    let rows = html! {
        @for (name, of, amount, show) in parts {
            tr role="row" class=[(name == "in all").then_some("total")] {
                th scope="row" role="rowheader" { (name) }
                @for group in &stored { (value(group, &usd(group, of), group.median(amount).map(show))) }
            }
        }
    };
    let about = format!(
        "A month (730 hours) that goes on like the measured stretch, and stores what the store held at its end, at {} $ per \
         1000 PUT and LIST requests, {} $ per 1000 GET requests and {} $ per GiB and month{}. DELETE requests and traffic \
         within the region are taken as free.",
        prices.put_price,
        prices.get_price,
        prices.storage_price,
        if *prices == Prices::default() {
            ": Amazon S3's list prices for the class Standard in us-east-1"
        } else {
            ""
        },
    );
    section("cost", id, "Object store, per month", &about, &table(&stored, "part", None, &rows))
}

/// A part of the page with its heading.
fn section(name: &str, id: &str, title: &str, about: &str, content: &Markup) -> Markup {
    html! {
        section aria-labelledby={ (name) (id) } {
            h2 id={ (name) (id) } { (title) }
            p class="about" { (about) }
            (content)
        }
    }
}

fn a_month(run: &RunResult, count: u64) -> Option<f64> {
    (run.measured_s > 0.0).then(|| count as f64 / run.measured_s * 730.0 * 3600.0)
}

/// Runs that only restored: they have no measured stretch that could be compared.
pub(crate) fn restores(groups: &[Group<'_>]) -> Markup {
    if groups.is_empty() {
        return Markup::default();
    }
    let shown = |group: &Group<'_>, figure: &Metric| group.median(figure.of).map(figure.show);
    let rows = html! {
        @for figure in METRICS.iter().filter(|figure| figure.group == RESTORE) {
            @if groups.iter().any(|group| shown(group, figure).is_some()) {
                (row(figure.name, &html! {
                    @for group in groups {
                        (value(group, &shown(group, figure).unwrap_or_else(|| "–".to_owned()), None))
                    }
                }))
            }
        }
    };
    html! {
        section aria-labelledby="restores" {
            h2 class="title" id="restores" { "Restores" }
            p class="about" { "What processes of their own restored of what other runs had left." }
            (table(groups, "figure", None, &rows))
        }
    }
}

/// What each group was run with, and how RocksDB's options differ.
pub(crate) fn settings(groups: &[Group<'_>], id: &str) -> Markup {
    let rows = html! {
        @for (name, of) in super::settings::SETTINGS {
            @let shown: Vec<Option<String>> = groups.iter().map(|group| of(group.first())).collect();
            @if shown.iter().any(Option::is_some) {
                (row(name, &html! {
                    @for (group, shown) in groups.iter().zip(shown) {
                        (value(group, &shown.unwrap_or_else(|| "–".to_owned()), None))
                    }
                }))
            }
        }
    };
    let content = html! {
        (table(groups, "setting", None, &rows))
        (options(groups))
    };
    section("settings", id, "Settings", "What was run, with what, where.", &content)
}

fn options(groups: &[Group<'_>]) -> Markup {
    let names: BTreeSet<&String> = groups.iter().flat_map(|group| group.first().options.keys()).collect();
    if names.is_empty() {
        return Markup::default();
    }
    let of = |group: &Group<'_>, name: &String| group.first().options.get(name).cloned();
    let differs = |name: &&&String| groups.iter().any(|group| of(group, name) != of(&groups[0], name));
    let (differing, same): (Vec<&String>, Vec<&String>) = names.iter().partition(differs);
    let list = |names: &[&String]| {
        let rows = html! {
            @for name in names {
                (row(name, &html! {
                    @for group in groups {
                        (value(group, &of(group, name).unwrap_or_else(|| "–".to_owned()), None))
                    }
                }))
            }
        };
        table(groups, "option", None, &rows)
    };
    let several = groups.len() > 1;
    let (same, title) = if several {
        (same, "RocksDB options that are the same")
    } else {
        (names.iter().copied().collect(), "RocksDB options")
    };
    html! {
        @if several && !differing.is_empty() {
            details open {
                summary { "RocksDB options that differ (" (differing.len()) ")" }
                (list(&differing))
            }
        }
        @if !same.is_empty() {
            details {
                summary { (title) " (" (same.len()) ")" }
                (list(&same))
            }
        }
    }
}
