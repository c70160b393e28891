//! One run's component, machine and proxy, and how to look at what it did.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Collector, Config, Error, MachineId, Process, Session, Tx, Unfinished, Work, machine};
use harness::{Fate, Fault, Passing, Proxy, Survey, TestDatabase, ada, of};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, Value};
use tokio::sync::Notify;

use super::operation::Operation;
use crate::world::{INTERVAL, LONG, tamper};

/// What an operation reported.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// It took effect.
    Done,
    /// It did not; in its words.
    NotDone(String),
    /// Nobody knows; in its words.
    Unknown(String),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::NotDone(words) => write!(f, "not done: {words}"),
            Self::Unknown(words) => write!(f, "unknown: {words}"),
        }
    }
}

impl Said {
    /// Of an operation that reports an error only when nothing was written, but for a commit of unknown outcome.
    pub(super) fn of<T>(result: Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(error @ Error::CommitUnknown { .. }) => Self::Unknown(format!("{error:?}")),
            Err(error) => Self::NotDone(format!("{error:?}")),
        }
    }

    /// Of an operation that may be repeated, and whose error promises nothing.
    pub(super) fn of_repeatable<T>(result: Result<T, Error>) -> Self {
        result.map_or_else(|error| Self::Unknown(format!("{error:?}")), |_| Self::Done)
    }

    /// Of two that are one.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown(words), _) | (_, Self::Unknown(words)) => Self::Unknown(words),
            (Self::NotDone(words), _) | (_, Self::NotDone(words)) => Self::NotDone(words),
            (Self::Done, Self::Done) => Self::Done,
        }
    }

    pub(super) fn of_end<T, P: Process>(result: Result<T, Unfinished<P>>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(unknown @ Unfinished::Unknown { .. }) => Self::Unknown(format!("{unknown:?}")),
            Err(other) => Self::NotDone(format!("{other:?}")),
        }
    }
}

/// At which statement something happens, counted from the operation's first, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strike {
    pub(super) place: usize,
    pub(super) trouble: Trouble,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Fault(Fault),
    /// Who awaits the operation drops it while the statement is on its way.
    CallerGone,
}

/// For how long a statement is on its way to which its caller is lost.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// What an operation finds when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// A work on the first machine.
    Work,
    /// A work on each machine.
    Works,
    /// A work of the other session.
    OthersWork,
    /// A work on the first machine in the session of another component, which is dead.
    DeadWork,
    /// A hold on the first machine.
    Hold,
    /// A work that has failed, so that a backoff is left.
    Backoff,
    /// A pause of the process.
    Pause,
    /// A work on the first machine that ended three days ago.
    OldHistory,
}

pub(super) struct Scene {
    pub(super) nth: usize,
    pub(super) bmdb: Bmdb,
    pub(super) session: Session,
    pub(super) machines: [MachineId; 2],
    works: Mutex<Vec<Work<Survey>>>,
    pub(super) started: Mutex<Option<Session>>,
    /// Has seen what is dead, and expires it when it sweeps next.
    pub(super) collector: tokio::sync::Mutex<Collector>,
    /// A second component's, never disturbed.
    pub(super) other: Session,
    pub(super) raw: DatabaseConnection,
    seen: Arc<Mutex<Seen>>,
    /// Told when its caller is to be gone.
    gone: Arc<Notify>,
    proxy: Proxy,
}

#[derive(Default)]
struct Seen {
    statements: Vec<bool>,
    struck: bool,
}

/// One number for each run, in a table that knows nothing of BMDB: a body that took effect twice shows.
pub(super) async fn make_counters(raw: &DatabaseConnection) {
    tamper(raw, "CREATE TABLE counter (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)").await;
}

