//! Results side by side, for people.

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

use super::width::fit;
use crate::result::RunResult;
use crate::result::metric::{Better, METRICS, Metric, Standing, times};
use crate::result::percentiles_of;

/// Runs of one system in one mode, side by side with those of others.
#[derive(Debug)]
pub(crate) struct Column<'a> {
    pub(crate) title: String,
    /// In the order of their repetitions.
    pub(crate) runs: Vec<&'a RunResult>,
}

impl<'a> Column<'a> {
    /// One column for each system, mode and label, in the order in which they come.
    pub(crate) fn of(results: impl Iterator<Item = &'a RunResult>) -> Vec<Self> {
        let mut columns: Vec<Self> = Vec::new();
        for result in results {
            let same = |column: &&mut Self| {
                column.runs.first().is_some_and(|first| {
                    (&first.system, first.mode, &first.label) == (&result.system, result.mode, &result.label)
                })
            };
            match columns.iter_mut().find(same) {
                Some(column) => column.runs.push(result),
                None => {
                    let mode = result.mode.name();
                    let title = match (result.system.as_str(), &result.label) {
                        ("alluvium", None) => mode.to_owned(),
                        (system, None) => format!("{system} {mode}"),
                        (_, Some(label)) if columns.iter().any(|column| column.title == mode) => {
                            format!("{mode} ({label})")
                        }
                        ("alluvium", Some(_)) => mode.to_owned(),
                        (system, Some(label)) => format!("{system} {mode} ({label})"),
                    };
                    columns.push(Self { title, runs: vec![result] });
                }
            }
        }
        columns
    }

    /// The figure of each run.
    fn values(&self, figure: &Metric) -> Vec<Option<f64>> {
        self.runs.iter().map(|run| (figure.of)(run)).collect()
    }

    /// The median over the runs that have the figure.
    fn median(&self, figure: &Metric) -> Option<f64> {
        percentiles_of(self.values(figure).into_iter().flatten()).map(|percentiles| percentiles.p50)
    }
}

