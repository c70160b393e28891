//! What the screen shows of what was seen: which pane, which row, which order. Keys change it, and what is read does not.

use bmdb::{MachineId, WorkId, WorkStatus};
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::sight::Sight;
use crate::facts::name::name_of;
use crate::facts::process;

/// More works are read where some of them are looked for, or stand in another order.
const SEARCHED: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Processes,
    Works,
}

/// In which order rows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Processes by slot, works the longest first.
    First,
    ByName,
    /// Processes by how much there is to do, works by what their holders may still trust.
    ByNeed,
}

/// What is opened over the panes.
pub(super) enum Over {
    Nothing,
    Keys,
    /// Another command's answer.
    Page {
        title: String,
        lines: Vec<String>,
        top: usize,
    },
}

/// Another command's answer, to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Process(String),
    Work(WorkId),
    Why { machine: MachineId, process: String },
}

/// What a key asks for that the screen cannot do by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Quit,
    Read(Ask),
}

pub(super) struct Screen {
    pub(super) pane: Pane,
    pub(super) over: Over,
    pub(super) filter: String,
    /// Letters go into the filter.
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) ascii: bool,
    /// Signs have their colours.
    pub(super) coloured: bool,
    pub(super) orders: [Order; 2],
    /// What is chosen stays chosen wherever its row goes.
    process: Option<String>,
    work: Option<WorkId>,
    /// What there is to say of the last key.
    pub(super) said: Option<&'static str>,
}

impl Screen {
    pub(super) fn new(ascii: bool, coloured: bool) -> Self {
        Self {
            pane: Pane::Works,
            over: Over::Nothing,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            ascii,
            coloured,
            orders: [Order::First; 2],
            process: None,
            work: None,
            said: None,
        }
    }

    /// How many works are to be read for a screen that is so high.
    pub(super) fn room(&self, height: u16) -> usize {
        match self.filter.is_empty() && self.orders[1] == Order::First {
            true => usize::from(height).max(1),
            false => SEARCHED,
        }
    }

    /// The processes that are shown, in their order.
    pub(super) fn processes<'a>(&self, sight: &'a Sight) -> Vec<&'a process::Row> {
        let rows = sight.counts.last.iter().flat_map(|counts| &counts.processes.rows);
        let mut rows: Vec<_> = rows
            .filter(|row| self.keeps([row.status.process.as_str(), &row.status.slot]))
            .collect();
        match self.orders[0] {
            Order::First => {}
            Order::ByName => rows.sort_by(|a, b| a.status.process.cmp(&b.status.process)),
            Order::ByNeed => rows.sort_by_key(|row| std::cmp::Reverse((row.is_idle(), row.eligible()))),
        }
        rows
    }

    /// The works that are shown, in their order.
    pub(super) fn works<'a>(&self, sight: &'a Sight) -> Vec<&'a WorkStatus> {
        let rows = sight.moves.last.iter().flat_map(|moves| &moves.works);
        let mut rows: Vec<_> = rows
            .filter(|row| {
                let name = row.provider_id.as_deref().unwrap_or_default();
                let id = row.machine.to_string();
                self.keeps([name, &id, &row.process, &row.slot, &row.component])
            })
            .collect();
        match self.orders[1] {
            Order::First => {}
            Order::ByName => rows.sort_by_key(|row| name_of(row.machine, row.provider_id.as_deref()).shown),
            Order::ByNeed => rows.sort_by_key(|row| row.left()),
        }
        rows
    }

    fn keeps<const N: usize>(&self, texts: [&str; N]) -> bool {
        self.filter.is_empty() || texts.iter().any(|text| text.contains(&self.filter))
    }

    /// Which of the shown processes is chosen: the first, until one is.
    pub(super) fn process_at(&self, rows: &[&process::Row]) -> usize {
        let chosen = |row: &&process::Row| Some(&row.status.process) == self.process.as_ref();
        rows.iter().position(chosen).unwrap_or_default()
    }

    pub(super) fn work_at(&self, rows: &[&WorkStatus]) -> usize {
        rows.iter()
            .position(|row| Some(row.work) == self.work)
            .unwrap_or_default()
    }

    /// Does what a key says.
    pub(super) fn press(&mut self, key: KeyEvent, sight: &Sight, page: usize) -> Option<Wanted> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Some(Wanted::Quit);
        }
        self.said = None;
        if self.is_typing {
            self.type_into_filter(key.code);
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Wanted::Quit),
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            _ if !matches!(self.over, Over::Nothing) => self.press_over(key.code, page),
            KeyCode::Char('?') => self.over = Over::Keys,
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = match self.pane {
                    Pane::Processes => Pane::Works,
                    Pane::Works => Pane::Processes,
                }
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => {
                let order = &mut self.orders[self.pane as usize];
                *order = match order {
                    Order::First => Order::ByName,
                    Order::ByName => Order::ByNeed,
                    Order::ByNeed => Order::First,
                };
            }
            KeyCode::Enter => return self.open(sight),
            KeyCode::Char('w') => return self.why(sight),
            code => self.choose(moved(code, page), sight),
        }
        None
    }

    fn type_into_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn press_over(&mut self, code: KeyCode, page: usize) {
        match (code, &mut self.over) {
            (KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Char('?'), _) => self.over = Over::Nothing,
            (code, Over::Page { lines, top, .. }) => {
                *top = top
                    .saturating_add_signed(moved(code, page))
                    .min(lines.len().saturating_sub(1));
            }
            _ => {}
        }
    }

    fn choose(&mut self, by: isize, sight: &Sight) {
        match self.pane {
            Pane::Processes => {
                let rows = self.processes(sight);
                let at = self.process_at(&rows).saturating_add_signed(by);
                let chosen = rows.get(at.min(rows.len().saturating_sub(1)));
                self.process = chosen.map(|row| row.status.process.clone());
            }
            Pane::Works => {
                let rows = self.works(sight);
                let at = self.work_at(&rows).saturating_add_signed(by);
                self.work = rows.get(at.min(rows.len().saturating_sub(1))).map(|row| row.work);
            }
        }
    }

    fn open(&mut self, sight: &Sight) -> Option<Wanted> {
        let ask = match self.pane {
            Pane::Processes => {
                let rows = self.processes(sight);
                let row = rows.get(self.process_at(&rows));
                row.map(|row| Ask::Process(row.status.process.clone()))
            }
            Pane::Works => {
                let rows = self.works(sight);
                rows.get(self.work_at(&rows)).map(|row| Ask::Work(row.work))
            }
        };
        if ask.is_none() {
            self.said = Some("there is nothing to open");
        }
        ask.map(Wanted::Read)
    }

    fn why(&mut self, sight: &Sight) -> Option<Wanted> {
        let rows = self.works(sight);
        let chosen = rows.get(self.work_at(&rows)).filter(|_| self.pane == Pane::Works);
        let ask = chosen.map(|row| Ask::Why {
            machine: row.machine,
            process: row.process.clone(),
        });
        if ask.is_none() {
            self.said = Some("why is asked of a machine: choose a work, or bmdb machine why MACHINE PROCESS");
        }
        ask.map(Wanted::Read)
    }
}

/// By how many rows a key moves.
fn moved(code: KeyCode, page: usize) -> isize {
    let page = isize::try_from(page).unwrap_or(isize::MAX);
    match code {
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::PageDown => page,
        KeyCode::PageUp => -page,
        KeyCode::Home | KeyCode::Char('g') => -10_000,
        KeyCode::End | KeyCode::Char('G') => 10_000,
        _ => 0,
    }
}
