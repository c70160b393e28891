//! The works that are going on, as operators see them.

use bmdb_entity::{Fence, MachineId, SessionId, WorkId};
use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{DbErr, FromQueryResult, QueryResult};

use crate::admin::page::{List, Listed, among, sealed};
use crate::bmdb::Bmdb;

/// A work that is going on, whoever holds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorkStatus {
    /// The claim's id.
    pub work: WorkId,
    /// The machine.
    pub machine: MachineId,
    /// What its provider calls the machine, if one has given it.
    pub provider_id: Option<String>,
    /// The slot that it occupies.
    pub slot: String,
    /// The process that the machine was claimed for.
    pub process: String,
    /// The claim's fence.
    pub fence: Fence,
    /// The session that holds it.
    pub session: SessionId,
    /// The session's component.
    pub component: String,
    /// Version, host and process of the component, for people.
    pub runtime_info: String,
    /// Since when.
    pub claimed_at: DateTime<Utc>,
    /// Until when its session may not be expired. `None`: it has no lease, or none that can be read.
    pub deadline: Option<DateTime<Utc>>,
    /// When this was so.
    pub as_of: DateTime<Utc>,
    /// What the holder last said of its progress.
    pub progress: Option<serde_json::Value>,
    /// Why an operator asked it to stop.
    pub stop_requested: Option<String>,
}

impl WorkStatus {
    /// For how long it has been held.
    #[must_use]
    pub fn age(&self) -> TimeDelta {
        self.as_of - self.claimed_at
    }

    /// How long its session has until its deadline: the most that its holder may still trust. Negative: heartbeats have not come in time.
    #[must_use]
    pub fn left(&self) -> Option<TimeDelta> {
        self.deadline.map(|deadline| deadline - self.as_of)
    }
}

/// Which works are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorksOf {
    /// All.
    #[default]
    All,
    /// Those on these machines.
    Machines(Vec<MachineId>),
    /// Those of a session.
    Session(SessionId),
    /// Those of a process.
    Process(String),
    /// The one with this id.
    Work(WorkId),
}

impl Bmdb {
    /// The works that are going on, in [pages](List) by machine and slot.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
    /// for work in bmdb.works(bmdb::WorksOf::All).await?.rows {
    ///     println!("{} {} is held by {} for {}", work.machine, work.slot, work.component, work.age());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn works(&self, of: WorksOf) -> List<WorkStatus> {
        List::new(self.database(), of)
    }
}

impl FromQueryResult for WorkStatus {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        Ok(Self {
            work: row.try_get(prefix, "work_id")?,
            machine: row.try_get(prefix, "machine_id")?,
            provider_id: row.try_get(prefix, "provider_id")?,
            slot: row.try_get(prefix, "slot")?,
            process: row.try_get(prefix, "process")?,
            fence: row.try_get(prefix, "fence")?,
            session: row.try_get(prefix, "session_id")?,
            component: row.try_get(prefix, "component_name")?,
            runtime_info: row.try_get(prefix, "runtime_info")?,
            claimed_at: row.try_get(prefix, "claimed_at")?,
            deadline: row.try_get(prefix, "deadline")?,
            as_of: row.try_get(prefix, "as_of")?,
            progress: row.try_get(prefix, "progress")?,
            stop_requested: row.try_get(prefix, "stop_requested")?,
        })
    }
}

impl sealed::Rows for WorkStatus {}

impl Listed for WorkStatus {
    type Key = (MachineId, String);
    type Filter = WorksOf;
    const DOING: &'static str = "list works";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        Ok((row.try_get("", "machine_id")?, row.try_get("", "slot")?))
    }

    fn select(text: &mut sealed::Select<'_>, of: &WorksOf, after: Option<&Self::Key>) {
        const WORKS: &str = "
            SELECT w.work_id, w.machine_id, p.provider_id, w.slot, w.process, w.fence, w.session_id, s.component_name, s.runtime_info,
                {moment w.claimed_at} AS claimed_at, {until l.deadline} AS deadline, {now} AS as_of, w.progress, w.stop_requested,
                {id w.machine_id} || ' ' || w.slot AS row_name
            FROM work w JOIN session s ON s.session_id = w.session_id LEFT JOIN session_lease l ON l.session_id = w.session_id
                LEFT JOIN machine_provided p ON p.machine_id = w.machine_id
            WHERE ";
        let text = text.0.put(WORKS, []);
        match of {
            WorksOf::All => text.put("w.fence > $1", [0_i64.into()]),
            WorksOf::Machines(machines) => among(text, "w.machine_id", machines),
            WorksOf::Session(session) => text.put("w.session_id = $1", [(*session).into()]),
            WorksOf::Process(process) => text.put("w.process = $1", [process.as_str().into()]),
            WorksOf::Work(work) => text.put("w.work_id = $1", [(*work).into()]),
        };
        if let Some((machine, slot)) = after {
            text.put(
                " AND (w.machine_id, w.slot) > ($1, $2)",
                [(*machine).into(), slot.as_str().into()],
            );
        }
        text.put(" ORDER BY w.machine_id, w.slot", []);
    }
}
