//! What can go wrong, as a caller sees it: one variant for each thing that a caller treats differently.

use std::time::Duration;

use bmdb_entity::{Fence, MachineId, SessionId};
use sea_orm::sqlx;
use sea_orm::{DbErr, RuntimeErr};

use crate::backoff::BackoffError;
use crate::config::ConfigError;
use crate::plain::Plain;

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
    #[error("the database's file {} was removed or replaced while it was open: connect again", Plain(&file.display().to_string()))]
    FileReplaced {
        /// The path.
        file: std::path::PathBuf,
    },

    /// SQLite's file is no whole database any more: somebody wrote over it while it was open (a `cp`, a restore, a VACUUM), or the disk has lost parts
    /// of it. No component of this process works on it again. End all that have it open, see what `PRAGMA integrity_check` says, and put a good copy
    /// in its place.
    #[error(
        "the database's file {} is damaged, or was written over while it was open: end all that have it open, and put a good copy in its place",
        Plain(&file.display().to_string())
    )]
    FileDamaged {
        /// The path.
        file: std::path::PathBuf,
        /// What SQLite said, if it was SQLite that noticed: else the file is shorter than it was.
        #[source]
        source: Option<DbErr>,
    },

    /// SQLite's file is where or as others may have it open without sharing its locks; nothing was written.
    #[error("the database's file {} cannot be used: {reason}", Plain(&file.display().to_string()))]
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
        Plain(registered_by)
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

    /// Another machine has this provider id already.
    #[error(
        "provider {} has a machine {} already: it is {machine}",
        Plain(provider),
        Plain(provider_id)
    )]
    DuplicateProviderId {
        /// The provider.
        provider: String,
        /// The provider's id of the machine.
        provider_id: String,
        /// The machine that has it.
        machine: MachineId,
    },

    /// A row that was to be a machine's whole row of a tag lacks a column that it must have; nothing was written. Set it, or
    /// [update](crate::tag::update) the row that is there.
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
                | Self::FileReplaced { .. }
                | Self::FileDamaged { .. }
        )
    }

    pub(crate) fn invalid(what: &'static str, value: &str, expected: &'static str) -> Self {
        let value = value.chars().take(100).collect();
        Self::Invalid { what, value, expected }
    }
}

/// What a driver's error means for the transaction that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Lost against another transaction; the whole body may run again.
    Conflict,
    /// No connection, or it broke; before COMMIT the whole body may run again.
    Disconnected,
    /// The connection's prepared statements are older than the schema. sqlx would go on failing on it for as long as it is open.
    StalePlan,
    /// The server is going down, and others will meet that too.
    GoesDown,
    /// The transaction was read-only: the server has become so, or a body asked for that.
    ReadOnly,
    /// The database can do nothing like it now, whatever is asked: it is full, its disk fails, a statement takes too long.
    Unable,
    /// A rule of the schema, or of a user's trigger, refused it, or the type of a column.
    Constraint,
    /// SQLite's file is no whole database any more.
    Damaged,
    /// We lack a right.
    NotAllowed,
    /// Anything else: what was asked is at fault.
    Other,
}

impl Fault {
    /// Whether the whole transaction may be run again, given that COMMIT was not sent.
    pub(crate) fn is_transient(self) -> bool {
        !matches!(self, Self::Unable | Self::Constraint | Self::NotAllowed | Self::Other)
    }

    /// Whether connections that are older would meet it too.
    pub(crate) fn is_of_older_connections(self) -> bool {
        matches!(self, Self::StalePlan | Self::GoesDown | Self::ReadOnly)
    }

    /// Whether it tells of the database, or of what its role may, and nothing of what was to be written.
    pub(crate) fn is_outage(self) -> bool {
        !matches!(self, Self::Constraint | Self::Other)
    }

    /// Reads the fault off an error's code, never off its text.
    pub(crate) fn of(error: &DbErr) -> Self {
        let runtime = match error {
            DbErr::ConnectionAcquire(_) => return Self::Disconnected,
            DbErr::Conn(runtime) | DbErr::Exec(runtime) | DbErr::Query(runtime) => runtime,
            _ => return Self::Other,
        };
        let RuntimeErr::SqlxError(error) = runtime else {
            return Self::Other;
        };
        match error.as_ref() {
            sqlx::Error::Database(error) => Self::of_code(error.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => Self::Disconnected,
            sqlx::Error::PoolClosed => Self::Unable,
            _ => Self::Other,
        }
    }

    fn of_code(error: &dyn sqlx::error::DatabaseError) -> Self {
        use sqlx::error::ErrorKind;
        if matches!(
            error.kind(),
            ErrorKind::UniqueViolation | ErrorKind::ForeignKeyViolation | ErrorKind::CheckViolation
        ) {
            return Self::Constraint;
        }
        let code = error.code().unwrap_or_default();
        if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            return Self::of_sqlite(code.parse().unwrap_or(0));
        }
        match code.as_ref() {
            // serialization_failure, deadlock_detected, lock_not_available (postgresql.org/docs/current/errcodes-appendix.html)
            "40001" | "40P01" | "55P03" => Self::Conflict,
            // admin_shutdown
            "57P01" => Self::GoesDown,
            // read_only_sql_transaction
            "25006" => Self::ReadOnly,
            // crash_shutdown, cannot_connect_now, database_dropped, idle_session_timeout; idle_in_transaction_session_timeout, transaction_timeout;
            // too_many_connections
            "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04" | "53300" => Self::Disconnected,
            // invalid_sql_statement_name: the plan is gone.
            "26000" => Self::StalePlan,
            "0A000" if is_stale_plan(error) => Self::StalePlan,
            // insufficient_privilege
            "42501" => Self::NotAllowed,
            // raise_exception, with which triggers refuse; with_check_option_violation
            "P0001" | "44000" => Self::Constraint,
            code => match code.get(..2).unwrap_or_default() {
                // data_exception; integrity_constraint_violation, exclusion_violation (23P01) among them
                "22" | "23" => Self::Constraint,
                // connection_exception
                "08" => Self::Disconnected,
                // invalid_transaction_state, invalid_authorization_specification, invalid_catalog_name,
                // insufficient_resources, operator_intervention (a statement that took too long among them), system_error, config_file_error,
                // internal_error
                "25" | "28" | "3D" | "53" | "57" | "58" | "F0" | "XX" => Self::Unable,
                _ => Self::Other,
            },
        }
    }

