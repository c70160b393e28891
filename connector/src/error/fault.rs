//! What a driver's error means.

use sea_orm::sqlx;
use sea_orm::{DbErr, RuntimeErr};

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

fn code_of(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether somebody had locked a row that the statement needed, for longer than it waits.
pub(crate) fn is_lock_timeout(error: &DbErr) -> bool {
    // lock_not_available (postgresql.org/docs/current/errcodes-appendix.html)
    code_of(error).is_some_and(|code| code == "55P03")
}

/// Whether one of several may be why a statement failed for all: for what it states, or by a rule of the user's. No disk, no right, no table is the same
/// for each.
pub(crate) fn is_of_one(error: &DbErr) -> bool {
    let Some(code) = code_of(error) else {
        return true;
    };
    if code.len() < 5 {
        // SQLite's: a constraint's or a trigger's word (sqlite.org/rescode.html).
        return code.parse().is_ok_and(|code: u32| code & 0xff == 19);
    }
    let of_all = ["25", "42", "53", "58", "XX"];
    !of_all.iter().any(|class| code.starts_with(class))
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
