//! Components that die, freeze and end: what becomes of what they held, and of what they write too late.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken, Error, MachineId, Process, Session, agent_heartbeat, agent_started};
use bmdb_entity::work_history::{self, Event};
use bmdb_entity::{session_lease, work, work_hold};
use harness::{Clock, NOISE, SmallDisk, TestDatabase, check_history, of, on_each_backend, on_postgres, until};
use sea_orm::{ColumnTrait, DatabaseConnection, EntityTrait, PaginatorTrait, QueryFilter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::world::{AgentStart, LONG, config, events, provide, sessions, works};

/// The interval of these sessions, and of the collector's period by default: a quarter.
const INTERVAL: Duration = Duration::from_secs(3);
const PERIOD: Duration = Duration::from_millis(750);
/// L1: interval + grace + collector period + cool-down, where the grace is the interval that a collector may wait once more.
const TAKEOVER: Duration = INTERVAL
    .saturating_add(INTERVAL)
    .saturating_add(PERIOD)
    .saturating_add(AgentStart::COOL_DOWN);

const BINARY: &str = env!("CARGO_BIN_EXE_component");

/// A component that runs as a process of its own.
pub(crate) struct Component {
    child: Child,
    told: ChildStdin,
    says: mpsc::UnboundedReceiver<String>,
}

impl Component {
    pub(crate) fn start(db: &TestDatabase, interval: Duration, task: &[&str]) -> Self {
        Self::start_in(&[], db, interval, task)
    }

    /// With more in its environment.
    pub(crate) fn start_in(
        environment: &[(&str, String)],
        db: &TestDatabase,
        interval: Duration,
        task: &[&str],
    ) -> Self {
        let mut component = Command::new(BINARY);
        component.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::run(component, db.url(), interval, task)
    }

    /// On a disk of a test's own.
    pub(crate) fn start_on(disk: &SmallDisk, url: &str, interval: Duration, task: &[&str]) -> Self {
        Self::run(disk.enter(BINARY), url, interval, task)
    }

    fn run(mut component: Command, url: &str, interval: Duration, task: &[&str]) -> Self {
        let mut child = component
            .args([url, &interval.as_millis().to_string()])
            .args(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("our own binary can be started");
        let told = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sayer, says) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sayer.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, told, says }
    }

    /// What it says next that begins with `word`; what it says before that is passed over.
    pub(crate) async fn says(&mut self, word: &str) -> String {
        let wait = async {
            loop {
                let line = self.says.recv().await.expect("the component has not ended");
                if line.starts_with(word) {
                    return line;
                }
            }
        };
        let said = tokio::time::timeout(LONG, wait).await;
        said.unwrap_or_else(|_elapsed| panic!("the component did not say {word:?} within {LONG:?}"))
    }

    /// Everything it says until it ends.
    pub(crate) async fn says_until_its_end(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.says.recv().await {
            lines.push(line);
        }
        lines
    }

    /// Whether it has loaded this library.
    pub(crate) fn has_loaded(&self, library: &str) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id()));
        maps.is_ok_and(|maps| maps.contains(library))
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.told, "{line}").expect("the component reads its input");
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("sh can be started").success(), "{name} was not sent");
    }
}

/// SIGKILL also ends a process that is stopped.
impl Drop for Component {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a component is left: {error}");
        }
        Clock::forget(self.child.id());
    }
}

/// The component that lives on, and its collector, which has been watching before the other dies.
struct Survivor {
    session: Session,
    raw: DatabaseConnection,
    machine: MachineId,
    _collector: JoinSet<()>,
}

impl Survivor {
    async fn of(db: &TestDatabase) -> Self {
        let bmdb = Bmdb::connect(config(db).interval(INTERVAL)).await.expect("it is good");
        let session = bmdb.start_session().await.expect("a session can be started");
        let machine = provide(&session, 1).await[0];
        let collector = bmdb.collector().run(CancellationToken::new());
        Self {
            session,
            raw: db.raw().await,
            machine,
            _collector: JoinSet::from_iter([collector]),
        }
    }

    /// Claims as soon as it can; fails after `limit`.
    async fn takes_over(&self, limit: Duration) -> bmdb::Work<AgentStart> {
        let (began, mut taken) = (Instant::now(), None);
        until("the survivor takes the machine over", limit + NOISE, async || {
            taken = self
                .session
                .claim(&of::<AgentStart>(&self.session).await)
                .await
                .unwrap();
            taken.is_some()
        })
        .await;
        eprintln!("taken over after {:?} of at most {limit:?}", began.elapsed());
        taken.expect("it was taken")
    }

    async fn deadline_of_the_other(&self) -> sea_orm::prelude::DateTimeUtc {
        let find = session_lease::Entity::find().filter(session_lease::Column::SessionId.ne(self.session.id()));
        find.one(&self.raw).await.unwrap().expect("it has a lease").deadline
    }

    /// Waits until the other's heartbeat has just been written: it sends nothing for almost a third of the interval.
    async fn sees_a_heartbeat(&self) {
        let before = self.deadline_of_the_other().await;
        until("the other's heart beats", LONG, async || {
            self.deadline_of_the_other().await != before
        })
        .await;
    }

    /// Nothing of what the other one tried late is in the database, and history is whole.
    async fn finds_no_trace(&self, held: &bmdb::Work<AgentStart>) {
        assert_eq!(agent_started::Entity::find().count(&self.raw).await.unwrap(), 0);
        assert_eq!(agent_heartbeat::Entity::find().count(&self.raw).await.unwrap(), 0);
        let row = work::Entity::find().one(&self.raw).await.unwrap().expect("it is held");
        assert_eq!((row.work_id, row.progress), (held.id(), None));
        assert_eq!(events(&self.raw, self.machine).await, ["started", "expired", "started"]);
        assert_eq!(check_history(&self.raw).await, Vec::<String>::new());
    }

