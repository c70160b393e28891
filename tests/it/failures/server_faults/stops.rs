//! A server that stops or crashes and comes back, soon or late.

use std::time::{Duration, Instant};

use bmdb::{Error, Unfinished, agent_started, machine};
use bmdb_entity::work_history;
use harness::{OwnServer, Stop, bounded, of, until};
use sea_orm::EntityTrait;

use super::{NOISE, Scene, claim, connect, takes_over, within};
use crate::world::{AgentStart, LONG, events};

/// Long enough for a server to recover on a busy machine.
const INTERVAL: Duration = Duration::from_secs(15);
/// Soon over.
const SHORT: Duration = Duration::from_secs(3);

async fn sessions_survive(how: Stop) {
    let server = OwnServer::start().await;
    let scene = Scene::on(&server.database(), INTERVAL, 2).await;
    let work = claim(&scene.session).await;
    scene.sees_a_heartbeat().await;
    let began = Instant::now();
    server.stop(how).await;
    let start = of::<AgentStart>(&scene.bmdb).await;
    // Calls that are made meanwhile wait, for a transaction and for a read.
    let (made, count, ()) = tokio::join!(work.transact(machine::create), start.count(), server.start_again());
    let away = began.elapsed();
    made.unwrap();
    assert_eq!(count.unwrap(), 1);
    eprintln!("{how:?}: the server was away for {away:?}");
    scene.sees_a_heartbeat().await;
    eprintln!("{how:?}: the heart beats again after {:?}", began.elapsed());
    assert!(!scene.session.lost().is_cancelled(), "away for {away:?}");
    assert_eq!(scene.machines().await, 3, "one was made while it was away, once");
    let machine = work.machine();
    work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
        .await
        .unwrap();
    assert_eq!(events(&scene.raw, machine).await, ["started", "finished"]);
    let next = claim(&scene.session).await;
    assert_ne!(next.machine(), machine);
    next.cancel().await.unwrap();
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_work_survive_a_restart_of_the_server() {
    bounded(sessions_survive(Stop::Fast)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_work_survive_an_immediate_stop_of_the_server() {
    bounded(sessions_survive(Stop::Immediate)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_work_survive_a_killed_server() {
    bounded(sessions_survive(Stop::Kill)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_lost_in_time_when_the_server_stays_away() {
    bounded(async {
        let server = OwnServer::start().await;
        let scene = Scene::on(&server.database(), SHORT, 1).await;
        let work = claim(&scene.session).await;
        let (machine, fence) = (work.machine(), work.fence());
        scene.sees_a_heartbeat().await;
        let last = Instant::now();
        let lost = scene.session.lost();
        let ending = async {
            server.stop(Stop::Immediate).await;
            let late = work.finish(async |tx| agent_started::set(tx, machine, *b"late").await);
            within(SHORT + NOISE, late).await.0
        };
        let losing = async {
            lost.cancelled().await;
            last.elapsed()
        };
        let (ended, lost_after) = tokio::join!(ending, losing);
        eprintln!("lost {lost_after:?} after the last heartbeat, interval {SHORT:?}");
        assert!(lost_after <= SHORT, "lost {lost_after:?} after the last heartbeat");
        assert!(
            matches!(ended, Err(Unfinished::Over(Error::SessionExpired { .. }))),
            "{ended:?}"
        );
        // It does not ask a server any more.
        let (refused, _) = within(NOISE, scene.session.transact(machine::create)).await;
        assert!(matches!(refused, Err(Error::SessionExpired { .. })), "{refused:?}");
        // Meanwhile others are told what it is.
        let (unread, took) = within(LONG, of::<AgentStart>(&scene.bmdb).await.count()).await;
        assert!(matches!(unread, Err(Error::Database { .. })), "{unread:?}");
        eprintln!("a read gave up after {took:?}");

        server.start_again().await;
        let began = Instant::now();
        let other = connect(&server.database(), SHORT).await;
        let (new, same) = (
            other.start_session().await.unwrap(),
            scene.bmdb.start_session().await.unwrap(),
        );
        let mut collector = other.collector();
        until("the lost session is expired", 3 * SHORT + NOISE, async || {
            collector.sweep().await.unwrap().expired == [scene.session.id()]
        })
        .await;
        let again = takes_over(&new, SHORT).await;
        eprintln!("taken over {:?} after the server came back", began.elapsed());
        assert!(again.fence() > fence);
        again
            .finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        assert_eq!(
            events(&scene.raw, machine).await,
            ["started", "expired", "started", "finished"]
        );
        let keys = agent_started::Entity::find().all(&scene.raw).await.unwrap();
        assert!(keys.len() == 1 && keys[0].public_key == b"key", "{keys:?}");
        assert_eq!(scene.machines().await, 1, "the lost session made none");
        let by_the_lost = work_history::Entity::find().all(&scene.raw).await.unwrap();
        assert_eq!(
            by_the_lost
                .iter()
                .filter(|row| row.session_id == scene.session.id())
                .count(),
            2
        );
        same.transact(machine::create).await.unwrap();
        same.close().await.unwrap();
        new.close().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}
