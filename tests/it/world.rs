//! What the tests of the connector share: components, machines, looks at rows.

use std::time::Duration;

use bmdb::{Bmdb, Config, Error, MachineId, Session, machine};
use bmdb_entity::{session, session_lease, work, work_history};
use harness::{ACQUIRE, Fate, Proxy, TestDatabase, literal};
pub(crate) use harness::{AgentRecovery, AgentStart, PATIENCE as LONG, Rivet, Survey, Weld};
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, PaginatorTrait, QueryFilter};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot;

/// The interval of sessions in tests: not so short that a busy machine loses them.
pub(crate) const INTERVAL: Duration = Duration::from_secs(6);

pub(crate) fn config(db: &TestDatabase) -> Config {
    Config::new(db.url(), "test", bmdb::runtime_info!())
        .interval(INTERVAL)
        .acquire_timeout(ACQUIRE)
}

pub(crate) async fn connect(db: &TestDatabase) -> Bmdb {
    // With RUST_LOG set, a failing test shows what the library said.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
    Bmdb::connect(config(db)).await.expect("the test's database is good")
}

/// A component at `url`, which may be a proxy's.
pub(crate) async fn connect_to(url: &str) -> Bmdb {
    let config = Config::new(url, "test", "").interval(INTERVAL).acquire_timeout(ACQUIRE);
    Bmdb::connect(config).await.expect("the test's database is good")
}

pub(crate) async fn session(db: &TestDatabase) -> Session {
    connect(db)
        .await
        .start_session()
        .await
        .expect("a session can be started")
}

/// A component behind a proxy that lets statements with these words wait, and says so.
pub(crate) async fn waiting_at(
    db: &TestDatabase,
    words: &'static str,
) -> (Proxy, Bmdb, UnboundedReceiver<oneshot::Sender<()>>) {
    let proxy = Proxy::to(db.url()).await;
    let (arrives, arriving) = mpsc::unbounded_channel();
    proxy.decide(move |passing| {
        if !passing.sql.contains(words) {
            return Fate::Pass;
        }
        let (go_on, may_go_on) = oneshot::channel();
        arrives.send(go_on).expect("the test listens");
        Fate::Wait(may_go_on)
    });
    let bmdb = connect_to(proxy.url()).await;
    (proxy, bmdb, arriving)
}

/// Machines that a provider gave us, named m0, m1…
pub(crate) async fn provide(session: &Session, count: usize) -> Vec<MachineId> {
    // On SQLite a body keeps heartbeats waiting.
    const AT_ONCE: usize = 100;
    let mut machines = Vec::with_capacity(count);
    for first in (0..count).step_by(AT_ONCE) {
        let provide = async |tx: &bmdb::Tx| {
            let mut some = Vec::new();
            for nth in first..count.min(first + AT_ONCE) {
                let new = machine::NewMachine::new("test", format!("m{nth}")).address(format!("192.0.2.{nth}"));
                some.push(machine::provide(tx, new).await?);
            }
            Ok::<_, Error>(some)
        };
        machines.extend(session.transact(provide).await.expect("machines can be provided"));
    }
    machines
}

/// Host and port in the URL of a test's server.
pub(crate) fn host_of(url: &str) -> &str {
    let (place, _database) = url.rsplit_once('/').expect("it names a database");
    place.rsplit_once('@').expect("it names a user").1
}

/// What a person reads: the error and everything that led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Runs one statement that no component would.
pub(crate) async fn tamper(raw: &DatabaseConnection, sql: &str) {
    raw.execute_unprepared(sql).await.expect(sql);
}

/// Makes the database refuse new rows of a table with this SQLSTATE (SQLite has none, and calls it a constraint's), until [`allow`].
pub(crate) async fn refuse(raw: &DatabaseConnection, table: &str, code: &str) {
    refuse_where(raw, &format!("INSERT ON {table}"), "true", code).await;
}

