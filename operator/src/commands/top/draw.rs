//! The screen: two lines of the whole, processes, works, what is chosen, and the keys.

use bmdb::WorkStatus;
use chrono::{DateTime, Utc};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Modifier, Style};
use tokio::time::Instant;

use super::columns::{Column, Pen, draw, width};
use super::screen::{Order, Over, Pane, Screen};
use super::shares::shares;
use super::sight::{Counts, Moves, Seen, Sight};
use crate::answer::folded;
use crate::answer::words::{brief, count, foreign, grouped, quoted, span};
use crate::commands::process::{last_used, pauses};
use crate::commands::work::{next_steps, progress, sign, trust_left};
use crate::facts::name::name_of;
use crate::facts::process::Row;

/// On fewer there is no room for the panes.
const LEAST: (u16, u16) = (40, 12);
/// The most that names and the like take of a line.
const NAME: u16 = 24;
/// Bars are no wider, and narrower ones say nothing.
const BAR: (u16, u16) = (8, 24);

const KEYS: [(&str, &str); 9] = [
    ("q, Ctrl-C", "quit"),
    ("tab", "the other pane"),
    (
        "up, down, page up, page down, home, end",
        "choose a row; k, j, g, G too",
    ),
    ("/", "show only rows that contain a text; Esc shows all again"),
    (
        "enter",
        "open what is chosen, as bmdb process show and bmdb work show say it",
    ),
    (
        "w",
        "why: the rule of the chosen work's process on its machine, as bmdb machine why says it",
    ),
    ("space", "pause: read nothing until it is pressed again"),
    ("s", "sort: as they come, by name, by need"),
    ("?", "these keys; any of ?, enter and Esc goes back"),
];

/// Draws all of it.
pub(super) fn all(screen: &Screen, sight: &Sight, database: &str, buffer: &mut Buffer, now: Instant) {
    let area = buffer.area;
    let pen = Pen {
        ascii: screen.ascii,
        coloured: screen.coloured,
    };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("bmdb top needs {} columns and {} lines; q quits", LEAST.0, LEAST.1);
        return pen.write(buffer, area, &text, Style::new());
    }
    head(pen, screen, sight, database, buffer, now);
    let keys = Rect::new(area.x, area.bottom() - 1, area.width, 1);
    let body = Rect::new(area.x, area.y + 2, area.width, area.height - 3);
    match &screen.over {
        Over::Nothing => {
            panes(pen, screen, sight, buffer, body);
            pen.write(buffer, keys, &foot(screen), Style::new().add_modifier(Modifier::DIM));
        }
        Over::Keys => {
            let wide = KEYS.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
            let lines: Vec<_> = KEYS.iter().map(|(key, does)| format!("{key:wide$}  {does}")).collect();
            text(pen, "keys", &lines, 0, buffer, body);
        }
        Over::Page { title, lines, top } => {
            text(pen, title, lines, *top, buffer, body);
            let foot = " q quit  esc back  up, down scroll";
            pen.write(buffer, keys, foot, Style::new().add_modifier(Modifier::DIM));
        }
    }
}

fn foot(screen: &Screen) -> String {
    match (screen.is_typing, screen.said) {
        (true, _) => format!(" /{}_  enter keeps it, esc shows all", foreign(&screen.filter)),
        (false, Some(said)) => format!(" {said}"),
        (false, None) => " q quit  tab pane  / filter  enter open  w why  space pause  s sort  ? keys".to_owned(),
    }
}

/// How old something is that was read.
fn age<Of>(seen: &Seen<Of>, now: Instant) -> Option<String> {
    let age = now.saturating_duration_since(seen.read?);
    Some(span(chrono::TimeDelta::from_std(age).unwrap_or_default()))
}

fn head(pen: Pen, screen: &Screen, sight: &Sight, database: &str, buffer: &mut Buffer, now: Instant) {
    let area = buffer.area;
    let state = match (age(&sight.moves, now), &sight.moves.trouble) {
        (None, _) => "✕ nothing was read yet".to_owned(),
        (Some(age), None) if screen.is_paused => format!("⧗ paused, {age} ago"),
        (Some(age), _) if sight.moves.is_stale(now) => {
            let since = sight
                .moves
                .last
                .as_ref()
                .map(|moves| clock(moves.at))
                .unwrap_or_default();
            format!("✕ stale since {since}, {age} ago")
        }
        (Some(age), _) => format!("live, {age} ago"),
    };
    let counts = match (age(&sight.counts, now), &sight.counts.trouble) {
        (Some(age), _) => format!("counts {age} old"),
        (None, None) => "counts: being made for the first time".to_owned(),
        (None, Some(_)) => "counts: ✕ none could be made".to_owned(),
    };
    let needs = sight.counts.last.as_ref().map(|counts| match counts.attention {
        0 => "nothing needs a person".to_owned(),
        1 => "✕ 1 thing needs a person".to_owned(),
        many => format!("✕ {many} things need a person"),
    });
    // The database's name is what has no room first: who looks has named it.
    let right = [Some(state), Some(counts), needs]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("   ");
    let left = format!(" bmdb  {}", foreign(database));
    let room = area.width.saturating_sub(width(&right) + 1);
    let style = Style::new().add_modifier(Modifier::BOLD);
    let (first, second) = (
        Rect::new(area.x, area.y, area.width, 1),
        Rect::new(area.x, area.y + 1, area.width, 1),
    );
    let shown = Rect::new(first.x, first.y, room.saturating_sub(3), 1);
    pen.write(buffer, shown, &left, style);
    let begins = if room > 10 { room } else { 0 };
    pen.write(
        buffer,
        Rect::new(first.x + begins, first.y, first.width - begins, 1),
        &right,
        style,
    );
    let trouble = sight.moves.trouble.as_ref().or(sight.counts.trouble.as_ref());
    let line = match trouble {
        Some(trouble) => format!(" ✕ {}", foreign(&trouble.text)),
        None => whole(sight.counts.last.as_deref(), sight.moves.last.as_deref()),
    };
    pen.write(buffer, second, &line, Style::new());
}

