//! A component's connections to a server: renewed when a schema change spoils them, gone when the component is closed.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, MachineId, Work};
use futures_util::future::join_all;
use harness::{Fate, Fault, Proxy, of, on_postgres, until};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio::sync::oneshot;

use crate::world::{AgentStart, INTERVAL, LONG, config, connect_to, events, host_of, provide, tamper};

/// How a claim begins.
const CLAIMS: &str = "WITH candidates AS (";

/// How many of the server's processes serve the component.
pub(crate) async fn serving(raw: &DatabaseConnection) -> i64 {
    let ask =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bmdb %'";
    let row = raw
        .query_one_raw(Statement::from_string(raw.get_database_backend(), ask))
        .await;
    row.unwrap().expect("a count has a row").try_get_by_index(0).unwrap()
}

on_postgres! {
    async fn a_schema_change_spoils_none_after_the_first(db: TestDatabase) {
        const MANY: usize = 5;
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let machines = provide(&session, MANY).await;
        // Claims that wait for each other, so that each has a connection of its own. How often they were sent.
        let claim_all = async |machines: &[MachineId]| {
            let many = machines.len();
            let sent = Arc::new(AtomicUsize::new(0));
            let (counted, mut waiting) = (Arc::clone(&sent), Vec::new());
            proxy.decide(move |passing| {
                if !passing.sql.starts_with(CLAIMS) || counted.fetch_add(1, Ordering::Relaxed) >= many {
                    return Fate::Pass;
                }
                let (go_on, may_go_on) = oneshot::channel();
                waiting.push(go_on);
                if waiting.len() == many {
                    waiting.clear();
                }
                Fate::Wait(may_go_on)
            });
            let start = of::<AgentStart>(&session).await;
            let claims = machines.iter().map(|machine| session.claim(&start).on(*machine).into_future());
            let works: Vec<_> = join_all(claims).await.into_iter().map(|claimed| claimed.unwrap().expect("all are eligible")).collect();
            for ended in Work::cancel_many(works).await {
                ended.unwrap();
            }
            proxy.calm();
            sent.load(Ordering::Relaxed)
        };
        session.claim(&of::<AgentStart>(&session).await).on(machines[0]).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        assert_eq!(claim_all(&machines).await, MANY);
        tamper(&db.raw().await, "ALTER TABLE machine_provided ALTER COLUMN address TYPE varchar(4096)").await;
        // One learns that its plans are of no use any more; the others are renewed before they are used.
        assert_eq!(claim_all(&machines[..1]).await, 2, "the first and, on a new connection, the second");
        assert_eq!(claim_all(&machines).await, MANY, "none was sent in vain");
    }

    async fn a_transaction_begins_again_on_another(db: TestDatabase) {
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let fail = |fault: Fault| {
            let mut is_first = true;
            proxy.decide(move |passing| {
                let begins = passing.sql.starts_with("BEGIN") && std::mem::replace(&mut is_first, false);
                if begins { Fate::Fail(fault) } else { Fate::Pass }
            });
        };
        let nothing = async || session.transact(async |_tx| Ok::<_, Error>(())).await;
        for fault in [Fault::DropBefore, Fault::DropAfter, Fault::Terminated] {
            fail(fault);
            nothing().await.unwrap();
        }
        // What will not change is told at once.
        fail(Fault::Refused("42501"));
        let refused = nothing().await;
        assert!(matches!(refused, Err(Error::Database { .. })), "{refused:?}");
        nothing().await.unwrap();
    }

    async fn what_a_failed_body_has_locked_is_free_when_it_returns(db: TestDatabase) {
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        provide(&session, 1).await;
        let raw = db.raw().await;
        const LOCK: &str = "SELECT machine_id FROM machine FOR UPDATE NOWAIT";
        proxy.decide(|passing| match passing.sql {
            "ROLLBACK" => Fate::Delay(Duration::from_millis(300)),
            _ => Fate::Pass,
        });
        let failed = session.transact(async |tx| {
            tx.execute_unprepared(LOCK).await?;
            Err::<(), _>(Error::Draining { session: session.id() })
        });
        assert!(matches!(failed.await, Err(Error::Draining { .. })));
        raw.execute_unprepared(LOCK).await.unwrap();
    }

    async fn what_found_no_server_has_not_happened(db: TestDatabase) {
        let proxy = Proxy::to(db.url()).await;
        let config = Config::new(proxy.url(), "test", "").interval(INTERVAL * 10);
        let config = config.acquire_timeout(Duration::from_millis(200)).retry_budget(Duration::from_secs(2));
        let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        drop(proxy);
        let raw = db.raw().await;
        until("the server sees it go", LONG, async || serving(&raw).await == 0).await;
        // The first ones may be sent on a connection that was there, and are never answered.
        let mut answers = Vec::new();
        while !matches!(answers.last(), Some(Err(Error::Contended { attempts: 2.., .. }))) {
            assert!(answers.len() < 8, "{answers:?}");
            answers.push(session.claim(&of::<AgentStart>(&session).await).await.map(drop));
        }
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
    }

    async fn none_outlives_its_component(db: TestDatabase) {
        let bmdb = Bmdb::connect(config(&db)).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible");
        let raw = db.raw().await;
        assert!(serving(&raw).await > 1);
        session.clone().close().await.unwrap();
        bmdb.close().await;
        // Though there are guards yet.
        until("all are gone", LONG, async || serving(&raw).await == 0).await;
        assert!(work.stop().is_cancelled());
        drop((work, session));
    }

    async fn none_outlives_a_component_that_is_dropped(db: TestDatabase) {
        let raw = db.raw().await;
        let host = host_of(db.url());
        // One that waits for a fail-over has a task for that.
        for url in [db.url(), &db.url().replace(host, &format!("{host},{host}"))] {
            let session = connect_to(url).await.start_session().await.unwrap();
            session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
            assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
            assert!(serving(&raw).await > 1);
            drop(session);
            until("all are gone", LONG, async || serving(&raw).await == 0).await;
        }
    }
}
