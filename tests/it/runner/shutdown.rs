//! Ends of runners and of their sessions, which nobody may hold up.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken, Error, Runner, Work, Worker, agent_started};
use harness::{Backend, Fate, Fault, Proxy, TestDatabase, literal, on_each_backend, on_postgres, until};
use sea_orm::{EntityTrait, PaginatorTrait};

use super::{Endless, Starter, of, often, rated, start};
use crate::world::{
    AgentStart, LONG, Survey, config, connect, connect_to, events, kill_session, provide, session, sessions, tamper,
    works,
};

const SHORT: Duration = Duration::from_millis(200);

/// Blocks its thread the first time, until the test lets it go on; later it works until it is told to stop.
struct Blocking {
    has_begun: Arc<AtomicU32>,
    may_go_on: Mutex<Receiver<()>>,
}

impl Blocking {
    fn new() -> (Self, Arc<AtomicU32>, Sender<()>) {
        let (go_on, may_go_on) = channel();
        let has_begun = Arc::default();
        let blocking = Self {
            has_begun: Arc::clone(&has_begun),
            may_go_on: Mutex::new(may_go_on),
        };
        (blocking, has_begun, go_on)
    }
}

impl Worker for Blocking {
    type Process = Survey;
    type Outcome = ();

    async fn run(&self, work: &Work<Survey>) -> Result<(), String> {
        if self.has_begun.fetch_add(1, Ordering::SeqCst) > 0 {
            work.stop().cancelled().await;
            return Err("interrupted".to_owned());
        }
        // Whether it was told or the test is over.
        let _told = self.may_go_on.lock().unwrap().recv();
        Ok(())
    }
}

on_each_backend! {
    async fn who_blocks_a_thread_does_not_stop_the_runner_from_ending(db: TestDatabase) {
        let owner = session(&db).await;
        provide(&owner, 1).await;
        let raw = db.raw().await;
        let (blocking, has_begun, go_on) = Blocking::new();
        let (shutdown, mut running) = start(of(connect(&db).await, blocking, 1).await.drain(SHORT).grace(SHORT));
        until("the work has begun", LONG, async || has_begun.load(Ordering::SeqCst) == 1).await;
        shutdown.cancel();
        let ended = tokio::time::timeout(LONG, running.join_next()).await.expect("the runner ends in time");
        let counts = ended.unwrap().unwrap().unwrap()["survey"];
        assert_eq!((counts.claimed, counts.finished, counts.lost), (1, 0, 0), "it is still going on");
        assert_eq!(works(&raw).await, 1, "what it does to the machine goes on, so the machine stays held");
        go_on.send(()).unwrap();
        until("it is let go of, and the session is closed", LONG, async || works(&raw).await == 0 && sessions(&raw).await == 1).await;
    }

    async fn who_blocks_a_thread_keeps_its_machine_when_the_database_is_closed(db: TestDatabase) {
        let owner = session(&db).await;
        provide(&owner, 1).await;
        let raw = db.raw().await;
        let interval = Duration::from_secs(3);
        let (blocking, has_begun, go_on) = Blocking::new();
        let bmdb = Bmdb::connect(config(&db).interval(interval)).await.unwrap();
        let (shutdown, mut running) = start(of(bmdb.clone(), blocking, 1).await.drain(SHORT).grace(SHORT));
        until("the work has begun", LONG, async || has_begun.load(Ordering::SeqCst) == 1).await;
        shutdown.cancel();
        tokio::time::timeout(LONG, running.join_next()).await.expect("the runner ends in time").unwrap().unwrap().unwrap();
        tokio::time::timeout(LONG, bmdb.close()).await.expect("the database closes in time");
        // For longer than one heartbeat lasts.
        let mut collector = connect(&db).await.collector();
        let began = Instant::now();
        while began.elapsed() < 2 * interval {
            assert!(!collector.sweep().await.unwrap().braked);
            assert_eq!((works(&raw).await, sessions(&raw).await), (1, 2), "what it does to the machine goes on");
            tokio::time::sleep(interval / 10).await;
        }
        go_on.send(()).unwrap();
        until("nothing is left to hold the machine for", LONG, async || {
            collector.sweep().await.unwrap();
            works(&raw).await == 0
        }).await;
    }

    async fn other_workers_go_on_after_a_loss_beside_one_that_blocks_its_thread(db: TestDatabase) {
        let owner = session(&db).await;
        provide(&owner, 1).await;
        let raw = db.raw().await;
        let (blocking, has_begun, go_on) = Blocking::new();
        let bmdb = connect(&db).await;
        let agent_start = harness::of::<AgentStart>(&bmdb).await;
        let runner = of(bmdb, blocking, 1).await.worker(&agent_start, Starter::default(), often(1)).grace(SHORT).drain(SHORT);
        let (shutdown, mut running) = start(runner);
        until("the blocking work has begun", LONG, async || has_begun.load(Ordering::SeqCst) == 1).await;
        until("the other has worked", LONG, async || agent_started::Entity::find().count(&raw).await.unwrap() == 1).await;
        let work = bmdb_entity::work::Entity::find().one(&raw).await.unwrap().expect("it is held");
        tamper(&raw, &format!("DELETE FROM session WHERE session_id = {}", literal(&raw, work.session_id.0))).await;
        tamper(&raw, "DELETE FROM machine_agent_started").await;
        until("the other works in the next session", LONG, async || agent_started::Entity::find().count(&raw).await.unwrap() == 1).await;
        shutdown.cancel();
        tokio::time::timeout(LONG, running.join_next()).await.expect("the runner ends in time").unwrap().unwrap().unwrap();
        go_on.send(()).unwrap();
    }

    async fn a_runner_with_a_rate_that_is_none_does_not_begin(db: TestDatabase) {
        for rate in [0.0, -1.0, f64::NAN] {
            let runner = rated(connect(&db).await, Endless(Arc::default()), 1, rate).await;
            let refused = runner.run(CancellationToken::new()).await;
            assert!(matches!(refused, Err(Error::Invalid { what: "a rate", .. })), "{rate}: {refused:?}");
        }
    }

    async fn one_claim_in_an_age_is_one_claim(db: TestDatabase) {
        provide(&session(&db).await, 3).await;
        let begun = Arc::new(AtomicU32::new(0));
        let runner = rated(connect(&db).await, Endless(Arc::clone(&begun)), 3, 1e-30).await.drain(SHORT);
        let (shutdown, mut running) = start(runner);
        until("one has begun", LONG, async || begun.load(Ordering::SeqCst) > 0).await;
        shutdown.cancel();
        assert_eq!(running.join_next().await.unwrap().unwrap().unwrap()["survey"].claimed, 1);
    }

    async fn workers_of_one_process_are_counted_together(db: TestDatabase) {
        provide(&session(&db).await, 2).await;
        let begun = Arc::new(AtomicU32::new(0));
        let bmdb = connect(&db).await;
        let survey = harness::of::<Survey>(&bmdb).await;
        let runner = of(bmdb, Endless(Arc::clone(&begun)), 1).await.worker(&survey, Endless(Arc::clone(&begun)), often(1));
        let (shutdown, mut running) = start(runner.drain(SHORT));
        until("both have begun", LONG, async || begun.load(Ordering::SeqCst) == 2).await;
        shutdown.cancel();
        assert_eq!(running.join_next().await.unwrap().unwrap().unwrap()["survey"].canceled, 2);
    }
}

