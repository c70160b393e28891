//! What a command answers: a sentence first, then what stands behind it. Written as tables for people, or as one JSON document.

mod table;
pub(crate) mod tone;
pub(crate) mod words;

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use bmdb::Bmdb;
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde_json::{Value, json};

pub(crate) use table::{Table, folded};

use crate::failure::{Failure, Kind};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Sentences and tables, for people.
    #[default]
    Table,
    /// One JSON document. Numbers of 64 bits are strings.
    Json,
}

/// How an answer is written, and with which signs.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Tables or JSON.
    pub output: Output,
    /// Only ASCII, for terminals that know nothing else.
    pub ascii: bool,
}

/// What a command answers.
#[derive(Debug)]
pub struct Answer {
    /// What there is to say, in one sentence.
    sentence: String,
    parts: Vec<Part>,
    /// What could not be read or is not shown: told on stderr.
    notes: Vec<String>,
    /// The same for programs.
    json: Value,
    /// Which database, and when by its clock.
    source: Option<(String, DateTime<Utc>)>,
    /// Whether it found what needs somebody.
    found: bool,
}

#[derive(Debug)]
enum Part {
    Table(Table),
    Lines(Vec<String>),
}

impl Answer {
    pub(crate) fn new(sentence: impl Into<String>, json: Value) -> Self {
        Self {
            sentence: sentence.into(),
            parts: Vec::new(),
            notes: Vec::new(),
            json,
            source: None,
            found: false,
        }
    }

    /// Which database said so, and when. Asks it for its time.
    pub(crate) async fn from(mut self, bmdb: &Bmdb) -> Result<Self, Failure> {
        self.source = Some((bmdb.name().to_owned(), bmdb.now().await?));
        Ok(self)
    }

    pub(crate) fn read_at(mut self, bmdb: &Bmdb, at: DateTime<Utc>) -> Self {
        self.source = Some((bmdb.name().to_owned(), at));
        self
    }

    /// A table without rows is left out.
    pub(crate) fn table(mut self, table: Table) -> Self {
        if !table.is_empty() {
            self.parts.push(Part::Table(table));
        }
        self
    }

    pub(crate) fn lines(mut self, lines: Vec<String>) -> Self {
        if !lines.is_empty() {
            self.parts.push(Part::Lines(lines));
        }
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Rows that somebody has edited so that nobody can read them: named, and passed over.
    pub(crate) fn unreadable(mut self, rows: &[bmdb::Unreadable]) -> Self {
        for row in rows {
            let name = bmdb::Escaped(&row.row);
            self.notes
                .push(format!("row {name} cannot be read and is left out: {}", row.error));
        }
        self
    }

    /// Something needs somebody.
    pub(crate) fn found(mut self, found: bool) -> Self {
        self.found = found;
        self
    }

    /// Writes it. The exit status is 1 where it found what needs somebody.
    pub(crate) fn print(&self, format: Format) -> ExitCode {
        let status = u8::from(self.found);
        match format.output {
            Output::Json => out_json(&self.document(), status),
            Output::Table => {
                let text = format.fit(&self.text(Look::here(format)));
                let text = if is_coloured(format) {
                    tone::painted(&text)
                } else {
                    text
                };
                let written = out(&text, status);
                for note in &self.notes {
                    err(&format.fit(&format!("note: {}", words::foreign(note))));
                }
                if let Some((source, at)) = &self.source {
                    err(&format.fit(&format!("{source}, {}", at.format("%H:%M:%S UTC"))));
                }
                written
            }
        }
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        let mut document = json!({"answer": self.json, "notes": self.notes});
        if let Some((source, at)) = &self.source {
            document["source"] = json!(source);
            document["at"] = json!(at.to_rfc3339());
        }
        document
    }

    /// As it stands on a page of our own.
    pub(crate) fn lines_of_text(&self) -> Vec<String> {
        let notes = self.notes.iter().map(|note| format!("note: {}", words::foreign(note)));
        self.text(Look::default())
            .lines()
            .map(str::to_owned)
            .chain(notes)
            .collect()
    }

    /// Its sentence and its parts, a blank line between. What somebody else wrote cannot leave its line, wherever it came from.
    fn text(&self, look: Look) -> String {
        let mut text = format!("{}\n", words::foreign_lines(&self.sentence));
        for part in &self.parts {
            text.push('\n');
            match part {
                Part::Table(table) => {
                    let table = table.text(look.width);
                    let (heading, rows) = table.split_once('\n').unwrap_or((&table, ""));
                    let heading = if look.is_dim {
                        tone::dimmed(heading)
                    } else {
                        heading.to_owned()
                    };
                    text.extend([heading.as_str(), "\n", rows]);
                }
                Part::Lines(lines) => text.extend(lines.iter().map(|line| format!("{}\n", words::foreign(line)))),
            }
        }
        text
    }
}

/// What a terminal has room for, and shows.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    width: Option<usize>,
    /// Headings stand back.
    is_dim: bool,
}

impl Look {
    /// Where the answer goes. What is piped is never folded.
    fn here(format: Format) -> Self {
        let size = std::io::stdout()
            .is_terminal()
            .then(ratatui_crossterm::crossterm::terminal::size);
        Self {
            width: size
                .and_then(Result::ok)
                .map(|(columns, _)| usize::from(columns))
                .filter(|wide| *wide > 0),
            is_dim: is_coloured(format),
        }
    }
}

/// Whether signs and headings have their colours: where a person looks, and has not said otherwise (<https://no-color.org>).
pub(crate) fn is_coloured(format: Format) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    format.output == Output::Table && !format.ascii && !unwanted && std::io::stdout().is_terminal()
}

impl Format {
    pub(crate) fn fit(self, text: &str) -> String {
        if self.ascii {
            words::ascii(text)
        } else {
            text.to_owned()
        }
    }
}

pub(crate) fn out_json(document: &Value, status: u8) -> ExitCode {
    out(&json_text(document), status)
}

/// Marks of direction and the like, which JSON lets stand in a text, are written as escapes.
pub(crate) fn json_text(document: &Value) -> String {
    let mut text = String::new();
    for letter in format!("{document:#}\n").chars() {
        let mut alone = [0; 4];
        let alone = letter.encode_utf8(&mut alone);
        if letter.is_ascii() || words::foreign(alone) == *alone {
            text.push(letter);
        } else {
            let mut units = [0; 2];
            text.extend(
                letter
                    .encode_utf16(&mut units)
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            );
        }
    }
    text
}

/// Writes to stdout. Who has stopped reading, such as `head`, has read enough; what else stands in the way, such as a full disk, is told.
fn out(text: &str, status: u8) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            err(&format!("bmdb: the answer cannot be written: {error}"));
            ExitCode::from(Kind::Unreachable.status())
        }
        Ok(()) | Err(_) => ExitCode::from(status),
    }
}

/// Writes a line to stderr, if anybody reads it: what was done is done.
pub(crate) fn err(line: &str) {
    if writeln!(std::io::stderr(), "{line}").is_err() {
        // There is nobody left to tell.
    }
}
