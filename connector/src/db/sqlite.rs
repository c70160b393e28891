//! The connections to SQLite's file: one that writes, some that read, one for heartbeats.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdb_address::Sqlite;
use sea_orm::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions, SqliteSynchronous,
};
use sea_orm::sqlx::{ConnectOptions, Connection, Executor};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, SqlxSqliteConnector};

use crate::db::config::{Config, Synchronous};
use crate::db::dialect::Dialect;
use crate::db::file::{self, OpenFile};
use crate::db::heartbeat_thread::HeartbeatThread;
use crate::db::pools::Pools;
use crate::error::Error;
use crate::error::fault::Fault;

const READERS: u32 = 4;

pub(crate) async fn open(
    config: &Config,
    name: &str,
    place: &Sqlite,
    thread: &HeartbeatThread,
) -> Result<(Pools, Option<OpenFile>), Error> {
    let unreachable = |error: Arc<dyn std::error::Error + Send + Sync>| Error::Unreachable {
        database: name.to_owned(),
        source: error,
    };
    // Connections are opened later, too, when the process may be in another folder; and a name from the root on is never taken for a URL.
    let path = std::path::absolute(&place.file).map_err(|error| unreachable(Arc::new(error)))?;
    file::check_name(&path)?;
    let bare = SqliteConnectOptions::new()
        .filename(&path)
        .log_statements(log::LevelFilter::Debug)
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1));
    let options = bare
        .clone()
        .create_if_missing(place.may_create.unwrap_or(false))
        .journal_mode(SqliteJournalMode::Wal)
        // What writes waits for the disk at each commit: a fence that was told must not be forgotten, nor an end. Heartbeats need not: who loses
        // power loses its sessions.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(config.statement_timeout);
    let pool = |options: SqliteConnectOptions, connections: u32| {
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(config.acquire_timeout.max(config.statement_timeout))
            // As long as one is open, what is beside the file stays what it is.
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
    };
    let synchronous = match config.synchronous {
        Synchronous::Full => SqliteSynchronous::Full,
        Synchronous::Normal => SqliteSynchronous::Normal,
    };
    let writer = pool(options.clone().synchronous(synchronous), 1);
    let started = Instant::now();
    loop {
        let unused = file::seems_unused(&path);
        let opened = match unused {
            true => check_unused(&bare).await,
            false => Ok(()),
        };
        let opened = match opened {
            Ok(()) => first_read(&writer).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(()) => break,
            Err(error) if Fault::of(&error) != Fault::Conflict => return Err(unreachable(Arc::new(error))),
            Err(_) if unused && started.elapsed() > config.acquire_timeout => return Err(file::used_elsewhere(&path)),
            Err(error) if started.elapsed() > config.acquire_timeout => return Err(unreachable(Arc::new(error))),
            // Another component is opening it. The switch to WAL on a new file is not covered by the busy time-out.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    let pools = Pools {
        bodies: writer.clone(),
        library: writer,
        reads: pool(options.clone().read_only(true).create_if_missing(false), READERS),
        heartbeats: thread.make(|| pool(options.busy_timeout(config.interval / 3), 1)),
        autocommit: None,
    };
    Ok((pools, Some(OpenFile::at(&path)?)))
}

/// From here on the connection has all three files open.
async fn first_read(writer: &DatabaseConnection) -> Result<(), DbErr> {
    let read = Dialect::Sqlite.statement("SELECT name FROM sqlite_master", []);
    writer.query_one_raw(read).await.map(drop)
}

/// Asks for the file's own lock, which is nowhere but on the file, and which whoever has it open in WAL mode keeps from others.
///
/// # Errors
/// [`Fault::Conflict`] if somebody has it open.
async fn check_unused(options: &SqliteConnectOptions) -> Result<(), DbErr> {
    let alone = options
        .clone()
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::ZERO);
    let asked = async {
        let mut connection = alone.connect().await?;
        let read = connection.execute("SELECT name FROM sqlite_master").await;
        connection.close().await?;
        read.map(drop)
    };
    asked
        .await
        .map_err(|error| DbErr::Query(sea_orm::RuntimeErr::SqlxError(Arc::new(error))))
}
