//! A transaction of one statement: no BEGIN, no COMMIT, one round trip.

use std::time::Instant;

use sea_orm::sqlx::postgres::{PgDatabaseError, PgSeverity};
use sea_orm::{DbErr, QueryResult, RuntimeErr, Statement};

use crate::call::Place;
use crate::dialect::Dialect;
use crate::error::{Error, Fault};
use crate::failure::Failure;
use crate::file::OpenFile;
use crate::pause::pause_within;
use crate::singles::Singles;
use crate::tx::{Scope, check_not_nested};

/// What an error says of the statement's effect.
enum Effect {
    /// It had none.
    None,
    /// The connection broke, and nobody knows.
    Unknown,
}

impl Scope<'_> {
    /// Runs one statement that is a transaction of its own until it takes effect, fails for good, or time is up. `place`: the call that may be given up
    /// as long as the statement waits for a connection.
    ///
    /// # Cancel safety
    /// None: for a [`call`](crate::call::call), which is not dropped with its caller.
    pub(crate) async fn once(
        &self,
        singles: &Singles,
        statement: &Statement,
        place: Option<&Place>,
    ) -> Result<Vec<QueryResult>, Failure<(), Error>> {
        check_not_nested().map_err(Failure::NotCommitted)?;
        let started = Instant::now();
        let mut attempts = 0_u32;
        loop {
            attempts += 1;
            self.check_trust()
                .and_then(|()| self.file.map_or(Ok(()), OpenFile::check))
                .map_err(Failure::NotCommitted)?;
            let limit = self.limit.plus(self.acquire_timeout);
            let asked = async {
                match place {
                    Some(place) => singles.query_for(place, statement).await,
                    None => singles.query(statement).await,
                }
            };
            let answer = tokio::select! {
                biased;
                answer = asked => answer,
                // It goes on, but nobody may act on its answer any more.
                () = self.trust_over() => return Err(Failure::Unknown { value: (), source: None }),
                () = limit.passed() => return Err(Failure::Unknown { value: (), source: None }),
            };
            let error = match answer {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let fault = Fault::of(&error);
            match effect_of(&error, self.dialect) {
                Effect::Unknown => {
                    return Err(Failure::Unknown {
                        value: (),
                        source: Some(error),
                    });
                }
                Effect::None if !fault.is_transient() => {
                    return Err(Failure::NotCommitted(Error::database(self.doing)(error)));
                }
                Effect::None => {}
            }
            let elapsed = started.elapsed();
            tracing::debug!(doing = self.doing, attempts, %error, "statement runs again");
            let gives_up = place.is_some_and(Place::is_gone) || (!self.is_patient && is_lock_timeout(&error));
            let Some(pause) = pause_within(self.budget, elapsed, attempts).filter(|_| !gives_up) else {
                return Err(Failure::NotCommitted(Error::Contended {
                    doing: self.doing,
                    attempts,
                    elapsed,
                    source: Some(error),
                }));
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn code_of(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether somebody had locked a row that the statement needed, for longer than it waits.
fn is_lock_timeout(error: &DbErr) -> bool {
    // lock_not_available (postgresql.org/docs/current/errcodes-appendix.html)
    code_of(error).is_some_and(|code| code == "55P03")
}

/// The same, of what was told at last.
pub(crate) fn is_locked_out(error: &Error) -> bool {
    matches!(error, Error::Contended { source: Some(source), .. } if is_lock_timeout(source))
}

/// Whether one of several may be why a statement failed for all: for what it states, by a rule of the user's, or for a row that somebody has locked. No
/// disk, no right, no table is the same for each.
pub(crate) fn is_of_one(error: &Error) -> bool {
    let Error::Database { source, .. } = error else {
        return is_locked_out(error);
    };
    let Some(code) = code_of(source) else {
        return true;
    };
    if code.len() < 5 {
        // SQLite's: a constraint's or a trigger's word (sqlite.org/rescode.html).
        return code.parse().is_ok_and(|code: u32| code & 0xff == 19);
    }
    let of_all = ["25", "42", "53", "58", "XX"];
    !of_all.iter().any(|class| code.starts_with(class))
}

fn effect_of(error: &DbErr, dialect: Dialect) -> Effect {
    match error {
        // No connection: nothing was sent.
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Effect::None,
        error if is_rolled_back(error, dialect) => Effect::None,
        _ => Effect::Unknown,
    }
}

/// Whether the server itself says that what it was sent last, a COMMIT or a statement that is a transaction, had no effect. An ERROR says so, unless
/// its code is that of a server that does not know (40003); a FATAL one may come after the commit. CockroachDB may also be interrupted while it commits,
/// or fail in its own code (cockroachlabs.com/docs/stable/common-errors, "result is ambiguous").
pub(crate) fn is_rolled_back(error: &DbErr, dialect: Dialect) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let error = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| {
        let is_of_cockroach = dialect == Dialect::Cockroach && matches!(error.code().get(..2), Some("57" | "XX"));
        error.severity() == PgSeverity::Error && error.code() != "40003" && !is_of_cockroach
    })
}

/// Whether a foreign key was what refused the statement.
pub(crate) fn is_dangling(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if matches!(
        source.sql_err(),
        Some(sea_orm::SqlErr::ForeignKeyConstraintViolation(_))
    ))
}

/// Whether a key was what refused the statement.
pub(crate) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if matches!(
        source.sql_err(),
        Some(sea_orm::SqlErr::UniqueConstraintViolation(_))
    ))
}
