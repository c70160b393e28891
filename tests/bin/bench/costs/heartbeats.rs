//! What it costs to keep many sessions alive, all else at rest: the connector's sessions, side by side with the smallest statement that a heartbeat
//! can be, sent for as many sessions at the same pace on as many connections.
//!
//! Heartbeats are counted on the server, as transactions that wrote: nobody else writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, Session};
use futures_util::{StreamExt, TryStreamExt, stream};
use harness::{OwnServer, TestDatabase};
use sea_orm::ConnectionTrait;
use sea_orm::sqlx::{self, Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Failure;
use crate::fleet::{Fleet, Size};
use crate::results::medians::{LIMIT, Turns};
use crate::run::{Meters, Outcome, ask, connections};

/// So many connections the connector has for heartbeats (`db/server.rs`).
const CONNECTIONS: usize = 2;
/// So many sessions are started, or closed, at once.
const AT_ONCE: usize = 4;

const SESSIONS: [&str; 2] = [
    "INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms)
     SELECT unnest($1), 'limit', '', now(), CAST(1000 * extract(epoch FROM $2) AS BIGINT)",
    "INSERT INTO session_lease (session_id, deadline) SELECT unnest($1), now() + $2",
];
const HEARTBEAT: &str = "UPDATE session_lease SET deadline = now() + $2 WHERE session_id = $1";

const WRITTEN: &str = "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT)";
const UPDATED: &str = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'session_lease'";
const UPDATED_HOT: &str = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'session_lease'";
const EXPIRED: &str = "SELECT count(*) FROM session_lease WHERE deadline <= now()";

/// When a session of the limit's beats again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As often as one of the connector's.
    Same,
    /// As soon as it has been answered: how many heartbeats can be made at all.
    AtOnce,
}

pub(crate) struct Heartbeats<'a> {
    pub(crate) sessions: u32,
    pub(crate) interval: Duration,
    pub(crate) lasts: Duration,
    pub(crate) server: &'a OwnServer,
}

/// Prints a table. Whether no session was lost.
pub(crate) async fn compare(heartbeats: Heartbeats<'_>, turns: usize) -> Result<bool, Failure> {
    let Heartbeats { sessions, interval, .. } = heartbeats;
    let database = heartbeats.server.database();
    let size = Size {
        machines: 0,
        share: 1.0,
    };
    let fleet = Fleet::fill(&database, size).await?;
    let what = format!("{sessions} sessions, {interval:?}");
    // A session beats after a third of its interval, less up to a tenth of that.
    let wanted = f64::from(sessions) / (interval / 3).mul_f64(0.95).as_secs_f64();
    let mut all = Turns::new([
        "heartbeats/s",
        "wanted/s",
        "HOT",
        "server us",
        "client us",
        "WAL B",
        "connections",
        "lost",
    ]);
    let mut is_clean = true;
    for _ in 0..turns {
        for way in [LIMIT, "bmdb", "limit, at once"] {
            let turn = match way {
                LIMIT => heartbeats.of_limit(&database, &fleet, Pace::Same).await?,
                "bmdb" => heartbeats.of_connector(&database, &fleet).await?,
                _ => heartbeats.of_limit(&database, &fleet, Pace::AtOnce).await?,
            };
            is_clean &= turn.lost == 0;
            let used = &turn.used;
            let of_one = |amount: f64| amount / (used.cycles.max(1) as f64);
            all.add(
                &what,
                way,
                [
                    used.cycles as f64 / used.took.as_secs_f64(),
                    if way == "limit, at once" { f64::INFINITY } else { wanted },
                    turn.hot,
                    of_one(used.server_cpu.as_secs_f64() * 1e6),
                    of_one(used.client_cpu.as_secs_f64() * 1e6),
                    of_one(used.wal as f64),
                    turn.connections as f64,
                    turn.lost as f64,
                ],
            );
            fleet.raw().execute_unprepared("DELETE FROM session").await?;
            fleet.raw().execute_unprepared("VACUUM (ANALYZE)").await?;
        }
    }
    println!("{all}");
    Ok(is_clean)
}

