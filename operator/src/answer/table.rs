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

    /// Names and ids are whole, also on a narrow terminal, for they are pasted. A column that says nothing is left out. Where the width is known, the last
    /// column folds between words.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        let says: Vec<usize> = (0..self.headings.len())
            .filter(|column| self.rows.iter().any(|row| !row[*column].is_empty()))
            .collect();
        let whole = self.laid_out(&says, None);
        let widths = whole.column_max_content_widths();
        let before: usize = widths.iter().rev().skip(1).map(|wide| usize::from(*wide) + GAP).sum();
        let room = width.map(|width| width.saturating_sub(before));
        let last = widths.last().map(|wide| usize::from(*wide));
        let table = match room {
            Some(room) if room >= NARROWEST && last.is_some_and(|last| last > room) => self.laid_out(&says, Some(room)),
            _ => whole,
        };
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn laid_out(&self, says: &[usize], last: Option<usize>) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(says.iter().map(|column| self.headings[*column].0));
        for row in &self.rows {
            table.add_row(says.iter().map(|column| match last {
                Some(room) if Some(column) == says.last() => folded(&row[*column], room),
                _ => row[*column].clone(),
            }));
        }
        for (column, heading) in table.column_iter_mut().zip(says) {
            let (_, align) = &self.headings[*heading];
            column.set_padding((0, GAP as u16));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// Between two columns.
const GAP: usize = 2;
/// Where the last column would be narrower, the terminal folds the line.
const NARROWEST: usize = 20;

/// A text in lines of so many letters, where its words let it.
pub(crate) fn folded(text: &str, room: usize) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut wide = 0;
    for word in text.split(' ') {
        let long = word.chars().count();
        if wide > 0 && wide + 1 + long > room {
            folded.push('\n');
            wide = 0;
        } else if !folded.is_empty() {
            folded.push(' ');
            wide += 1;
        }
        folded.push_str(word);
        wide += long;
    }
    folded
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
        let text = table.text(None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("machine ") && lines[0].ends_with("fence"));
        assert_eq!(lines[2], format!("{long}   1234"));
        assert!(lines[1].ends_with("     7"), "{text}");
    }

    #[test]
    fn on_a_narrow_terminal_the_last_column_folds_between_words() {
        let mut table = Table::new(&["check", "looks at"]);
        table.row(["fences".to_owned(), "fences ahead of the database's clock".to_owned()]);
        let id = "0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11".to_owned();
        table.row(["id".to_owned(), id.clone()]);
        let text = table.text(Some(30));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1..4],
            [
                "fences  fences ahead of the",
                "        database's clock",
                &*format!("id      {id}")
            ]
        );
        assert_eq!(table.text(Some(20)), table.text(None));
    }
}
