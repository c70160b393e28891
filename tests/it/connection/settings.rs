//! What the guarantees rest on, and what a role, a pooler, or a server that others have set makes of it.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Tx, machine, provided};
use futures_util::future::join_all;
use harness::{OwnServer, Proxy, Stop, bounded, of, on_postgres, until};
use sea_orm::sqlx::{Connection, PgConnection};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, Statement};
use tokio::sync::{Notify, Semaphore};

use crate::connection::connections::serving;
use crate::failures::server_faults::{Scene, claim};
use crate::world::{AgentStart, INTERVAL, LONG, chain, config, connect_to, events, provide, tamper};

async fn refused(url: &str) -> Error {
    let connected = Bmdb::connect(Config::new(url, "test", "")).await;
    connected.map(drop).expect_err("it is of no use")
}

/// Sets something for all who come to this database.
async fn set_for_all(raw: &DatabaseConnection, setting: &str) {
    let set = format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting}', current_database()); END $$");
    tamper(raw, &set).await;
}

async fn says(tx: &Tx, setting: &str) -> Result<String, Error> {
    let ask = Statement::from_string(
        tx.get_database_backend(),
        format!("SELECT current_setting('{setting}')"),
    );
    let row = tx.query_one_raw(ask).await?.expect("a setting has a value");
    Ok(row.try_get_by_index(0)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_answered_outlives_a_crash_whatever_the_role_says_of_commits() {
    bounded(async {
        // What is not waited for is written out so late that the crash comes before.
        let server = OwnServer::with_settings(&["wal_writer_delay=10s", "synchronous_commit=on"]).await;
        let db = server.database();
        tamper(&db.raw().await, "ALTER ROLE bmdb SET synchronous_commit = off").await;
        let scene = Scene::on(&db, INTERVAL * 10, 1).await;
        let machine = scene.machines[0];
        claim(&scene.session).await.cancel().await.unwrap();
        let held = claim(&scene.session).await;
        server.stop(Stop::Immediate).await;
        server.start_again().await;
        let other = connect_to(db.url()).await.start_session().await.unwrap();
        assert!(
            other.claim(&of::<AgentStart>(&other).await).await.unwrap().is_none(),
            "its holder has trust left"
        );
        let raw = db.raw().await;
        assert_eq!(events(&raw, machine).await, ["started", "canceled", "started"]);
        held.cancel().await.unwrap();
    })
    .await;
}

on_postgres! {
    async fn a_commit_waits_for_the_disk_at_least_and_for_what_the_role_wants_beyond(db: TestDatabase) {
        let raw = db.raw().await;
        for (role, ours) in [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
            set_for_all(&raw, &format!("synchronous_commit = {role}")).await;
            let session = connect_to(db.url()).await.start_session().await.unwrap();
            let found = session.transact(async |tx| says(tx, "synchronous_commit").await).await.unwrap();
            // CockroachDB has no such setting, so it is not asked for when its text is sent.
            let ours = if db.url().contains("dialect=cockroach") { role } else { ours };
            assert_eq!(found, ours, "the role says {role}");
        }
    }

    async fn limits_are_the_components_own_whatever_the_role_says(db: TestDatabase) {
        let raw = db.raw().await;
        for setting in ["statement_timeout = 0", "lock_timeout = ''1h''", "idle_in_transaction_session_timeout = 0"] {
            set_for_all(&raw, setting).await;
        }
        let session = connect_to(db.url()).await.start_session().await.unwrap();
        let found = session.transact(async |tx| Ok::<_, Error>([says(tx, "statement_timeout").await?, says(tx, "lock_timeout").await?])).await;
        assert_eq!(found.unwrap(), ["10s", "5s"]);
    }

    async fn a_pooler_that_drops_start_up_options_is_refused(db: TestDatabase) {
        let pooler = Proxy::to(db.url()).await;
        pooler.drop_options();
        let error = refused(pooler.url()).await;
        assert!(matches!(&error, Error::UnsupportedServer { found, .. } if found.starts_with("at ")), "{error:?}");
        assert!(error.to_string().ends_with("passes on start-up options, one connection to one client"), "{error}");
    }

    async fn a_migrator_behind_a_pooler_that_drops_start_up_options_changes_nothing(db: TestDatabase) {
        let pooler = Proxy::to(db.url()).await;
        pooler.drop_options();
        let url = format!("{}?options[search_path]=elsewhere", pooler.url());
        for refused in [bmdb_migration::up(&url, None).await.map(drop), bmdb_migration::status(&url).await.map(drop)] {
            let refused = refused.expect_err("its schema would be lost, and its patience");
            assert!(matches!(&refused, bmdb_migration::Error::Dropped { setting } if setting == "statement_timeout"), "{refused}");
        }
    }

    async fn a_pooler_that_begins_to_drop_them_gets_no_more_work_and_is_named(db: TestDatabase) {
        let pooler = Proxy::to(db.url()).await;
        let tight = Config::new(pooler.url(), "test", "").interval(INTERVAL * 10);
        let tight = tight.acquire_timeout(Duration::from_millis(300)).retry_budget(Duration::from_millis(600));
        let session = Bmdb::connect(tight).await.unwrap().start_session().await.unwrap();
        session.transact(machine::create).await.unwrap();
        pooler.drop_options();
        pooler.cut();
        let error = session.transact(machine::create).await.map(drop).expect_err("no connection is as it must be");
        assert!(chain(&error).contains("though it was asked for"), "{}", chain(&error));
        assert_eq!(machine::Entity::find().all(&db.raw().await).await.unwrap().len(), 1);
    }

    async fn connections_that_the_server_ends_because_they_are_idle_cost_no_body_and_no_claim(db: TestDatabase) {
        let raw = db.raw().await;
        set_for_all(&raw, "idle_session_timeout = ''200ms''").await;
        let session = Bmdb::connect(Config::new(db.url(), "test", "").interval(INTERVAL * 20)).await.unwrap().start_session().await.unwrap();
        provide(&session, 1).await;
        for _ in 0..3 {
            until("all are gone", LONG, async || serving(&raw).await == 0).await;
            session.transact(machine::create).await.unwrap();
            until("all are gone", LONG, async || serving(&raw).await == 0).await;
            session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        }
    }

    async fn a_stale_plan_is_known_in_every_language(db: TestDatabase) {
        let server = Proxy::to(db.url()).await;
        server.translate();
        // Bodies have one connection, so that it has the stale plan.
        let config = Config::new(server.url(), "test", "").interval(INTERVAL).max_connections(1);
        let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
        provide(&session, 1).await;
        let look = async || session.transact(async |tx| Ok::<_, Error>(provided::Entity::find().all(tx).await?)).await;
        assert_eq!(look().await.unwrap().len(), 1);
        tamper(&db.raw().await, "ALTER TABLE machine_provided ALTER COLUMN address TYPE varchar(4096)").await;
        assert_eq!(look().await.unwrap().len(), 1);
        assert_eq!(server.translated(), ["0A000"], "it was met, and its text was none that we know");
    }

    async fn a_server_that_does_not_look_at_foreign_keys_is_refused(db: TestDatabase) {
        set_for_all(&db.raw().await, "session_replication_role = replica").await;
        let error = refused(db.url()).await;
        assert!(chain(&error).contains("session_replication_role"), "{}", chain(&error));
    }

    async fn a_body_that_is_read_only_by_its_own_wish_fails_once(db: TestDatabase) {
        // Bodies have one connection, so that it must be the same.
        let session = Bmdb::connect(config(&db).max_connections(1)).await.unwrap().start_session().await.unwrap();
        let runs = AtomicU32::new(0);
        let backend = async |tx: &Tx| Ok::<_, Error>(tx.query_one_raw(Statement::from_string(tx.get_database_backend(), "SELECT pg_backend_pid()")).await?.unwrap().try_get_by_index::<i32>(0)?);
        let before = session.transact(backend).await.unwrap();
        let failed = session.transact(async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            tx.execute_unprepared("SET TRANSACTION READ ONLY").await?;
            machine::create(tx).await
        });
        let failed = failed.await;
        assert!(matches!(failed, Err(Error::Database { .. })), "{failed:?}");
        assert_eq!(runs.into_inner(), 1);
        assert_eq!(session.transact(backend).await.unwrap(), before, "its connection is as good as before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_refused_as_that() {
    bounded(async {
        let primary = OwnServer::start().await;
        let standby = primary.standby().await;
        let error = refused(standby.database().url()).await;
        assert!(
            matches!(error, Error::ReadOnlyServer { is_standby: true, .. }),
            "{error:?}"
        );
        assert!(
            error
                .to_string()
                .ends_with("takes no writes: it is a standby; connect to the primary"),
            "{error}"
        );
        primary.make_read_only().await;
        let error = refused(primary.database().url()).await;
        assert!(
            matches!(error, Error::ReadOnlyServer { is_standby: false, .. }),
            "{error:?}"
        );
    })
    .await;
}

/// A server that has this many connections for all.
async fn small_server(connections: u32) -> OwnServer {
    let most = format!("max_connections={connections}");
    OwnServer::with_settings(&[&most, "superuser_reserved_connections=0", "max_wal_senders=0"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_named_as_that() {
    bounded(async {
        let server = small_server(20).await;
        let db = server.database();
        let config = Config::new(db.url(), "test", "").interval(INTERVAL * 10);
        let config = config
            .acquire_timeout(Duration::from_millis(300))
            .retry_budget(Duration::from_millis(600));
        let bmdb = Bmdb::connect(config).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        let mut others = Vec::new();
        while let Ok(another) = PgConnection::connect(db.url()).await {
            others.push(another);
            assert!(others.len() < 20, "it has no more than 20");
        }
        // The bodies' first connection.
        let error = session
            .transact(machine::create)
            .await
            .map(drop)
            .expect_err("there is none to be had");
        assert!(
            chain(&error).contains("the server has reached its limit of connections"),
            "{}",
            chain(&error)
        );
        let unreachable = refused(db.url()).await;
        assert!(
            chain(&unreachable).contains("too many clients"),
            "{}",
            chain(&unreachable)
        );
        drop(others);
        session.transact(machine::create).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_component_leaves_connections_of_a_small_server_to_others() {
    bounded(async {
        let server = small_server(17).await;
        let db = server.database();
        let connect = async || {
            Bmdb::connect(Config::new(db.url(), "test", "").interval(INTERVAL * 10))
                .await
                .unwrap()
        };
        let busy = connect().await.start_session().await.unwrap();
        provide(&busy, 20).await;
        // As many bodies at once as it can have, and as many claims as it likes.
        let inside = Semaphore::new(0);
        let over = Notify::new();
        let bodies = join_all((0..2).map(|_| {
            busy.transact(async |_tx| {
                inside.add_permits(1);
                over.notified().await;
                Ok::<_, Error>(())
            })
        }));
        let start = of::<AgentStart>(&busy).await;
        let others = async {
            drop(inside.acquire_many(2).await.unwrap());
            let claims = join_all((0..16).map(|_| busy.claim(&start).into_future())).await;
            let held: Vec<_> = claims.into_iter().map(Result::unwrap).collect();
            for _ in 0..2 {
                let other = connect().await.start_session().await.unwrap();
                other
                    .claim(&of::<AgentStart>(&other).await)
                    .await
                    .unwrap()
                    .expect("four are left")
                    .cancel()
                    .await
                    .unwrap();
                other.close().await.unwrap();
            }
            drop(held);
            over.notify_waiters();
        };
        let (bodies, ()) = tokio::join!(bodies, others);
        bodies.into_iter().for_each(Result::unwrap);
    })
    .await;
}
