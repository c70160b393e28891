//! How one connection to a server is opened, and what is checked before it is used: what our guarantees rest on is set, and seen to be set.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::postgres::{PgConnectOptions, PgRow};
use sea_orm::sqlx::{self, ConnectOptions, Executor, PgConnection, Row};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

use crate::db::dialect::Dialect;
use crate::db::timeout::unanswered_because;
use crate::error::Error;

/// What the connections of one pool need of the server. It is said at their start, which a pooler may drop; so it is asked for, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) dialect: Dialect,
    pub(crate) isolation: &'static str,
    /// For how long one statement may run.
    pub(crate) statement: Duration,
    /// For how long a transaction may pause. One whose client is gone keeps its rows until then.
    pub(crate) idle: Duration,
}

/// What the first connection to a server found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The settings without which a crash of its machine loses what it has answered.
    pub(crate) unsafe_settings: Vec<&'static str>,
}

/// Why a server that let us in is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the server takes no writes: it is a standby")]
    Standby,
    #[error("the server takes no writes: its transactions are read-only")]
    ReadOnly,
    #[error("{setting} is {found} and not {wanted}, though it was asked for")]
    Setting {
        setting: &'static str,
        found: String,
        wanted: String,
    },
}

impl Refusal {
    /// For a component that is about to connect.
    pub(crate) fn into_error(self, database: &str) -> Error {
        let database = database.to_owned();
        match self {
            Self::Standby | Self::ReadOnly => Error::ReadOnlyServer {
                database,
                is_standby: self == Self::Standby,
            },
            Self::Setting { setting, found, .. } => Error::UnsupportedServer {
                database,
                found: format!("at {setting} {found}"),
                expected: "a server or pooler that passes on start-up options, one connection to one client",
            },
        }
    }
}

/// How a connection failed that was opened or checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Driver(#[from] sqlx::Error),
}

impl Settings {
    fn times(&self) -> [(&'static str, Duration); 3] {
        [
            ("statement_timeout", self.statement),
            // Below the statement's own limit, which would be reported as something that cannot be tried again.
            ("lock_timeout", self.statement / 2),
            ("idle_in_transaction_session_timeout", self.idle),
        ]
    }

    /// As options for the start of a connection. What the URL says comes before them, and the last counts.
    pub(crate) fn asked_of(&self, options: PgConnectOptions) -> PgConnectOptions {
        let times = self
            .times()
            .map(|(setting, time)| (setting, time.as_millis().to_string()));
        options
            .options([("default_transaction_isolation", self.isolation)])
            .options(times)
    }

    /// Looks whether they hold on a new connection, and that it takes writes. Raises what would let an answered commit be lost in a crash. One round
    /// trip.
    pub(crate) async fn check(&self, connection: &mut PgConnection) -> Result<Found, CheckError> {
        // `on` where it is less. As an option of the start it would lower `remote_apply`.
        const POSTGRES: &str = "
            SELECT current_setting('transaction_isolation') AS transaction_isolation,
                current_setting('statement_timeout') AS statement_timeout, current_setting('lock_timeout') AS lock_timeout,
                current_setting('idle_in_transaction_session_timeout') AS idle_in_transaction_session_timeout,
                current_setting('transaction_read_only') AS read_only, CAST(pg_is_in_recovery() AS TEXT) AS standby,
                CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
                    THEN set_config('synchronous_commit', 'on', false) END AS raised,
                current_setting('session_replication_role') AS session_replication_role,
                current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes";
        const COCKROACH: &str = "
            SELECT current_setting('transaction_isolation') AS transaction_isolation,
                current_setting('statement_timeout') AS statement_timeout, current_setting('lock_timeout') AS lock_timeout,
                current_setting('idle_in_transaction_session_timeout') AS idle_in_transaction_session_timeout,
                current_setting('transaction_read_only') AS read_only";
        let text = match self.dialect {
            Dialect::Cockroach => COCKROACH,
            Dialect::Postgres | Dialect::Sqlite => POSTGRES,
        };
        let row = connection.fetch_one(sqlx::raw_sql(text)).await?;
        let says = |column: &'static str| row.try_get::<String, _>(column);
        if self.dialect == Dialect::Postgres {
            if says("standby")? == "true" {
                return Err(Refusal::Standby.into());
            }
            // Foreign keys would not be enforced.
            if says("session_replication_role")? == "replica" {
                return Err(refused(
                    "session_replication_role",
                    says("session_replication_role")?,
                    "origin",
                ));
            }
        }
        if says("read_only")? == "on" {
            return Err(Refusal::ReadOnly.into());
        }
        let isolation = says("transaction_isolation")?;
        if isolation != self.isolation {
            return Err(refused("transaction_isolation", isolation, self.isolation));
        }
        for (setting, wanted) in self.times() {
            let found = says(setting)?;
            if milliseconds(&found) != Some(wanted.as_millis()) {
                return Err(refused(setting, found, &format!("{}ms", wanted.as_millis())));
            }
        }
        Ok(Found {
            unsafe_settings: self.unsafe_settings(&row),
        })
    }

    fn unsafe_settings(&self, row: &PgRow) -> Vec<&'static str> {
        let is_off = |setting: &&str| row.try_get::<String, _>(*setting).is_ok_and(|value| value == "off");
        ["fsync", "full_page_writes"].into_iter().filter(is_off).collect()
    }
}