    /// By the database's own clock: expired not before the deadline, claimed not before the cool-down was over.
    async fn took_over_in_order(&self, deadline: sea_orm::prelude::DateTimeUtc) {
        let history = work_history::Entity::find().all(&self.raw).await.unwrap();
        let at = |event: Event| {
            let last = history
                .iter()
                .filter(|row| row.event == event)
                .max_by_key(|row| row.fence);
            last.expect("it is in history").at
        };
        let (expired, again) = (at(Event::Expired), at(Event::Started));
        assert!(expired >= deadline, "expired at {expired}, deadline {deadline}");
        let cool = (again - expired).to_std().expect("the claim is later");
        assert!(cool >= AgentStart::COOL_DOWN, "claimed {cool:?} after the expiry");
    }
}

on_each_backend! {
    async fn a_killed_components_machine_is_taken_over_in_time(db: TestDatabase) {
        let survivor = Survivor::of(&db).await;
        let mut doomed = Component::start(&db, INTERVAL, &["hold"]);
        assert!(doomed.says("claimed").await.starts_with(&format!("claimed {} ", survivor.machine)));
        // Past its first heartbeat, and not in the middle of one: SQLite's lock dies with the process, but the deadline must be known.
        survivor.sees_a_heartbeat().await;
        doomed.signal("KILL");
        let deadline = survivor.deadline_of_the_other().await;
        let work = survivor.takes_over(TAKEOVER).await;
        survivor.finds_no_trace(&work).await;
        survivor.took_over_in_order(deadline).await;
        assert_eq!(sessions(&survivor.raw).await, 1);
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        survivor.session.close().await.unwrap();
    }

    async fn a_frozen_component_writes_nothing_after_it_was_taken_over(db: TestDatabase) {
        let survivor = Survivor::of(&db).await;
        let mut frozen = Component::start(&db, INTERVAL, &["hold"]);
        frozen.says("claimed").await;
        // Not in the middle of a write: a writer of SQLite that is frozen there keeps everybody out.
        survivor.sees_a_heartbeat().await;
        frozen.signal("STOP");
        let deadline = survivor.deadline_of_the_other().await;
        let work = survivor.takes_over(TAKEOVER).await;
        survivor.took_over_in_order(deadline).await;
        // The first thing that it does when it wakes up.
        frozen.tell("write");
        frozen.signal("CONT");
        let mut said = Vec::new();
        while said.len() < 5 {
            let line = frozen.says("").await;
            said.push(line);
        }
        said.sort();
        let begins = ["lost", "refused session.transact", "refused work.finish", "refused work.progress", "refused work.transact"];
        for (line, begin) in std::iter::zip(&said, begins) {
            let refused = line.contains("SessionExpired") || line.contains("WorkLost") || line == "lost";
            assert!(line.starts_with(begin) && refused, "{said:?}");
        }
        survivor.finds_no_trace(&work).await;
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        survivor.session.close().await.unwrap();
    }

    async fn a_terminated_component_lets_go_at_once(db: TestDatabase) {
        let survivor = Survivor::of(&db).await;
        let mut leaving = Component::start(&db, INTERVAL, &["hold"]);
        leaving.says("claimed").await;
        assert!(survivor.session.claim(&of::<AgentStart>(&survivor.session).await).await.unwrap().is_none());
        leaving.signal("TERM");
        leaving.says("closed").await;
        // Neither expiry nor a cool-down comes between.
        let work = survivor.session.claim(&of::<AgentStart>(&survivor.session).await).await.unwrap().expect("it is free at once");
        assert_eq!(events(&survivor.raw, survivor.machine).await, ["started", "canceled", "started"]);
        assert_eq!(work_hold::Entity::find().count(&survivor.raw).await.unwrap(), 0);
        assert_eq!(sessions(&survivor.raw).await, 1);
        assert_eq!(leaving.says_until_its_end().await, Vec::<String>::new(), "it was not lost");
        work.cancel().await.unwrap();
        assert_eq!(works(&survivor.raw).await, 0);
        survivor.session.close().await.unwrap();
    }
}

on_postgres! {
    async fn a_component_frozen_inside_a_transaction_does_not_stop_expiry(db: TestDatabase) {
        // A frozen writer of SQLite holds the only lock there is; nothing but its end or its waking frees it.
        let survivor = Survivor::of(&db).await;
        let mut frozen = Component::start(&db, INTERVAL, &["body"]);
        frozen.says("claimed").await;
        frozen.says("inside").await;
        frozen.signal("STOP");
        // Its session's row is locked by now. The server ends an idle transaction after one interval: then the collector can go on.
        assert_eq!(crate::claims::stress::idle_in_transaction(&survivor.raw).await, 1);
        let deadline = survivor.deadline_of_the_other().await;
        let work = survivor.takes_over(TAKEOVER + INTERVAL).await;
        survivor.took_over_in_order(deadline).await;
        frozen.tell("go on");
        frozen.signal("CONT");
        let mut said = [frozen.says("").await, frozen.says("").await];
        said.sort();
        assert!(said[0] == "lost" && said[1].starts_with("refused work.transact SessionExpired"), "{said:?}");
        survivor.finds_no_trace(&work).await;
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        survivor.session.close().await.unwrap();
    }
}
