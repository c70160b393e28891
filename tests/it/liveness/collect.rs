//! Expiry: who collects, what it leaves, and whom it spares.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bmdb::{Error, agent_started};
use bmdb_entity::{work_history, work_hold};
use harness::{ada, literal, of, on_each_backend, on_postgres, until};
use sea_orm::{ConnectionTrait, EntityTrait, TransactionTrait};

use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::claims::stress::waiting_for_a_lock;
use crate::input::hostile::log::Kept;
use crate::world::{
    AgentStart, INTERVAL, LONG, Survey, connect, events, kill_session, provide, session, sessions, set_ahead, tamper,
    waiting_at, works,
};

on_each_backend! {
    async fn a_dead_session_is_expired_with_its_work(db: TestDatabase) {
        let (dead, alive) = (session(&db).await, session(&db).await);
        let machine = provide(&dead, 1).await[0];
        let raw = db.raw().await;
        let work = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("one machine is eligible");
        kill_session(&raw, &dead).await;
        let mut collector = connect(&db).await.collector();
        let first = collector.sweep().await.unwrap();
        assert!(first.expired.is_empty(), "one look is not enough");
        let mut swept = first;
        until("the session is expired", LONG, async || {
            swept = collector.sweep().await.unwrap();
            !swept.expired.is_empty()
        }).await;
        assert_eq!((swept.expired.as_slice(), swept.freed), ([dead.id()].as_slice(), 1));
        assert_eq!(works(&raw).await, 0);
        assert_eq!(events(&raw, machine).await, ["started", "expired"]);
        let history = work_history::Entity::find().all(&raw).await.unwrap();
        assert!(history.iter().all(|event| event.session_id == dead.id() && event.component_name == "test"));
        // The cool-down is a hold like any other, and ends by itself.
        let hold = work_hold::Entity::find().one(&raw).await.unwrap().expect("a cool-down was left");
        assert_eq!((hold.slot.as_str(), hold.placed_by.as_str()), ("agent", "collector"));
        let mut again = None;
        until("the machine is claimed again", LONG, async || {
            again = alive.claim(&of::<AgentStart>(&alive).await).await.unwrap();
            again.is_some()
        }).await;
        let again = again.expect("it was claimed");
        assert!(again.fence() > work.fence());
        // The dead one's late writes are refused.
        let late = work.finish(async |tx| agent_started::set(tx, machine, *b"late").await).await;
        assert!(late.is_err());
        assert_eq!(agent_started::Entity::find().one(&raw).await.unwrap(), None);
        again.cancel().await.unwrap();
    }

    async fn no_cool_down_leaves_no_hold(db: TestDatabase) {
        let (dead, _alive) = (session(&db).await, session(&db).await);
        provide(&dead, 1).await;
        let raw = db.raw().await;
        let _work = dead.claim(&of::<Survey>(&dead).await).await.unwrap().expect("one machine is eligible");
        kill_session(&raw, &dead).await;
        let mut collector = connect(&db).await.collector();
        until("the session is expired", LONG, async || !collector.sweep().await.unwrap().expired.is_empty()).await;
        assert!(work_hold::Entity::find().all(&raw).await.unwrap().is_empty());
    }

    async fn a_sweep_says_whether_it_braked_and_the_log_once(db: TestDatabase) {
        let kept = Kept::default();
        let _listening = kept.listen();
        let dead = session(&db).await;
        let raw = db.raw().await;
        kill_session(&raw, &dead).await;
        let mut collector = connect(&db).await.collector();
        assert!(!collector.sweep().await.unwrap().braked, "nobody is called dead at first sight");
        let mut braked = false;
        until("the only session is expired", LONG, async || {
            let sweep = collector.sweep().await.unwrap();
            braked |= sweep.braked;
            assert!(!sweep.braked || sweep.expired.is_empty());
            !sweep.expired.is_empty()
        }).await;
        assert!(braked, "the whole fleet looked dead");
        assert_eq!(kept.text().matches("collector brakes:").count(), 1, "{}", kept.text());
    }

    async fn a_clock_that_jumped_back_keeps_only_the_living(db: TestDatabase) {
        let (dead, alive) = (session(&db).await, session(&db).await);
        let raw = db.raw().await;
        kill_session(&raw, &dead).await;
        until("its process has noticed", LONG, async || dead.lost().is_cancelled()).await;
        set_ahead(&raw, &dead).await;
        set_ahead(&raw, &alive).await;
        let mut collector = connect(&db).await.collector();
        until("the dead one is expired", LONG, async || collector.sweep().await.unwrap().expired == [dead.id()]).await;
        // The other's deadline is as far ahead, and it is watched for an interval and more.
        let watched = tokio::time::timeout(INTERVAL * 5 / 4, async {
            loop {
                assert!(collector.sweep().await.unwrap().expired.is_empty());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(watched.await.is_err());
        assert!(!alive.lost().is_cancelled());
    }

    async fn a_live_session_is_spared_by_many_collectors(db: TestDatabase) {
        let session = session(&db).await;
        let bmdb = connect(&db).await;
        let over = bmdb::CancellationToken::new();
        let collectors = tokio::task::JoinSet::from_iter((0..3).map(|_| bmdb.collector().period(Duration::from_millis(20)).run(over.clone())));
        // Longer than the interval: without heartbeats it would be expired.
        let lost = tokio::time::timeout(INTERVAL * 5 / 4, session.lost().cancelled_owned()).await;
        assert!(lost.is_err(), "it lives");
        over.cancel();
        collectors.join_all().await;
        assert_eq!(sessions(&db.raw().await).await, 1);
    }

    async fn a_collector_spares_its_own_sessions_while_they_are_believed_in(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let (own, _other) = (bmdb.start_session().await.unwrap(), session(&db).await);
        // One that is closed takes nothing from the others.
        bmdb.start_session().await.unwrap().close().await.unwrap();
        // Its interval is 200 ms by now: any other collector would expire it before its own process has noticed.
        kill_session(&db.raw().await, &own).await;
        let mut collector = bmdb.collector();
        until("it is expired", LONG, async || {
            let expired = collector.sweep().await.unwrap().expired;
            assert!(expired.is_empty() || own.lost().is_cancelled());
            expired == [own.id()]
        }).await;
    }

    async fn one_component_alone_frees_what_its_lost_session_held(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let broken = bmdb.start_session().await.unwrap();
        let machine = provide(&broken, 1).await[0];
        let work = broken.claim(&of::<AgentStart>(&broken).await).await.unwrap().expect("one machine is eligible");
        let raw = db.raw().await;
        tamper(&raw, "UPDATE session SET interval_ms = 200").await;
        ada(&bmdb).break_session(broken.id()).await.unwrap().expect("there is such a session");
        let mut collector = bmdb.collector();
        until("it is expired", LONG, async || !collector.sweep().await.unwrap().expired.is_empty()).await;
        // Although its guard lives.
        assert!(work.stop().is_cancelled());
        assert_eq!(events(&raw, machine).await, ["started", "expired"]);
    }

    async fn collectors_that_never_live_for_an_interval_expire_the_dead_together(db: TestDatabase) {
        let (dead, alive) = (session(&db).await, session(&db).await);
        let machine = provide(&dead, 1).await[0];
        let raw = db.raw().await;
        let _work = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("one machine is eligible");
        kill_session(&raw, &dead).await;
        let id = literal(&raw, dead.id().0);
        tamper(&raw, &format!("UPDATE session SET interval_ms = 3000 WHERE session_id = {id}")).await;
        let bmdb = connect(&db).await;
        let began = std::time::Instant::now();
        let mut lives = 0;
        until("the dead one is expired", LONG, async || {
            // A component that crashes after a second.
            let mut collector = bmdb.collector();
            lives += 1;
            let mut expired = Vec::new();
            let life = tokio::time::timeout(Duration::from_secs(1), async {
                loop {
                    expired.extend(collector.sweep().await.unwrap().expired);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            assert!(life.await.is_err());
            assert!(!expired.contains(&alive.id()));
            expired == [dead.id()]
        }).await;
        assert!(lives > 1 && began.elapsed() > Duration::from_secs(3), "{lives} lives, {:?}", began.elapsed());
        assert_eq!(events(&raw, machine).await, ["started", "expired"]);
        assert!(!alive.lost().is_cancelled());
    }

    async fn what_was_noted_of_another_lease_counts_for_nothing(db: TestDatabase) {
        let (dead, _one, _two) = (session(&db).await, session(&db).await, session(&db).await);
        let raw = db.raw().await;
        // Noted as it stood for an hour; then renewed; and then its component died.
        tamper(&raw, "INSERT INTO session_sighting (session_id, deadline, age_ms) SELECT session_id, 'of another lease', 3600000 FROM session_lease").await;
        kill_session(&raw, &dead).await;
        tamper(&raw, "UPDATE session SET interval_ms = 3000 WHERE interval_ms = 200").await;
        let mut collector = connect(&db).await.collector();
        let began = std::time::Instant::now();
        until("it is expired", LONG, async || {
            let expired = collector.sweep().await.unwrap().expired;
            tokio::time::sleep(Duration::from_millis(200)).await;
            expired == [dead.id()]
        }).await;
        assert!(began.elapsed() > Duration::from_secs(3), "it was watched for an interval: {:?}", began.elapsed());
    }

    async fn many_collectors_expire_a_session_once(db: TestDatabase) {
        let (dead, _one, _two) = (session(&db).await, session(&db).await, session(&db).await);
        let machines = provide(&dead, 20).await;
        let raw = db.raw().await;
        let held = dead.claim_many(&of::<AgentStart>(&dead).await, 20).await.unwrap();
        assert_eq!(held.len(), 20);
        kill_session(&raw, &dead).await;
        let collect = async || {
            let bmdb = connect(&db).await;
            let mut collector = bmdb.collector();
            let mut freed = 0;
            until("the session is expired", LONG, async || {
                freed += collector.sweep().await.unwrap().freed;
                sessions(&raw).await == 2
            }).await;
            freed
        };
        let (one, two, three, four) = tokio::join!(collect(), collect(), collect(), collect());
        assert_eq!(one + two + three + four, 20, "each work was freed by one of them");
        for machine in machines {
            assert_eq!(events(&raw, machine).await, ["started", "expired"]);
        }
    }

    async fn an_operators_hold_is_not_shortened_by_a_cool_down(db: TestDatabase) {
        let (dead, _alive) = (session(&db).await, session(&db).await);
        let machine = provide(&dead, 1).await[0];
        let bmdb = connect(&db).await;
        let raw = db.raw().await;
        let _work = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("one machine is eligible");
        bmdb.operator("ada", "replacing a disk").unwrap().place_hold(machine, bmdb::Hold::new().slot("agent")).await.unwrap();
        kill_session(&raw, &dead).await;
        let mut collector = bmdb.collector();
        until("the session is expired", LONG, async || !collector.sweep().await.unwrap().expired.is_empty()).await;
        let hold = work_hold::Entity::find().one(&raw).await.unwrap().expect("the hold is there");
        assert_eq!((hold.until, hold.reason.as_str()), (None, "replacing a disk"));
    }

    async fn a_broken_session_is_lost_and_expired(db: TestDatabase) {
        let (broken, _alive) = (session(&db).await, session(&db).await);
        let machine = provide(&broken, 1).await[0];
        let work = broken.claim(&of::<AgentStart>(&broken).await).await.unwrap().expect("one machine is eligible");
        let bmdb = connect(&db).await;
        let held = ada(&bmdb).break_session(broken.id()).await.unwrap().expect("there is such a session");
        assert_eq!(held.works, [(machine, "agent-start".to_owned())]);
        until("its holder learns it", LONG, async || work.stop().is_cancelled()).await;
        let mut collector = bmdb.collector();
        until("it is expired", LONG, async || !collector.sweep().await.unwrap().expired.is_empty()).await;
        assert_eq!(events(&db.raw().await, machine).await, ["started", "expired"]);
        assert_eq!(ada(&bmdb).break_session(broken.id()).await.unwrap(), None);
    }

    async fn a_holder_is_asked_to_stop(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        let bmdb = connect(&db).await;
        assert!(bmdb.operator("ada", "the rack moves").unwrap().ask_to_stop(work.id()).await.unwrap());
        until("the stop token fires", LONG, async || work.stop().is_cancelled()).await;
        assert_eq!(work.stop_reason(), Some(bmdb::StopReason::Requested("the rack moves".to_owned())));
        // What it does then is its own decision.
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        assert!(!bmdb.operator("ada", "nobody").unwrap().ask_to_stop(bmdb::WorkId::random()).await.unwrap());
        assert!(matches!(bmdb.operator("ada", " "), Err(Error::Invalid { .. })));
    }

}

/// A heartbeat comes between a sweep's look and its expiry, and the database's clock has jumped so far that its deadline is past as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_changed_since_the_sweep_read_it_is_spared() {
    harness::bounded(async {
        let db = harness::TestDatabase::migrated(harness::Backend::Postgres).await;
        let (dead, _alive) = (session(&db).await, session(&db).await);
        let raw = db.raw().await;
        kill_session(&raw, &dead).await;
        let (_proxy, bmdb, mut expiring) = waiting_at(&db, "FOR UPDATE OF session SKIP LOCKED").await;
        let mut collector = bmdb.collector();
        let beats = async {
            let go_on = expiring.recv().await.expect("it is found dead");
            tamper(
                &raw,
                "UPDATE session_lease SET deadline = deadline + INTERVAL '1 second' WHERE deadline < now()",
            )
            .await;
            go_on.send(()).expect("it waits");
            // It is found dead again.
            drop(expiring.recv().await);
        };
        let sweeps = async {
            let mut expired = Vec::new();
            until("it is expired", LONG, async || {
                let sweep = collector.sweep().await.unwrap();
                expired.push(sweep.expired);
                !expired.concat().is_empty()
            })
            .await;
            expired.concat()
        };
        let (expired, ()) = tokio::join!(sweeps, beats);
        assert_eq!(expired, [dead.id()]);
    })
    .await;
}

/// Another dead session is expired while somebody has locked what is of one. Answers whether the collector waited for the lock.
async fn not_kept_waiting(db: &harness::TestDatabase, lock: &str) -> bool {
    let (locked, dead, _one, _two) = (
        session(db).await,
        session(db).await,
        session(db).await,
        session(db).await,
    );
    let raw = db.raw().await;
    provide(&locked, 1).await;
    let _work = locked
        .claim(&of::<AgentStart>(&locked).await)
        .await
        .unwrap()
        .expect("one machine is eligible");
    for session in [&locked, &dead] {
        kill_session(&raw, session).await;
        until("its process has noticed", LONG, async || session.lost().is_cancelled()).await;
    }
    let mut collector = connect(db).await.collector();
    collector.sweep().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let holding = raw.begin().await.unwrap();
    let id = literal(&raw, locked.id().0);
    let rows = holding
        .execute_unprepared(&format!("{lock} WHERE session_id = {id}"))
        .await
        .unwrap();
    assert_eq!(rows.rows_affected(), 1);
    let began = std::time::Instant::now();
    let watching = async {
        let mut waits = false;
        until("the other one is gone", LONG, async || {
            waits |= waiting_for_a_lock(&raw).await > 0;
            sessions(&raw).await == 3
        })
        .await;
        (waits, began.elapsed())
    };
    let (swept, (waits, waited)) = tokio::join!(collector.sweep(), watching);
    assert_eq!(swept.unwrap().expired, [dead.id()]);
    eprintln!("waited for {waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    holding.rollback().await.unwrap();
    until("the locked one is expired in its turn", LONG, async || {
        collector.sweep().await.unwrap().expired == [locked.id()]
    })
    .await;
    waits
}

/// CockroachDB leaves nothing out that is locked: there the others wait for as long as such a transaction may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_locked_session_keeps_no_other_waiting_with_cockroach_text() {
    harness::bounded(async {
        let db = harness::TestDatabase::with_cockroach_text().await;
        assert!(
            not_kept_waiting(&db, "UPDATE session SET interval_ms = interval_ms").await,
            "for a while"
        );
    })
    .await;
}

/// Panics at the first warning of the collector's, as a sweep might.
struct Panics(AtomicBool);

impl<S: tracing::Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let is_its =
            event.metadata().target() == "bmdb::collector" && *event.metadata().level() == tracing::Level::WARN;
        assert!(!is_its || self.0.swap(true, Ordering::AcqRel), "a test");
    }
}

#[tokio::test]
async fn a_collector_whose_sweep_panicked_goes_on() {
    harness::bounded(async {
        let db = harness::TestDatabase::migrated(harness::Backend::Sqlite).await;
        let kept = Kept::default();
        let _listening = kept.listen_with(Panics(AtomicBool::new(false)));
        let dead = session(&db).await;
        let raw = db.raw().await;
        kill_session(&raw, &dead).await;
        let over = bmdb::CancellationToken::new();
        let collector = connect(&db).await.collector().period(Duration::from_millis(50));
        let expired = async {
            until("it is expired", LONG, async || sessions(&raw).await == 0).await;
            over.cancel();
        };
        tokio::join!(collector.run(over.clone()), expired);
        let text = kept.text();
        assert!(
            text.contains("a sweep panicked") && text.contains("panic=\"a test\""),
            "{text}"
        );
    })
    .await;
}

on_postgres! {
    async fn a_session_that_somebody_has_locked_keeps_no_other_from_being_watched_together(db: TestDatabase) {
        let (dead, locked) = (session(&db).await, session(&db).await);
        let raw = db.raw().await;
        kill_session(&raw, &dead).await;
        kill_session(&raw, &locked).await;
        tamper(&raw, "UPDATE session SET interval_ms = 3000").await;
        let holder = raw.begin().await.unwrap();
        let id = literal(&raw, locked.id().0);
        holder.execute_unprepared(&format!("SELECT session_id FROM session WHERE session_id = {id} FOR UPDATE")).await.unwrap();
        let bmdb = connect(&db).await;
        until("the other is expired", LONG, async || {
            // A component that crashes after some sweeps.
            let mut collector = bmdb.collector();
            for _ in 0..10 {
                if collector.sweep().await.unwrap().expired == [dead.id()] {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            false
        }).await;
        holder.rollback().await.unwrap();
    }

    async fn one_locked_session_keeps_no_other_waiting(db: TestDatabase) {
        let waits = not_kept_waiting(&db, "UPDATE session SET interval_ms = interval_ms").await;
        assert!(!waits, "what is locked is left out");
    }

    async fn one_locked_work_keeps_no_other_session_waiting(db: TestDatabase) {
        let waits = not_kept_waiting(&db, "DELETE FROM work").await;
        assert!(!waits, "what is locked is left out");
    }

    async fn a_body_in_progress_keeps_the_collector_waiting(db: TestDatabase) {
        // H1 of the original: the session is expired between a transaction's check and its commit.
        let (dead, _alive) = (session(&db).await, session(&db).await);
        let machine = provide(&dead, 1).await[0];
        let raw = db.raw().await;
        let work = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("one machine is eligible");
        let bmdb = connect(&db).await;
        let mut collector = bmdb.collector();
        collector.sweep().await.unwrap();
        let outcome = work.transact(async |tx| {
            // Checked; now the deadline passes and the collector comes.
            kill_session(&raw, &dead).await;
            let racing = tokio::time::timeout(Duration::from_millis(800), async {
                loop { if !collector_pass(&bmdb).await { return; } }
            }).await;
            assert!(racing.is_err(), "the collector cannot expire the session under us");
            agent_started::set(tx, machine, *b"key").await
        }).await;
        match outcome {
            Ok(()) => assert_eq!(events(&raw, machine).await, ["started"]),
            Err(error) => assert!(matches!(error, Error::SessionExpired { .. }), "{error:?}"),
        }
        async fn collector_pass(bmdb: &bmdb::Bmdb) -> bool {
            // What a collector does, without its patience.
            let deleted = sea_orm::ConnectionTrait::execute_unprepared(
                bmdb.reads(), "DELETE FROM session USING session_lease l WHERE l.session_id = session.session_id AND l.deadline < now()",
            ).await;
            deleted.is_err()
        }
        tamper(&raw, "SELECT 1").await;
    }
}
