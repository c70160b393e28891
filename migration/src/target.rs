//! Where the database is, and how a migrator connects to it.

use std::path::Path;
use std::time::{Duration, Instant};

use bmdb_address::{Postgres, Sqlite};
use sea_orm_migration::sea_orm::DatabaseConnection;
use sea_orm_migration::sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm_migration::sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm_migration::sea_orm::sqlx::{self, ConnectOptions, Connection, Executor};

use crate::Error;

/// How long a database may take to let us in, and how long a SQLite file may stay busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a verb will do to the database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only look. A statement that writes is refused by the database.
    Look,
    /// Change a database that exists.
    Change,
    /// Change a database; a SQLite file is made if there is none.
    Create,
}

/// Where the database is.
pub(crate) enum Target {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

impl Target {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Url { reason };
        let (url, allow_plaintext) = &without_component_settings(url);
        let (scheme, _) = url.split_once(':').ok_or(wrong("it has no scheme"))?;
        match scheme {
            "sqlite" => Ok(Self::Sqlite(Sqlite::parse(url)?)),
            "postgres" | "postgresql" => {
                let mut server = Postgres::parse(url)?;
                if server.exposed_host().is_some() && !allow_plaintext {
                    return Err(wrong(
                        "its host is another machine and sslmode is not verify-full (bmdb.allow_plaintext=true allows it)",
                    ));
                }
                server.options = server.options.application_name("bmdb-migration");
                Ok(Self::Postgres(Box::new(server)))
            }
            "cockroachdb" | "cockroach" => Err(wrong("CockroachDB is reached by the scheme postgres")),
            // The scheme stays out of the text: what stands before the first colon may be half a password.
            _ => Err(wrong("its scheme is none of ours")),
        }
    }

    /// The database's name for people: no user, no password, no parameters.
    fn describe(&self) -> String {
        match self {
            Self::Sqlite(place) => place.to_string(),
            Self::Postgres(server) => server.to_string(),
        }
    }

    /// Opens a pool of its own: one connection to SQLite, two to PostgreSQL, of which one may hold the guard.
    pub(crate) async fn connect(&self, access: Access) -> Result<DatabaseConnection, Error> {
        let opened = match self {
            Self::Sqlite(place) => {
                // A migrator is what makes databases, so it makes the file unless the URL says otherwise.
                let may_create = place.may_create.unwrap_or(true);
                let create = access == Access::Create && may_create;
                must_exist(&place.file, create, may_create)?;
                if let Some(reason) = bmdb_address::what_is_wrong_with(&place.file) {
                    let path = place.file.clone();
                    return Err(Error::UnsafeFile { path, reason });
                }
                let options = SqliteConnectOptions::new().filename(&place.file);
                connect_sqlite(options.create_if_missing(create), access).await
            }
            Self::Postgres(server) => connect_postgres(server, access).await,
        };
        opened.map_err(|source| match Dropped::of(&source) {
            Some(setting) => Error::Dropped { setting },
            None => Error::Open {
                database: self.describe(),
                source,
            },
        })
    }
}

/// Components take settings in the same URL, as `bmdb.interval=5s`; of them only this one matters here.
fn without_component_settings(url: &str) -> (String, bool) {
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), false);
    };
    let (ours, drivers): (Vec<_>, Vec<_>) = query.split('&').partition(|pair| pair.starts_with("bmdb."));
    let url = if drivers.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", drivers.join("&"))
    };
    (url, ours.contains(&"bmdb.allow_plaintext=true"))
}

fn must_exist(file: &Path, create: bool, may_create: bool) -> Result<(), Error> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::Missing {
            what: "folder",
            path: folder.to_owned(),
            hint: ", or make it first",
        });
    }
    if !create && !file.is_file() {
        let hint = if may_create {
            ", or make it with `up`"
        } else {
            "; the URL says that none shall be made"
        };
        return Err(Error::Missing {
            what: "file",
            path: file.to_owned(),
            hint,
        });
    }
    Ok(())
}