impl Scene {
    pub(super) async fn new(db: &TestDatabase, nth: usize, needs: Needs) -> Self {
        let proxy = Proxy::to(db.url()).await;
        let raw = db.raw().await;
        let bmdb = Bmdb::connect(config(proxy.url(), component(nth)))
            .await
            .expect("the proxy is calm");
        let session = bmdb.start_session().await.expect("the proxy is calm");
        let other = Bmdb::connect(config(db.url(), format!("other-{nth}")))
            .await
            .expect("there is no proxy");
        let other = other.start_session().await.expect("there is no proxy");
        let provide = async |tx: &Tx| {
            let mut machines = [MachineId::random(); 2];
            for (place, machine) in machines.iter_mut().enumerate() {
                let new = machine::NewMachine::new("test", format!("{nth}-{place}"));
                *machine = machine::provide(tx, new).await?;
            }
            Ok::<_, Error>(machines)
        };
        let machines = other.transact(provide).await.expect("there is no proxy");
        tamper(&raw, &format!("INSERT INTO counter (id, n) VALUES ({nth}, 0)")).await;
        let scene = Self {
            nth,
            collector: tokio::sync::Mutex::new(bmdb.collector()),
            bmdb,
            session,
            machines,
            works: Mutex::default(),
            started: Mutex::default(),
            other,
            raw,
            seen: Arc::default(),
            gone: Arc::default(),
            proxy,
        };
        // Registered before anything happens: that is an operation of its own.
        let _known = (of::<Survey>(&scene.session).await, of::<Survey>(&scene.other).await);
        scene.prepare(needs).await;
        scene
    }

