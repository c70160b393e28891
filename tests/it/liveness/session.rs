//! Sessions: heartbeats, trust, loss, draining, closing.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use bmdb::{Error, Unfinished};
use harness::{Fate, Fault, Proxy, of, on_each_backend, on_postgres, until};
use sea_orm::{ConnectionTrait, TransactionTrait};

use crate::world::{
    AgentStart, INTERVAL, LONG, config, connect, connect_to, deadline, events, kill_session, provide, session,
    sessions, set_ahead, tamper, waiting_at, works,
};

on_each_backend! {
    async fn heartbeats_extend_the_deadline_and_trust(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let first = deadline(&raw).await;
        until("a heartbeat extends the deadline", LONG, async || deadline(&raw).await > first).await;
        let shortest = INTERVAL / 2;
        until("trust runs down", LONG, async || session.trust_left() < shortest + INTERVAL / 10).await;
        until("a heartbeat extends trust", LONG, async || session.trust_left() > shortest + INTERVAL / 5).await;
        assert!(session.trust_left() <= INTERVAL - INTERVAL / 5, "trust ends before the deadline by the margin");
    }

    async fn every_heartbeat_shows_though_the_databases_clock_jumped_back(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        // As if the clock had been ten hours ahead when the last heartbeat was written.
        set_ahead(&raw, &session).await;
        let mut seen = deadline(&raw).await;
        for _ in 0..2 {
            let before = seen;
            until("a heartbeat shows", LONG, async || {
                seen = deadline(&raw).await;
                seen != before
            }).await;
            assert_eq!((seen - before).num_milliseconds(), 1, "it moves on by as little as can be told");
        }
        assert!(!session.lost().is_cancelled());
    }

    async fn a_session_outlives_many_intervals(db: TestDatabase) {
        let short = config(&db).interval(Duration::from_millis(1200));
        let session = bmdb::Bmdb::connect(short).await.unwrap().start_session().await.unwrap();
        let started = Instant::now();
        until("five intervals have passed", LONG, async || started.elapsed() > Duration::from_secs(6)).await;
        assert!(!session.lost().is_cancelled());
        session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
    }

    async fn an_expired_session_refuses_everything(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 2).await[0];
        let raw = db.raw().await;
        let (one, two) = (session.claim(&of::<AgentStart>(&session).await).await.unwrap().unwrap(), session.claim(&of::<AgentStart>(&session).await).await.unwrap().unwrap());
        kill_session(&raw, &session).await;
        until("the session is lost", LONG, async || session.lost().is_cancelled()).await;
        assert!(one.stop().is_cancelled());
        let expired = |error: &Error| matches!(error, Error::SessionExpired { .. });
        let error = session.transact(async |_tx| Ok::<_, Error>(())).await.expect_err("it has expired");
        assert!(expired(&error), "{error:?}");
        assert!(expired(&session.claim(&of::<AgentStart>(&session).await).await.map(drop).expect_err("it has expired")));
        assert!(expired(&session.claim(&of::<AgentStart>(&session).await).on(machine).await.map(drop).expect_err("it has expired")));
        assert!(expired(&one.transact(async |_tx| Ok::<_, Error>(())).await.expect_err("it has expired")));
        assert!(expired(&one.progress(&1).await.expect_err("it has expired")));
        assert!(expired(&one.guarded(Duration::ZERO, async {}).await.expect_err("it has expired")));
        let ended = one.finish(async |_tx| Ok::<_, Error>(())).await;
        assert!(matches!(ended, Err(Unfinished::Over(Error::SessionExpired { .. }))), "{ended:?}");
        let ended = two.fail("late").await;
        assert!(matches!(ended, Err(Unfinished::Over(Error::SessionExpired { .. }))), "{ended:?}");
        // Nothing was ended: that is for the collector.
        assert_eq!(works(&raw).await, 2);
        assert_eq!(session.trust_left(), Duration::ZERO);
    }

    async fn a_heartbeat_of_a_deleted_session_is_not_a_success(db: TestDatabase) {
        let session = session(&db).await;
        tamper(&db.raw().await, "DELETE FROM session").await;
        until("the session is lost", LONG, async || session.lost().is_cancelled()).await;
        // One seen expiry latches.
        assert_eq!(session.trust_left(), Duration::ZERO);
    }

    async fn a_body_notices_that_the_row_is_gone(db: TestDatabase) {
        let session = session(&db).await;
        tamper(&db.raw().await, "DELETE FROM session").await;
        let refused = session.transact(async |_tx| Ok::<_, Error>(())).await;
        assert!(matches!(refused, Err(Error::SessionExpired { .. })), "{refused:?}");
        assert!(session.lost().is_cancelled());
    }

    async fn a_closed_session_leaves_nothing_behind(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        session.close().await.unwrap();
        assert_eq!((sessions(&raw).await, works(&raw).await), (0, 0));
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
        assert!(work.stop().is_cancelled());
        assert_eq!(work.stop_reason(), Some(bmdb::StopReason::Shutdown));
        let late = work.cancel().await;
        assert!(matches!(late, Err(Unfinished::Over(_))), "{late:?}");
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
    }

    async fn a_lost_session_can_be_closed(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        kill_session(&raw, &session).await;
        until("the session is lost", LONG, async || session.lost().is_cancelled()).await;
        session.close().await.unwrap();
        assert_eq!(sessions(&raw).await, 1, "that is for the collector");
    }

    async fn closing_a_session_is_not_losing_it(db: TestDatabase) {
        let session = session(&db).await;
        let (lost, other) = (session.lost(), session.clone());
        session.close().await.unwrap();
        other.close().await.unwrap();
        assert!(!lost.is_cancelled());
    }

    async fn closing_a_component_closes_its_sessions(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is always eligible");
        let raw = db.raw().await;
        tokio::time::timeout(LONG, bmdb.close()).await.expect("it comes to its end");
        assert_eq!((sessions(&raw).await, works(&raw).await, session.trust_left()), (0, 0, Duration::ZERO));
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
        assert!(!session.lost().is_cancelled() && work.stop().is_cancelled());
    }
    async fn an_abandoned_session_closes_itself(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        drop(session);
        assert_eq!(sessions(&raw).await, 1, "a held work keeps its session");
        drop(work);
        until("the session is closed", LONG, async || sessions(&raw).await == 0).await;
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
    }

    async fn a_draining_session_takes_nothing_new(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 2).await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        assert_eq!(session.drain(Duration::from_millis(50)).await.left, 1);
        assert!(matches!(session.claim(&of::<AgentStart>(&session).await).await, Err(Error::Draining { .. })));
        let waiting = session.drain(LONG);
        let (drained, ended) = tokio::join!(waiting, work.cancel());
        ended.unwrap();
        assert_eq!(drained.left, 0);
    }

    async fn a_work_that_is_claimed_while_it_stops_knows_why(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        session.stop_all();
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        assert!(work.stop().is_cancelled());
        assert_eq!(work.stop_reason(), Some(bmdb::StopReason::Shutdown));
    }

    async fn a_panic_in_a_rule_is_a_panic_of_who_registers_it(db: TestDatabase) {
        struct Panics;
        impl bmdb::Process for Panics {
            const NAME: &'static str = "panics";
            type Item = bmdb::machine::Model;
            fn eligible(&self, _machines: bmdb::Eligible) -> bmdb::Eligible {
                panic!("a test's panic")
            }
        }
        let session = session(&db).await;
        let registering = std::panic::AssertUnwindSafe(session.bmdb().register(Panics));
        assert!(futures_util::FutureExt::catch_unwind(registering).await.is_err());
        assert!(!session.lost().is_cancelled());
    }

    async fn two_incarnations_of_one_component_are_two_sessions(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let (one, two) = (bmdb.start_session().await.unwrap(), bmdb.start_session().await.unwrap());
        assert_ne!(one.id(), two.id());
        provide(&one, 1).await;
        let work = one.claim(&of::<AgentStart>(&one).await).await.unwrap().expect("one machine is eligible");
        assert!(two.claim(&of::<AgentStart>(&two).await).await.unwrap().is_none());
        two.close().await.unwrap();
        work.cancel().await.unwrap();
        one.close().await.unwrap();
        bmdb.close().await;
    }
}

