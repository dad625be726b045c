//! Text in aligned columns, as psql prints it.

use std::fmt::Write as _;

/// Returns the rows under their header. Cells do not wrap; a line break in a cell becomes a space.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.clone().map(|cell| cell.replace(['\n', '\r'], " ")))
        .collect();
    let mut widths = [0_usize; N];
    for row in std::iter::once(&header).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&header, &widths);
    let rule = widths.map(|width| "-".repeat(width.saturating_add(2)));
    let _infallible = writeln!(text, "{}", rule.join("+"));
    for row in &rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line<const N: usize>(row: &[String; N], widths: &[usize; N]) -> String {
    let cells = row.iter().zip(widths);
    let padded: Vec<String> = cells
        .map(|(cell, width)| format!(" {cell:<width$} "))
        .collect();
    let mut line = padded.join("|").trim_end().to_owned();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
        let shown = render(["step", "detail"], &[row("route", "größer"), row("x", "")]);
        assert_eq!(
            shown,
            " step  | detail\n\
             -------+--------\n\
             \x20route | größer\n\
             \x20x     |\n"
        );
    }

    #[test]
    fn a_line_break_in_a_cell_does_not_break_the_table() {
        let shown = render(["a"], &[["one\ntwo".to_owned()]]);
        assert_eq!(shown, " a\n---------\n one two\n");
    }
}