    /// Of an extended result code, whose low byte is the primary one (sqlite.org/rescode.html).
    fn of_sqlite(code: i32) -> Self {
        // SQLITE_CORRUPT_VTAB: a virtual table of a user's own is not what it should be. That is not the file.
        const OF_A_VIRTUAL_TABLE: i32 = 267;
        match (code & 0xff, code) {
            // BUSY, LOCKED
            (5 | 6, _) => Self::Conflict,
            (11, code) if code != OF_A_VIRTUAL_TABLE => Self::Damaged,
            // NOTADB; of IOERR: SHORT_READ, DATA, CORRUPTFS
            (26, _) | (_, 522 | 8202 | 8458) => Self::Damaged,
            // TOOBIG; CONSTRAINT, also NOT NULL and a trigger's RAISE; MISMATCH
            (18..=20, _) => Self::Constraint,
            // PERM, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
            (3 | 7..=10 | 13..=15, _) => Self::Unable,
            _ => Self::Other,
        }
    }
}

/// feature_not_supported says many things. PostgreSQL names the function that says it, in every language; CockroachDB speaks English only.
fn is_stale_plan(error: &dyn sqlx::error::DatabaseError) -> bool {
    let routine = error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(sqlx::postgres::PgDatabaseError::routine);
    routine == Some("RevalidateCachedQuery") || error.message() == "cached plan must not change result type"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server says it.
    #[derive(Debug, thiserror::Error)]
    #[error("other words")]
    struct Said(&'static str);

    impl sqlx::error::DatabaseError for Said {
        fn message(&self) -> &str {
            "other words"
        }
        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some(self.0.into())
        }
        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    #[test]
    fn what_postgresql_says_is_told_apart_by_its_code() {
        for (codes, fault) in [
            (["40001", "40P01", "55P03"].as_slice(), Fault::Conflict),
            (
                &["57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53300", "08006"],
                Fault::Disconnected,
            ),
            (&["57P01"], Fault::GoesDown),
            (&["25006"], Fault::ReadOnly),
            (&["26000"], Fault::StalePlan),
            (&["42501"], Fault::NotAllowed),
            (
                &["23502", "23514", "23P01", "P0001", "44000", "22001", "22003", "22021"],
                Fault::Constraint,
            ),
            (
                &["53100", "57014", "58030", "XX001", "28000", "3D000", "F0000", "25P02"],
                Fault::Unable,
            ),
            (&["42P01", "42703", "0A000", ""], Fault::Other),
        ] {
            for code in codes {
                assert_eq!(Fault::of_code(&Said(code)), fault, "{code}");
            }
        }
        let outages = [
            Fault::Conflict,
            Fault::Disconnected,
            Fault::GoesDown,
            Fault::ReadOnly,
            Fault::Unable,
            Fault::NotAllowed,
        ];
        assert!(
            outages.iter().all(|fault| fault.is_outage()),
            "they say nothing of a machine"
        );
        assert!(!Fault::Constraint.is_outage() && !Fault::Other.is_outage());
    }

    #[test]
    fn what_sqlite_says_is_told_apart_by_its_code() {
        for (code, fault) in [
            (5, Fault::Conflict),
            (517, Fault::Conflict),
            (262, Fault::Conflict),
            (11, Fault::Damaged),
            (523, Fault::Damaged),
            (779, Fault::Damaged),
            (267, Fault::Other),
            (26, Fault::Damaged),
            (522, Fault::Damaged),
            (8202, Fault::Damaged),
            (10, Fault::Unable),
            (778, Fault::Unable),
            (13, Fault::Unable),
            (1299, Fault::Constraint),
            (1811, Fault::Constraint),
            (18, Fault::Constraint),
            (20, Fault::Constraint),
            (0, Fault::Other),
        ] {
            assert_eq!(Fault::of_sqlite(code), fault, "{code}");
        }
    }
}
