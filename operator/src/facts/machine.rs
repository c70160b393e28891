//! Machines: who may touch them, and what keeps others from it.

use std::collections::HashMap;

use bmdb::entity::{work_backoff, work_hold};
use bmdb::{Bmdb, MachineId, MachineStatus, WorkStatus, WorksOf};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::facts::pages::read_all;
use crate::failure::Failure;

/// What stands on some machines.
pub(crate) struct Standing {
    pub(crate) works: HashMap<MachineId, Vec<WorkStatus>>,
    pub(crate) backoffs: HashMap<MachineId, Vec<work_backoff::Model>>,
    pub(crate) holds: HashMap<MachineId, Vec<work_hold::Model>>,
    pub(crate) unreadable: Vec<bmdb::Unreadable>,
}

/// Reads it.
pub(crate) async fn standing(bmdb: &Bmdb, machines: &[MachineId]) -> Result<Standing, Failure> {
    let works = read_all(|| bmdb.works(WorksOf::Machines(machines.to_vec()))).await?;
    let backoffs = read_all(|| bmdb.backoffs_from(machines)).await?;
    let holds = read_all(|| bmdb.holds_on(machines)).await?;
    Ok(Standing {
        works: grouped(works.rows, |work| work.machine),
        backoffs: grouped(backoffs.rows, |backoff| backoff.machine_id),
        holds: grouped(holds.rows, |hold| hold.machine_id),
        unreadable: works
            .unreadable
            .into_iter()
            .chain(backoffs.unreadable)
            .chain(holds.unreadable)
            .collect(),
    })
}

fn grouped<Row>(rows: Vec<Row>, key: impl Fn(&Row) -> MachineId) -> HashMap<MachineId, Vec<Row>> {
    let mut groups: HashMap<MachineId, Vec<Row>> = HashMap::new();
    for row in rows {
        groups.entry(key(&row)).or_default().push(row);
    }
    groups
}

/// A hold that is over is none.
pub(crate) fn is_on(hold: &work_hold::Model, now: DateTime<Utc>) -> bool {
    hold.until.is_none_or(|until| until > now)
}

/// For programs.
pub(crate) fn as_json(machine: &MachineStatus, states: &[String]) -> Value {
    json!({
        "machine": machine.machine.to_string(), "provider": machine.provider, "provider_id": machine.provider_id, "address": machine.address,
        "location": machine.location, "fence": machine.fence.to_string(), "created_at": machine.created_at.to_rfc3339(),
        "as_of": machine.as_of.to_rfc3339(), "states": states,
    })
}

pub(crate) fn hold_json(hold: &work_hold::Model) -> Value {
    json!({
        "slot": hold.slot, "until": hold.until.map(|at| at.to_rfc3339()), "reason": hold.reason, "placed_by": hold.placed_by,
        "placed_at": hold.placed_at.to_rfc3339(), "ticket": hold.ticket,
    })
}
