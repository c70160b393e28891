//! More is asked than the database can answer in time: claims that are given up are not made, many are let go of together, a locked row stops its own
//! work and no other, and the first claims of a component register once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, Session, Work};
use bmdb_entity::work_history::{self, Event};
use futures_util::future::join_all;
use harness::{
    Backend, Fate, NOISE, Proxy, TestDatabase, bounded, check_history, literal, of, on_each_backend, on_postgres, until,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, PaginatorTrait, QueryFilter, TransactionTrait,
};
use tokio::task::JoinSet;

use crate::world::{LONG, Survey, allow, connect, connect_to, provide, refuse_where, session, works};

async fn started(raw: &DatabaseConnection) -> u64 {
    let starts = work_history::Entity::find().filter(work_history::Column::Event.eq(Event::Started));
    starts.count(raw).await.unwrap()
}

/// Registered, and hints are plenty.
async fn warm_up(session: &Session) {
    for _ in 0..2 {
        let work = session
            .claim(&of::<Survey>(&session).await)
            .await
            .unwrap()
            .expect("all are fit");
        work.cancel().await.unwrap();
    }
}

/// Claims so many, as often as it takes: a claim of many takes what is hinted at.
async fn claim_all(session: &Session, count: usize) -> Vec<Work<Survey>> {
    let mut held = Vec::new();
    while held.len() < count {
        let missing = u32::try_from(count - held.len()).unwrap();
        held.extend(
            session
                .claim_many(&of::<Survey>(&session).await, missing)
                .await
                .unwrap(),
        );
    }
    held
}

