//! Operations of components, and what the server did for each.

use std::collections::BTreeMap;
use std::time::Duration;

use bmdb::{Bmdb, Config, MachineId, Process, Session, Work};
use harness::{OwnServer, TestDatabase, of, until};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use super::fleet::{Size, fill};
use super::log::{Execution, executions};
use super::rules::{FEW_ROWS, Tables};
use crate::world::{AgentStart, LONG};

/// An interval of sessions, so long that no heartbeat comes between.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// After five executions on a connection the server may plan once for all values; so often each operation is run at least.
pub(crate) const TIMES: usize = 12;

/// What a component sends behind its claims, when it is time and not when a test says so: whether hints are left, and whether nobody searches.
pub(crate) const REFRESH: &str = "refresh hints";

fn is_of_a_refresh(execution: &Execution) -> bool {
    let text = &execution.text;
    text.contains("AS some_hints") || text.starts_with("UPDATE work_retrieval SET begun = begun + 1")
}

/// A filled database on a server that explains.
pub(crate) struct Scene {
    server: OwnServer,
    pub(crate) raw: DatabaseConnection,
    url: String,
    pub(crate) seen: Vec<Seen>,
}

/// An operation, and what the server did in each of its runs.
pub(crate) struct Seen {
    pub(crate) operation: &'static str,
    pub(crate) runs: Vec<Vec<Execution>>,
}

impl Seen {
    /// The most pages that a run touched which sent each of its statements once. (While a run is watched, more than one heartbeat or sweep may pass.)
    pub(crate) fn buffers(&self) -> u64 {
        self.runs.iter().map(|run| buffers(run)).max().unwrap_or_default()
    }

    /// The statements of the run that touched the most pages, for people.
    pub(crate) fn dearest(&self) -> String {
        let dearest = self.runs.iter().max_by_key(|run| buffers(run));
        let statement = |execution: &Execution| format!("{} buffers: {}\n", execution.buffers(), execution.text);
        dearest.into_iter().flatten().map(statement).collect()
    }

    /// How often the connection that was used most carried out its busiest statement.
    pub(crate) fn repeated(&self) -> usize {
        let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
        for execution in self.runs.iter().flatten() {
            *counts.entry((execution.connection, &execution.text)).or_default() += 1;
        }
        counts.into_values().max().unwrap_or_default()
    }
}

/// The pages that a run touched, each of its statements counted once.
fn buffers(run: &[Execution]) -> u64 {
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for execution in run {
        let most = most.entry(&execution.text).or_default();
        *most = execution.buffers().max(*most);
    }
    most.into_values().sum()
}

impl Scene {
    pub(crate) async fn of(size: Size) -> Self {
        let scene = Self::new().await;
        fill(&scene.server.database(), size).await;
        scene
    }

    /// An empty database, without statistics, and it will get none.
    pub(crate) async fn new() -> Self {
        let server = OwnServer::that_explains().await;
        let db: TestDatabase = server.database();
        Self {
            url: format!("{}?options[auto_explain.log_min_duration]=0", db.url()),
            raw: db.raw().await,
            server,
            seen: Vec::new(),
        }
    }

    /// A component whose statements are accounted for.
    pub(crate) async fn component(&self, name: &str, interval: Duration) -> Bmdb {
        let config = Config::new(&self.url, name, bmdb::runtime_info!()).interval(interval);
        Bmdb::connect(config).await.unwrap()
    }

    /// Carries out `run` and waits for the account of the statement that holds `last`, which is the last one that it sends.
    pub(crate) async fn watch<T>(
        &mut self,
        operation: &'static str,
        last: &str,
        run: impl IntoFuture<Output = T>,
    ) -> T {
        let before = self.server.log_length();
        let outcome = run.into_future().await;
        // As it stands in the log.
        let escaped = last.replace('"', "\\\"");
        let mut seen = Vec::new();
        let what = format!("`{last}` of {operation} is accounted for");
        until(&what, LONG, async || {
            let log = self.server.log_since(before);
            // Reading it takes longer than looking into it.
            if log.contains(&escaped) {
                seen = executions(&log);
            }
            seen.iter().any(|execution| execution.text.contains(last))
        })
        .await;
        let (refresh, seen): (Vec<_>, Vec<_>) = seen.into_iter().partition(is_of_a_refresh);
        if !refresh.is_empty() {
            self.keep(REFRESH, refresh);
        }
        self.keep(operation, seen);
        outcome
    }

    fn keep(&mut self, operation: &'static str, run: Vec<Execution>) {
        match self.seen.iter_mut().find(|seen| seen.operation == operation) {
            Some(known) => known.runs.push(run),
            None => self.seen.push(Seen {
                operation,
                runs: vec![run],
            }),
        }
    }

    /// The tables that rules tell apart.
    pub(crate) async fn tables(&self) -> Tables {
        let names = async |text: String| {
            let ask = Statement::from_string(self.raw.get_database_backend(), text);
            let rows = self.raw.query_all_raw(ask).await.unwrap();
            rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
        };
        Tables {
            large: names(format!(
                "SELECT CAST(relname AS TEXT) FROM pg_class WHERE relkind = 'r' AND relnamespace = CAST('public' AS regnamespace) \
                 AND reltuples > {FEW_ROWS}"
            ))
            .await,
            referred_to: names(
                "SELECT DISTINCT CAST(relname AS TEXT) FROM pg_constraint JOIN pg_class ON pg_class.oid = confrelid WHERE contype = 'f'".to_owned(),
            )
            .await,
        }
    }

    /// What was seen, for people who run this with `--nocapture`.
    pub(crate) fn report(&self) -> String {
        let line = |seen: &Seen| {
            let all = || seen.runs.iter().flatten();
            format!(
                "{:22} {:7} buffers, {} statements, {} of {} plans for all values, {} runs on one connection\n",
                seen.operation,
                seen.buffers(),
                seen.runs.iter().map(Vec::len).min().unwrap_or_default(),
                all().filter(|execution| !execution.is_custom()).count(),
                all().count(),
                seen.repeated()
            )
        };
        self.seen.iter().map(line).collect()
    }
}

/// Takes a machine to do something with it.
pub(crate) async fn take(session: &Session, machine: MachineId) -> Work<AgentStart> {
    let work = session
        .claim(&of::<AgentStart>(&session).await)
        .on(machine)
        .await
        .unwrap();
    work.unwrap_or_else(|| panic!("{machine} is not due for {}", AgentStart::NAME))
}
