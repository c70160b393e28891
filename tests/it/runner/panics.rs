//! Authors' functions that panic.

use bmdb::{CancellationToken, Error, Facts, MachineId, Tx, Work, Worker, agent_started};
use bmdb_entity::work_backoff;
use harness::{Backend, TestDatabase, on_each_backend, until};
use sea_orm::{EntityTrait, PaginatorTrait};

use super::{of, start};
use crate::input::hostile::log::Kept;
use crate::world::{AgentStart, LONG, connect, events, provide, session};

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
    /// Without a backoff they would be claimed again at once, some hundred times a second.
    async fn a_panic_in_any_function_of_a_worker_fails_its_work_once(db: TestDatabase) {
        let machines = provide(&session(&db).await, 5).await;
        let raw = db.raw().await;
        let (shutdown, mut running) = start(of(connect(&db).await, Clumsy, 2).await);
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
    let runner = of(connect(&db).await, Clumsy, 1).await;
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
