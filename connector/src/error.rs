//! What can go wrong, as a caller sees it: one variant for each thing that a caller treats differently.

pub(crate) mod backoff_error;
pub(crate) mod config_error;
pub(crate) mod fault;

use std::time::Duration;

use bmdb_entity::{Fence, MachineId, SessionId};
use chrono::{DateTime, Utc};
use sea_orm::{DbErr, SqlErr};

use crate::error::backoff_error::BackoffError;
use crate::error::config_error::ConfigError;
use crate::error::fault::{Fault, is_lock_timeout, is_of_one};
use crate::runtime::escaped::Escaped;

/// Why a call to BMDB did not do what it was asked.
///
/// `Display` says what was wrong and what to do; the database's own words are in [`source`](std::error::Error::source). Neither ever holds a
/// password.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong; nothing was connected.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The database does not answer, or refuses us.
    #[error("cannot open the database {database}: check that it runs, that the URL is right and that we may log in")]
    Unreachable {
        /// Which database, without credentials.
        database: String,
        /// What the driver said.
        #[source]
        source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
    },

    /// The thread for heartbeats cannot be started; nothing was connected.
    #[error("cannot start the thread for heartbeats: check this process's limits")]
    Thread {
        /// What the system said.
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },

    /// SQLite's file, or what SQLite keeps beside it (`-wal`, `-shm`), was removed or replaced while it was open. What is there now, if anything, is
    /// another database: connect to it anew.
    #[error("the database's file {} was removed or replaced while it was open: connect again", Escaped(&file.display().to_string()))]
    FileReplaced {
        /// The path.
        file: std::path::PathBuf,
    },

    /// SQLite's file is no whole database any more: somebody wrote over it while it was open (a `cp`, a restore, a VACUUM), or the disk has lost parts
    /// of it. No component of this process works on it again. End all that have it open, see what `PRAGMA integrity_check` says, and put a good copy
    /// in its place.
    #[error(
        "the database's file {} is damaged, or was written over while it was open: end all that have it open, and put a good copy in its place",
        Escaped(&file.display().to_string())
    )]
    FileDamaged {
        /// The path.
        file: std::path::PathBuf,
        /// What SQLite said, if it was SQLite that noticed: else the file is shorter than it was.
        #[source]
        source: Option<DbErr>,
    },

    /// SQLite's file is where or as others may have it open without sharing its locks; nothing was written.
    #[error("the database's file {} cannot be used: {reason}", Escaped(&file.display().to_string()))]
    UnsafeFile {
        /// The path.
        file: std::path::PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// The server is of a kind or version that BMDB does not work on.
    #[error("the database {database} is {found}; expected {expected}")]
    UnsupportedServer {
        /// Which database, without credentials.
        database: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },

    /// The server takes no writes: it is a standby, or was made read-only. Connect to the primary.
    #[error("the database {database} takes no writes: {}; connect to the primary", if *is_standby { "it is a standby" } else { "its transactions are read-only" })]
    ReadOnlyServer {
        /// Which database, without credentials.
        database: String,
        /// Whether it follows another server.
        is_standby: bool,
    },

    /// The schema lacks steps that this component needs.
    #[error("the database {database} is not migrated: {} of our steps are missing, first {}; run `bmdb-migration up`", missing.len(), missing[0])]
    NotMigrated {
        /// Which database, without credentials.
        database: String,
        /// The names of the missing steps, oldest first.
        missing: Vec<String>,
    },

    /// The role that we log in as may not do what components do; nothing was written.
    #[error(
        "the role {role} lacks rights in the database {database}: {}; log in as a component's role, or have `bmdb-migration up` run as the \
         schema's owner, which grants them to the roles of `bmdb-migration make-roles`",
        lacks.join(", ")
    )]
    NotAllowed {
        /// Which database, without credentials.
        database: String,
        /// The role.
        role: String,
        /// What it lacks, each as `SELECT on machine`.
        lacks: Vec<String>,
    },

    /// The schema has lost things that this component needs.
    #[error(
        "the database {database} is newer than this component: it has the step {step}, which removes what we need; update the component"
    )]
    SchemaNewer {
        /// Which database, without credentials.
        database: String,
        /// The first contract step that we do not know.
        step: String,
    },

    /// A value does not have the form that it must have; nothing was written.
    #[error("{what} {value:?} is not valid: expected {expected}")]
    Invalid {
        /// What the value is for.
        what: &'static str,
        /// The value, cut to 100 characters.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },

    /// A process's backoff rule makes no sense; nothing was written.
    #[error("the backoff of process {process} is not valid")]
    InvalidBackoff {
        /// The process.
        process: &'static str,
        /// What is wrong with it.
        #[source]
        source: BackoffError,
    },

    /// A time of a process is longer than any database can count with; nothing was written.
    #[error("the {setting} of process {process} is {value:?}; expected at most {longest:?}, which is a century")]
    InvalidTime {
        /// The process.
        process: &'static str,
        /// Which of its constants.
        setting: &'static str,
        /// What it is.
        value: Duration,
        /// The most that it may be.
        longest: Duration,
    },

    /// The process is registered with another slot: two components that disagree on it would not exclude each other.
    #[error(
        "process {process} has slot {slot} here, but {} registered it with slot {registered}; all components must agree, \
         or the process needs another name",
        Escaped(registered_by)
    )]
    SlotClash {
        /// The process.
        process: String,
        /// Its slot in this component.
        slot: String,
        /// Its slot in the database.
        registered: String,
        /// The component that registered it.
        registered_by: String,
    },

    /// A rule reads a table that is not there; nothing was written. Run the steps that make it.
    #[error(
        "the rule of process {process} reads the table {table}, which is not there: run the migrator that makes it"
    )]
    MissingTable {
        /// The process.
        process: &'static str,
        /// The table, with its schema if the entity names one.
        table: String,
    },

    /// The database does not take a rule; nothing was written.
    #[error(
        "the database does not take the rule of process {process}{}",
        clause.as_ref().map_or(String::new(), |clause| format!(", in its clause {clause:?}"))
    )]
    RuleRefused {
        /// The process.
        process: &'static str,
        /// The name of the first clause that it does not take by itself; `None`: each is taken by itself, or it is the order or the item.
        clause: Option<String>,
        /// What the database said.
        #[source]
        source: DbErr,
    },

    /// A process was registered by another connection than that of the session, so perhaps in another database; nothing was written.
    #[error(
        "process {process} was registered by another connection than the session's: register it with the session's own"
    )]
    OtherDatabase {
        /// The process.
        process: &'static str,
    },

    /// Rules that the database keeps are run only where nothing but reading can come of it: whoever may write that table would write with the rights of whoever
    /// runs them. Connect as a role that can only read, such as `bmdb_console`.
    #[error(
        "a rule by name is run on connections that can only read, and this one to {database} can do more: {}; connect as a role such as bmdb_console",
        may.join(", ")
    )]
    MayWrite {
        /// Which database, without credentials.
        database: String,
        /// What it can do.
        may: Vec<String>,
    },

    /// No component has registered such a process.
    #[error("no process {process:?} is registered; known are: {}", known.join(", "))]
    UnknownProcess {
        /// The name asked for.
        process: String,
        /// The names in the database.
        known: Vec<String>,
    },

    /// No registered process has such a slot: a hold on it would hold nothing.
    #[error("no registered process has the slot {slot:?}; known are: {}", known.join(", "))]
    UnknownSlot {
        /// The slot asked for.
        slot: String,
        /// The slots in the database.
        known: Vec<String>,
    },

    /// There is no such machine.
    #[error("there is no machine {machine}")]
    UnknownMachine {
        /// The machine asked for.
        machine: MachineId,
    },

    /// A hold stands on the machine or slot that lasts as long as the one that was to be placed; nothing was written. Lift it first.
    #[error(
        "machine {machine} is held already by {} {}: {}; lift that hold first",
        Escaped(placed_by),
        until.map_or("until lifted".to_owned(), |until| format!("until {until}")),
        Escaped(reason)
    )]
    AlreadyHeld {
        /// The machine.
        machine: MachineId,
        /// Who placed it.
        placed_by: String,
        /// Why.
        reason: String,
        /// Until when; `None`: until it is lifted.
        until: Option<DateTime<Utc>>,
    },

    /// A pause of the process stands that lasts as long as the one that was to be placed; nothing was written. Resume the process first.
    #[error(
        "process {process} is paused already by {} {}: {}; resume it first",
        Escaped(paused_by),
        until.map_or("until resumed".to_owned(), |until| format!("until {until}")),
        Escaped(reason)
    )]
    AlreadyPaused {
        /// The process.
        process: String,
        /// Who paused it.
        paused_by: String,
        /// Why.
        reason: String,
        /// Until when; `None`: until somebody resumes it.
        until: Option<DateTime<Utc>>,
    },

    /// Another machine has this provider id already.
    #[error(
        "provider {} has a machine {} already: it is {machine}",
        Escaped(provider),
        Escaped(provider_id)
    )]
    DuplicateProviderId {
        /// The provider.
        provider: String,
        /// The provider's id of the machine.
        provider_id: String,
        /// The machine that has it.
        machine: MachineId,
    },

    /// Somebody works on the machine that was to be removed; nothing was removed. Drain it first.
    #[error(
        "machine {machine} cannot be removed: {} works on it for {process}; drain it first",
        Escaped(component)
    )]
    MachineInWork {
        /// The machine.
        machine: MachineId,
        /// The process that it is claimed for.
        process: String,
        /// The holder's component.
        component: String,
    },

    /// Rows of tables that are not BMDB's refer to the machine that was to be removed; nothing was removed. Delete them in the same transaction.
    #[error("machine {machine} cannot be removed: rows of other tables refer to it: {}", tables.join(", "))]
    MachineReferred {
        /// The machine.
        machine: MachineId,
        /// The tables.
        tables: Vec<String>,
    },

    /// A row that was to be a machine's whole row of a tag lacks a column that it must have; nothing was written. Set it, or
    /// [update](crate::store::tag::update) the row that is there.
    #[error("a row of {tag} needs a value in {column}; to change some columns of a row that is there, update it")]
    TagIncomplete {
        /// The tag's table.
        tag: &'static str,
        /// The first column that has none.
        column: &'static str,
    },

    /// A row of a tag was to be updated that is not there; nothing was written.
    #[error("machine {machine} has no {tag} that could be updated")]
    TagMissing {
        /// The tag's table.
        tag: &'static str,
        /// The machine.
        machine: MachineId,
    },

    /// The session is over, here or in the database; nothing of this call was written. Start a new session.
    #[error("session {session} has expired; start a new one")]
    SessionExpired {
        /// The session.
        session: SessionId,
    },

    /// The session is draining and takes no new work.
    #[error("session {session} is draining and takes no new work")]
    Draining {
        /// The session.
        session: SessionId,
    },

    /// The work is not ours any more, or has ended already; nothing of this call was written.
    #[error(
        "the work on slot {slot} of machine {machine} with fence {fence} is lost: it has ended or its session was expired"
    )]
    WorkLost {
        /// The machine.
        machine: MachineId,
        /// The slot.
        slot: String,
        /// The fence of the lost work.
        fence: Fence,
    },

    /// An earlier attempt to end this work, whose outcome was unknown, did take effect: the work has ended as asked.
    #[error("the work on machine {machine} with fence {fence} was finished by an earlier attempt")]
    AlreadyFinished {
        /// The machine.
        machine: MachineId,
        /// The fence of the finished work.
        fence: Fence,
    },

    /// COMMIT was sent and its answer never came: the transaction may or may not have taken effect.
    #[error("could not {doing} for certain: the commit's outcome is unknown")]
    CommitUnknown {
        /// What the transaction was for.
        doing: &'static str,
        /// What the driver said; `None` when the time for the answer ran out.
        #[source]
        source: Option<DbErr>,
    },

    /// A statement failed inside the transaction and the body went on as if nothing had happened; it was rolled back.
    #[error("a statement failed in the transaction and its body returned Ok: everything was rolled back")]
    Poisoned {
        /// The first failure.
        #[source]
        source: DbErr,
    },

    /// A transaction was opened inside another's body, where it could wait for its own connection.
    #[error("a transaction cannot be opened inside the body of another; use the handle that the body was given")]
    Nested,

    /// The transaction lost against others until its time was up; nothing was written.
    #[error("could not {doing}: {attempts} attempts in {elapsed:?} lost against other transactions or connections")]
    Contended {
        /// What the transaction was for.
        doing: &'static str,
        /// How often it was tried.
        attempts: u32,
        /// For how long.
        elapsed: Duration,
        /// The last failure.
        #[source]
        source: Option<DbErr>,
    },

    /// An outside effect was not started: it needs more trust than any heartbeat gives. Make the interval longer, or the effect shorter.
    #[error(
        "not started: it needs {need:?} of trust, and there is never more than {longest:?}: the interval less the margin"
    )]
    NeedImpossible {
        /// How much the caller asked for.
        need: Duration,
        /// The most that there is.
        longest: Duration,
    },

    /// An outside effect was not started: too little trust was left for it, and no heartbeat that was asked for brought enough in time. Try again, or
    /// cancel the work: the machine is not at fault.
    #[error("not started: it needs {need:?} of trust, {left:?} is left, and no heartbeat brought more in time")]
    TrustTooShort {
        /// How much the caller asked for.
        need: Duration,
        /// How much there was.
        left: Duration,
    },

    /// A statement failed.
    #[error("could not {doing}")]
    Database {
        /// What it was for.
        doing: &'static str,
        /// What the driver said.
        #[source]
        source: DbErr,
    },
}

