//! What operators have done.

use bmdb::entity::operation;
use serde_json::{Value, json};

/// For programs.
pub(crate) fn as_json(act: &operation::Model) -> Value {
    json!({
        "operation_id": act.operation_id, "at": act.at.to_rfc3339(), "done_by": act.done_by, "component": act.component, "verb": act.verb,
        "machine": act.machine_id.map(|id| id.to_string()), "slot": act.slot, "process": act.process,
        "work": act.work_id.map(|id| id.to_string()), "session": act.session_id.map(|id| id.to_string()),
        "detail": act.detail, "reason": act.reason, "ticket": act.ticket,
    })
}
