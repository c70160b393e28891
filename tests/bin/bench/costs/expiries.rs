//! Dead sessions expired, with the works that they held.

use std::time::Duration;

use bmdb::{Bmdb, Config};
use harness::{AgentStart, Backend, of};
use sea_orm::sqlx::{self, Connection, PgConnection, SqliteConnection};
use sea_orm::{ConnectionTrait, Statement};
use uuid::Uuid;

use crate::Failure;
use crate::contenders::limit::connect_to_sqlite;
use crate::costs::rates::Place;
use crate::run::{Outcome, ask};

pub(crate) const SESSIONS: u32 = 1000;
/// How many works each has.
pub(crate) const WORKS: u32 = 10;

/// A session lasts so long, and a collector watches one for as long; then the brake holds it back for as long again.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many sweeps that may take at most.
const SWEEPS: u32 = 20;

/// Has every machine worked on, by sessions whose deadlines have passed.
pub(crate) async fn let_die(place: &Place<'_>) -> Result<(), Failure> {
    // The process is known, with its cool-down.
    let bmdb = Bmdb::connect(Config::new(place.database.url(), "bench", bmdb::runtime_info!())).await?;
    let session = bmdb.start_session().await?;
    let work = session
        .claim(&of::<AgentStart>(&session).await)
        .await?
        .ok_or("nothing is eligible")?;
    work.cancel().await.map_err(bmdb::Error::from)?;
    session.close().await?;
    bmdb.close().await;
    let (id, now, past, look) = match place.database.backend() {
        Backend::Postgres => (
            "gen_random_uuid()",
            "now()",
            "now() - INTERVAL '1 hour'",
            "VACUUM (ANALYZE)",
        ),
        Backend::Sqlite => (
            "randomblob(16)",
            "strftime('%Y-%m-%d %H:%M:%f', 'now')",
            "strftime('%Y-%m-%d %H:%M:%f', 'now', '-1 hour')",
            "ANALYZE",
        ),
    };
    let interval_ms = INTERVAL.as_millis();
    for statement in [
        format!(
            "INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms)
             SELECT {id}, 'dead', '', {now}, {interval_ms} FROM machine LIMIT {SESSIONS}"
        ),
        format!("INSERT INTO session_lease (session_id, deadline) SELECT session_id, {past} FROM session"),
        "UPDATE machine SET fence = fence + 1".to_owned(),
        format!(
            "INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at)
             SELECT m.machine_id, 'agent', 'agent-start', {id}, s.session_id, m.fence, {now}
             FROM (SELECT machine_id, fence, row_number() OVER () - 1 AS nth FROM machine) AS m
             JOIN (SELECT session_id, row_number() OVER () - 1 AS nth FROM session) AS s ON s.nth = m.nth / {WORKS}"
        ),
        format!(
            "INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at)
             SELECT machine_id, fence, 'started', work_id, process, slot, session_id, 'dead', '', {now} FROM work"
        ),
        look.to_owned(),
    ] {
        place.fleet.raw().execute_unprepared(&statement).await?;
    }
    Ok(())
}