fn whole(counts: Option<&Counts>, moves: Option<&Moves>) -> String {
    let mut parts = Vec::new();
    if let Some(counts) = counts {
        parts.push(count(counts.machines, "machine", "machines"));
        parts.push(format!(
            "{} in work, {} stuck",
            grouped(counts.works),
            grouped(counts.stuck)
        ));
    }
    if let Some(moves) = moves {
        parts.push(format!(
            "{} alive, {} silent",
            count(moves.alive, "session is", "sessions are"),
            grouped(moves.silent)
        ));
        if moves.unreadable > 0 {
            parts.push(format!(
                "✕ {} cannot be read",
                count(moves.unreadable as u64, "row", "rows")
            ));
        }
    }
    format!(" {}", parts.join("   "))
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S UTC").to_string()
}

/// The line above a pane.
fn rule(pen: Pen, buffer: &mut Buffer, area: Rect, title: &str, is_chosen: bool) {
    let line = if pen.ascii { "-" } else { "─" };
    let dim = Style::new().add_modifier(Modifier::DIM);
    for x in area.x..area.right() {
        buffer.set_stringn(x, area.y, line, 1, dim);
    }
    let style = if is_chosen {
        Style::new().add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    };
    let title = format!(" {title} ");
    let room = Rect::new(area.x + 1, area.y, width(&title).min(area.width - 1), 1);
    buffer.set_style(room, Style::reset());
    pen.write(buffer, room, &title, style);
}

fn text(pen: Pen, title: &str, lines: &[String], top: usize, buffer: &mut Buffer, area: Rect) {
    rule(pen, buffer, Rect::new(area.x, area.y, area.width, 1), title, true);
    let room = usize::from(area.width - 2);
    let folded = lines.iter().skip(top).map(|line| folded(line, room));
    let folded: Vec<_> = folded.take(usize::from(area.height)).collect();
    let lines = folded.iter().flat_map(|line| line.split('\n'));
    for (y, line) in (area.y + 1..area.bottom()).zip(lines) {
        pen.write(buffer, Rect::new(area.x + 1, y, area.width - 1, 1), line, Style::new());
    }
}

fn panes(pen: Pen, screen: &Screen, sight: &Sight, buffer: &mut Buffer, area: Rect) {
    let (processes, works) = (screen.processes(sight), screen.works(sight));
    let details: u16 = if area.height < 25 { 2 } else { 4 };
    let tables = area.height - details - 3;
    let high = u16::try_from(processes.len() + 1)
        .unwrap_or(u16::MAX)
        .min(tables.div_ceil(2));
    let mut y = area.y;
    let mut next = |high: u16| {
        let part = Rect::new(area.x, y, area.width, high);
        y += high;
        part
    };
    let filter = match screen.filter.as_str() {
        "" => String::new(),
        filter => format!(", only with {}", quoted(&foreign(filter))),
    };
    let order = match screen.orders[0] {
        Order::First => "",
        Order::ByName => ", by name",
        Order::ByNeed => ", the most to do first",
    };
    let is_chosen = screen.pane == Pane::Processes;
    rule(pen, buffer, next(1), &format!("processes{order}{filter}"), is_chosen);
    let at = screen.process_at(&processes);
    let pauses = sight.moves.last.as_ref().map(|moves| moves.pauses.as_slice());
    let part = next(high);
    draw_processes(pen, buffer, part, &processes, pauses, is_chosen.then_some(at));
    let order = match screen.orders[1] {
        Order::First => ", the longest first",
        Order::ByName => ", by machine",
        Order::ByNeed => ", the least trust first",
    };
    let is_chosen = screen.pane == Pane::Works;
    rule(pen, buffer, next(1), &format!("works{order}{filter}"), is_chosen);
    let at = screen.work_at(&works);
    let part = next(tables - high);
    draw_works(pen, buffer, part, &works, is_chosen.then_some(at));
    let (title, lines) = match screen.pane {
        Pane::Processes => processes
            .get(screen.process_at(&processes))
            .map(|row| of_process(row, pauses)),
        Pane::Works => works.get(at).map(|work| of_work(work)),
    }
    .unwrap_or_else(|| ("nothing is chosen".to_owned(), Vec::new()));
    text(pen, &title, &lines, 0, buffer, next(details + 1));
}

