//! The machines that are worked on, and who makes them eligible again.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};

use bmdb::MachineId;
use harness::{Backend, TestDatabase};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use crate::Failure;

/// How many machines there are, and which share of them is eligible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    pub(crate) machines: u32,
    pub(crate) share: f64,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(machines, share)| {
            let (machines, share) = (machines.parse().ok()?, share.parse().ok()?);
            (machines > 0 && share > 0.0 && share <= 1.0).then_some(Self { machines, share })
        });
        parsed.ok_or_else(|| format!("{text:?} is not MACHINES:SHARE, such as 1000:0.1"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} machines, {} % eligible", self.machines, self.share * 100.0)
    }
}

/// How many machines a statement of ours is about at most.
const AT_ONCE: usize = 500;

/// Whether the database has answered.
type Answered = bool;

/// What the workers believe, all of them in this process: nobody else touches the fleet.
#[derive(Default)]
struct Ledger {
    /// Eligible; for those who are told what to claim. The others take machines without asking here.
    free: Vec<MachineId>,
    held: HashSet<MachineId>,
    /// Not eligible until it is made so again, which may happen once the finish has been answered.
    finished: HashMap<MachineId, Answered>,
    held_twice: u64,
    done_again: u64,
}

/// A filled database.
pub(crate) struct Fleet {
    raw: DatabaseConnection,
    ledger: Mutex<Ledger>,
}

impl Fleet {
    /// Makes the machines: all are provided, and on all but a share of them the agent was started.
    pub(crate) async fn fill(database: &TestDatabase, size: Size) -> Result<Self, Failure> {
        let raw = database.raw().await;
        let every = (1.0 / size.share).round();
        let statements = match database.backend() {
            _ if size.machines == 0 => Vec::new(),
            Backend::Postgres => postgres(size.machines, every),
            Backend::Sqlite => sqlite(size.machines, every),
        };
        for statement in statements {
            raw.execute_unprepared(&statement).await?;
        }
        Ok(Self {
            raw,
            ledger: Mutex::default(),
        })
    }

    /// Forgets what the last contender did, whose works are gone with its session, and looks up what is free. Answers how many are.
    pub(crate) async fn survey(&self) -> Result<u32, Failure> {
        let ask = Statement::from_string(
            self.raw.get_database_backend(),
            "SELECT m.machine_id FROM machine m LEFT JOIN machine_agent_started s ON s.machine_id = m.machine_id
             LEFT JOIN work_backoff b ON b.machine_id = m.machine_id
             WHERE s.machine_id IS NULL AND b.machine_id IS NULL",
        );
        let rows = self.raw.query_all_raw(ask).await?;
        let free = rows.iter().map(|row| row.try_get_by_index(0));
        let mut free = free.collect::<Result<Vec<MachineId>, _>>()?;
        fastrand::shuffle(&mut free);
        let many = u32::try_from(free.len())?;
        *self.ledger() = Ledger {
            free,
            ..Ledger::default()
        };
        Ok(many)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("nothing panics while it holds this lock")
    }

    /// A machine for those who are told which one: any that is free.
    pub(crate) fn deal(&self) -> Option<MachineId> {
        let mut ledger = self.ledger();
        let machine = ledger.free.pop()?;
        ledger.held.insert(machine);
        Some(machine)
    }

    /// Somebody has claimed a machine.
    pub(crate) fn claimed(&self, machine: MachineId) {
        let mut ledger = self.ledger();
        let redone = ledger.finished.contains_key(&machine);
        ledger.done_again += u64::from(redone);
        let is_new = ledger.held.insert(machine);
        ledger.held_twice += u64::from(!is_new);
    }

    /// Somebody is about to finish a machine: from the commit on, another could claim it if it were eligible.
    pub(crate) fn finishing(&self, machine: MachineId) {
        let mut ledger = self.ledger();
        ledger.held.remove(&machine);
        ledger.finished.insert(machine, false);
    }

    /// The finish was answered.
    pub(crate) fn finished(&self, machine: MachineId) {
        self.ledger().finished.insert(machine, true);
    }

    /// How many machines were held by two at once, and how many were claimed though they were finished.
    pub(crate) fn violations(&self) -> (u64, u64) {
        let ledger = self.ledger();
        (ledger.held_twice, ledger.done_again)
    }

