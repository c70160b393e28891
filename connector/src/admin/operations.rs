//! What operators have done.

use bmdb_entity::{MachineId, operation};
use chrono::{DateTime, Utc};
use sea_orm::{DbErr, QueryResult};
use uuid::Uuid;

use crate::admin::page::{List, Listed, sealed};
use crate::bmdb::Bmdb;

impl Bmdb {
    /// What [operators](crate::Operator) have done, to a machine or at all: **the latest first**, in [pages](List). A machine that is gone keeps what was
    /// done to it. What was done at one moment, which is a millisecond on SQLite, comes in any order. All of them are read for a page, unless they are a machine's: an index that begins with a time would send all who write it to one place of a
    /// cluster.
    pub fn operations(&self, machine: Option<MachineId>) -> List<operation::Model> {
        List::new(self.database(), machine)
    }
}

impl sealed::Rows for operation::Model {}

impl Listed for operation::Model {
    type Key = (DateTime<Utc>, Uuid);
    type Filter = Option<MachineId>;
    const DOING: &'static str = "list operations";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        Ok((row.try_get("", "at")?, row.try_get("", "operation_id")?))
    }

    fn select(text: &mut sealed::Select<'_>, machine: &Option<MachineId>, after: Option<&Self::Key>) {
        const COLUMNS: &str = "
            SELECT operation_id, {moment at} AS at, done_by, component, verb, machine_id, slot, process, work_id, session_id, detail, reason, ticket,
                {id operation_id} AS row_name
            FROM operation";
        let text = text.0.put(COLUMNS, []);
        if let Some(machine) = machine {
            text.put(" WHERE machine_id = $1", [(*machine).into()]);
        }
        if let Some((at, id)) = after {
            let begins = if machine.is_some() { "AND" } else { "WHERE" };
            let older = format!(" {begins} (operation.at, operation_id) < ({{time $1}}, $2)");
            text.put(&older, [(*at).into(), (*id).into()]);
        }
        text.put(" ORDER BY operation.at DESC, operation_id DESC", []);
    }
}
