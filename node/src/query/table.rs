//! Tables of text: columns as wide as their widest cell, numbers to the right.

use std::fmt::Write;

/// Which side of its column a cell keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Characters of a cell that others follow.
const WIDEST: usize = 120;

/// Rows below a head.
#[derive(Debug, Clone)]
pub(super) struct Table {
    head: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[(&'static str, Side)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty, those beyond the head are left out. Only the last cell may be of any length.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let last = self.head.len().saturating_sub(1);
        let cells = cells.into_iter().take(self.head.len()).enumerate();
        let cells = cells.map(|(at, cell)| if at < last { short(plain(&cell)) } else { plain(&cell) });
        self.rows.push(cells.collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
                cells.max().unwrap_or(0).max(self.head[at].0.len())
            })
            .collect();
        let mut out = String::new();
        let titles: Vec<String> = self.head.iter().map(|(title, _)| (*title).to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (at, (_, side)) in self.head.iter().enumerate() {
                let cell = row.get(at).map_or("", String::as_str);
                let width = widths[at];
                let gap = if at == 0 { "" } else { "  " };
                match side {
                    Side::Left => write!(line, "{gap}{cell:<width$}"),
                    Side::Right => write!(line, "{gap}{cell:>width$}"),
                }
                .unwrap_or(());
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// What is longer would push the rest of every row off the screen.
fn short(mut cell: String) -> String {
    if let Some((cut, _)) = cell.char_indices().nth(WIDEST)
        && let Some((last, _)) = cell[..cut].char_indices().next_back()
    {
        cell.truncate(last);
        cell.push('…');
    }
    cell
}

/// Without characters that a terminal would obey: what is stored in traces comes from anybody.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap_or(());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_keep_to_the_right() {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right), ("REST", Side::Left)]);
        table.row(["grün".to_owned(), "7".to_owned(), "x".to_owned()]);
        table.row(["a longer one".to_owned(), "1234".to_owned()]);
        let expected = "NAME             N  REST\ngrün             7  x\na longer one  1234\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_long_cell_is_cut_unless_it_is_the_last() {
        let mut table = Table::new(&[("NAME", Side::Left), ("TEXT", Side::Left)]);
        table.row(["ü".repeat(WIDEST), "x".to_owned()]);
        table.row(["ü".repeat(WIDEST + 1), "y".repeat(500)]);
        let rows: Vec<String> = table.render().lines().skip(1).map(str::to_owned).collect();
        assert_eq!(rows[0], format!("{}  x", "ü".repeat(WIDEST)));
        assert_eq!(rows[1], format!("{}…  {}", "ü".repeat(WIDEST - 1), "y".repeat(500)));
    }

    #[test]
    fn nothing_stored_reaches_the_terminal_as_a_command() {
        let mut table = Table::new(&[("NAME", Side::Left)]);
        table.row(["\u{1b}[2Jgone\nnew\u{202e}".to_owned()]);
        let shown = table.render();
        assert_eq!(shown, "NAME\n\\u{1b}[2Jgone\\u{a}new\\u{202e}\n");
        assert!(!shown.contains('\u{1b}'));
    }
}
