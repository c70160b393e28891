//! What can go wrong, told apart by what the person who typed the command does next.

use std::error::Error as _;
use std::process::ExitCode;

use bmdb::Error;
use serde_json::json;

use crate::answer::words::foreign_lines;
use crate::answer::{Format, Output};

/// Why a command did not do what it was asked. Its text is a whole sentence or two: what was wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind it is.
    pub kind: Kind,
    /// What to tell the person.
    pub text: String,
}

/// The kinds of failures. Each is an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command was not right.
    Usage,
    /// What the command was decided on has changed; nothing was done.
    Changed,
    /// There is no such thing.
    NotFound,
    /// The login may not do that.
    NotAllowed,
    /// The database does not answer, or not as it should.
    Unreachable,
}

impl Kind {
    /// The exit status: see [`EXIT`](crate::cli::EXIT).
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Changed => 3,
            Self::NotFound => 4,
            Self::NotAllowed => 5,
            Self::Unreachable => 6,
        }
    }

    /// As programs read it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Changed => "changed",
            Self::NotFound => "not found",
            Self::NotAllowed => "not allowed",
            Self::Unreachable => "unreachable",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, text)
    }

    pub(crate) fn changed(text: impl Into<String>) -> Self {
        Self::new(Kind::Changed, text)
    }

    /// Says it on stderr, or as JSON on stdout where that was asked for.
    pub(crate) fn print(&self, format: Format) -> ExitCode {
        if format.output == Output::Json {
            let failure = json!({"error": {"kind": self.kind.word(), "text": self.text}});
            return crate::answer::out_json(&failure, self.kind.status());
        }
        crate::answer::err(&format!("bmdb: {}", foreign_lines(&self.text)));
        ExitCode::from(self.kind.status())
    }
}

/// What `clap` has to say: help and versions as it prints them, mistakes as JSON where programs read.
pub(crate) fn unparsed(error: &clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let is_json = words
        .windows(2)
        .any(|two| matches!(two[0].to_str(), Some("-o" | "--output")) && two[1] == "json")
        || words
            .iter()
            .any(|word| matches!(word.to_str(), Some("-ojson" | "-o=json" | "--output=json")));
    if is_json && error.use_stderr() {
        let text = error.render().to_string();
        let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
        let format = Format {
            output: Output::Json,
            ascii: false,
        };
        return Failure::usage(text).print(format);
    }
    if error.print().is_err() {
        // There is nobody left to tell.
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Kind::Usage.status()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Config(_) | Error::Invalid { .. } => Kind::Usage,
            Error::UnknownMachine { .. } | Error::UnknownProcess { .. } | Error::UnknownSlot { .. } => Kind::NotFound,
            Error::DuplicateProviderId { .. }
            | Error::AlreadyHeld { .. }
            | Error::AlreadyPaused { .. }
            | Error::MachineInWork { .. }
            | Error::MachineReferred { .. } => Kind::Changed,
            Error::NotAllowed { .. } | Error::MayWrite { .. } => Kind::NotAllowed,
            _ => Kind::Unreachable,
        };
        Self::new(kind, sentence(&error))
    }
}

/// The library's words; of the database's own only those that no other says.
fn sentence(error: &Error) -> String {
    let text = error.to_string();
    match error {
        // The source says which of several.
        Error::Unreachable { source, .. } => format!("{text}. The system says: {}", last(&**source)),
        Error::Database { .. } => format!("{text}. Try again; RUST_LOG=bmdb=debug shows what the database said"),
        Error::CommitUnknown { .. } => format!("{text}. Look whether it was done before you do it again"),
        _ => text,
    }
}

/// The end of a chain: what the system itself said.
fn last(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    bmdb::Escaped(text.lines().next().unwrap_or_default()).to_string()
}

impl From<bmdb_migration::Error> for Failure {
    fn from(error: bmdb_migration::Error) -> Self {
        use bmdb_migration::Error::{Database, Missing, NotAllowed, Open, Parameter, Url, WouldDestroy};
        let kind = match &error {
            Url { .. } | Parameter { .. } | Missing { .. } | WouldDestroy { .. } => Kind::Usage,
            NotAllowed { .. } => Kind::NotAllowed,
            _ => Kind::Unreachable,
        };
        let text = match &error {
            Open { source, .. } => format!("{error}. The system says: {}", last(source)),
            Database { .. } => error
                .source()
                .map_or(error.to_string(), |source| format!("{error}: {}", last(source))),
            _ => error.to_string(),
        };
        Self::new(kind, text)
    }
}