on_postgres! {
    async fn a_database_that_answers_no_more_does_not_stop_the_runner_from_ending(db: TestDatabase) {
        let machine = provide(&session(&db).await, 1).await[0];
        let raw = db.raw().await;
        let proxy = Proxy::to(db.url()).await;
        let begun = Arc::new(AtomicU32::new(0));
        let runner = of(connect_to(proxy.url()).await, Endless(Arc::clone(&begun)), 1).await.drain(SHORT).grace(SHORT);
        let (shutdown, mut running) = start(runner);
        until("the work has begun", LONG, async || begun.load(Ordering::SeqCst) == 1).await;
        proxy.decide(|_passing| Fate::Fail(Fault::HalfOpen));
        let told = Instant::now();
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["survey"];
        // A statement alone would be waited for for longer.
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert_eq!((counts.claimed, counts.lost), (1, 1), "its end is not known");
        assert_eq!(events(&raw, machine).await, ["started"]);
    }

    /// It needs none, and must not open one after the other.
    async fn a_runner_without_workers_collects_and_has_no_session(db: TestDatabase) {
        let dead = session(&db).await;
        provide(&dead, 1).await;
        let raw = db.raw().await;
        let _held = dead.claim(&harness::of::<AgentStart>(&dead).await).await.unwrap().expect("it is eligible");
        let _other = session(&db).await;
        kill_session(&raw, &dead).await;
        let proxy = Proxy::to(db.url()).await;
        let has_begun_one = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&has_begun_one);
        proxy.decide(move |passing| {
            seen.fetch_or(passing.sql.contains("INSERT INTO session"), Ordering::SeqCst);
            Fate::Pass
        });
        let (shutdown, mut running) = start(Runner::new(connect_to(proxy.url()).await));
        until("the dead one's work is ended", LONG, async || works(&raw).await == 0).await;
        shutdown.cancel();
        assert_eq!(running.join_next().await.unwrap().unwrap().unwrap().len(), 0);
        assert!(!has_begun_one.load(Ordering::SeqCst));
    }
}

#[tokio::test]
async fn a_runner_whose_file_was_replaced_ends() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    provide(&session(&db).await, 1).await;
    let begun = Arc::new(AtomicU32::new(0));
    let (_shutdown, mut running) = start(
        of(connect(&db).await, Endless(Arc::clone(&begun)), 1)
            .await
            .drain(SHORT),
    );
    until("the work has begun", LONG, async || begun.load(Ordering::SeqCst) == 1).await;
    let path = db.url().trim_start_matches("sqlite://").split('?').next().unwrap();
    std::fs::rename(path, format!("{path}.moved")).unwrap();
    let ended = tokio::time::timeout(LONG, running.join_next())
        .await
        .expect("the runner ends");
    assert!(matches!(ended.unwrap().unwrap(), Err(Error::FileReplaced { .. })));
}
