//! How long this process waits for an answer. The server limits its statements itself, but a connection that is half-open never tells.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::db::dialect::Dialect;

/// The longest wait for one statement; none on SQLite, where there is no network and the busy time-out limits the wait for a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeout(Option<Duration>);

impl Timeout {
    /// A quarter longer than the server's own, whose answer says more.
    pub(crate) fn beyond(statement_timeout: Duration, dialect: Dialect) -> Self {
        Self((dialect != Dialect::Sqlite).then(|| statement_timeout.mul_f64(1.25)))
    }

    pub(crate) fn plus(self, more: Duration) -> Self {
        Self(self.0.map(|limit| limit + more))
    }

    pub(crate) fn at_most(self, other: Duration) -> Self {
        Self(self.0.map(|limit| limit.min(other)))
    }

    /// Waits for as long as the limit; for ever without one.
    pub(crate) async fn passed(self) {
        match self.0 {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    }

    /// What the statement answers, or that it did not in time: then its connection is as good as broken.
    pub(crate) async fn within<T>(self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        tokio::select! {
            biased;
            answer = statement => answer,
            () = self.passed() => Err(timed_out()),
        }
    }
}

/// An error of the connection, as if the system had noticed.
pub(crate) fn timed_out() -> DbErr {
    unanswered_because("the database did not answer in time".to_owned())
}

/// The same, with the reason.
pub(crate) fn unanswered_because(reason: String) -> DbErr {
    let error = io::Error::new(io::ErrorKind::TimedOut, reason);
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_gives_up_first() {
        const SECOND: Duration = Duration::from_secs(1);
        for dialect in [Dialect::Postgres, Dialect::Cockroach] {
            let limit = Timeout::beyond(4 * SECOND, dialect);
            assert_eq!(limit.0, Some(5 * SECOND));
            assert_eq!(limit.plus(2 * SECOND).0, Some(7 * SECOND));
            assert_eq!(
                (limit.at_most(SECOND).0, limit.at_most(9 * SECOND).0),
                (Some(SECOND), limit.0)
            );
        }
        let none = Timeout::beyond(4 * SECOND, Dialect::Sqlite);
        assert_eq!(
            (none.0, none.plus(SECOND).0, none.at_most(SECOND).0),
            (None, None, None)
        );
    }
}
