//! Every operation of the public API that a component or an operator repeats, often enough for each plan that the server may choose.

use std::future::IntoFuture;
use std::time::Duration;

use bmdb::{Bmdb, Hold, MachineId, Process, Session, Until, Work, agent_heartbeat, agent_started, provided};
use harness::{ada, of, until};
use sea_orm::ColumnTrait;

use super::fleet::{due, in_work};
use super::scene::{HOUR, Scene, TIMES, take};
use crate::world::{AgentStart, LONG, kill_session, tamper};

/// All of them.
pub(crate) async fn run(scene: &mut Scene) {
    claims(scene).await;
    ends(scene).await;
    heartbeats(scene).await;
    operators(scene).await;
    wholes(scene).await;
    sessions(scene).await;
    collector(scene).await;
}

async fn start(scene: &Scene, name: &str) -> (Bmdb, Session) {
    let bmdb = scene.component(name, HOUR).await;
    let session = bmdb.start_session().await.unwrap();
    (bmdb, session)
}

/// No claim refreshes hints behind its own back while it is watched.
async fn searched_just_now(scene: &Scene) {
    tamper(&scene.raw, "UPDATE work_retrieval SET began_at = now()").await;
}

/// As often as [`TIMES`] on one of the four connections for the library's transactions and reads.
const OFTEN: u32 = 3 * TIMES as u32;

const BY_HINTS: &str = "DELETE FROM work_candidate WHERE ctid";
const CLAIM: &str = "INSERT INTO work (";
const END: &str = "DELETE FROM work USING to_end";

async fn claims(scene: &mut Scene) {
    let (_bmdb, session) = start(scene, "claims").await;
    for _ in 0..TIMES {
        tamper(&scene.raw, "DELETE FROM work_candidate").await;
        let claim = session.claim(&of::<AgentStart>(&session).await);
        let work = scene
            .watch("claim that searches", "SET ended = begun", claim.into_future())
            .await;
        work.unwrap().expect("some are due").cancel().await.unwrap();
    }
    searched_just_now(scene).await;
    let mut works = Vec::new();
    for _ in 0..TIMES {
        let claim = session.claim(&of::<AgentStart>(&session).await).into_future();
        works.push(
            scene
                .watch("claim by hints", BY_HINTS, claim)
                .await
                .unwrap()
                .expect("there are hints"),
        );
    }
    for work in works {
        work.cancel().await.unwrap();
    }
    for _ in 0..TIMES {
        let claim = session.claim_many(&of::<AgentStart>(&session).await, 10).into_future();
        let works = scene.watch("claim many", BY_HINTS, claim).await.unwrap();
        assert_eq!(works.len(), 10);
        for work in works {
            work.cancel().await.unwrap();
        }
    }
    let mut work = session
        .claim(&of::<AgentStart>(&session).await)
        .await
        .unwrap()
        .expect("there are hints");
    for _ in 0..TIMES {
        let end = work
            .fail("no answer")
            .stating(agent_heartbeat::row())
            .then(session.claim(&of::<AgentStart>(&session).await));
        let next = scene
            .watch("end with a fact, and claim", BY_HINTS, end)
            .await
            .unwrap()
            .unwrap();
        work = next.expect("there are hints");
    }
    work.cancel().await.unwrap();
    for _ in 0..TIMES {
        let works = session.claim_many(&of::<AgentStart>(&session).await, 10).await.unwrap();
        let ended = scene.watch("cancel many", END, Work::cancel_many(works)).await;
        assert!(ended.into_iter().all(|ended| ended.is_ok()));
    }
    for machine in due(&scene.raw, TIMES as u32).await {
        let claim = session
            .claim(&of::<AgentStart>(&session).await)
            .on(machine)
            .into_future();
        let work = scene.watch("claim on a machine", CLAIM, claim).await;
        work.unwrap().expect("it is due").cancel().await.unwrap();
    }
    for _ in 0..TIMES {
        let claim = session
            .claim(&of::<AgentStart>(&session).await)
            .filter(provided::Column::Status.eq("running"))
            .into_future();
        let work = scene.watch("claim with a filter", CLAIM, claim).await;
        work.unwrap().expect("some are due").cancel().await.unwrap();
    }
    session.close().await.unwrap();
}

