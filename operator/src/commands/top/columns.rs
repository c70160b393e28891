//! Rows under headings, as wide as there is room for: what does not fit is dropped from the right.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::Span;

use crate::answer::tone::Tone;
use crate::answer::words::ascii;

/// Between two columns.
const GAP: u16 = 2;

pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) is_number: bool,
    /// No wider than this.
    pub(super) most: u16,
}

/// How letters are put on the screen.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    pub(super) ascii: bool,
    pub(super) coloured: bool,
}

pub(super) fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

impl Pen {
    /// Writes a text into a line, cut with a sign that says so; its signs have their colours.
    pub(super) fn write(self, buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
        if area.width == 0 || area.height == 0 {
            return;
        }
        let text = if self.ascii { ascii(text) } else { text.to_owned() };
        let room = usize::from(area.width);
        let is_cut = usize::from(width(&text)) > room;
        let (end, _) = buffer.set_stringn(area.x, area.y, &text, room, style);
        if is_cut && room > 3 {
            let cut = if self.ascii { "~" } else { "…" };
            buffer.set_stringn(end.min(area.right()) - 1, area.y, cut, 1, style);
        }
        if self.coloured {
            for x in area.x..end.min(area.right()) {
                let cell = &mut buffer[(x, area.y)];
                let tone = cell.symbol().chars().next().and_then(Tone::of);
                if let Some(tone) = tone {
                    cell.set_style(painted(tone));
                }
            }
        }
    }
}

pub(super) fn painted(tone: Tone) -> Style {
    match tone {
        Tone::Going => Style::new().fg(Color::Cyan),
        Tone::Waits => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
        Tone::Quiet => Style::new().add_modifier(Modifier::DIM),
    }
}

/// Draws headings and rows. `chosen` stands out, and is always among what is shown.
pub(super) fn draw(
    pen: Pen,
    buffer: &mut Buffer,
    area: Rect,
    columns: &[Column],
    rows: &[Vec<String>],
    chosen: Option<usize>,
) {
    if area.height == 0 {
        return;
    }
    let room = usize::from(area.height) - 1;
    let first = chosen.map_or(0, |chosen| (chosen + 1).saturating_sub(room));
    let shown: Vec<_> = rows.iter().enumerate().skip(first).take(room).collect();
    let mut x = area.x + 1;
    for (place, column) in columns.iter().enumerate() {
        let cells = shown.iter().map(|(_, row)| width(&row[place]));
        let widest = cells.max().unwrap_or_default();
        if widest == 0 && column.heading.is_empty() {
            continue;
        }
        let wide = widest.max(width(column.heading)).min(column.most);
        // The last that begins within the screen may be cut, unless it is a number; one that has no room for its heading is dropped.
        let left = area.right().saturating_sub(x);
        if left < wide.min(width(column.heading).max(6)) || (column.is_number && left < wide) {
            break;
        }
        let wide = wide.min(left);
        let put = |buffer: &mut Buffer, y: u16, text: &str, style: Style| {
            let indent = if column.is_number {
                wide.saturating_sub(width(text))
            } else {
                0
            };
            let cell = Rect::new(x + indent, y, wide - indent, 1);
            pen.write(buffer, cell, text, style);
        };
        put(buffer, area.y, column.heading, Style::new().add_modifier(Modifier::DIM));
        for (line, (_, row)) in (area.y + 1..area.bottom()).zip(&shown) {
            put(buffer, line, &row[place], Style::new());
        }
        x = x.saturating_add(wide + GAP);
        if x >= area.right() {
            break;
        }
    }
    let line = chosen.and_then(|chosen| u16::try_from(chosen - first).ok());
    if let Some(line) = line.filter(|_| !shown.is_empty()) {
        let row = Rect::new(area.x, area.y + 1 + line, area.width, 1);
        buffer.set_style(row, Style::new().add_modifier(Modifier::REVERSED));
    }
}