/// The sweep that expires them all. Those before it, which only look, do not count.
pub(crate) async fn by_connector(place: &Place<'_>) -> Result<Outcome, Failure> {
    let bmdb = Bmdb::connect(Config::new(place.database.url(), "bench", bmdb::runtime_info!())).await?;
    let mut collector = bmdb.collector();
    for _ in 0..SWEEPS {
        let sweeping = async { Ok(collector.sweep().await?) };
        let (sweep, outcome) = place.measure(SESSIONS, sweeping).await?;
        let expired = sweep.expired.len();
        if expired == SESSIONS as usize && sweep.freed == u64::from(SESSIONS * WORKS) {
            bmdb.close().await;
            return Ok(outcome);
        }
        if expired > 0 {
            return Err(format!("one sweep expired only {expired} sessions, with {} works", sweep.freed).into());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Err("the collector expires nobody".into())
}

/// For a client that knows that they are dead.
pub(crate) async fn by_limit(place: &Place<'_>) -> Result<Outcome, Failure> {
    let raw = place.fleet.raw();
    let all = Statement::from_string(raw.get_database_backend(), "SELECT session_id FROM session");
    let rows = raw.query_all_raw(all).await?;
    let sessions: Vec<Uuid> = rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?;
    let url = place.database.url();
    let (expired, outcome) = match place.database.backend() {
        Backend::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            let expiring = async {
                let mut expired = 0;
                for session in &sessions {
                    expired += expire_on_postgres(&mut connection, *session).await?;
                }
                Ok(expired)
            };
            let done = place.measure(SESSIONS, expiring).await?;
            connection.close().await?;
            done
        }
        Backend::Sqlite => {
            let mut connection = connect_to_sqlite(url).await?;
            let expiring = async {
                let mut expired = 0;
                for session in &sessions {
                    expired += expire_on_sqlite(&mut connection, *session).await?;
                }
                Ok(expired)
            };
            let done = place.measure(SESSIONS, expiring).await?;
            connection.close().await?;
            done
        }
    };
    if expired != u64::from(SESSIONS) {
        return Err(format!("{expired} sessions were there").into());
    }
    Ok(outcome)
}

/// Fails if something else is left than what expiries leave.
pub(crate) async fn check(place: &Place<'_>) -> Result<(), Failure> {
    let works = u64::from(SESSIONS * WORKS);
    for (rows, expected) in [
        ("session", 0),
        ("session_lease", 0),
        ("work", 0),
        ("work_history WHERE event = 'expired'", works),
        ("work_hold WHERE slot = 'agent'", works),
    ] {
        let left = ask(&place.fleet, &format!("SELECT count(*) FROM {rows}")).await?;
        if left != expected {
            return Err(format!("expiries leave {left} rows, not {expected}: {rows}").into());
        }
    }
    Ok(())
}

async fn expire_on_postgres(connection: &mut PgConnection, session: Uuid) -> Result<u64, Failure> {
    const EXPIRE: &str = "
        WITH w AS (DELETE FROM work WHERE session_id = $1 RETURNING machine_id, slot, process, work_id, fence),
        h AS (INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
              SELECT machine_id, fence, 'expired', work_id, process, slot, $1, 'dead', '', now(), 'the session''s deadline passed' FROM w),
        c AS (INSERT INTO work_hold (machine_id, slot, until, reason, placed_by, placed_at)
              SELECT machine_id, slot, now() + INTERVAL '300 ms', 'cool-down after the expiry of session ' || CAST($1 AS TEXT), 'limit', now()
              FROM w)
        DELETE FROM session WHERE session_id = $1";
    let done = sqlx::query(EXPIRE).bind(session).execute(connection).await?;
    Ok(done.rows_affected())
}

async fn expire_on_sqlite(connection: &mut SqliteConnection, session: Uuid) -> Result<u64, Failure> {
    const RECORD: &str = "
        INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
        SELECT machine_id, fence, 'expired', work_id, process, slot, session_id, 'dead', '', strftime('%Y-%m-%d %H:%M:%f', 'now'),
               'the session''s deadline passed' FROM work WHERE session_id = $1";
    const COOL_DOWN: &str = "
        INSERT INTO work_hold (machine_id, slot, until, reason, placed_by, placed_at)
        SELECT machine_id, slot, strftime('%Y-%m-%d %H:%M:%f', 'now', '+0.3 seconds'), 'cool-down after the expiry of session ' || $2, 'limit',
               strftime('%Y-%m-%d %H:%M:%f', 'now') FROM work WHERE session_id = $1";
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(RECORD).bind(session).execute(&mut *tx).await?;
    sqlx::query(COOL_DOWN)
        .bind(session)
        .bind(session.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM work WHERE session_id = $1")
        .bind(session)
        .execute(&mut *tx)
        .await?;
    let done = sqlx::query("DELETE FROM session WHERE session_id = $1")
        .bind(session)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}
