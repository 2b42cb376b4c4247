//! The page's tables: one column per group of runs, and beside each the ratio to the baseline.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::escape::text;
use super::groups::{Group, Spread};
use crate::result::metric::{self, METRICS, Standing, dollars};
use crate::result::{MonthlyCost, Prices, RunResult};
use crate::units;

/// Screen readers lose a table's structure where the style shows it as a list; roles keep it.
const OPEN: &str =
    "<div class=\"card table\" role=\"region\" aria-label=\"Table\" tabindex=\"0\"><table role=\"table\">";
/// The group of figures that a restore has.
const RESTORE: &str = "restore into an empty directory";
const CLOSE: &str = "</tbody></table></div>";

fn head(groups: &[Group<'_>], first: &str, baseline: Option<usize>) -> String {
    let mut html = format!(
        "{OPEN}<thead role=\"rowgroup\"><tr role=\"row\"><th scope=\"col\" role=\"columnheader\">{first}</th>"
    );
    for (index, group) in groups.iter().enumerate() {
        let _ = write!(
            html,
            "<th scope=\"col\" role=\"columnheader\" class=\"run-{}\"><span class=\"dot\">{}</span></th>",
            group.colour,
            text(&group.name)
        );
        if let Some(base) = baseline.filter(|base| *base != index) {
            let _ =
                write!(html, "<th scope=\"col\" role=\"columnheader\">÷ {}</th>", text(&groups[base].name));
        }
    }
    html + "</tr></thead><tbody role=\"rowgroup\">"
}

fn value(group: &Group<'_>, shown: &str, small: Option<String>) -> String {
    let small = small.map(|small| format!("<small>{}</small>", text(&small))).unwrap_or_default();
    let name = text(&group.name);
    format!(
        "<td role=\"cell\" class=\"value run-{}\" data-run=\"{name}\"><span>{}{small}</span></td>",
        group.colour,
        text(shown)
    )
}

fn row(name: &str) -> String {
    format!("<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">{}</th>", text(name))
}

/// From the least to the greatest, if they differ.
fn range(spread: Spread, show: fn(f64) -> String) -> Option<String> {
    let (min, max) = (show(spread.min), show(spread.max));
    (min != max).then(|| format!("{min} to {max}"))
}

/// Every figure that some run has.
pub(crate) fn figures(groups: &[Group<'_>], baseline: Option<usize>) -> String {
    let columns = if baseline.is_some() { 2 * groups.len() } else { groups.len() + 1 };
    let mut html = head(groups, "figure", baseline);
    let mut heading = "";
    for figure in METRICS {
        let spreads: Vec<Option<Spread>> = groups.iter().map(|group| group.spread(figure.of)).collect();
        if spreads.iter().all(Option::is_none) {
            continue;
        }
        if heading != figure.group {
            heading = figure.group;
            let _ = write!(
                html,
                "<tr role=\"row\"><th scope=\"rowgroup\" role=\"rowheader\" colspan=\"{columns}\">{heading}</th></tr>"
            );
        }
        html += &row(figure.name);
        for (index, (group, spread)) in groups.iter().zip(&spreads).enumerate() {
            let shown = spread.map_or("–".to_owned(), |spread| (figure.show)(spread.median));
            html += &value(group, &shown, spread.and_then(|spread| range(spread, figure.show)));
            if let Some(base) = baseline.filter(|base| *base != index) {
                let ratio = group.ratio(&groups[base], figure);
                html += &ratio.map_or("<td role=\"cell\" class=\"ratio\"></td>".to_owned(), |ratio| {
                    let (class, mark) = match figure.better.standing(ratio.median) {
                        Standing::Better => ("good", " ✓"),
                        Standing::Worse => ("bad", " ✗"),
                        Standing::Even => ("even", ""),
                    };
                    let (factor, word) = factor(ratio);
                    let small = range(factor, times).map(|range| format!("<small>{range}</small>"));
                    format!(
                        "<td role=\"cell\" class=\"ratio {class}\">{}<i>{word}{mark}</i>{}</td>",
                        times(factor.median),
                        small.unwrap_or_default()
                    )
                });
            }
        }
        html += "</tr>";
    }
    html + CLOSE
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
pub(crate) fn cost(groups: &[Group<'_>], prices: &Prices, id: &str) -> String {
    let month = |run: &RunResult| prices.month(run.store.as_ref()?, run.measured_s);
    let stored: Vec<Group<'_>> =
        groups.iter().filter(|group| group.runs.iter().any(|run| month(run).is_some())).cloned().collect();
    if stored.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<section aria-labelledby=\"cost{id}\"><h2 id=\"cost{id}\">Object store, per month</h2><p class=\"about\">A month (730 hours) \
         that goes on like the measured stretch, and stores what the store held at its end, at {} $ per 1000 PUT and LIST \
         requests, {} $ per 1000 GET requests and {} $ per GiB and month{}. DELETE requests and traffic within the region \
         are taken as free.</p>",
        prices.put_price,
        prices.get_price,
        prices.storage_price,
        if *prices == Prices::default() {
            ": Amazon S3's list prices for the class Standard in us-east-1"
        } else {
            ""
        },
    );
    html += &head(&stored, "part", None);
    type Part =
        (&'static str, fn(&MonthlyCost) -> Option<f64>, fn(&RunResult) -> Option<f64>, fn(f64) -> String);
    let requests: fn(f64) -> String = |n| format!("{} requests", units::count(n));
    let parts: [Part; 4] = [
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
    for (name, of, amount, show) in parts {
        let class = if name == "in all" { " class=\"total\"" } else { "" };
        html += &row(name).replacen("<tr", &format!("<tr{class}"), 1);
        for group in &stored {
            let usd = group.median(|run| of(&month(run)?));
            html += &value(group, &usd.map_or("–".to_owned(), dollars), group.median(amount).map(show));
        }
        html += "</tr>";
    }
    html + CLOSE + "</section>"
}

fn a_month(run: &RunResult, count: u64) -> Option<f64> {
    (run.measured_s > 0.0).then(|| count as f64 / run.measured_s * 730.0 * 3600.0)
}

/// Runs that only restored: they have no measured stretch that could be compared.
pub(crate) fn restores(groups: &[Group<'_>]) -> String {
    if groups.is_empty() {
        return String::new();
    }
    let mut html = "<section aria-labelledby=\"restores\"><h2 class=\"title\" id=\"restores\">Restores</h2><p class=\"about\">\
        What processes of their own restored of what other runs had left.</p>"
        .to_owned();
    html += &head(groups, "figure", None);
    for figure in METRICS.iter().filter(|figure| figure.group == RESTORE) {
        let shown = |group: &Group<'_>| group.median(figure.of).map(figure.show);
        if groups.iter().any(|group| shown(group).is_some()) {
            html += &row(figure.name);
            for group in groups {
                html += &value(group, &shown(group).unwrap_or_else(|| "–".to_owned()), None);
            }
            html += "</tr>";
        }
    }
    html + CLOSE + "</section>"
}

/// What each group was run with, and how RocksDB's options differ.
pub(crate) fn settings(groups: &[Group<'_>], id: &str) -> String {
    let mut html = format!(
        "<section aria-labelledby=\"settings{id}\"><h2 id=\"settings{id}\">Settings</h2><p class=\"about\">What was run, \
         with what, where.</p>"
    );
    html += &head(groups, "setting", None);
    for (name, of) in super::settings::SETTINGS {
        let shown: Vec<Option<String>> = groups.iter().map(|group| of(group.first())).collect();
        if shown.iter().all(Option::is_none) {
            continue;
        }
        html += &row(name);
        for (group, shown) in groups.iter().zip(shown) {
            html += &value(group, &shown.unwrap_or_else(|| "–".to_owned()), None);
        }
        html += "</tr>";
    }
    html += CLOSE;
    html += &options(groups);
    html + "</section>"
}

fn options(groups: &[Group<'_>]) -> String {
    let names: BTreeSet<&String> = groups.iter().flat_map(|group| group.first().options.keys()).collect();
    if names.is_empty() {
        return String::new();
    }
    let of = |group: &Group<'_>, name: &String| group.first().options.get(name).cloned();
    let differs = |name: &&&String| groups.iter().any(|group| of(group, name) != of(&groups[0], name));
    let (differing, same): (Vec<&String>, Vec<&String>) = names.iter().partition(differs);
    let list = |names: &[&String]| {
        let mut html = head(groups, "option", None);
        for name in names {
            html += &row(name);
            for group in groups {
                html += &value(group, &of(group, name).unwrap_or_else(|| "–".to_owned()), None);
            }
            html += "</tr>";
        }
        html + CLOSE
    };
    let mut html = String::new();
    if groups.len() > 1 && !differing.is_empty() {
        let _ = write!(
            html,
            "<details open><summary>RocksDB options that differ ({})</summary>",
            differing.len()
        );
        html += &list(&differing);
        html += "</details>";
    }
    let (same, title) = if groups.len() > 1 {
        (same, "RocksDB options that are the same")
    } else {
        (names.iter().copied().collect(), "RocksDB options")
    };
    if !same.is_empty() {
        let _ = write!(html, "<details><summary>{title} ({})</summary>", same.len());
        html += &list(&same);
        html += "</details>";
    }
    html
}
