//! Connections that die all at once, and connections that are all in use.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, Error, Tx, agent_started, machine};
use harness::{Fate, OwnServer, Proxy, bounded, kill, of, on_postgres};
use sea_orm::{ConnectionTrait, Statement};
use tokio::sync::{Notify, Semaphore};

use super::{NOISE, Scene, claim, sees_a_heartbeat, within};
use crate::world::{AgentStart, INTERVAL, config, events, provide};

/// The server's process that serves a transaction.
async fn process_of(tx: &Tx) -> u32 {
    let ask = Statement::from_string(tx.get_database_backend(), "SELECT pg_backend_pid()");
    let row = tx.query_one_raw(ask).await.unwrap().expect("it has one");
    row.try_get_by_index::<i32>(0).unwrap().unsigned_abs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_whose_server_process_is_killed_takes_effect_once() {
    bounded(async {
        let server = OwnServer::start().await;
        let scene = Scene::on(&server.database(), 2 * INTERVAL, 1).await;
        let work = claim(&scene.session).await;
        let runs = AtomicU32::new(0);
        // The server ends every connection then, those of the heartbeats too, and recovers.
        let made = work.transact(async |tx| {
            machine::create(tx).await?;
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                kill("KILL", process_of(tx).await);
            }
            machine::create(tx).await
        });
        let (made, took) = within(2 * INTERVAL, made).await;
        eprintln!("{} runs in {took:?}: {made:?}", runs.load(Ordering::Relaxed));
        made.unwrap();
        assert!(runs.into_inner() > 1, "the first run was cut off");
        assert_eq!(scene.machines().await, 3, "one run made two");
        scene.sees_a_heartbeat().await;
        assert!(!scene.session.lost().is_cancelled());
        let machine = work.machine();
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        assert_eq!(events(&scene.raw, machine).await, ["started", "finished"]);
        scene.ends_well().await;
    })
    .await;
}

on_postgres! {
    async fn slow_statements_and_a_slow_network_cost_no_session(db: TestDatabase) {
        const SHORT: Duration = Duration::from_secs(2);
        let network = Proxy::to(db.url()).await;
        let config = Config::new(network.url(), "test", "").interval(SHORT);
        let bmdb = Bmdb::connect(config).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        network.decide(|_| Fate::Delay(Duration::from_millis(200)));
        let work = claim(&session).await;
        // Longer than the interval, and never silent for long.
        let began = Instant::now();
        let slowly = async |tx: &Tx| {
            for _ in 0..5 {
                tx.execute_unprepared("SELECT pg_sleep(0.4)").await?;
            }
            agent_started::set(tx, machine, *b"key").await
        };
        work.finish(slowly).await.unwrap();
        assert!(began.elapsed() > SHORT, "{:?}", began.elapsed());
        assert!(!session.lost().is_cancelled());
        let raw = db.raw().await;
        assert_eq!(events(&raw, machine).await, ["started", "finished"]);
        session.close().await.unwrap();
        assert_eq!(harness::check_history(&raw).await, Vec::<String>::new());
    }

    async fn a_full_pool_is_told_in_time_and_stops_neither_claims_nor_heartbeats(db: TestDatabase) {
        const BUDGET: Duration = Duration::from_millis(800);
        let tight = config(&db).max_connections(2).acquire_timeout(BUDGET / 2).retry_budget(BUDGET).statement_timeout(BUDGET / 2);
        let bmdb = Bmdb::connect(tight).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        let machines = provide(&session, 2).await;
        let raw = db.raw().await;
        let (held, inside, over) = (AtomicU32::new(0), Semaphore::new(0), Notify::new());
        let hold = async |tx: &Tx| {
            // One of the two also keeps claims off the machine.
            if held.fetch_add(1, Ordering::Relaxed) == 0 {
                machine::exclude_claims(tx, machines[0]).await?;
            }
            inside.add_permits(1);
            over.notified().await;
            Ok::<_, Error>(())
        };
        let others = async {
            let _both = inside.acquire_many(2).await.unwrap();
            let (refused, took) = within(BUDGET + NOISE, session.transact(machine::create)).await;
            assert!(matches!(refused, Err(Error::Contended { .. })), "{refused:?}");
            eprintln!("a third body was refused after {took:?}");
            let (refused, took) = within(BUDGET + NOISE, session.claim(&of::<AgentStart>(&session).await).on(machines[0])).await;
            assert!(matches!(refused, Err(Error::Contended { .. })), "{refused:?}");
            eprintln!("a claim that had to wait for a body was refused after {took:?}");
            sees_a_heartbeat(&raw, &session).await;
            let (claimed, _) = within(BUDGET + NOISE, session.claim(&of::<AgentStart>(&session).await).on(machines[1])).await;
            claimed.unwrap().expect("no body stands in its way").cancel().await.unwrap();
            over.notify_waiters();
        };
        let (one, two, ()) = tokio::join!(session.transact(hold), session.transact(hold), others);
        one.unwrap();
        two.unwrap();
        session.transact(machine::create).await.unwrap();
        claim(&session).await.cancel().await.unwrap();
        session.close().await.unwrap();
        assert_eq!(harness::check_history(&raw).await, Vec::<String>::new());
    }
}