async fn ends(scene: &mut Scene) {
    let (_bmdb, session) = start(scene, "ends").await;
    let machines: Vec<MachineId> = due(&scene.raw, 5 * TIMES as u32).await;
    for machine in &machines[..2 * TIMES] {
        let work = take(&session, *machine).await;
        scene
            .watch("progress", "UPDATE work SET progress", work.progress(&"half"))
            .await
            .unwrap();
        scene.watch("cancel", END, work.cancel()).await.unwrap();
        let work = take(&session, *machine).await;
        scene.watch("drop", END, async { drop(work) }).await;
        let work = take(&session, *machine).await;
        let read = work.transact(async |tx| bmdb::tag::get::<provided::Entity>(tx, *machine).await);
        scene
            .watch("transact", "machine_provided", read)
            .await
            .unwrap()
            .expect("it is provided");
        scene.watch("done", END, work.done()).await.unwrap();
    }
    for machine in &machines[2 * TIMES..4 * TIMES] {
        let work = take(&session, *machine).await;
        let finish = work.finish(async |tx| agent_started::set(tx, *machine, *b"key").await);
        scene.watch("finish", "machine_agent_started", finish).await.unwrap();
    }
    for machine in &machines[4 * TIMES..] {
        let work = take(&session, *machine).await;
        scene.watch("fail", END, work.fail("no answer")).await.unwrap();
    }
    session.close().await.unwrap();
}

async fn heartbeats(scene: &mut Scene) {
    let bmdb = scene.component("heartbeats", Duration::from_secs(3)).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(bmdb.start_session().await.unwrap());
    }
    for _ in 0..TIMES {
        scene
            .watch("heartbeat", "UPDATE session_lease SET deadline = greatest", async {})
            .await;
    }
    for session in sessions {
        session.close().await.unwrap();
    }
}

async fn operators(scene: &mut Scene) {
    let bmdb = scene.component("operator", HOUR).await;
    for machine in in_work(&scene.raw, OFTEN).await {
        let start = of::<AgentStart>(&bmdb).await;
        let explain = start.explain(machine);
        let explained = scene.watch("explain", "FROM work_hold", explain).await.unwrap();
        let holder = explained.holder.expect("it is in work");
        let history = scene
            .watch("history", "FROM work_history", bmdb.history(machine).into_future())
            .await;
        history.unwrap();
        let ada = ada(&bmdb);
        let hold = ada.place_hold(machine, Hold::new());
        scene
            .watch("place a hold", "INSERT INTO work_hold", hold)
            .await
            .unwrap();
        let drain = ada.drain_machine(machine, Hold::new());
        let asked = scene
            .watch("drain a machine", "UPDATE work SET stop_requested", drain)
            .await
            .unwrap();
        assert!(!asked.is_empty(), "it is in work");
        let lift = ada.lift_hold(machine, None);
        assert!(scene.watch("lift a hold", "DELETE FROM work_hold", lift).await.unwrap());
        let run = ada.run_now(machine, AgentStart::NAME);
        scene.watch("run now", "UPDATE work_backoff", run).await.unwrap();
        let clear = ada.clear_backoff(machine, AgentStart::NAME);
        scene
            .watch("clear a backoff", "DELETE FROM work_backoff", clear)
            .await
            .unwrap();
        scene
            .watch(
                "holds of a machine",
                "FROM work_hold",
                bmdb.holds(Some(machine)).into_future(),
            )
            .await
            .unwrap();
        scene
            .watch(
                "backoffs of a machine",
                "FROM work_backoff",
                bmdb.backoffs(Some(machine)).into_future(),
            )
            .await
            .unwrap();
        let acts = bmdb.operations(Some(machine)).into_future();
        let acts = scene
            .watch("operations of a machine", "FROM operation", acts)
            .await
            .unwrap();
        let last = acts.rows.last().expect("there are some");
        let older = bmdb.operations(None).after((last.at, last.operation_id)).into_future();
        scene.watch("older operations", "FROM operation", older).await.unwrap();
        let works = super::fleet::works_of(&scene.raw, holder.session).await;
        let ask = ada.ask_to_stop(works[0]);
        assert!(
            scene
                .watch("ask to stop", "UPDATE work SET stop_requested", ask)
                .await
                .unwrap()
        );
        let drained = ada.drain_session(holder.session);
        assert!(
            scene
                .watch("drain a session", "UPDATE session_lease SET drain_requested", drained)
                .await
                .unwrap()
                .is_some()
        );
        let broken = ada.break_session(holder.session);
        assert!(
            scene
                .watch("break a session", "SELECT machine_id, process FROM work", broken)
                .await
                .unwrap()
                .is_some()
        );
    }
}

