//! Works: who holds which machine.

use bmdb::{Bmdb, WorkId, WorkStatus, WorksOf};
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::facts::name::unreadable;
use crate::failure::Failure;

/// The one with this id.
pub(crate) async fn find(bmdb: &Bmdb, work: WorkId) -> Result<WorkStatus, Failure> {
    let page = bmdb.works(WorksOf::Work(work)).await?;
    match (page.rows.into_iter().next(), page.unreadable.first()) {
        (Some(work), _) => Ok(work),
        (None, Some(row)) => Err(unreadable(row)),
        (None, None) => Err(gone(work)),
    }
}

/// It has ended, or never was.
pub(crate) fn gone(work: WorkId) -> Failure {
    Failure::not_found(format!("no work {work} goes on: it has ended, or never was"))
}

/// It was asked to stop and goes on, or nobody has heard from its session in time.
pub(crate) fn is_stuck(work: &WorkStatus) -> bool {
    work.stop_requested.is_some() || is_silent(work)
}

pub(crate) fn is_silent(work: &WorkStatus) -> bool {
    work.left().is_none_or(|left| left <= TimeDelta::zero())
}

pub(crate) fn as_json(work: &WorkStatus) -> Value {
    json!({
        "work": work.work.to_string(), "machine": work.machine.to_string(), "provider_id": work.provider_id, "slot": work.slot,
        "process": work.process, "fence": work.fence.to_string(), "session": work.session.to_string(), "component": work.component,
        "runtime_info": work.runtime_info, "claimed_at": work.claimed_at.to_rfc3339(), "deadline": work.deadline.map(|at| at.to_rfc3339()),
        "as_of": work.as_of.to_rfc3339(), "progress": work.progress, "stop_requested": work.stop_requested,
        "silent": is_silent(work), "stuck": is_stuck(work),
    })
}