/// Tasks that claim again and again, and give each claim up after a while, as callers do who have a deadline of their own, until they are dropped.
fn impatient(session: &Session, tasks: usize, filtered: bool) -> (JoinSet<()>, Arc<AtomicU64>) {
    let (mut set, given_up) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for _ in 0..tasks {
        let (session, given_up) = (session.clone(), Arc::clone(&given_up));
        set.spawn(async move {
            loop {
                let claim = session.claim(&of::<Survey>(&session).await);
                let claim = if filtered {
                    claim.filter(sea_orm::sea_query::Expr::cust("1 = 1"))
                } else {
                    claim
                };
                match tokio::time::timeout(Duration::from_millis(200), claim).await {
                    Ok(answer) => drop(answer.unwrap()),
                    Err(_elapsed) => {
                        given_up.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    }
    (set, given_up)
}

on_each_backend! {
    async fn claims_that_are_given_up_are_not_made(db: TestDatabase) {
        // Heartbeats wait as well, and the session is to live.
        let config = Config::new(db.url(), "test", "").interval(Duration::from_secs(120));
        let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
        provide(&session, 300).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        for filtered in [false, true] {
            let (before, alive) = (started(&raw).await, tokio::runtime::Handle::current().metrics().num_alive_tasks());
            let stall = raw.begin().await.unwrap();
            let stalls = match db.backend() {
                Backend::Sqlite => "UPDATE machine SET fence = fence",
                Backend::Postgres => "LOCK TABLE work IN ACCESS EXCLUSIVE MODE",
            };
            stall.execute_unprepared(stalls).await.unwrap();
            let (mut tasks, given_up) = impatient(&session, 100, filtered);
            until("hundreds are given up", LONG, async || given_up.load(Ordering::Relaxed) > 600).await;
            // What was given up is gone as soon as its task is polled, which a busy machine does in its own time. Kept, there would be ever more.
            until("there are few tasks for a hundred callers", NOISE, async || {
                tokio::runtime::Handle::current().metrics().num_alive_tasks().saturating_sub(alive) < 300
            }).await;
            tasks.shutdown().await;
            stall.rollback().await.unwrap();
            // At once, and not after what nobody waits for.
            let claim = tokio::time::timeout(Duration::from_secs(3), session.claim(&of::<Survey>(&session).await).into_future());
            let claimed = claim.await.expect("it is answered").unwrap().expect("hundreds are fit");
            claimed.done().await.unwrap();
            let made = started(&raw).await - before;
            assert!(made < 100, "{made} claims were made");
            until("nothing is held", LONG, async || works(&raw).await == 0 && session.held().is_empty()).await;
        }
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
    }

    async fn a_work_that_cannot_be_let_go_of_keeps_no_other(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 60).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        let held = claim_all(&session, 40).await;
        let stuck = held[7].machine();
        let is_stuck = format!("OLD.machine_id = {}", literal(&raw, stuck.0));
        refuse_where(&raw, "DELETE ON work", &is_stuck, "P0001").await;
        drop(held);
        until("one is left", LONG, async || works(&raw).await == 1).await;
        // Those who end at once are answered each for itself, too: nobody else has that work.
        let ends = join_all((0..12).map(|_| async {
            let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("all but one are fit");
            work.fail("no answer").await.unwrap();
        }));
        ends.await;
        allow(&raw, "work").await;
        until("it is let go of", LONG, async || works(&raw).await == 0).await;
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
    }

    async fn one_end_that_is_refused_spoils_none_that_are_made_with_it(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 50).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        let held = claim_all(&session, 40).await;
        let refused = held[3].machine();
        let is_refused = format!("NEW.event = 'finished' AND NEW.machine_id = {}", literal(&raw, refused.0));
        refuse_where(&raw, "INSERT ON work_history", &is_refused, "P0001").await;
        // By one caller, and then by many at once.
        let mut left = Vec::new();
        for answer in Work::done_many(held).await {
            left.extend(answer.err().map(|error| error.into_work().expect("it is held")));
        }
        assert_eq!(left.iter().map(Work::machine).collect::<Vec<_>>(), [refused]);
        let others = claim_all(&session, 24).await;
        let ends = others.into_iter().chain(left).map(|work| async move {
            let machine = work.machine();
            (machine, work.done().await.is_ok())
        });
        for (machine, is_done) in join_all(ends).await {
            assert_eq!(is_done, machine != refused);
        }
    }
}

on_postgres! {
    async fn a_locked_row_makes_none_wait_but_its_own_end(db: TestDatabase) {
        let limit = Duration::from_secs(2);
        let config = Config::new(db.url(), "test", "").statement_timeout(limit);
        let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
        provide(&session, 90).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        for by_one_caller in [false, true] {
            let held = claim_all(&session, 80).await;
            let locked = held[9].id();
            let lock = raw.begin().await.unwrap();
            let text = format!("SELECT work_id FROM work WHERE work_id = '{locked}' FOR UPDATE");
            lock.execute_unprepared(&text).await.unwrap();
            let begun = Instant::now();
            let others = AtomicU32::new(0);
            let unlocks = async {
                let all_others = async || others.load(Ordering::Relaxed) == 79 || (by_one_caller && works(&raw).await == 1);
                until("all others have ended", LONG, all_others).await;
                // Twice for as long as a statement waits for a row.
                assert!(begun.elapsed() < 4 * limit, "{:?}", begun.elapsed());
                lock.rollback().await.unwrap();
            };
            if by_one_caller {
                let (answers, ()) = tokio::join!(Work::done_many(held).into_future(), unlocks);
                answers.into_iter().for_each(|answer| answer.unwrap());
            } else {
                let ends = held.into_iter().map(|work| async {
                    let id = work.id();
                    work.done().await.unwrap();
                    others.fetch_add(u32::from(id != locked), Ordering::Relaxed);
                });
                tokio::join!(join_all(ends), unlocks);
            }
            assert_eq!(works(&raw).await, 0);
        }
    }

    async fn a_locked_hint_makes_none_wait_but_its_own_claim(db: TestDatabase) {
        let config = Config::new(db.url(), "test", "").statement_timeout(Duration::from_secs(2));
        let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
        provide(&session, 60).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        let lock = raw.begin().await.unwrap();
        let text = "SELECT machine_id FROM work_candidate WHERE process LIKE 'survey@%' ORDER BY machine_id LIMIT 1 FOR UPDATE";
        lock.execute_unprepared(text).await.unwrap();
        let claims = join_all((0..55).map(|_| {
            let session = session.clone();
            async move { session.claim(&of::<Survey>(&session).await).await.unwrap() }
        }));
        let claimed: Vec<_> = claims.await.into_iter().flatten().collect();
        assert_eq!(claimed.len(), 55);
        lock.rollback().await.unwrap();
    }
}

/// Guards that are dropped together are let go of in few statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_guards_are_let_go_of_together() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        provide(&session, 300).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        let held = claim_all(&session, 250).await;
        let ends = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&ends);
        proxy.decide(move |passing| {
            counted.fetch_add(u32::from(passing.sql.contains("to_end (")), Ordering::Relaxed);
            Fate::Pass
        });
        drop(held);
        until("they are let go of", LONG, async || works(&raw).await == 0).await;
        let ends = ends.load(Ordering::Relaxed);
        assert!(ends <= 16, "{ends} statements");
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
    })
    .await;
}

/// The first claims of a component come at once to a slow server that gives it few connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_claims_of_a_component_register_once() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let bmdb = connect(&db).await;
        provide(&bmdb.start_session().await.unwrap(), 8).await;
        let proxy = Proxy::to(db.url()).await;
        let config = Config::new(proxy.url(), "test", "").acquire_timeout(Duration::from_millis(500));
        let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
        let registers = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&registers);
        proxy.decide(move |passing| {
            if passing.sql.contains("INSERT INTO process (") {
                counted.fetch_add(1, Ordering::Relaxed);
                return Fate::Delay(Duration::from_secs(1));
            }
            Fate::Pass
        });
        let claims = join_all((0..500).map(|_| {
            let session = session.clone();
            async move { session.claim(&of::<Survey>(&session).await).await.unwrap() }
        }));
        assert_eq!(claims.await.into_iter().flatten().count(), 8);
        assert_eq!(registers.load(Ordering::Relaxed), 1);
    })
    .await;
}
