//! How far the fleet is: plain reads of the database, and the bars that show them.

use bmdb::entity::{session as session_row, work as work_row, work_backoff, work_history};
use bmdb::{Bmdb, Error, MachineId, Process, agent_heartbeat, agent_started, os_installation_report, provided};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QuerySelect};

use crate::processes::{AgentRecovery, AgentStart};
use crate::talk::{Bar, Talk};

/// Where the fleet stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) machines: u64,
    pub(crate) started: u64,
    pub(crate) heard: u64,
    pub(crate) installed: u64,
    pub(crate) start: Lane,
    pub(crate) recovery: Lane,
}

/// Where one process stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    pub(crate) eligible: u64,
    pub(crate) in_work: u64,
    pub(crate) failed: u64,
    pub(crate) finished: u64,
}

impl Snapshot {
    /// Reads it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn read(bmdb: &Bmdb) -> Result<Self, Error> {
        use os_installation_report::{Column, Entity, Outcome};
        let db = bmdb.reads();
        Ok(Self {
            machines: provided::Entity::find().count(db).await?,
            started: agent_started::Entity::find().count(db).await?,
            heard: agent_heartbeat::Entity::find().count(db).await?,
            installed: Entity::find()
                .filter(Column::Result.eq(Outcome::Success))
                .count(db)
                .await?,
            start: Lane::read(bmdb, AgentStart).await?,
            recovery: Lane::read(bmdb, AgentRecovery).await?,
        })
    }

    /// How many machines have something ahead of them.
    pub(crate) fn left(&self) -> u64 {
        let unsettled = self.machines.saturating_sub(self.installed);
        unsettled.max(self.start.open()).max(self.recovery.open())
    }
}

impl Lane {
    async fn read<P: Process>(bmdb: &Bmdb, process: P) -> Result<Self, Error> {
        use work_history::Event;
        let db = bmdb.reads();
        let works = work_row::Entity::find().filter(work_row::Column::Process.eq(P::NAME));
        let backoffs = work_backoff::Entity::find().filter(work_backoff::Column::Process.eq(P::NAME));
        let finished = work_history::Entity::find()
            .filter(work_history::Column::Process.eq(P::NAME))
            .filter(work_history::Column::Event.eq(Event::Finished));
        Ok(Self {
            eligible: bmdb.register(process).await?.count().await?,
            in_work: works.count(db).await?,
            failed: backoffs.count(db).await?,
            finished: finished.count(db).await?,
        })
    }

    fn open(&self) -> u64 {
        self.eligible + self.in_work
    }

    fn say(&self) -> String {
        format!(
            "{} finished, {} eligible, {} in work, {} failed so far",
            self.finished, self.eligible, self.in_work, self.failed
        )
    }
}

/// The machines that one incarnation of a component holds.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn held_by(bmdb: &Bmdb, component: &str, pid: u32) -> Result<Vec<MachineId>, DbErr> {
    work_row::Entity::find()
        .select_only()
        .column(work_row::Column::MachineId)
        .inner_join(session_row::Entity)
        .filter(session_row::Column::ComponentName.eq(component))
        .filter(session_row::Column::RuntimeInfo.ends_with(format!("process {pid}")))
        .into_tuple()
        .all(bmdb.reads())
        .await
}

/// A bar for each process, and one for the agents.
pub(crate) struct Bars {
    start: Bar,
    recovery: Bar,
    agents: Bar,
}

impl Bars {
    /// Draws them.
    pub(crate) fn new(talk: &Talk) -> Self {
        let bar = |name| talk.bar(name, "{prefix:>14} [{bar:30}] {pos:>5}/{len:<5} {msg}");
        Self {
            start: bar("agent-start"),
            recovery: bar("agent-recovery"),
            agents: bar("agents"),
        }
    }

    /// Shows a snapshot.
    pub(crate) fn show(&mut self, now: &Snapshot) {
        let (start, recovery) = (&now.start, &now.recovery);
        self.start.show(now.started, now.machines, start.say());
        self.recovery
            .show(recovery.finished, recovery.finished + recovery.open(), recovery.say());
        let agents = format!(
            "{} started, {} heard, {} have installed their system",
            now.started, now.heard, now.installed
        );
        self.agents.show(now.installed, now.machines, agents);
    }
}