/// What concerns a process as a whole, and what goes.
async fn wholes(scene: &mut Scene) {
    let bmdb = scene.component("operator", HOUR).await;
    let start = of::<AgentStart>(&bmdb).await;
    let ada = ada(&bmdb);
    for machine in due(&scene.raw, OFTEN).await {
        let pause = ada.pause_process(AgentStart::NAME, Until::Open);
        scene
            .watch("pause a process", "INSERT INTO process_pause", pause)
            .await
            .unwrap();
        let session = bmdb.start_session().await.unwrap();
        let claim = session.claim(&start).into_future();
        let claimed = scene.watch("claim of a paused process", CLAIM, claim).await;
        assert!(claimed.unwrap().is_none());
        session.close().await.unwrap();
        let resume = ada.resume_process(AgentStart::NAME);
        assert!(
            scene
                .watch("resume a process", "DELETE FROM process_pause", resume)
                .await
                .unwrap()
        );
        let remove = ada.remove_machine(machine);
        scene
            .watch("remove a machine", "DELETE FROM machine WHERE", remove)
            .await
            .unwrap();
    }
}

async fn sessions(scene: &mut Scene) {
    let bmdb = scene.component("sessions", HOUR).await;
    let machines = due(&scene.raw, OFTEN).await;
    for machine in machines {
        let session = scene
            .watch("start a session", "INSERT INTO session_lease", bmdb.start_session())
            .await
            .unwrap();
        let transact = session.transact(async |tx| bmdb::tag::get::<provided::Entity>(tx, machine).await);
        scene
            .watch("transact without work", "machine_provided", transact)
            .await
            .unwrap();
        let _lost = take(&session, machine).await;
        scene
            .watch("close a session", "DELETE FROM session WHERE", session.close())
            .await
            .unwrap();
    }
}

async fn collector(scene: &mut Scene) {
    let holders = scene.component("holders", HOUR).await;
    let bmdb = scene.component("collector", HOUR).await;
    let mut collector = bmdb.collector();
    let mut held = Vec::new();
    for machine in due(&scene.raw, OFTEN).await {
        let session = holders.start_session().await.unwrap();
        held.push((take(&session, machine).await, session));
    }
    // A few at a time, so that one connection expires often enough to plan for all values.
    for dead in held.chunks(2) {
        for (_work, session) in dead {
            kill_session(&scene.raw, session).await;
        }
        let mut expired = 0;
        let sweeps = async || {
            expired += collector.sweep().await.unwrap().expired.len();
            expired == dead.len()
        };
        let expire = until("they are expired", LONG, sweeps);
        scene.watch("collect", "DELETE FROM session WHERE", expire).await;
    }
}