struct Turn {
    used: Outcome,
    /// The share of the updates that touched no index.
    hot: f64,
    connections: u64,
    lost: u64,
}

impl Heartbeats<'_> {
    async fn of_connector(&self, database: &TestDatabase, fleet: &Fleet) -> Result<Turn, Failure> {
        let config = Config::new(database.url(), "bench", bmdb::runtime_info!());
        let bmdb = Bmdb::connect(config.interval(self.interval)).await?;
        let starting = stream::iter(0..self.sessions).map(|_| bmdb.start_session());
        let sessions: Vec<Session> = starting.buffer_unordered(AT_ONCE).try_collect().await?;
        let mut turn = self.measure(fleet).await?;
        let lost = sessions.iter().filter(|session| session.lost().is_cancelled());
        turn.lost += lost.count() as u64;
        let closing = stream::iter(sessions).map(Session::close);
        closing.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        bmdb.close().await;
        Ok(turn)
    }

    async fn of_limit(&self, database: &TestDatabase, fleet: &Fleet, pace: Pace) -> Result<Turn, Failure> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let connection = PgConnection::connect(database.url()).await?;
            connections.push(Arc::new(Mutex::new(connection)));
        }
        let sessions: Vec<Uuid> = (0..self.sessions).map(|_| Uuid::new_v4()).collect();
        for statement in SESSIONS {
            let statement = sqlx::query(statement).bind(&sessions).bind(self.interval);
            statement.execute(&mut *connections[0].lock().await).await?;
        }
        let mut beating = JoinSet::new();
        for (session, connection) in std::iter::zip(sessions, connections.iter().cycle()) {
            beating.spawn(keep(session, self.interval, Arc::clone(connection), pace));
        }
        let mut turn = self.measure(fleet).await?;
        while let Some(ended) = beating.try_join_next() {
            eprintln!("{}", ended?);
            turn.lost += 1;
        }
        beating.shutdown().await;
        Ok(turn)
    }

    async fn measure(&self, fleet: &Fleet) -> Result<Turn, Failure> {
        // Each has beaten once.
        tokio::time::sleep(self.interval / 3).await;
        let updated = (ask(fleet, UPDATED).await?, ask(fleet, UPDATED_HOT).await?);
        let before = Meters::read(Some(self.server), fleet, std::process::id()).await?;
        let (began, written) = (Instant::now(), ask(fleet, WRITTEN).await?);
        tokio::time::sleep(self.lasts).await;
        let (took, written) = (began.elapsed(), ask(fleet, WRITTEN).await? - written);
        let after = Meters::read(Some(self.server), fleet, std::process::id()).await?;
        let hot = (ask(fleet, UPDATED_HOT).await? - updated.1) as f64;
        Ok(Turn {
            used: Outcome {
                cycles: written,
                took,
                ..Outcome::between(before, after)
            },
            hot: hot / (ask(fleet, UPDATED).await? - updated.0) as f64,
            connections: connections(fleet).await?,
            lost: ask(fleet, EXPIRED).await?,
        })
    }
}

/// Keeps a session until it is lost.
async fn keep(session: Uuid, interval: Duration, connection: Arc<Mutex<PgConnection>>, pace: Pace) -> Failure {
    // As if they had been started one after the other.
    let mut pause = (interval / 3).mul_f64(fastrand::f64());
    loop {
        if pace == Pace::Same {
            tokio::time::sleep(pause).await;
        }
        let heartbeat = sqlx::query(HEARTBEAT).bind(session).bind(interval);
        let mut connection = connection.lock().await;
        match heartbeat.execute(&mut *connection).await {
            Ok(done) if done.rows_affected() == 1 => {}
            Ok(_) => return format!("there is no session {session}").into(),
            Err(error) => return error.into(),
        }
        pause = (interval / 3).mul_f64(0.9 + 0.1 * fastrand::f64());
    }
}
