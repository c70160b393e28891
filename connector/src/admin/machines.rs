//! The machines, as operators see them.

use bmdb_entity::{Fence, MachineId};
use chrono::{DateTime, Utc};
use sea_orm::{DbErr, FromQueryResult, QueryResult};

use crate::admin::operator::{Act, Operator};
use crate::admin::page::{List, Listed, NO_MACHINE, among, sealed};
use crate::bmdb::Bmdb;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::store::machine;

/// A machine and what its provider said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineStatus {
    /// The machine.
    pub machine: MachineId,
    /// When it came.
    pub created_at: DateTime<Utc>,
    /// The fence of its last claim, or what an operator raised it to.
    pub fence: Fence,
    /// Its provider, if one has given it.
    pub provider: Option<String>,
    /// The provider's id of it.
    pub provider_id: Option<String>,
    /// Where it answers.
    pub address: Option<String>,
    /// Where it stands.
    pub location: Option<String>,
    /// When this was so.
    pub as_of: DateTime<Utc>,
}

/// Which machines are listed: those that meet all that is asked. The default asks for nothing.
///
/// ```
/// use bmdb::{MachineFilter, MachineState};
///
/// let parked = MachineFilter::new().provider("equinix").state(MachineState::Parked).process("install");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFilter {
    ids: Option<Vec<MachineId>>,
    provider: Option<String>,
    name: Option<String>,
    state: Option<MachineState>,
    process: Option<String>,
}

/// How a machine can stand to processes. One machine may be in several states at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineState {
    /// Somebody works on it.
    InWork,
    /// A process leaves it alone for a while after failures.
    BackingOff,
    /// A process leaves it alone until a person has looked.
    Parked,
    /// A hold keeps it, or a slot of it, from being claimed.
    Held,
}

impl MachineFilter {
    /// All machines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these.
    #[must_use]
    pub fn ids(mut self, machines: impl Into<Vec<MachineId>>) -> Self {
        self.ids = Some(machines.into());
        self
    }

    /// Only a provider's.
    #[must_use]
    pub fn provider(mut self, provider: impl Into<String>) -> Self {
        self.provider = Some(provider.into());
        self
    }

    /// Only those that a provider calls so, or that answer there: equal to the text.
    #[must_use]
    pub fn name(mut self, text: impl Into<String>) -> Self {
        self.name = Some(text.into());
        self
    }

    /// Only those in this state.
    #[must_use]
    pub fn state(mut self, state: MachineState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only those that are in that state for this process; for [`Held`](MachineState::Held), whose slot of this process is held.
    #[must_use]
    pub fn process(mut self, process: impl Into<String>) -> Self {
        self.process = Some(process.into());
        self
    }
}

impl Operator {
    /// Removes a machine, as [`machine::remove`]. Its history stays, and so does what operators did to it.
    ///
    /// # Errors
    /// As [`machine::remove`].
    ///
    /// # Cancel safety
    /// Dropping the future removes the machine or does not.
    pub async fn remove_machine(&self, machine: MachineId) -> Result<(), Error> {
        const NAME: &str = "SELECT provider, provider_id FROM machine_provided WHERE machine_id = $1";
        let remove = async |tx: &Tx| {
            // Afterwards nobody could tell which it was.
            let rows = tx.query_text(NAME, [machine.into()]).await?;
            let name = rows.first().map(|row| {
                let (provider, id): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
                Ok::<_, DbErr>(format!("{provider} {id}"))
            });
            machine::remove(tx, machine).await?;
            let act = Act {
                verb: "remove-machine",
                machine: Some(machine),
                detail: name.transpose()?,
                ..Act::default()
            };
            Ok(self.record(tx, act).await?)
        };
        self.database().runner("remove a machine").run_or_error(remove).await
    }
}

impl Bmdb {
    /// The machines that a filter leaves, in [pages](List) by id.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
    /// use bmdb::{MachineFilter, MachineState};
    ///
    /// for machine in bmdb.machines(MachineFilter::new().state(MachineState::Held)).limit(20).await?.rows {
    ///     println!("{} {:?}", machine.machine, machine.provider_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn machines(&self, filter: MachineFilter) -> List<MachineStatus> {
        List::new(self.database(), filter)
    }
}

impl FromQueryResult for MachineStatus {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        Ok(Self {
            machine: row.try_get(prefix, "machine_id")?,
            created_at: row.try_get(prefix, "created_at")?,
            fence: row.try_get(prefix, "fence")?,
            provider: row.try_get(prefix, "provider")?,
            provider_id: row.try_get(prefix, "provider_id")?,
            address: row.try_get(prefix, "address")?,
            location: row.try_get(prefix, "location")?,
            as_of: row.try_get(prefix, "as_of")?,
        })
    }
}

impl sealed::Rows for MachineStatus {}

impl Listed for MachineStatus {
    type Key = MachineId;
    type Filter = MachineFilter;
    const DOING: &'static str = "list machines";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        row.try_get("", "machine_id")
    }

    fn select(text: &mut sealed::Select<'_>, filter: &MachineFilter, after: Option<&Self::Key>) {
        const MACHINES: &str = "
            SELECT m.machine_id, {moment m.created_at} AS created_at, m.fence, p.provider, p.provider_id, p.address, p.location, {now} AS as_of,
                {id m.machine_id} AS row_name
            FROM machine m LEFT JOIN machine_provided p ON p.machine_id = m.machine_id
            WHERE m.machine_id > $1";
        const NAMED: &str = "
            AND m.machine_id IN (SELECT machine_id FROM machine_provided WHERE provider_id = $1
                UNION SELECT machine_id FROM machine_provided WHERE address = $1)";
        let first = after.copied().unwrap_or(NO_MACHINE);
        let limit = text.1;
        let text = text.0.put(MACHINES, [first.into()]);
        if let Some(machines) = &filter.ids {
            among(text, " AND m.machine_id", machines);
        }
        if let Some(provider) = &filter.provider {
            text.put(" AND p.provider = $1", [provider.as_str().into()]);
        }
        if let Some(name) = &filter.name {
            text.put(NAMED, [name.as_str().into()]);
        }
        if let Some(state) = filter.state {
            let (rows, of_process) = match state {
                MachineState::InWork => ("work WHERE fence > 0", " AND process = $1"),
                MachineState::BackingOff => ("work_backoff WHERE until > {now}", " AND process = $1"),
                MachineState::Parked => ("work_backoff WHERE until IS NULL", " AND process = $1"),
                MachineState::Held => (
                    "work_hold WHERE (until IS NULL OR until > {now})",
                    " AND slot IN ('*', (SELECT slot FROM process WHERE name = $1))",
                ),
            };
            text.put(
                &format!(" AND m.machine_id IN (SELECT DISTINCT machine_id FROM {rows}"),
                [],
            );
            if let Some(process) = &filter.process {
                text.put(of_process, [process.as_str().into()]);
            }
            // Where nothing else is asked for, the page's machines are its first: not all that are in the state need be read. The limit stands in the text, for a
            // plan for any limit would read all machines.
            if filter.ids.is_none() && filter.provider.is_none() && filter.name.is_none() {
                let page = format!(" AND machine_id > $1 ORDER BY machine_id LIMIT {limit}");
                text.put(&page, [first.into()]);
            }
            text.put(")", []);
        }
        text.put(" ORDER BY m.machine_id", []);
    }
}