impl From<DbErr> for Error {
    /// Lets `?` be used on a statement in the body of a transaction.
    fn from(source: DbErr) -> Self {
        Self::Database {
            doing: "run a statement",
            source,
        }
    }
}

impl Error {
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(DbErr) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// Whether it tells of the database, of the session or of the trust in it, and nothing of what was to be written.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Database { source, .. } => Fault::of(source).is_outage(),
            Self::Unreachable { .. }
            | Self::FileReplaced { .. }
            | Self::FileDamaged { .. }
            | Self::SessionExpired { .. }
            | Self::Draining { .. }
            | Self::WorkLost { .. }
            | Self::CommitUnknown { .. }
            | Self::Contended { .. }
            | Self::TrustTooShort { .. } => true,
            _ => false,
        }
    }

    /// Whether waiting cannot mend it.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Invalid { .. }
                | Self::InvalidBackoff { .. }
                | Self::InvalidTime { .. }
                | Self::SlotClash { .. }
                | Self::OtherDatabase { .. }
                | Self::FileReplaced { .. }
                | Self::FileDamaged { .. }
        )
    }

    /// Whether somebody had locked a row that it needed, for longer than it waits.
    pub(crate) fn is_locked_out(&self) -> bool {
        matches!(self, Self::Contended { source: Some(source), .. } if is_lock_timeout(source))
    }

    /// Whether one of several may be why a statement failed for all.
    pub(crate) fn is_of_one(&self) -> bool {
        match self {
            Self::Database { source, .. } => is_of_one(source),
            other => other.is_locked_out(),
        }
    }

    pub(crate) fn is_foreign_key_violation(&self) -> bool {
        self.refused_by()
            .is_some_and(|rule| matches!(rule, SqlErr::ForeignKeyConstraintViolation(_)))
    }

    pub(crate) fn is_key_violation(&self) -> bool {
        self.refused_by()
            .is_some_and(|rule| matches!(rule, SqlErr::UniqueConstraintViolation(_)))
    }

    fn refused_by(&self) -> Option<SqlErr> {
        match self {
            Self::Database { source, .. } => source.sql_err(),
            _ => None,
        }
    }

    pub(crate) fn invalid(what: &'static str, value: &str, expected: &'static str) -> Self {
        let value = value.chars().take(100).collect();
        Self::Invalid { what, value, expected }
    }
}
