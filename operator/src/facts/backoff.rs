//! Backoffs: which machines a process leaves alone after failures.

use bmdb::entity::work_backoff;
use serde_json::{Value, json};

/// For programs.
pub(crate) fn as_json(row: &work_backoff::Model) -> Value {
    json!({
        "machine": row.machine_id.to_string(), "process": row.process, "until": row.until.map(|at| at.to_rfc3339()), "parked": row.until.is_none(),
        "failures": row.attempts.to_string(), "cause": row.cause,
    })
}