type Pauses<'a> = Option<&'a [bmdb::entity::process_pause::Model]>;

/// A pause is read anew with what moves: who has just placed one wants to see it.
fn pause_of<'a>(row: &'a Row, pauses: Pauses<'a>) -> Option<&'a bmdb::entity::process_pause::Model> {
    match pauses {
        Some(pauses) => pauses.iter().find(|pause| pause.process == row.status.process),
        None => row.status.pause.as_ref(),
    }
}

fn draw_processes(pen: Pen, buffer: &mut Buffer, area: Rect, rows: &[&Row], pauses: Pauses<'_>, chosen: Option<usize>) {
    const COUNTED: [&str; 5] = ["○ elig", "▶ work", "⧗ back", "■ park", "⊘ held"];
    let column = |heading, is_number, most| Column {
        heading,
        is_number,
        most,
    };
    let mut columns = vec![column("process", false, NAME)];
    columns.extend(COUNTED.map(|heading| column(heading, true, NAME)));
    columns.push(column("last used", false, u16::MAX));
    let mut cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let status = &row.status;
            let eligible = row.eligible().map_or_else(|| "?".to_owned(), grouped);
            let numbers = [status.in_work, status.backing_off, status.parked, status.held].map(grouped);
            let mut cells = vec![brief(&status.process), eligible];
            cells.extend(numbers);
            cells.push(last_used(row, pause_of(row, pauses)));
            cells
        })
        .collect();
    // What is left of the width is the bars'.
    let wide = |place: usize, column: &Column| {
        let widest = cells.iter().map(|row| width(&row[place])).max().unwrap_or_default();
        widest.max(width(column.heading)).min(column.most) + 2
    };
    let taken: u16 = columns
        .iter()
        .enumerate()
        .map(|(place, column)| wide(place, column))
        .sum();
    let room = area.width.saturating_sub(taken + 3).min(BAR.1);
    if room >= BAR.0 {
        columns.insert(1, column("shares", false, BAR.1));
        for (cells, row) in cells.iter_mut().zip(rows) {
            cells.insert(1, shares(row, usize::from(room), pen.ascii));
        }
    }
    draw(pen, buffer, area, &columns, &cells, chosen);
}

fn draw_works(pen: Pen, buffer: &mut Buffer, area: Rect, rows: &[&WorkStatus], chosen: Option<usize>) {
    let column = |heading, is_number, most| Column {
        heading,
        is_number,
        most,
    };
    let columns = [
        column("machine", false, NAME),
        column("slot", false, 12),
        column("process", false, NAME),
        column("held for", false, NAME),
        column("trust ≤", false, NAME),
        column("state", false, NAME),
        column("fence", true, NAME),
        column("by", false, NAME),
        column("progress", false, u16::MAX),
    ];
    let cells = rows.iter().map(|work| {
        vec![
            brief(&name_of(work.machine, work.provider_id.as_deref()).shown),
            brief(&work.slot),
            brief(&work.process),
            span(work.age()),
            trust_left(work),
            sign(work).to_owned(),
            work.fence.to_string(),
            brief(&work.component),
            work.progress.as_ref().map(|_| progress(work)).unwrap_or_default(),
        ]
    });
    let cells: Vec<_> = cells.collect();
    draw(pen, buffer, area, &columns, &cells, chosen);
}

fn of_process(row: &Row, pauses: Pauses<'_>) -> (String, Vec<String>) {
    let status = &row.status;
    let name = quoted(&status.process);
    let mut lines = Vec::new();
    match pause_of(row, pauses) {
        Some(pause) => {
            let said = pauses::said(pause, status.as_of);
            lines.push(format!("⊘ {said}.  next: bmdb process resume {name} --reason '…'"));
        }
        None if row.is_idle() => lines.push(format!(
            "✕ nobody runs it.  next: start a component that runs it; bmdb process show {name}"
        )),
        None => lines.push(format!("next: bmdb process show {name}")),
    }
    lines.push(format!(
        "slot {}: {}",
        foreign(&status.slot),
        foreign(&status.description)
    ));
    (foreign(&status.process), lines)
}

fn of_work(work: &WorkStatus) -> (String, Vec<String>) {
    let asked = work.stop_requested.as_ref();
    let mut lines = Vec::new();
    if let Some(last) = next_steps(work).last() {
        lines.push(format!("next: {}", last.trim_start().trim_start_matches("next: ")));
    }
    lines.extend(asked.map(|reason| format!("✕ asked to stop: {}", brief(reason))));
    lines.push(format!("{}, session {}", foreign(&work.runtime_info), work.session));
    let machine = name_of(work.machine, work.provider_id.as_deref());
    (machine.shown, lines)
}
