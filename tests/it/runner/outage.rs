//! A database that does not take the ends of works: what was established is kept, and no machine is blamed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdb::{Bmdb, CancellationToken, Config, Error, Facts, MachineId, Tx, Work, Worker, agent_started};
use bmdb_entity::work_backoff;
use harness::{Fate, Fault, Proxy, on_each_backend, on_postgres, until};
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait, TransactionTrait};

use super::{of, start};
use crate::world::{AgentStart, LONG, connect, events, provide, session, works};

/// How long one statement waits for a row, and for how long a call tries again.
const WAIT: Duration = Duration::from_secs(1);

/// A component that gives a call up soon, and whose session lives long.
async fn impatient(url: &str) -> Bmdb {
    let config = Config::new(url, "test", "")
        .interval(Duration::from_secs(120))
        .statement_timeout(WAIT)
        .retry_budget(WAIT);
    Bmdb::connect(config).await.expect("the test's database is good")
}

/// Ends when it may, in the way that the machine's name says: m0 states a fact, m1 has a commit phase, m2 fails; and so on with three more.
#[derive(Clone, Default)]
struct Ready {
    may_end: CancellationToken,
    runs: Arc<Mutex<HashMap<MachineId, u32>>>,
}

impl Ready {
    fn runs(&self) -> Vec<u32> {
        self.runs.lock().unwrap().values().copied().collect()
    }
}

impl Worker for Ready {
    type Process = AgentStart;
    type Outcome = u32;

    async fn run(&self, work: &Work<AgentStart>) -> Result<u32, String> {
        *self.runs.lock().unwrap().entry(work.machine()).or_default() += 1;
        self.may_end.cancelled().await;
        match work.provider_id[1..].parse::<u32>().expect("it is m and a number") % 3 {
            2 => Err("no answer".to_owned()),
            way => Ok(way),
        }
    }

    fn facts(&self, way: &u32) -> Option<Facts> {
        (*way == 0).then(|| agent_started::row("stated").into())
    }

    async fn commit(&self, tx: &Tx, machine: MachineId, _way: &u32) -> Result<(), Error> {
        agent_started::set(tx, machine, "committed").await
    }
}

on_each_backend! {
    /// Without more tries, three successes would become three failures with a backoff of an hour.
    async fn what_was_established_is_kept_while_the_database_takes_no_end(db: TestDatabase) {
        let machines = provide(&session(&db).await, 3).await;
        let raw = db.raw().await;
        let ready = Ready::default();
        let runner = of(impatient(db.url()).await, ready.clone(), 3).await;
        let (shutdown, mut running) = start(runner);
        until("all have begun", LONG, async || works(&raw).await == 3 && ready.runs().len() == 3).await;
        // Nobody else deletes these rows, and on SQLite nobody writes, for several times as long as a call tries.
        let holder = raw.begin().await.unwrap();
        holder.execute_unprepared("UPDATE work SET stop_requested = stop_requested").await.unwrap();
        ready.may_end.cancel();
        tokio::time::sleep(4 * WAIT).await;
        holder.rollback().await.unwrap();
        until("all have ended", LONG, async || works(&raw).await == 0).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed, counts.canceled, counts.lost), (3, 2, 1, 0, 0));
        assert_eq!(ready.runs(), [1, 1, 1], "nothing is done again");
        for (machine, end) in machines.iter().zip(["finished", "finished", "failed"]) {
            assert_eq!(events(&raw, *machine).await, ["started", end]);
        }
        assert_eq!(agent_started::Entity::find().count(&raw).await.unwrap(), 2);
        assert_eq!(work_backoff::Entity::find().count(&raw).await.unwrap(), 1, "only the machine that has failed");
    }

    async fn a_constraint_is_of_what_was_to_be_written(db: TestDatabase) {
        struct Wrong;
        impl Worker for Wrong {
            type Process = AgentStart;
            type Outcome = ();
            async fn run(&self, _work: &Work<AgentStart>) -> Result<(), String> { Ok(()) }
            async fn commit(&self, tx: &Tx, _machine: MachineId, (): &()) -> Result<(), Error> {
                agent_started::set(tx, MachineId::random(), "of no machine").await
            }
        }
        let machine = provide(&session(&db).await, 1).await[0];
        let raw = db.raw().await;
        let (shutdown, mut running) = start(of(connect(&db).await, Wrong, 1).await);
        until("it has failed", LONG, async || events(&raw, machine).await == ["started", "failed"]).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed, counts.lost), (1, 0, 1, 0));
    }
}

