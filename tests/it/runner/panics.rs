//! Authors' functions that panic.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmdb::{
    CancellationToken, Eligible, Error, Facts, MachineId, Process, Runner, Tx, Work, Worker, agent_started, machine,
};
use bmdb_entity::work_backoff;
use harness::{Backend, TestDatabase, on_each_backend, until};
use sea_orm::{EntityTrait, PaginatorTrait};

use super::start;
use crate::hostile::log::Kept;
use crate::world::{AgentStart, LONG, Survey, connect, events, provide, session};

/// Panics where the machine's name says.
struct Clumsy;

/// The machine's name.
struct Outcome(String);

impl Drop for Outcome {
    fn drop(&mut self) {
        assert_ne!(self.0, "m3", "in drop");
    }
}

impl Worker for Clumsy {
    type Process = AgentStart;
    type Outcome = Outcome;

    async fn run(&self, work: &Work<AgentStart>) -> Result<Outcome, String> {
        assert_ne!(work.provider_id, "m0", "in run");
        Ok(Outcome(work.provider_id.clone()))
    }

    fn facts(&self, outcome: &Outcome) -> Option<Facts> {
        assert_ne!(outcome.0, "m1", "in facts");
        (outcome.0 == "m4").then(|| agent_started::row("m4").into())
    }

    async fn commit(&self, tx: &Tx, machine: MachineId, outcome: &Outcome) -> Result<(), Error> {
        agent_started::set(tx, machine, outcome.0.as_str()).await?;
        assert_ne!(outcome.0, "m2", "in commit");
        Ok(())
    }
}

on_each_backend! {
    /// Before, those of `facts` and `commit` were claimed again at once: 725 and 862 times in 5 s at a backoff of one hour.
    async fn a_panic_in_any_function_of_a_worker_fails_its_work_once(db: TestDatabase) {
        let machines = provide(&session(&db).await, 5).await;
        let raw = db.raw().await;
        let (shutdown, mut running) = start(Runner::new(connect(&db).await).worker(Clumsy, 2).poll(Duration::from_millis(50)));
        until("all are worked on", LONG, async || {
            agent_started::Entity::find().count(&raw).await.unwrap() == 2 && work_backoff::Entity::find().count(&raw).await.unwrap() == 3
        }).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed, counts.canceled, counts.lost), (5, 2, 3, 0, 0));
        assert_eq!(counts.panicked, 4, "one has panicked after its work had ended");
        for (nth, place) in ["run", "facts", "commit"].into_iter().enumerate() {
            assert_eq!(events(&raw, machines[nth]).await, ["started", "failed"], "m{nth}");
            let backoff = work_backoff::Entity::find_by_id((machines[nth], "agent-start".to_owned())).one(&raw).await.unwrap();
            let cause = backoff.expect("it has failed").cause;
            assert!(cause.starts_with("the worker panicked: ") && cause.contains(&format!("in {place}")), "{cause}");
        }
        for machine in &machines[3..] {
            assert_eq!(events(&raw, *machine).await, ["started", "finished"]);
        }
    }
}

/// Panics whenever it is asked for the first of two times.
struct Shy;

static ASKED: AtomicU32 = AtomicU32::new(0);

impl Process for Shy {
    const NAME: &'static str = "shy";
    type Item = machine::Model;

    fn eligible(machines: Eligible<Self>) -> Eligible<Self> {
        assert!(ASKED.fetch_add(1, Ordering::SeqCst) > 1, "too shy");
        machines
    }
}

/// Counts its works.
struct Counting<P>(&'static AtomicU32, std::marker::PhantomData<P>);

impl<P: Process + Sync> Worker for Counting<P> {
    type Process = P;
    type Outcome = ();

    async fn run(&self, work: &Work<P>) -> Result<(), String> {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            work.stop().cancelled().await;
        }
        Ok(())
    }
}

// One thread runs the whole test, so that all of it is heard.
#[tokio::test]
async fn a_lane_that_panics_begins_anew_and_stops_no_other() {
    static OF_SHY: AtomicU32 = AtomicU32::new(0);
    static OF_SURVEY: AtomicU32 = AtomicU32::new(0);
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let kept = Kept::default();
    let _listening = kept.listen();
    provide(&session(&db).await, 2).await;
    let runner = Runner::new(connect(&db).await)
        .worker(Counting::<Shy>(&OF_SHY, std::marker::PhantomData), 1)
        .worker(Counting::<Survey>(&OF_SURVEY, std::marker::PhantomData), 1)
        .poll(Duration::from_millis(50));
    let shutdown = CancellationToken::new();
    let watch = async {
        until("both work", LONG, async || {
            OF_SHY.load(Ordering::SeqCst) > 0 && OF_SURVEY.load(Ordering::SeqCst) > 0
        })
        .await;
        shutdown.cancel();
    };
    let (counts, ()) = tokio::join!(runner.run(shutdown.clone()), watch);
    let counts = counts.unwrap();
    assert!(counts["shy"].claimed > 0 && counts["survey"].claimed > 0, "{counts:?}");
    let log = kept.text();
    let told = log
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains("shy") && line.contains("too shy"));
    assert_eq!(told.count(), 2, "{log}");
}

// As above.
#[tokio::test]
async fn a_panic_of_a_worker_is_logged_with_its_place() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let kept = Kept::default();
    let _listening = kept.listen();
    let machine = provide(&session(&db).await, 1).await[0];
    let raw = db.raw().await;
    let shutdown = CancellationToken::new();
    let watch = async {
        until("it has failed", LONG, async || {
            events(&raw, machine).await == ["started", "failed"]
        })
        .await;
        shutdown.cancel();
    };
    let runner = Runner::new(connect(&db).await).worker(Clumsy, 1);
    let (counts, ()) = tokio::join!(runner.run(shutdown.clone()), watch);
    assert_eq!(counts.unwrap()["agent-start"].panicked, 1);
    let log = kept.text();
    let told = log.lines().filter(|line| line.contains("ERROR"));
    let told: Vec<&str> = told.collect();
    assert_eq!(told.len(), 1, "{log}");
    for word in ["agent-start", "run", "in run", &machine.to_string()] {
        assert!(told[0].contains(word), "{} has no {word}", told[0]);
    }
}
