//! The runner: what a component author gets without writing a loop.

mod outage;
mod panics;
mod shutdown;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdb::{
    Bmdb, CancellationToken, Counts, Error, MachineId, Process, Runner, Tx, Work, Worker, WorkerOptions, agent_started,
};
use bmdb_entity::work_backoff;
use harness::{ada, literal, on_each_backend, until};
use sea_orm::{EntityTrait, PaginatorTrait};
use tokio::task::JoinSet;

use crate::world::{
    AgentStart, LONG, Survey, connect, events, kill_session, provide, session, sessions, tamper, works,
};

/// Starts agents; how each machine fares is told by its name.
#[derive(Clone, Default)]
struct Starter {
    running: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
    seen: Arc<Mutex<HashSet<MachineId>>>,
}

impl Worker for Starter {
    type Process = AgentStart;
    type Outcome = Vec<u8>;

    async fn run(&self, work: &Work<AgentStart>) -> Result<Vec<u8>, String> {
        self.most
            .fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.seen.lock().unwrap().insert(work.machine());
        match work.provider_id.as_str() {
            "m1" => Err("no answer".to_owned()),
            "m2" => panic!("a test's panic"),
            name => Ok(name.as_bytes().to_vec()),
        }
    }

    async fn commit(&self, tx: &Tx, machine: MachineId, key: &Vec<u8>) -> Result<(), Error> {
        if key == b"m3" {
            return Err(Error::UnknownMachine { machine });
        }
        agent_started::set(tx, machine, key.clone()).await
    }
}

/// Works until it is told to stop.
struct Endless(Arc<AtomicU32>);

impl Worker for Endless {
    type Process = Survey;
    type Outcome = ();

    async fn run(&self, work: &Work<Survey>) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        work.stop().cancelled().await;
        Err("interrupted".to_owned())
    }

    async fn commit(&self, _tx: &Tx, _machine: MachineId, _outcome: &()) -> Result<(), Error> {
        Ok(())
    }
}

type Ended = JoinSet<Result<std::collections::HashMap<&'static str, Counts>, Error>>;

/// A worker that looks for machines often.
pub(crate) fn often(parallel: usize) -> WorkerOptions {
    WorkerOptions {
        parallel,
        poll: Duration::from_millis(50),
        ..Default::default()
    }
}

/// A runner of one worker.
pub(crate) async fn of<W: Worker<Process: Default>>(bmdb: Bmdb, worker: W, parallel: usize) -> Runner {
    let process = harness::of::<W::Process>(&bmdb).await;
    Runner::new(bmdb).worker(&process, worker, often(parallel))
}

/// The same, which claims so many machines a second at most.
pub(crate) async fn rated<W: Worker<Process: Default>>(bmdb: Bmdb, worker: W, parallel: usize, rate: f64) -> Runner {
    let process = harness::of::<W::Process>(&bmdb).await;
    let options = WorkerOptions {
        rate: Some(rate),
        ..often(parallel)
    };
    Runner::new(bmdb).worker(&process, worker, options)
}

/// Runs in the background and answers the counts.
fn start(runner: Runner) -> (CancellationToken, Ended) {
    let shutdown = CancellationToken::new();
    (shutdown.clone(), JoinSet::from_iter([runner.run(shutdown)]))
}