    /// Makes what is finished eligible again, so that the share stays what it is; and hints at it for those who go by hints, as the component does that
    /// makes machines eligible.
    pub(crate) async fn recycle(&self, hints: bool) -> Result<(), Failure> {
        let mut finished: Vec<MachineId> = {
            let mut ledger = self.ledger();
            let finished = ledger.finished.extract_if(|_, answered| *answered);
            finished.map(|(machine, _)| machine).collect()
        };
        finished.sort();
        for some in finished.chunks(AT_ONCE) {
            let list: Vec<String> = some.iter().map(|machine| literal(&self.raw, *machine)).collect();
            for table in ["machine_agent_started", "work_backoff"] {
                let delete = format!("DELETE FROM {table} WHERE machine_id IN ({})", list.join(", "));
                self.raw.execute_unprepared(&delete).await?;
            }
        }
        if hints {
            self.hint(&finished).await?;
        }
        self.ledger().free.extend(finished);
        Ok(())
    }

    /// Hints at all that is free, for those who never search.
    pub(crate) async fn hint_at_free(&self) -> Result<(), Failure> {
        let mut free = self.ledger().free.clone();
        free.sort();
        self.hint(&free).await
    }

    /// Forgets what contenders before have registered, and their hints. Half of the machines are each provider's.
    pub(crate) async fn forget_rules(&self) -> Result<(), Failure> {
        for statement in [
            "DELETE FROM work_candidate",
            "DELETE FROM work_retrieval",
            "DELETE FROM process",
            "UPDATE machine_provided SET provider = CASE WHEN lower(substr(provider_id, 1, 1)) < '8' THEN 'north' ELSE 'south' END \
             WHERE provider = 'bench'",
        ] {
            self.raw.execute_unprepared(statement).await?;
        }
        Ok(())
    }

    /// Leaves hints at machines in key order, as the library does, for every rule that is registered; but for processes of one provider only at its own.
    async fn hint(&self, machines: &[MachineId]) -> Result<(), Failure> {
        let now = match self.raw.get_database_backend() {
            sea_orm::DatabaseBackend::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now')",
            _ => "now()",
        };
        for some in machines.chunks(AT_ONCE) {
            let machines: Vec<String> = some.iter().map(|machine| literal(&self.raw, *machine)).collect();
            let hint = format!(
                "INSERT INTO work_candidate (process, machine_id, found_at)
                 SELECT work_retrieval.process, machine.machine_id, {now} FROM machine CROSS JOIN work_retrieval
                 JOIN machine_provided ON machine_provided.machine_id = machine.machine_id
                 WHERE machine.machine_id IN ({}) AND (work_retrieval.process NOT LIKE 'north@%' AND work_retrieval.process NOT LIKE 'south@%'
                    OR work_retrieval.process LIKE machine_provided.provider || '@%') ORDER BY work_retrieval.process, machine.machine_id ON CONFLICT DO NOTHING",
                machines.join(", ")
            );
            self.raw.execute_unprepared(&hint).await?;
        }
        Ok(())
    }

    pub(crate) fn raw(&self) -> &DatabaseConnection {
        &self.raw
    }
}

fn literal(raw: &DatabaseConnection, machine: MachineId) -> String {
    match raw.get_database_backend() {
        sea_orm::DatabaseBackend::Sqlite => format!("x'{}'", machine.0.simple()),
        _ => format!("'{machine}'"),
    }
}

fn postgres(machines: u32, every: f64) -> Vec<String> {
    vec![
        format!(
            "INSERT INTO machine (machine_id, created_at, fence)
             SELECT gen_random_uuid(), now(), 0 FROM generate_series(1, {machines})"
        ),
        "INSERT INTO machine_provided (machine_id, provider, provider_id, address, status)
         SELECT machine_id, 'bench', CAST(machine_id AS TEXT), '192.0.2.1', 'running' FROM machine"
            .to_owned(),
        format!(
            "INSERT INTO machine_agent_started (machine_id, at, public_key)
             SELECT machine_id, now(), '\\x01' FROM (SELECT machine_id, row_number() OVER () AS nth FROM machine) m
             WHERE nth % {every} <> 0"
        ),
        "VACUUM (ANALYZE)".to_owned(),
        "CHECKPOINT".to_owned(),
    ]
}

fn sqlite(machines: u32, every: f64) -> Vec<String> {
    vec![
        format!(
            "WITH RECURSIVE nth(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM nth WHERE n < {machines})
             INSERT INTO machine (machine_id, created_at, fence)
             SELECT randomblob(16), strftime('%Y-%m-%d %H:%M:%f', 'now'), 0 FROM nth"
        ),
        "INSERT INTO machine_provided (machine_id, provider, provider_id, address, status)
         SELECT machine_id, 'bench', hex(machine_id), '192.0.2.1', 'running' FROM machine"
            .to_owned(),
        format!(
            "INSERT INTO machine_agent_started (machine_id, at, public_key)
             SELECT machine_id, strftime('%Y-%m-%d %H:%M:%f', 'now'), x'01'
             FROM (SELECT machine_id, row_number() OVER () AS nth FROM machine) WHERE nth % {every} <> 0"
        ),
        "ANALYZE".to_owned(),
    ]
}