    async fn prepare(&self, needs: Needs) {
        // Others are busy in the same database, so it may take a few; and one that was not answered in time may hold it until it is released.
        let claim_nth = async |session: &Session, nth: usize| {
            let began = Instant::now();
            loop {
                match session
                    .claim(&of::<Survey>(&session).await)
                    .on(self.machines[nth])
                    .await
                {
                    Ok(Some(work)) => return work,
                    Ok(None) => assert!(began.elapsed() < LONG, "it is free"),
                    Err(error) => assert!(matches!(error, Error::Contended { .. }), "{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let claim = async |session: &Session| claim_nth(session, 0).await;
        match needs {
            Needs::Nothing => {}
            Needs::Works => {
                for nth in [1, 0] {
                    self.keep(claim_nth(&self.session, nth).await);
                }
            }
            Needs::Work => {
                self.keep(claim(&self.session).await);
            }
            Needs::OthersWork => {
                self.keep(claim(&self.other).await);
            }
            Needs::DeadWork => {
                // Its guard is kept, so that nothing but a collector ends it.
                self.keep(claim(&self.other).await);
                crate::world::kill_session(&self.raw, &self.other).await;
                let mut collector = self.collector.lock().await;
                let first = collector.sweep().await.expect("nothing fails yet");
                assert_eq!(first.expired, [], "one look is not enough");
                // As long as its interval, which is 200 ms by now.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Needs::Hold => {
                // A process must be known before a slot can be held; all slots need none.
                ada(&self.bmdb)
                    .place_hold(self.machines[0], bmdb::Hold::new())
                    .await
                    .expect("nothing fails yet");
            }
            Needs::Pause => {
                ada(&self.bmdb)
                    .pause_process("survey", bmdb::Until::Open)
                    .await
                    .expect("nothing fails yet");
            }
            Needs::OldHistory => {
                claim(&self.session).await.cancel().await.expect("nothing fails yet");
                tamper(&self.raw, "UPDATE work_history SET at = now() - INTERVAL '3 days'").await;
            }
            Needs::Backoff => {
                let work = claim(&self.session).await;
                work.fail("a test").await.expect("nothing fails yet");
                crate::world::park(&self.raw, self.machines[0], "survey").await;
            }
        }
    }

    /// The component's name.
    pub(super) fn component(&self) -> String {
        component(self.nth)
    }

    /// How the component connects.
    pub(super) fn config(&self) -> Config {
        config(self.proxy.url(), self.component())
    }

    /// Keeps a guard until the end.
    pub(super) fn keep(&self, work: Work<Survey>) -> Said {
        self.works.lock().unwrap().push(work);
        Said::Done
    }

    /// Takes a kept guard.
    pub(super) fn take(&self) -> Work<Survey> {
        self.works.lock().unwrap().pop().expect("the scene has a work")
    }

    /// Begins to count the statements of an operation, and has one of them fail.
    pub(super) fn arm(&self, operation: Operation, strike: Option<Strike>) {
        let (seen, gone) = (Arc::clone(&self.seen), Arc::clone(&self.gone));
        self.proxy.decide(move |passing: &Passing<'_>| {
            if is_heartbeat(passing.sql) != (operation == Operation::Heartbeat) || passing.sql.contains("SQLx ping") {
                return Fate::Pass;
            }
            let mut seen = seen.lock().unwrap();
            let place = seen.statements.len();
            seen.statements.push(passing.commits);
            match strike {
                Some(strike) if strike.place == place => {
                    seen.struck = true;
                    match strike.trouble {
                        Trouble::Fault(fault) => Fate::Fail(fault),
                        Trouble::CallerGone => {
                            gone.notify_one();
                            Fate::Delay(ON_ITS_WAY)
                        }
                    }
                }
                _ => Fate::Pass,
            }
        });
    }

    /// Waits until its caller is to be gone, which may never be.
    pub(super) async fn caller_gone(&self) {
        self.gone.notified().await;
    }

    pub(super) fn disarm(&self) -> (Vec<bool>, bool) {
        self.proxy.calm();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        (seen.statements, seen.struck)
    }

    /// Adds one to this run's counter.
    pub(super) async fn count(&self, tx: &Tx) -> Result<(), Error> {
        let id = i64::try_from(self.nth).expect("there are few runs");
        let statement = Statement::from_sql_and_values(
            tx.get_database_backend(),
            "UPDATE counter SET n = n + 1 WHERE id = $1",
            [id.into()],
        );
        tx.execute_raw(statement).await?;
        Ok(())
    }

    /// One number out of the database; `$1` is the first machine, `{nth}` this run's number.
    pub(super) async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("{nth}", &self.nth.to_string());
        let machine = sql.contains("$1").then(|| self.machines[0].into());
        number(&self.raw, &sql, machine).await
    }

    /// How often the operation took effect, once nothing more can change that.
    pub(super) async fn settled(&self, operation: &Operation, said: &Said) -> i64 {
        let mut found = operation.effect(self).await;
        if let Said::Done = said {
            // What was left to a task may take a moment; it cannot go on to happen twice.
            let limit = tokio::time::Instant::now() + LONG;
            while found == 0 && tokio::time::Instant::now() < limit {
                tokio::time::sleep(Duration::from_millis(50)).await;
                found = operation.effect(self).await;
            }
        }
        if let Said::Unknown(_) = said {
            // A commit may still be on its way.
            tokio::time::sleep(Duration::from_millis(500)).await;
            found = operation.effect(self).await;
        }
        found
    }

    /// Lets go of everything; says what is left that should not be.
    pub(super) async fn end(self, operation: Operation) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.session.lost().is_cancelled() {
            wrong.push("the session was lost".to_owned());
        }
        let is_to_die = matches!(
            operation,
            Operation::BreakSession | Operation::BreakHolder | Operation::Sweep
        );
        if self.other.lost().is_cancelled() && !is_to_die {
            wrong.push("the other session was lost".to_owned());
        }
        let session = self.session.id();
        // Their guards are dropped with them.
        drop((self.works.into_inner().unwrap(), self.started.into_inner().unwrap()));
        // What a closing session could not delete, because a transaction on a half-open connection keeps it, is expired by the collector.
        for session in [self.session, self.other] {
            if let Err(error) = session.close().await {
                eprintln!("component {}: {error}", self.nth);
            }
        }
        let works = format!("SELECT count(*) FROM work WHERE session_id = '{session}'");
        let gone = tokio::time::timeout(LONG, async {
            while number(&self.raw, &works, []).await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if gone.await.is_err() {
            wrong.push("a work is left".to_owned());
        }
        wrong
    }
}

async fn number(raw: &DatabaseConnection, sql: &str, values: impl IntoIterator<Item = Value>) -> i64 {
    let statement = Statement::from_sql_and_values(raw.get_database_backend(), sql, values);
    let row = raw.query_one_raw(statement).await.expect(sql).expect("it has a row");
    row.try_get_by_index(0).expect("it is a number")
}

fn component(nth: usize) -> String {
    format!("component-{nth}")
}

fn config(url: &str, component: String) -> Config {
    Config::new(url, component, "")
        .interval(INTERVAL)
        .statement_timeout(Duration::from_millis(1500))
        .acquire_timeout(Duration::from_millis(1500))
        .retry_budget(Duration::from_secs(6))
        .max_connections(2)
}

/// Heartbeats come when they come, and so do the pool's pings: neither is a statement of another operation.
fn is_heartbeat(sql: &str) -> bool {
    sql.contains("UPDATE session_lease SET deadline = greatest")
}
