//! The limit: the rows that a claim and a finish write, each in one statement or the smallest transaction, for a machine that the client knows.
//!
//! No search, no checks, the same driver. Nothing that writes these rows in two transactions can be faster for long.

use std::time::Instant;

use bmdb::MachineId;
use harness::NOT_DURABLE;
use sea_orm::sqlx::{self, Connection, SqliteConnection};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::Failure;
use crate::contender::Cycle;
use crate::contenders::clients::{Clients, LEAVE};
use crate::fleet::Fleet;

const CLAIM: &str = "
    WITH m AS (UPDATE machine SET fence = greatest(fence + 1, CAST(extract(epoch FROM now()) * 1000 AS BIGINT))
               WHERE machine_id = $1 RETURNING machine_id, fence),
    w AS (INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at)
          SELECT machine_id, 'agent', 'agent-start', $2, $3, fence, now() FROM m)
    INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
    SELECT machine_id, fence, 'started', $2, 'agent-start', 'agent', $3, 'limit', '', now(), NULL FROM m";
const FINISH: &str = "
    WITH w AS (DELETE FROM work WHERE machine_id = $1 AND slot = 'agent' RETURNING machine_id, fence),
    t AS (INSERT INTO machine_agent_started (machine_id, at, public_key) VALUES ($1, now(), '\\x01')
          ON CONFLICT (machine_id) DO UPDATE SET at = excluded.at, public_key = excluded.public_key)
    INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
    SELECT machine_id, fence, 'finished', $2, 'agent-start', 'agent', $3, 'limit', '', now(), NULL FROM w";

pub(crate) enum Limit {
    Postgres(Clients),
    Sqlite {
        session: Uuid,
        connection: Mutex<SqliteConnection>,
    },
}

impl Limit {
    pub(crate) async fn connect(url: &str, workers: usize) -> Result<Self, Failure> {
        if url.starts_with("sqlite") {
            let session = Uuid::new_v4();
            let mut connection = connect_to_sqlite(url).await?;
            sqlx::query(
                "INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms)
                 VALUES ($1, 'limit', '', strftime('%Y-%m-%d %H:%M:%f', 'now'), 3600000)",
            )
            .bind(session)
            .execute(&mut connection)
            .await?;
            let connection = Mutex::new(connection);
            return Ok(Self::Sqlite { session, connection });
        }
        let clients = Clients::connect(url.parse()?, workers, "limit").await?;
        Ok(Self::Postgres(clients))
    }

    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        let Some(machine) = fleet.deal() else {
            return Ok(None);
        };
        let began = Instant::now();
        let work = Uuid::new_v4();
        let claim = match self {
            Self::Postgres(clients) => {
                let mut connection = clients.of(worker).await;
                let statement = |text| sqlx::query(text).bind(machine.0).bind(work).bind(clients.session);
                statement(CLAIM).execute(&mut *connection).await?;
                let claim = began.elapsed();
                fleet.finishing(machine);
                statement(FINISH).execute(&mut *connection).await?;
                claim
            }
            Self::Sqlite { session, connection } => {
                let mut connection = connection.lock().await;
                let began = Instant::now();
                claim_on_sqlite(&mut connection, machine, work, *session).await?;
                let claim = began.elapsed();
                fleet.finishing(machine);
                finish_on_sqlite(&mut connection, machine, work, *session).await?;
                claim
            }
        };
        fleet.finished(machine);
        Ok(Some(Cycle {
            machines: 1,
            claim,
            retries: 0,
        }))
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        match self {
            Self::Postgres(clients) => clients.leave().await?,
            Self::Sqlite { session, connection } => {
                let mut connection = connection.into_inner();
                for statement in LEAVE {
                    sqlx::query(statement).bind(session).execute(&mut connection).await?;
                }
                connection.close().await?;
            }
        }
        Ok(())
    }
}

/// Set up as the connector's, which waits for the disk unless the URL says otherwise.
pub(crate) async fn connect_to_sqlite(url: &str) -> Result<SqliteConnection, Failure> {
    let (url, synchronous) = match url.strip_suffix(NOT_DURABLE) {
        Some(url) => (url, "PRAGMA synchronous = NORMAL"),
        None => (url, "PRAGMA synchronous = FULL"),
    };
    let mut connection = SqliteConnection::connect(url).await?;
    for statement in ["PRAGMA journal_mode = WAL", synchronous, "PRAGMA foreign_keys = ON"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    Ok(connection)
}

async fn claim_on_sqlite(
    connection: &mut SqliteConnection,
    machine: MachineId,
    work: Uuid,
    session: Uuid,
) -> Result<(), Failure> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let fence: i64 = sqlx::query_scalar(
        "UPDATE machine SET fence = max(fence + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER)) WHERE machine_id = $1 RETURNING fence",
    )
    .bind(machine.0)
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at)
         VALUES ($1, 'agent', 'agent-start', $2, $3, $4, strftime('%Y-%m-%d %H:%M:%f', 'now'))",
    )
    .bind(machine.0)
    .bind(work)
    .bind(session)
    .bind(fence)
    .execute(&mut *tx)
    .await?;
    record_on_sqlite(&mut tx, machine, work, session, fence, "started").await?;
    tx.commit().await?;
    Ok(())
}

async fn finish_on_sqlite(
    connection: &mut SqliteConnection,
    machine: MachineId,
    work: Uuid,
    session: Uuid,
) -> Result<(), Failure> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let fence: i64 = sqlx::query_scalar("DELETE FROM work WHERE machine_id = $1 AND slot = 'agent' RETURNING fence")
        .bind(machine.0)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO machine_agent_started (machine_id, at, public_key)
         VALUES ($1, strftime('%Y-%m-%d %H:%M:%f', 'now'), x'01')
         ON CONFLICT (machine_id) DO UPDATE SET at = excluded.at, public_key = excluded.public_key",
    )
    .bind(machine.0)
    .execute(&mut *tx)
    .await?;
    record_on_sqlite(&mut tx, machine, work, session, fence, "finished").await?;
    tx.commit().await?;
    Ok(())
}

async fn record_on_sqlite(
    connection: &mut SqliteConnection,
    machine: MachineId,
    work: Uuid,
    session: Uuid,
    fence: i64,
    event: &str,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO work_history
         (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
         VALUES ($1, $2, $3, $4, 'agent-start', 'agent', $5, 'limit', '', strftime('%Y-%m-%d %H:%M:%f', 'now'), NULL)",
    )
    .bind(machine.0)
    .bind(fence)
    .bind(event)
    .bind(work)
    .bind(session)
    .execute(connection)
    .await?;
    Ok(())
}