on_postgres! {
    async fn trust_counts_from_the_attempt_that_started_the_session(db: TestDatabase) {
        let interval = Duration::from_secs(3);
        let bmdb = bmdb::Bmdb::connect(config(&db).interval(interval)).await.unwrap();
        let raw = db.raw().await;
        // The first attempt loses, after almost an interval.
        for sql in [
            "CREATE SEQUENCE starts",
            "CREATE FUNCTION lose_slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('starts') = 1 THEN \
             PERFORM pg_sleep(2.8); RAISE EXCEPTION 'a test' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER lose_slowly BEFORE INSERT ON session FOR EACH ROW EXECUTE FUNCTION lose_slowly()",
        ] {
            tamper(&raw, sql).await;
        }
        let session = bmdb.start_session().await.unwrap();
        assert!(session.trust_left() > interval / 2, "{:?}", session.trust_left());
        session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
    }

    async fn effects_are_over_before_a_session_that_is_closed_lets_go(db: TestDatabase) {
        let (_proxy, bmdb, mut closing) = waiting_at(&db, "FROM session WHERE session_id = $1 FOR UPDATE").await;
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        let closes = session.close();
        let effect = async {
            let effect = work.guarded(Duration::ZERO, std::future::pending::<()>()).await;
            assert!(matches!(effect, Err(Error::SessionExpired { .. })), "{effect:?}");
            let go_on = closing.recv().await.expect("it is closed");
            assert_eq!((works(&raw).await, work.session().trust_left()), (1, Duration::ZERO), "nobody else can have the machine yet");
            go_on.send(()).expect("it waits");
        };
        let (closed, ()) = tokio::join!(closes, effect);
        closed.unwrap();
        assert_eq!((works(&raw).await, sessions(&raw).await), (0, 0));
    }

    async fn a_claim_that_is_under_way_counts_while_a_session_drains(db: TestDatabase) {
        let (_proxy, bmdb, mut claiming) = waiting_at(&db, "INSERT INTO work (").await;
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let claims = session.claim(&of::<AgentStart>(&session).await).into_future();
        let drains = async {
            let go_on = claiming.recv().await.expect("it claims");
            assert_eq!(session.drain(Duration::from_millis(50)).await.left, 1);
            go_on.send(()).expect("it waits");
            assert_eq!(session.drain(LONG).await.left, 0);
        };
        let (claimed, ()) = tokio::join!(claims, drains);
        assert!(matches!(claimed, Err(Error::Draining { .. })), "{claimed:?}");
    }

    async fn a_heartbeat_that_nobody_answers_is_sent_again_on_another_connection(db: TestDatabase) {
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let raw = db.raw().await;
        let mut is_first = true;
        proxy.decide(move |passing| {
            let beats = passing.sql.contains("UPDATE session_lease") && std::mem::replace(&mut is_first, false);
            if beats { Fate::Fail(Fault::HalfOpen) } else { Fate::Pass }
        });
        let first = deadline(&raw).await;
        until("another heartbeat extends the deadline", LONG, async || deadline(&raw).await > first).await;
        assert!(!session.lost().is_cancelled());
    }

    async fn failed_heartbeats_do_not_end_a_session_that_has_time_left(db: TestDatabase) {
        // Neither the first error nor a later one may end it while time is left.
        let session = session(&db).await;
        let raw = db.raw().await;
        for sql in [
            "CREATE SEQUENCE beats",
            "CREATE FUNCTION fail_beat() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF nextval('beats') <= 3 THEN RAISE EXCEPTION 'a test''s failure'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER fail_beat BEFORE UPDATE ON session_lease FOR EACH ROW EXECUTE FUNCTION fail_beat()",
        ] {
            tamper(&raw, sql).await;
        }
        let first = deadline(&raw).await;
        until("the fourth heartbeat succeeds", LONG, async || deadline(&raw).await > first).await;
        assert!(!session.lost().is_cancelled());
        session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
    }

    async fn a_claim_that_waits_for_a_row_is_drained_too(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        let raw = db.raw().await;
        let lock = raw.begin().await.unwrap();
        lock.execute_unprepared("SELECT machine_id FROM machine FOR UPDATE").await.unwrap();
        // Of any machine, it would not wait but look for another.
        let mut claims = tokio::task::JoinSet::from_iter([session.claim(&of::<AgentStart>(&session).await).on(machine).into_future()]);
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                       OR NOT granted AND locktype = 'transactionid'";
        until("the claim waits", LONG, async || {
            let statement = sea_orm::Statement::from_string(raw.get_database_backend(), waiting);
            raw.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index::<i64>(0).unwrap() > 0
        }).await;
        assert_eq!(session.drain(Duration::from_millis(100)).await.left, 1, "the claim counts");
        lock.commit().await.unwrap();
        assert_eq!(session.drain(LONG).await.left, 0);
        let claimed = claims.join_next().await.unwrap().unwrap();
        assert!(matches!(claimed, Err(Error::Draining { .. })), "{claimed:?}");
        until("nothing is held", LONG, async || works(&raw).await == 0).await;
    }

    async fn a_wait_for_a_row_is_tried_again_until_the_budget_is_used_up(db: TestDatabase) {
        let impatient = config(&db).statement_timeout(Duration::from_secs(1)).retry_budget(Duration::from_secs(5));
        let session = bmdb::Bmdb::connect(impatient).await.unwrap().start_session().await.unwrap();
        provide(&session, 1).await;
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        let raw = db.raw().await;
        let lock = raw.begin().await.unwrap();
        lock.execute_unprepared("SELECT machine_id FROM machine FOR UPDATE").await.unwrap();
        let started = Instant::now();
        let claimed = session.claim(&of::<AgentStart>(&session).await).await;
        assert!(matches!(claimed, Err(Error::Contended { attempts: 2.., .. })), "{claimed:?}");
        assert!(started.elapsed() > Duration::from_secs(1));
        lock.rollback().await.unwrap();
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is free").cancel().await.unwrap();
    }

    async fn heartbeats_go_on_while_the_pool_is_exhausted(db: TestDatabase) {
        let tight = config(&db).max_connections(2).interval(Duration::from_secs(3));
        let session = bmdb::Bmdb::connect(tight).await.unwrap().start_session().await.unwrap();
        let hog = async || session.transact(async |tx| {
            tx.execute_unprepared("SELECT pg_sleep(4)").await?;
            Ok::<_, Error>(())
        }).await;
        let (one, two, three) = tokio::join!(hog(), hog(), hog());
        one.and(two).and(three).unwrap();
        assert!(!session.lost().is_cancelled());
    }
}