on_each_backend! {
    async fn every_machine_is_worked_on_and_every_end_is_told(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 10).await;
        let raw = db.raw().await;
        let starter = Starter::default();
        let (shutdown, mut running) = start(of(connect(&db).await, starter.clone(), 3).await);
        until("all are worked on", LONG, async || {
            agent_started::Entity::find().count(&raw).await.unwrap() == 7 && work_backoff::Entity::find().count(&raw).await.unwrap() == 3
        }).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed, counts.panicked), (10, 7, 3, 1));
        assert_eq!(starter.seen.lock().unwrap().len(), 10);
        assert!((2..=3).contains(&starter.most.load(Ordering::SeqCst)), "three at once at most, and not one by one");
        let cause = async |nth: usize| work_backoff::Entity::find_by_id((machines[nth], "agent-start".to_owned())).one(&raw).await.unwrap().unwrap().cause;
        assert_eq!(cause(1).await, "no answer");
        assert_eq!(cause(2).await, "the worker panicked: a test's panic");
        assert!(cause(3).await.contains("there is no machine"), "the commit phase failed");
        assert_eq!(events(&raw, machines[2]).await, ["started", "failed"]);
        assert_eq!(sessions(&raw).await, 1, "the runner's session is closed");
    }

    async fn a_component_whose_session_an_operator_drains_ends_what_it_has_and_takes_no_more(db: TestDatabase) {
        let bmdb = connect(&db).await;
        provide(&session(&db).await, 3).await;
        let begun = Arc::new(AtomicU32::new(0));
        let (shutdown, mut running) = start(of(connect(&db).await, Endless(Arc::clone(&begun)), 2).await);
        until("two are worked on", LONG, async || begun.load(Ordering::SeqCst) == 2).await;
        let works = bmdb.works(bmdb::WorksOf::All).await.unwrap().rows;
        let drained = works[0].session;
        let held = ada(&bmdb).drain_session(drained).await.unwrap().expect("it lives");
        assert_eq!((held.component_name.as_str(), held.works.len()), ("test", 2));
        until("it is seen to drain", LONG, async || {
            let sessions = bmdb.sessions().await.unwrap().rows;
            sessions.iter().find(|row| row.session == drained).unwrap().drain_requested.as_deref() == Some("a test")
        }).await;
        // The heartbeat that tells it of these tells it of the drain first.
        for work in &works {
            ada(&bmdb).ask_to_stop(work.work).await.unwrap();
        }
        until("both have ended", LONG, async || bmdb.works(bmdb::WorksOf::All).await.unwrap().rows.is_empty()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(begun.load(Ordering::SeqCst), 2, "the third machine is left to others");
        let sessions = bmdb.sessions().await.unwrap().rows;
        let own: Vec<_> = sessions.iter().filter(|row| row.component == "test" && row.session == drained).collect();
        assert_eq!((own.len(), own[0].works), (1, 0), "it lives on, and starts no other");
        // Nor when that session is lost: who drained it did not mean another to come.
        ada(&bmdb).break_session(drained).await.unwrap().expect("it lives");
        until("it is over", LONG, async || bmdb.sessions().await.unwrap().rows.iter().all(|row| row.session != drained || row.left() <= Some(chrono::TimeDelta::zero()))).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(begun.load(Ordering::SeqCst), 2, "the third machine is still left to others");
        assert!(running.try_join_next().is_none(), "it idles until it is told to end");
        shutdown.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
        assert!(ada(&bmdb).drain_session(drained).await.unwrap().is_none(), "it is gone");
    }

    async fn shutdown_drains_then_stops_and_cancels(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let begun = Arc::new(AtomicU32::new(0));
        let runner = of(connect(&db).await, Endless(Arc::clone(&begun)), 1).await.drain(Duration::from_millis(100));
        let (shutdown, mut running) = start(runner);
        until("the work has begun", LONG, async || begun.load(Ordering::SeqCst) == 1).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["survey"];
        assert_eq!((counts.claimed, counts.canceled, counts.failed), (1, 1, 0), "being interrupted is not a failure");
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
        assert_eq!(works(&raw).await, 0);
    }

    async fn a_lost_session_is_replaced(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let begun = Arc::new(AtomicU32::new(0));
        let (shutdown, mut running) = start(of(connect(&db).await, Endless(Arc::clone(&begun)), 1).await);
        until("the work has begun", LONG, async || begun.load(Ordering::SeqCst) == 1).await;
        let work = bmdb_entity::work::Entity::find().one(&raw).await.unwrap().expect("it is held");
        let is_it = literal(&raw, work.session_id.0);
        tamper(&raw, &format!("DELETE FROM session WHERE session_id = {is_it}")).await;
        until("a new session works on it", LONG, async || begun.load(Ordering::SeqCst) == 2).await;
        shutdown.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
    }

    async fn the_collector_is_on_by_default(db: TestDatabase) {
        let dead = session(&db).await;
        provide(&dead, 1).await;
        let raw = db.raw().await;
        let _held = dead.claim(&harness::of::<AgentStart>(&dead).await).await.unwrap().expect("it is eligible");
        let _other = session(&db).await;
        kill_session(&raw, &dead).await;
        let starter = Starter::default();
        let (shutdown, mut running) = start(of(connect(&db).await, starter, 1).await);
        until("the dead one's machine is worked on", LONG, async || agent_started::Entity::find().count(&raw).await.unwrap() == 1).await;
        shutdown.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
    }

    async fn claims_keep_to_the_rate(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 20).await;
        let begun = Arc::new(AtomicU32::new(0));
        let runner = rated(connect(&db).await, Endless(Arc::clone(&begun)), 20, 4.0).await.drain(Duration::ZERO);
        let started = std::time::Instant::now();
        let (shutdown, mut running) = start(runner);
        until("five have begun", LONG, async || begun.load(Ordering::SeqCst) >= 5).await;
        assert!(started.elapsed() >= Duration::from_millis(999), "the fifth comes a second after the first");
        shutdown.cancel();
        running.join_next().await.unwrap().unwrap().unwrap();
    }

    async fn what_will_not_mend_itself_ends_the_runner(db: TestDatabase) {
        let begun = Arc::new(AtomicU32::new(0));
        let of_another = harness::of::<Survey>(&connect(&db).await).await;
        let runner = Runner::new(connect(&db).await).worker(&of_another, Endless(Arc::clone(&begun)), often(1));
        let ended = runner.run(CancellationToken::new()).await;
        assert!(matches!(ended, Err(Error::OtherDatabase { process: "survey" })), "{ended:?}");
    }

    async fn a_work_that_runs_too_long_is_told_to_stop(db: TestDatabase) {
        #[derive(Default)]
        struct Brief;
        impl Process for Brief {
            const NAME: &'static str = "brief";
            const MAX_RUN: Option<Duration> = Some(Duration::from_millis(200));
            type Item = bmdb::machine::Model;
            fn eligible(&self, machines: bmdb::Eligible) -> bmdb::Eligible { machines }
        }
        let session = session(&db).await;
        provide(&session, 1).await;
        let work = session.claim(&harness::of::<Brief>(&session).await).await.unwrap().expect("it is eligible");
        tokio::time::timeout(LONG, work.stop().cancelled_owned()).await.expect("it is told to stop");
        assert_eq!(work.stop_reason(), Some(bmdb::StopReason::MaxRun));
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        // The session's watch sleeps for a second, and has just begun to when one is told.
        let mut soonest = LONG;
        for _ in 0..5 {
            let work = session.claim(&harness::of::<Brief>(&session).await).await.unwrap().expect("it is eligible");
            tokio::time::timeout(LONG, work.stop().cancelled_owned()).await.expect("it is told to stop");
            let held = session.held().pop().expect("it is held").held_for;
            soonest = soonest.min(held);
            work.done().await.unwrap();
        }
        assert!(soonest < Duration::from_millis(700), "{soonest:?}");
    }
}
