//! A table without lines: headings, and two spaces between columns.

use comfy_table::{CellAlignment, ContentArrangement, presets};

use crate::answer::words::foreign;

/// Rows under headings. Numbers stand right.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Table {
    /// A heading that begins with `>` is one of numbers.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let heading = |text: &&'static str| match text.strip_prefix('>') {
            Some(text) => (text, Align::Right),
            None => (*text, Align::Left),
        };
        Self {
            headings: headings.iter().map(heading).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.headings.len(), "a cell for each heading");
        self.rows.push(cells.iter().map(|cell| foreign(cell)).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Names and ids are whole, also on a narrow terminal, for they are pasted. A column that says nothing is left out.
    pub(crate) fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        let says: Vec<usize> = (0..self.headings.len())
            .filter(|column| self.rows.iter().any(|row| !row[*column].is_empty()))
            .collect();
        table.set_header(says.iter().map(|column| self.headings[*column].0));
        for row in &self.rows {
            table.add_row(says.iter().map(|column| &row[*column]));
        }
        for (column, heading) in table.column_iter_mut().zip(&says) {
            let (_, align) = &self.headings[*heading];
            column.set_padding((0, 2));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_nothing_is_cut_nor_empty() {
        let mut table = Table::new(&["machine", "ticket", ">fence"]);
        let long = "x".repeat(300);
        table.row(["OAK-1".to_owned(), String::new(), "7".to_owned()]);
        table.row([long.clone(), String::new(), "1234".to_owned()]);
        let text = table.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("machine ") && lines[0].ends_with("fence"));
        assert_eq!(lines[2], format!("{long}   1234"));
        assert!(lines[1].ends_with("     7"), "{text}");
    }
}