fn refused(setting: &'static str, found: String, wanted: &str) -> CheckError {
    let wanted = wanted.to_owned();
    Refusal::Setting { setting, found, wanted }.into()
}

/// A time as a server shows it: with a unit, or a number of milliseconds.
fn milliseconds(shown: &str) -> Option<u128> {
    let digits = shown.find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len());
    let (number, unit) = shown.split_at(digits);
    let factor = match unit {
        "ms" | "" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(factor)
}

/// How many connections the server has for all who are not superusers, or fewer if the role or the database has a limit of its own.
pub(crate) async fn room(connection: &mut PgConnection) -> Result<Option<u32>, sqlx::Error> {
    // -1 is no limit; a superuser has none.
    const ROOM: &str = "
        SELECT least(
            CAST(current_setting('max_connections') AS INTEGER) - CAST(current_setting('superuser_reserved_connections') AS INTEGER),
            (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
            (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)
        )";
    let room: Option<i32> = sqlx::query_scalar(ROOM).fetch_one(connection).await?;
    Ok(room.and_then(|room| u32::try_from(room).ok()))
}

/// Opens connections by hand, where a pool would try a refused one again until its time is up, and lose the reason.
#[derive(Clone)]
pub(crate) struct Door {
    options: PgConnectOptions,
    settings: Settings,
}

impl Door {
    pub(crate) fn new(options: &PgConnectOptions, settings: Settings) -> Self {
        Self {
            options: settings.asked_of(options.clone()),
            settings,
        }
    }

    /// A new connection, not checked yet.
    pub(crate) async fn open(&self, limit: Duration) -> Result<PgConnection, sqlx::Error> {
        let opened = tokio::time::timeout(limit, self.options.connect()).await;
        opened.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// A new connection to a server that takes writes; what else it must be is not checked yet.
    pub(crate) async fn open_writable(&self, limit: Duration) -> Result<PgConnection, CheckError> {
        let open = async {
            let mut connection = self.options.connect().await?;
            // CockroachDB has no standbys, and the same setting.
            let ask = sqlx::raw_sql("SELECT current_setting('transaction_read_only')");
            let answer = connection.fetch_one(ask).await?;
            match answer.try_get::<String, _>(0)?.as_str() {
                "off" => Ok(connection),
                _ => Err(Refusal::ReadOnly.into()),
            }
        };
        let opened = tokio::time::timeout(limit, open).await;
        opened.unwrap_or(Err(sqlx::Error::PoolTimedOut.into()))
    }

    pub(crate) async fn check(&self, connection: &mut PgConnection) -> Result<Found, CheckError> {
        self.settings.check(connection).await
    }

    /// Opens one, checks it and releases it.
    pub(crate) async fn knock(&self) -> Result<(), CheckError> {
        let mut connection = self.options.connect().await?;
        let found = self.check(&mut connection).await;
        drop(connection);
        found.map(drop)
    }

    /// Why no connection was to be had in time, as an error that says so.
    pub(crate) async fn why(&self) -> DbErr {
        /// A host that does not answer is to cost no more than this.
        const PATIENCE: Duration = Duration::from_secs(1);
        unanswered_because(match tokio::time::timeout(PATIENCE, self.knock()).await {
            Ok(Ok(())) => {
                "all connections of this component are in use, or the server has only just come back".to_owned()
            }
            Ok(Err(CheckError::Driver(sqlx::Error::Database(error)))) if error.code().as_deref() == Some("53300") => {
                format!("the server has reached its limit of connections: {error}")
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "the database did not answer in time".to_owned(),
        })
    }
}

/// Whether a pool's time was up before it had a connection.
pub(crate) fn is_time_out(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => true,
        DbErr::Conn(RuntimeErr::SqlxError(error)) => matches!(error.as_ref(), sqlx::Error::PoolTimedOut),
        _ => false,
    }
}

/// What a pool's hook answers: the pool logs it.
pub(crate) fn into_driver_error(error: CheckError) -> sqlx::Error {
    match error {
        CheckError::Driver(error) => error,
        CheckError::Refused(refusal) => sqlx::Error::Configuration(Box::new(refusal)),
    }
}

/// The refusal of a server that let us in, for a component that is about to connect.
pub(crate) fn into_error(error: CheckError, database: &str) -> Error {
    match error {
        CheckError::Refused(refusal) => refusal.into_error(database),
        CheckError::Driver(error) => Error::Unreachable {
            database: database.to_owned(),
            source: Arc::new(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_are_read_as_servers_show_them() {
        let shown = ["0", "250ms", "10s", "3333ms", "2min", "1h", "1d", "10000"];
        let read = shown.map(|shown| milliseconds(shown).expect(shown));
        assert_eq!(read, [0, 250, 10_000, 3_333, 120_000, 3_600_000, 86_400_000, 10_000]);
        for odd in ["", "s", "-1", "1 s", "1.5s", "soon", "10us"] {
            assert_eq!(milliseconds(odd), None, "{odd}");
        }
    }
}
