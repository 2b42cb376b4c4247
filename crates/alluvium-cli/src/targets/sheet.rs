//! The table of targets, computed from results.

use std::collections::BTreeMap;

use super::loads::{Load, Run, Side};
use super::rows::{NOTES, ROWS, Row, Target};
use crate::display::table::{cell, empty, right};
use crate::display::width::fit;
use crate::result::{RunResult, Spread};
use crate::units;

/// The results of one turn.
#[derive(Debug, Default)]
pub(crate) struct Turn(BTreeMap<Run, RunResult>);

impl Turn {
    pub(crate) fn add(&mut self, run: Run, result: RunResult) {
        self.0.insert(run, result);
    }

    pub(super) fn get(&self, load: Load, side: Side) -> Option<&RunResult> {
        self.0.get(&Run { load, side })
    }
}

/// What came of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Short,
    /// It has no target.
    Fact,
    NotMeasured,
}

fn judge(target: Target, spread: Option<Spread>) -> Verdict {
    let Some(Spread { median, .. }) = spread else { return Verdict::NotMeasured };
    let pass = match target {
        Target::AtMost(most) => median <= most,
        Target::AtLeast(least) => median >= least,
        Target::None => return Verdict::Fact,
    };
    if pass { Verdict::Pass } else { Verdict::Short }
}

/// The table: each row with its target, the median of the turns, the least and the greatest.
pub(crate) fn sheet(turns: &[Turn]) -> String {
    let mut table = empty(&["", "target", "median", "least to greatest", ""]);
    let (mut passed, mut judged) = (0, 0);
    for row in ROWS {
        let spread = Spread::of(turns.iter().filter_map(row.of).collect());
        let verdict = judge(row.target, spread);
        passed += u32::from(verdict == Verdict::Pass);
        judged += u32::from(matches!(verdict, Verdict::Pass | Verdict::Short));
        let [median, range] = shown(row, spread);
        table.add_row([
            cell(row.name),
            right(&wanted(row)),
            right(&median),
            right(&range),
            cell(match verdict {
                Verdict::Pass => "pass",
                Verdict::Short => "short",
                Verdict::Fact => "",
                Verdict::NotMeasured => "not measured",
            }),
        ]);
    }
    let mut lines = vec![fit(&table), format!("{passed} of {judged} pass; {}.", conditions(turns))];
    lines.extend(NOTES.map(str::to_owned));
    lines.join("\n")
}

fn wanted(row: &Row) -> String {
    match row.target {
        Target::AtMost(most) => format!("≤ {}", (row.show)(most)),
        Target::AtLeast(least) => format!("≥ {}", (row.show)(least)),
        Target::None => "–".to_owned(),
    }
}

/// Median, and the range if there is one.
fn shown(row: &Row, spread: Option<Spread>) -> [String; 2] {
    let Some(Spread { median, min, max }) = spread else { return ["–".to_owned(), String::new()] };
    let range = if min < max { format!("{} to {}", (row.show)(min), (row.show)(max)) } else { String::new() };
    [(row.show)(median), range]
}

/// How often, on what, and how busy that was.
fn conditions(turns: &[Turn]) -> String {
    let results = || turns.iter().flat_map(|turn| turn.0.values());
    let mut parts = vec![format!("{} turn(s)", turns.len())];
    let machine = results().find_map(|run| run.machine.cores.zip(run.machine.memory));
    parts.extend(machine.map(|(cores, memory)| format!("{cores} cores, {}", units::bytes(memory as f64))));
    let load = Spread::of(results().filter_map(|run| run.machine.load_average_before).collect());
    parts.extend(load.map(|load| {
        let [min, max] = [load.min, load.max].map(units::three_digits);
        format!("load average before a run {min} to {max}")
    }));
    parts.join(", ")
}

#[cfg(test)]
mod tests;
