//! Wall clocks that jump: the server's, and a component's.

use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bmdb::{CancellationToken, Error, Session, machine};
use bmdb_entity::session;
use harness::{Clock, OwnServer, bounded, check_history, until};
use sea_orm::{DatabaseConnection, EntityTrait};
use tokio::task::JoinSet;

use super::{NOISE, Scene, claim, connect, sees_a_heartbeat, takes_over};
use crate::failures::crash::Component;
use crate::world::{LONG, events, sessions, works};

const HOUR: i64 = 3600;
const INTERVAL: Duration = Duration::from_secs(4);

async fn is_in_the_database(raw: &DatabaseConnection, session: &Session) -> bool {
    let row = session::Entity::find_by_id(session.id()).one(raw).await.unwrap();
    row.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_an_hour_ahead_expires_nobody_who_still_believes() {
    bounded(async {
        let clock = Clock::right();
        let server = OwnServer::with_clock(&clock).await;
        let db = server.database();
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let other = connect(&db, INTERVAL).await.start_session().await.unwrap();
        let watcher = connect(&db, INTERVAL).await;
        let mut collector = watcher.collector();
        let work = claim(&scene.session).await;
        scene.sees_a_heartbeat().await;
        assert!(!collector.sweep().await.unwrap().braked);

        clock.set(HOUR);
        let jumped = Instant::now();
        assert!(
            collector.sweep().await.unwrap().braked,
            "the collector sees that the clock has jumped"
        );
        // Every deadline has passed: the heartbeats say so, and the sessions are lost. That is known, and safe.
        let mut lost = None;
        let mut braked = 0;
        let mut gone = [false, false];
        until("both are expired", 5 * INTERVAL + NOISE, async || {
            let swept = collector.sweep().await.unwrap();
            braked += u32::from(swept.braked);
            for (nth, session) in [&scene.session, &other].into_iter().enumerate() {
                if !is_in_the_database(&scene.raw, session).await {
                    assert!(session.trust_left().is_zero(), "it was expired and still believes");
                    gone[nth] = true;
                }
            }
            if scene.session.lost().is_cancelled() {
                lost.get_or_insert(jumped.elapsed());
            }
            gone == [true, true]
        })
        .await;
        eprintln!(
            "lost after {lost:?}, expired after {:?}, {braked} sweeps braked",
            jumped.elapsed()
        );
        assert!(braked > 0, "all looked dead at once");
        let new = watcher.start_session().await.unwrap();
        let again = takes_over(&new, INTERVAL).await;
        eprintln!("taken over {:?} after the jump", jumped.elapsed());
        assert!(again.fence() > work.fence());
        let refused = work.finish(async |_tx| Ok::<_, Error>(())).await;
        assert!(refused.is_err());
        let machine = again.machine();
        again.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        assert_eq!(
            events(&scene.raw, machine).await,
            ["started", "expired", "started", "finished"]
        );
        new.close().await.unwrap();
        other.close().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_holders_machine_is_taken_over_though_the_clock_went_back_an_hour() {
    bounded(async {
        let clock = Clock::right();
        let server = OwnServer::with_clock(&clock).await;
        let db = server.database();
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let bystander = connect(&db, INTERVAL).await.start_session().await.unwrap();
        let over = CancellationToken::new();
        let _collector = JoinSet::from_iter([scene.bmdb.collector().run(over.clone())]);
        let mut doomed = Component::start(&db, INTERVAL, &["hold"]);
        doomed.says("claimed").await;
        scene.sees_a_heartbeat().await;
        drop(doomed);
        clock.set(-HOUR);
        let began = Instant::now();
        // An interval of grace that begins anew with the jump, a period, a cool-down.
        let limit = INTERVAL * 2 + INTERVAL / 4;
        let again = takes_over(&scene.session, limit).await;
        eprintln!(
            "taken over {:?} after the death and the jump, of at most {limit:?}",
            began.elapsed()
        );
        // The living have beaten on through it.
        for session in [&scene.session, &bystander] {
            sees_a_heartbeat(&scene.raw, session).await;
            assert!(!session.lost().is_cancelled());
        }
        let machine = again.machine();
        again.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        assert_eq!(
            events(&scene.raw, machine).await,
            ["started", "expired", "started", "finished"]
        );
        over.cancel();
        bystander.close().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_a_jump_ended_stays_dead_when_the_clock_is_right_again() {
    bounded(async {
        let clock = Clock::right();
        let server = OwnServer::with_clock(&clock).await;
        let db = server.database();
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let doomed = connect(&db, INTERVAL).await.start_session().await.unwrap();
        let work = claim(&doomed).await;
        clock.set(HOUR);
        until("it is lost", LONG, async || doomed.lost().is_cancelled()).await;
        clock.set(0);
        assert!(is_in_the_database(&scene.raw, &doomed).await, "nobody has expired it");
        let refused = doomed.transact(machine::create).await;
        assert!(matches!(refused, Err(Error::SessionExpired { .. })), "{refused:?}");
        let refused = work.transact(machine::create).await;
        assert!(matches!(refused, Err(Error::SessionExpired { .. })), "{refused:?}");
        assert_eq!(scene.machines().await, 1);
        let new = connect(&db, INTERVAL).await;
        let session = new.start_session().await.unwrap();
        let second = new.start_session().await.unwrap();
        let mut collector = new.collector();
        let began = Instant::now();
        until("it is expired", 3 * INTERVAL + NOISE, async || {
            collector.sweep().await.unwrap();
            !is_in_the_database(&scene.raw, &doomed).await
        })
        .await;
        eprintln!("expired {:?} after the clock was right again", began.elapsed());
        let again = takes_over(&session, INTERVAL).await;
        assert!(again.fence() > work.fence());
        again.cancel().await.unwrap();
        for session in [session, second, doomed] {
            session.close().await.unwrap();
        }
        drop(work);
        scene.session.close().await.unwrap();
        assert_eq!((works(&scene.raw).await, sessions(&scene.raw).await), (0, 0));
        assert_eq!(check_history(&scene.raw).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_back_and_ahead_between_two_sweeps_expires_nobody() {
    bounded(async {
        let clock = Clock::right();
        let server = OwnServer::with_clock(&clock).await;
        let db = server.database();
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let mut collector = connect(&db, INTERVAL).await.collector();
        let work = claim(&scene.session).await;
        let began = Instant::now();
        let mut sweeps = 0;
        while began.elapsed() < 3 * INTERVAL {
            // The heartbeat in between cannot move the deadline beyond where it stood.
            clock.set(-HOUR);
            scene.sees_a_heartbeat().await;
            clock.set(0);
            let swept = collector.sweep().await.unwrap();
            assert_eq!(swept.expired, []);
            sweeps += 1;
            scene.sees_a_heartbeat().await;
        }
        assert!(sweeps > 3, "{sweeps} sweeps");
        assert!(!scene.session.lost().is_cancelled());
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_components_own_wall_clock_does_not_matter() {
    bounded(async {
        let db = harness::TestDatabase::migrated(harness::Backend::Postgres).await;
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let clock = Clock::right();
        clock.set(-HOUR);
        let mut component = Component::start_in(&clock.environment(), &db, INTERVAL, &["hold"]);
        component.says("claimed").await;
        // By its own clock it lives an hour ago.
        assert!(component.has_loaded("libfaketime"));
        let date = Command::new("date")
            .arg("+%s")
            .envs(clock.environment())
            .output()
            .unwrap();
        let date: i64 = String::from_utf8_lossy(&date.stdout).trim().parse().unwrap();
        let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        assert!((now - HOUR - date).abs() < 60, "{date} at {now}");
        let leases = async || {
            let leases = bmdb_entity::session_lease::Entity::find()
                .all(&scene.raw)
                .await
                .unwrap();
            let mut its = leases
                .into_iter()
                .filter(|lease| lease.session_id != scene.session.id());
            its.next().expect("it has a lease").deadline
        };
        for hours in [1, -2, 48, 0] {
            clock.set(hours * HOUR);
            let (began, mut beats, mut seen) = (Instant::now(), 0, leases().await);
            until("its heart has beaten for an interval", LONG, async || {
                let now = leases().await;
                beats += u32::from(now != seen);
                assert!(now >= seen);
                seen = now;
                began.elapsed() > INTERVAL && beats > 2
            })
            .await;
        }
        component.tell("write");
        let said = component.says("").await;
        assert_eq!(said, "wrote work.transact");
        component.says("wrote session.transact").await;
        component.says("wrote work.progress").await;
        component.says("wrote work.finish").await;
        assert_eq!(events(&scene.raw, scene.machines[0]).await, ["started", "finished"]);
        drop(component);
        assert_eq!(check_history(&scene.raw).await, Vec::<String>::new());
    })
    .await;
}
