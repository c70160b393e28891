//! What updates leave in the pages of tables and indexes.

use std::collections::BTreeMap;
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Session};
use futures_util::future::join_all;
use harness::{Backend, OwnServer, TestDatabase, of, until};
use sea_orm::sqlx::{Connection, Executor, PgConnection};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use crate::world::{AgentStart, LONG, provide, tamper};

/// The rows of a table that were updated, and those of them for which no index was touched (HOT: the new version is in the old one's page).
struct Updated {
    all: i64,
    hot: i64,
}

impl Updated {
    async fn of(raw: &DatabaseConnection, table: &str) -> Self {
        let text = format!("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{table}'");
        let rows = query(raw, &text).await;
        Self {
            all: rows[0].try_get_by_index(0).unwrap(),
            hot: rows[0].try_get_by_index(1).unwrap(),
        }
    }

    fn percent_hot(&self) -> i64 {
        self.hot * 100 / self.all
    }
}

async fn query(raw: &DatabaseConnection, text: &str) -> Vec<sea_orm::QueryResult> {
    let ask = Statement::from_string(raw.get_database_backend(), text);
    raw.query_all_raw(ask).await.unwrap()
}

/// Has many sessions beat until the server has counted so many heartbeats.
async fn beats(db: &TestDatabase, raw: &DatabaseConnection, count: i64) -> Updated {
    let config = Config::new(db.url(), "beats", "").interval(Duration::from_secs(2));
    let bmdb = Bmdb::connect(config).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..300 {
        sessions.push(bmdb.start_session().await.unwrap());
    }
    until("there were enough heartbeats", LONG, async || {
        Updated::of(raw, "session_lease").await.all >= count
    })
    .await;
    drop(sessions);
    bmdb.close().await;
    Updated::of(raw, "session_lease").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_touch_no_index() {
    harness::bounded(async {
        // A transaction that writes for long keeps old versions, whatever database of its server it is in; other tests have some.
        let server = OwnServer::start().await;
        let db = server.database();
        let raw = db.raw().await;
        let updated = beats(&db, &raw, 3000).await;
        assert!(
            updated.percent_hot() >= 95,
            "{} of {} are HOT",
            updated.hot,
            updated.all
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_on_deadlines_is_seen() {
    harness::bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let raw = db.raw().await;
        tamper(&raw, "CREATE INDEX a_mistake ON session_lease (deadline)").await;
        let updated = beats(&db, &raw, 300).await;
        assert!(updated.percent_hot() < 95, "{} of {} are HOT", updated.hot, updated.all);
    })
    .await;
}

const WORKERS: u32 = 4;

/// Takes machines and lets go of them, in each of the ways that leave them eligible.
async fn churn(session: &Session, cycles: u32) {
    for cycle in 0..cycles {
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap();
        let work = work.expect("more are eligible than there are workers");
        match cycle % 4 {
            0 => work.cancel().await.map_err(Error::from).unwrap(),
            // And is dropped.
            1 => work.progress(&cycle).await.unwrap(),
            2 => {
                let nothing = work.finish(async |_tx| Ok::<_, Error>(()));
                nothing.await.map_err(Error::from).unwrap();
            }
            _ => work.done().await.map_err(Error::from).unwrap(),
        }
    }
}

/// The sizes in bytes of the tables that should not grow by being used, and of their indexes.
async fn sizes(raw: &DatabaseConnection) -> BTreeMap<String, i64> {
    let text = "SELECT CAST(c.relname AS TEXT), pg_relation_size(c.oid) FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
        JOIN pg_class t ON t.oid = COALESCE(i.indrelid, c.oid)
        WHERE c.relkind IN ('r', 'i') AND t.relname IN ('machine', 'session', 'session_lease', 'work', 'work_candidate', 'work_retrieval')";
    let rows = query(raw, text).await;
    rows.iter()
        .map(|row| (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap()))
        .collect()
}

/// Has workers go through so many cycles on a small fleet, and answers the sizes from before.
async fn wear(db: &TestDatabase, raw: &DatabaseConnection, cycles: u32) -> BTreeMap<String, i64> {
    let config = Config::new(db.url(), "churn", "").interval(Duration::from_secs(3));
    let bmdb = Bmdb::connect(config).await.unwrap();
    let session = bmdb.start_session().await.unwrap();
    provide(&session, 200).await;
    let before = sizes(raw).await;
    join_all((0..WORKERS).map(|_| churn(&session, cycles / WORKERS))).await;
    session.close().await.unwrap();
    bmdb.close().await;
    before
}

/// What is more than twice as large as before, and some pages that may fill between two vacuums: the name, and the sizes before and now.
async fn grown(raw: &DatabaseConnection, before: &BTreeMap<String, i64>) -> Vec<(String, i64, i64)> {
    const BETWEEN_VACUUMS: i64 = 32 * 8192;
    let now = sizes(raw).await;
    let sizes = now.into_iter().map(|(name, size)| (before[&name], name, size));
    let grown = sizes.filter(|(before, _, now)| *now > 2 * before + BETWEEN_VACUUMS);
    grown.map(|(before, name, now)| (name, before, now)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_and_indexes_do_not_grow_with_the_work_done() {
    const CYCLES: u32 = 10_000;
    harness::bounded(async {
        let server = OwnServer::that_vacuums().await;
        let db = server.database();
        let raw = db.raw().await;
        let before = wear(&db, &raw, CYCLES).await;
        // A vacuum may be due.
        until("nothing has grown", LONG, async || {
            grown(&raw, &before).await.is_empty()
        })
        .await;
        until("all claims are counted", LONG, async || {
            Updated::of(&raw, "machine").await.all >= i64::from(CYCLES)
        })
        .await;
        let raised = Updated::of(&raw, "machine").await;
        assert!(
            raised.percent_hot() >= 95,
            "{} of {} fences are HOT",
            raised.hot,
            raised.all
        );
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let deadlocks = query(&raw, deadlocks).await;
        assert_eq!(deadlocks[0].try_get_by_index::<i64>(0).unwrap(), 0);
        println!(
            "{} of {} fences are HOT; {before:?}, then {:?}",
            raised.hot,
            raised.all,
            sizes(&raw).await
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth_is_seen() {
    harness::bounded(async {
        let server = OwnServer::that_vacuums().await;
        let db = server.database();
        let raw = db.raw().await;
        // Whoever looks at an old state keeps all that has been there since.
        let mut watcher = PgConnection::connect(db.url()).await.unwrap();
        let look = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT";
        watcher.execute(look).await.unwrap();
        let before = wear(&db, &raw, 3000).await;
        let grown = grown(&raw, &before).await;
        assert!(grown.iter().any(|(name, ..)| name == "work"), "{grown:?}");
        watcher.close().await.unwrap();
    })
    .await;
}