/// The ratios of two columns' runs in words, pair by pair, from the first one's side.
fn compare(better: Better, pairs: &[(f64, f64)]) -> String {
    if better == Better::Neither || pairs.is_empty() {
        return String::new();
    }
    let words: Vec<(String, &str)> = pairs.iter().map(|(a, b)| compare_pair(better, *a, *b)).collect();
    let alike = words.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let verdict = words.first().map_or("", |(_, verdict)| verdict);
    if alike {
        let factors: Vec<&str> =
            words.iter().map(|(factor, _)| factor.as_str()).filter(|f| !f.is_empty()).collect();
        return [factors.join(" "), verdict.to_owned()].join(" ").trim().to_owned();
    }
    words
        .iter()
        .map(|(factor, verdict)| format!("{factor} {verdict}").trim().to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Factor and verdict.
fn compare_pair(better: Better, first: f64, second: f64) -> (String, &'static str) {
    let (low, high) = (first.min(second), first.max(second));
    // 0 / 0 is no difference, and says so.
    let standing = if low == high { Standing::Even } else { better.standing(first / second) };
    let factor = if low > 0.0 { times(high / low) } else { "∞".to_owned() };
    let verdict = match (standing, first > second) {
        (Standing::Even, _) => return (String::new(), "equal"),
        (Standing::Better, true) => "higher ✓",
        (Standing::Worse, true) => "higher ✗",
        (Standing::Better, false) => "lower ✓",
        (Standing::Worse, false) => "lower ✗",
    };
    (factor, verdict)
}

/// The columns, medians where they have several runs, with the ratios of the first to the second.
pub(crate) fn side_by_side(columns: &[Column<'_>]) -> String {
    let mut header = vec![String::new()];
    header.extend(columns.iter().map(|column| column.title.clone()));
    if let [first, _, ..] = columns {
        header.push(format!("{} is", first.title));
    }
    let mut table = empty(&header);
    let mut group = "";
    for figure in METRICS {
        let medians: Vec<Option<f64>> = columns.iter().map(|column| column.median(figure)).collect();
        if medians.iter().all(Option::is_none) {
            continue;
        }
        heading(&mut table, &mut group, figure.group, header.len());
        let show = |value: &Option<f64>| right(&value.map_or("–".to_owned(), figure.show));
        let mut row = vec![cell(&format!("  {}", figure.name))];
        row.extend(medians.iter().map(show));
        if let [first, second, ..] = columns {
            let pairs = first.values(figure).into_iter().zip(second.values(figure));
            let pairs: Vec<_> = pairs.filter_map(|(a, b)| a.zip(b)).collect();
            row.push(right(&compare(figure.better, &pairs)));
        }
        table.add_row(row);
    }
    fit(&table)
}

/// RocksDB options that are not the same in all columns; empty if all are.
pub(crate) fn differing_options(columns: &[Column<'_>]) -> String {
    let with: Vec<_> = columns.iter().filter(|column| !column.runs[0].options.is_empty()).collect();
    let mut names: Vec<&String> = with.iter().flat_map(|column| column.runs[0].options.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut header = vec!["option".to_owned()];
    header.extend(with.iter().map(|column| column.title.clone()));
    let mut table = empty(&header);
    let mut rows = 0;
    for name in names {
        let values: Vec<_> = with.iter().map(|column| column.runs[0].options.get(name)).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            let mut row = vec![cell(name)];
            row.extend(values.iter().map(|value| right(value.map_or("–", String::as_str))));
            table.add_row(row);
            rows += 1;
        }
    }
    if rows == 0 { String::new() } else { fit(&table) }
}

/// One run.
pub(crate) fn single(report: &RunResult) -> String {
    let mut table = empty(&["", report.mode.name()]);
    let mut group = "";
    for figure in METRICS {
        if let Some(value) = (figure.of)(report) {
            heading(&mut table, &mut group, figure.group, 2);
            table.add_row([cell(&format!("  {}", figure.name)), right(&(figure.show)(value))]);
        }
    }
    fit(&table)
}

/// Rules above, below and under the header, and none between rows: a report is read as a whole.
const LINES: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('═').junction('═'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// A table in this program's style.
pub(crate) fn empty(header: &[impl AsRef<str>]) -> Table {
    let mut table = Table::new();
    table.load_style(LINES);
    let cells = header.iter().map(AsRef::as_ref).enumerate();
    table.set_header(cells.map(|(i, text)| if i == 0 { cell(text) } else { right(text) }));
    table
}

fn heading(table: &mut Table, current: &mut &'static str, group: &'static str, columns: usize) {
    if *current != group {
        *current = group;
        let mut row = vec![cell(group)];
        row.resize(columns, cell(""));
        table.add_row(row);
    }
}

pub(crate) fn cell(text: &str) -> Cell {
    Cell::new(text)
}

pub(crate) fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::metric::Better::{Higher, Lower, Neither};

    #[test]
    fn a_ratio_says_which_way_and_whether_that_is_good() {
        let compare = |better, a, b| super::compare(better, &[(a, b)]);
        assert_eq!(compare(Higher, 200.0, 100.0), "2.00× higher ✓");
        assert_eq!(compare(Lower, 200.0, 100.0), "2.00× higher ✗");
        assert_eq!(compare(Lower, 10.0, 100.0), "10.0× lower ✓");
        assert_eq!(compare(Higher, 10.0, 100.0), "10.0× lower ✗");
        assert_eq!(compare(Lower, 100.0, 100.1), "equal");
        assert_eq!(compare(Lower, 0.0, 5.0), "∞ lower ✓");
        assert_eq!(compare(Lower, 0.0, 0.0), "equal");
        assert_eq!(compare(Neither, 1.0, 2.0), "");
    }

    #[test]
    fn repetitions_are_compared_pair_by_pair() {
        assert_eq!(compare(Lower, &[(1.0, 2.0), (1.0, 3.0)]), "2.00× 3.00× lower ✓");
        assert_eq!(compare(Lower, &[(1.0, 2.0), (3.0, 1.0)]), "2.00× lower ✓, 3.00× higher ✗");
        assert_eq!(compare(Lower, &[(1.0, 1.0), (3.0, 1.0)]), "equal, 3.00× higher ✗");
        assert_eq!(compare(Lower, &[]), "");
    }
}