async fn connect_sqlite(options: SqliteConnectOptions, access: Access) -> Result<DatabaseConnection, sqlx::Error> {
    // A step may rebuild a table, which a foreign key would turn into a cascade; the guard checks all keys before it commits.
    let mut options = options
        .foreign_keys(false)
        .busy_timeout(PATIENCE)
        .disable_statement_logging();
    if access == Access::Look {
        options = options.pragma("query_only", "ON");
    }
    let started = Instant::now();
    loop {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await;
        match pool {
            Ok(pool) => return Ok(pool.into()),
            // The first connections to a new file can meet before the busy time-out applies.
            Err(error) if is_busy(&error) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn connect_postgres(server: &Postgres, access: Access) -> Result<DatabaseConnection, sqlx::Error> {
    let patience = server.connect_timeout.map_or(PATIENCE, |limit| limit.min(PATIENCE));
    let mut refused = None;
    // The first in the order of the URL that will do; else what the first of them said.
    for options in server.servers() {
        let options = for_migrations(options, access);
        // The pool would keep trying a refused connection and then name only its own time-out; one plain attempt tells the cause.
        match tokio::time::timeout(patience, knock(&options, access)).await {
            Ok(Ok(())) => {
                let pool = PgPoolOptions::new().max_connections(2).after_connect(|connection, _| {
                    // Since PostgreSQL 17; older ones do not know it as a start-up option.
                    let lift =
                        "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'";
                    Box::pin(async move { connection.execute(lift).await.map(drop) })
                });
                return Ok(pool.connect_with(options).await?.into());
            }
            Ok(Err(error)) => refused = refused.or(Some(error)),
            Err(_elapsed) => refused = refused.or(Some(sqlx::Error::PoolTimedOut)),
        }
    }
    Err(refused.expect("BUG: a URL names one server at least"))
}

/// A time-out of 24 days is none, and tells a connection that has it from one on which nothing was set.
const NEVER: &str = "2147483647";

fn for_migrations(options: PgConnectOptions, access: Access) -> PgConnectOptions {
    // A role's time-outs are made for components. They would end the guard while it waits, or cut a long step in half.
    let options = options
        .options([
            ("statement_timeout", NEVER),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("idle_session_timeout", "0"),
        ])
        .disable_statement_logging();
    match access {
        Access::Look => options.options([("default_transaction_read_only", "on")]),
        Access::Change | Access::Create => options,
    }
}

/// The setting that a connection does not have though it was given with it.
#[derive(Debug, thiserror::Error)]
#[error("{0} was dropped on the way")]
struct Dropped(&'static str);

impl Dropped {
    fn of(error: &sqlx::Error) -> Option<String> {
        let sqlx::Error::Configuration(error) = error else {
            return None;
        };
        error.downcast_ref::<Self>().map(|Self(setting)| (*setting).to_owned())
    }
}

/// Opens one connection and lets go of it.
///
/// # Errors
/// The driver's; and one of the configuration where a pooler drops start-up options (the schema of `-s` is one), and where something is to be changed and
/// the server takes no writes, as a standby does.
async fn knock(options: &PgConnectOptions, access: Access) -> Result<(), sqlx::Error> {
    let mut connection = options.connect().await?;
    let kept: String = sqlx::query_scalar("SELECT current_setting('statement_timeout')")
        .fetch_one(&mut connection)
        .await?;
    if kept.trim_end_matches(char::is_alphabetic) != NEVER {
        return Err(sqlx::Error::Configuration(Dropped("statement_timeout").into()));
    }
    if access != Access::Look {
        let read_only: String = sqlx::query_scalar("SELECT current_setting('transaction_read_only')")
            .fetch_one(&mut connection)
            .await?;
        if read_only == "on" {
            return Err(sqlx::Error::Configuration(
                "the server takes no writes: is it a standby?".into(),
            ));
        }
    }
    connection.close().await
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok());
    // The low byte is the kind, SQLITE_BUSY or SQLITE_LOCKED; the rest says which.
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}