/// Whether it is an end's own statement, not that of a release or a collector.
fn is_end(sql: &str) -> bool {
    sql.contains("DELETE FROM work USING") || sql.contains("DELETE FROM work WHERE work_id")
}

on_postgres! {
    async fn no_machine_is_blamed_for_what_the_database_cannot_do(db: TestDatabase) {
        // A full disk, a statement that took too long, a failed disk, a server that shuts down, one that can only be read, lost races, a damaged page, a right
        // and a column that are missing.
        let codes = ["53100", "57014", "58030", "57P01", "25006", "40001", "55P03", "XX001", "42501", "42703"];
        provide(&session(&db).await, 6).await;
        let proxy = Proxy::to(db.url()).await;
        let left = Arc::new(Mutex::new(codes.repeat(2)));
        let faults = Arc::clone(&left);
        proxy.decide(move |passing| match faults.lock().unwrap().pop_if(|_| is_end(passing.sql)) {
            Some(code) => Fate::Fail(Fault::Refused(code)),
            None => Fate::Pass,
        });
        let raw = db.raw().await;
        let ready = Ready::default();
        ready.may_end.cancel();
        let (shutdown, mut running) = start(of(impatient(proxy.url()).await, ready.clone(), 6).await);
        until("all have ended", 2 * LONG, async || {
            agent_started::Entity::find().count(&raw).await.unwrap() == 4 && work_backoff::Entity::find().count(&raw).await.unwrap() == 2
        }).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed, counts.canceled, counts.lost), (6, 4, 2, 0, 0));
        assert!(left.lock().unwrap().is_empty(), "all faults were met");
    }

    /// Called lost, the work would be canceled and done again where the end had not taken effect.
    async fn an_end_of_unknown_outcome_is_settled_by_the_next_try(db: TestDatabase) {
        let machines = provide(&session(&db).await, 6).await;
        let proxy = Proxy::to(db.url()).await;
        let is_down = Arc::new(Mutex::new(false));
        let down = Arc::clone(&is_down);
        let mut nth = 0;
        proxy.decide(move |passing| {
            let mut down = down.lock().unwrap();
            let settles = passing.sql.contains("stop_requested = stop_requested");
            if passing.commits && (is_end(passing.sql) || *down && passing.sql.contains("COMMIT")) && !settles {
                *down = true;
                nth += 1;
                return Fate::Fail(if nth % 2 == 0 { Fault::DropBefore } else { Fault::DropAfter });
            }
            if *down && settles { Fate::Fail(Fault::DropBefore) } else { Fate::Pass }
        });
        let raw = db.raw().await;
        let ready = Ready::default();
        let (shutdown, mut running) = start(of(impatient(proxy.url()).await, ready.clone(), 6).await);
        until("all have begun", LONG, async || works(&raw).await == 6 && ready.runs().len() == 6).await;
        ready.may_end.cancel();
        until("an end was not answered", LONG, async || *is_down.lock().unwrap()).await;
        // Longer than an end tries to find out what became of it.
        tokio::time::sleep(4 * WAIT).await;
        proxy.calm();
        until("all have ended", LONG, async || works(&raw).await == 0).await;
        shutdown.cancel();
        let counts = running.join_next().await.unwrap().unwrap().unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed, counts.canceled, counts.lost), (6, 4, 2, 0, 0));
        assert_eq!(ready.runs(), [1; 6], "nothing is done again");
        for (nth, machine) in machines.iter().enumerate() {
            assert_eq!(events(&raw, *machine).await, ["started", if nth % 3 == 2 { "failed" } else { "finished" }]);
        }
    }
}
