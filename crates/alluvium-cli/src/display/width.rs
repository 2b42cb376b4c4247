//! Tables on terminals that are narrower than they are. There, each row becomes a short list, because
//! lines that the terminal breaks cannot be read.

use comfy_table::{Row, Table};

/// The table as text for standard output.
pub(crate) fn fit(table: &Table) -> String {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    fit_into(table, size.map(|(terminal_size::Width(columns), _)| usize::from(columns)))
}

/// The table as text for a terminal of so many columns; None for a file or pipe, which has no end.
fn fit_into(table: &Table, columns: Option<usize>) -> String {
    let text = table.trim_fmt();
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if columns.is_none_or(|columns| widest <= columns) { text } else { stack(table) }
}

/// Each row as its first cell, with the other cells below it, by their headers.
fn stack(table: &Table) -> String {
    let cells = |row: &Row| row.cell_iter().map(comfy_table::Cell::content).collect::<Vec<_>>();
    let header = table.header().map(cells).unwrap_or_default();
    let mut lines = Vec::new();
    for row in table.row_iter() {
        let row = cells(row);
        let Some((first, rest)) = row.split_first() else { continue };
        let indent = first.len() - first.trim_start().len();
        let title = match header.first().filter(|title| indent == 0 && !title.is_empty()) {
            Some(title) => format!("{title} {first}"),
            None => first.clone(),
        };
        lines.push(title.trim_end().to_owned());
        let named = rest.iter().zip(header.iter().skip(1)).filter(|(cell, _)| !cell.is_empty());
        lines.extend(named.map(|(cell, name)| {
            let line = format!("{:indent$}  {name}: {cell}", "");
            line.trim_end().to_owned()
        }));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::table::{cell, empty, right};

    fn table() -> Table {
        let mut table = empty(&["subtask", "key groups", "metadata"]);
        table.add_row([cell("0"), right("0..=63"), cell("offset 17")]);
        table.add_row([cell("  from 1"), right("64..=127"), cell("")]);
        table
    }

    #[test]
    fn a_table_that_fits_stays_a_table() {
        let wide = table().trim_fmt();
        let columns = wide.lines().map(|line| line.chars().count()).max();
        assert_eq!(fit_into(&table(), None), wide);
        assert_eq!(fit_into(&table(), columns), wide);
        assert_ne!(fit_into(&table(), columns.map(|columns| columns - 1)), wide);
    }

    #[test]
    fn on_a_narrow_terminal_each_row_is_a_list() {
        assert_eq!(
            fit_into(&table(), Some(20)),
            "subtask 0\n  key groups: 0..=63\n  metadata: offset 17\n  from 1\n    key groups: 64..=127"
        );
    }

    #[test]
    fn groups_of_figures_are_headings() {
        let mut table = empty(&["", "changelog", "native"]);
        table.add_row([cell("checkpoints"), cell(""), cell("")]);
        table.add_row([cell("  duration p50"), right("14.0 ms"), right("230 ms")]);
        assert_eq!(
            fit_into(&table, Some(20)),
            "checkpoints\n  duration p50\n    changelog: 14.0 ms\n    native: 230 ms"
        );
    }
}