/// The same for a deed, such as `DELETE ON work`, on rows for which a condition on `OLD` or `NEW` holds.
pub(crate) async fn refuse_where(raw: &DatabaseConnection, deed: &str, condition: &str, code: &str) {
    if raw.get_database_backend() == sea_orm::DatabaseBackend::Sqlite {
        let raise = "BEGIN SELECT RAISE(ABORT, 'a test'); END";
        return tamper(
            raw,
            &format!("CREATE TRIGGER refuse BEFORE {deed} WHEN {condition} {raise}"),
        )
        .await;
    }
    let function = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a test' USING ERRCODE = '{code}'; END $$"
    );
    tamper(raw, &function).await;
    let each = format!("FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()");
    tamper(raw, &format!("CREATE TRIGGER refuse BEFORE {deed} {each}")).await;
}

/// Ends [`refuse`].
pub(crate) async fn allow(raw: &DatabaseConnection, table: &str) {
    if raw.get_database_backend() == sea_orm::DatabaseBackend::Sqlite {
        return tamper(raw, "DROP TRIGGER refuse").await;
    }
    tamper(raw, &format!("DROP TRIGGER refuse ON {table}")).await;
    tamper(raw, "DROP FUNCTION refuse").await;
}

/// The deadline of the one session that there is.
pub(crate) async fn deadline(raw: &DatabaseConnection) -> sea_orm::prelude::DateTimeUtc {
    let lease = session_lease::Entity::find().one(raw).await.unwrap();
    lease.expect("there is a lease").deadline
}

/// Puts a session's deadline into the past, as if its component had died long ago.
pub(crate) async fn kill_session(raw: &DatabaseConnection, session: &Session) {
    let is_it = format!("session_id = {}", literal(raw, session.id().0));
    tamper(
        raw,
        &format!("UPDATE session_lease SET deadline = '2020-01-01 00:00:00.000' WHERE {is_it}"),
    )
    .await;
    tamper(raw, &format!("UPDATE session SET interval_ms = 200 WHERE {is_it}")).await;
}

/// Puts a session's deadline ten hours ahead, as if the database's clock had jumped back by that since the last heartbeat.
pub(crate) async fn set_ahead(raw: &DatabaseConnection, session: &Session) {
    let ahead = match raw.get_database_backend() {
        sea_orm::DatabaseBackend::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now', '+10 hours')",
        _ => "now() + INTERVAL '10 hours'",
    };
    let id = literal(raw, session.id().0);
    tamper(
        raw,
        &format!("UPDATE session_lease SET deadline = {ahead} WHERE session_id = {id}"),
    )
    .await;
}

pub(crate) async fn works(raw: &DatabaseConnection) -> u64 {
    work::Entity::find().count(raw).await.expect("works can be counted")
}

pub(crate) async fn sessions(raw: &DatabaseConnection) -> u64 {
    session::Entity::find()
        .count(raw)
        .await
        .expect("sessions can be counted")
}

/// A machine's events in order, as words.
pub(crate) async fn events(raw: &DatabaseConnection, machine: MachineId) -> Vec<String> {
    let mut events = work_history::Entity::find()
        .filter(work_history::Column::MachineId.eq(machine))
        .all(raw)
        .await
        .expect("history can be read");
    events.sort_by_key(|event| (event.fence, event.event != work_history::Event::Started));
    events.iter().map(|event| event.event.to_string()).collect()
}

/// How many rows the tables hold that a refused call must not write.
pub(crate) async fn row_counts(raw: &DatabaseConnection) -> Vec<u64> {
    let mut counts = Vec::new();
    for table in [
        "machine",
        "session",
        "work",
        "work_history",
        "work_backoff",
        "work_hold",
        "operation",
        "process",
        "process_pause",
        "machine_provided",
        "machine_agent_started",
    ] {
        let statement = sea_orm::Statement::from_string(
            raw.get_database_backend(),
            format!("SELECT CAST(count(*) AS BIGINT) FROM {table}"),
        );
        let row = raw
            .query_one_raw(statement)
            .await
            .expect(table)
            .expect("a count has a row");
        counts.push(row.try_get_by_index::<i64>(0).expect(table).unsigned_abs());
    }
    counts
}

/// Has a process leave a machine alone until a person has looked.
pub(crate) async fn park(raw: &DatabaseConnection, machine: MachineId, process: &str) {
    let park = format!(
        "INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) VALUES ({}, '{process}', NULL, 'a test', 1, 1) \
         ON CONFLICT (machine_id, process) DO UPDATE SET until = NULL",
        literal(raw, machine.0)
    );
    tamper(raw, &park).await;
}
