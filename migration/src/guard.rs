//! Lets one migrator at a time through, however many processes start one.

use std::pin::pin;
use std::time::{Duration, Instant};

use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use crate::Error;
use crate::target::PATIENCE;

/// On servers its row is the guard.
pub(crate) const LOCK: &str = "bmdb_migration_lock";

/// The right to change the schema, held by one migrator at a time. It ends with the connection, so a crash leaves nothing behind.
///
/// On SQLite it is the transaction that the steps run in: all of them or none. On PostgreSQL and CockroachDB steps run outside
/// transactions (CockroachDB commits at each), so it is an uncommitted write on a second connection. Advisory locks will not do: on
/// CockroachDB they answer and do nothing.
pub(crate) struct Guard {
    held: DatabaseTransaction,
    database: DatabaseConnection,
}

impl Guard {
    /// Waits for its turn.
    pub(crate) async fn acquire(database: DatabaseConnection) -> Result<Self, Error> {
        let held = {
            let mut taken = pin!(take(&database));
            match tokio::time::timeout(Duration::from_secs(2), &mut taken).await {
                Ok(held) => held,
                Err(_elapsed) => {
                    tracing::warn!("another migrator is at work; waiting for it to end");
                    taken.await
                }
            }
        };
        let held = held.map_err(Error::database("keep other migrators out"))?;
        Ok(Self { held, database })
    }

    /// What steps run on.
    pub(crate) fn executor(&self) -> DatabaseExecutor<'_> {
        match self.database.get_database_backend() {
            DatabaseBackend::Sqlite => (&self.held).into(),
            _ => (&self.database).into(),
        }
    }

    /// Whether statements of a migrator that is gone may still run: on a server, not in a file.
    pub(crate) fn may_meet_leftovers(&self) -> bool {
        self.database.get_database_backend() != DatabaseBackend::Sqlite
    }

    /// Keeps what was done and lets the next migrator through. A guard that is dropped instead undoes it on SQLite.
    pub(crate) async fn commit(self) -> Result<(), Error> {
        if self.database.get_database_backend() == DatabaseBackend::Sqlite {
            refuse_dangling(&self.held).await?;
            self.held.commit().await.map_err(Error::database("commit the steps"))?;
        } else {
            self.held
                .rollback()
                .await
                .map_err(Error::database("let other migrators in"))?;
        }
        self.database
            .close()
            .await
            .map_err(Error::database("close the connection"))
    }
}

async fn take(database: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let started = Instant::now();
    loop {
        let taken = match database.get_database_backend() {
            DatabaseBackend::Sqlite => take_sqlite(database).await,
            _ => take_row(database).await,
        };
        match taken {
            Err(error) if is_race(&error) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            taken => return taken,
        }
    }
}

async fn take_sqlite(database: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let mode = Some(SqliteTransactionMode::Immediate);
    database
        .begin_with_options(TransactionOptions {
            sqlite_transaction_mode: mode,
            ..Default::default()
        })
        .await
}

/// The row is written, not just selected: CockroachDB may drop a lock that no write backs.
async fn take_row(database: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    for bootstrap in [
        format!("CREATE TABLE IF NOT EXISTS {LOCK} (id BIGINT PRIMARY KEY, taken BIGINT NOT NULL)"),
        format!("INSERT INTO {LOCK} (id, taken) VALUES (1, 0) ON CONFLICT (id) DO NOTHING"),
    ] {
        database.execute_unprepared(&bootstrap).await?;
    }
    let held = database.begin().await?;
    held.execute_unprepared(&format!("UPDATE {LOCK} SET taken = taken + 1 WHERE id = 1"))
        .await?;
    Ok(held)
}

/// Whether another migrator got in between, so that the next attempt finds its work done.
pub(crate) fn is_race(error: &DbErr) -> bool {
    let (DbErr::Conn(cause) | DbErr::Exec(cause) | DbErr::Query(cause)) = error else {
        return false;
    };
    let RuntimeErr::SqlxError(cause) = cause else {
        return false;
    };
    let Some(code) = cause.as_database_error().and_then(|error| error.code()) else {
        return false;
    };
    match code.parse::<u32>() {
        // SQLite numbers its errors; the low byte is the kind, and 5 and 6 are BUSY and LOCKED.
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6),
        // Two CREATE TABLE IF NOT EXISTS can collide in the catalogue, and serializable transactions anywhere.
        _ => matches!(code.as_ref(), "23505" | "42P07" | "42710" | "40001" | "40P01"),
    }
}

/// Foreign keys are off while SQLite migrates, so that a table can be rebuilt. Here they are made good.
async fn refuse_dangling(held: &DatabaseTransaction) -> Result<(), Error> {
    let check = Statement::from_string(DatabaseBackend::Sqlite, "PRAGMA foreign_key_check");
    let doing = "check the foreign keys";
    let Some(row) = held.query_one_raw(check).await.map_err(Error::database(doing))? else {
        return Ok(());
    };
    Err(Error::Dangling {
        table: row.try_get("", "table").map_err(Error::database(doing))?,
        parent: row.try_get("", "parent").map_err(Error::database(doing))?,
    })
}
