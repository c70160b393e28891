//! Rows that nobody can read, beside everything that runs.

use bmdb::{MachineId, Process, SessionId, WorkId};
use harness::{Survey, TestDatabase};

use crate::world::tamper;

/// Writes them (but for works and history, which the checker must read): of a dead session and what it holds, of a hold and a backoff, and of a machine
/// that everybody may claim.
pub(super) async fn write_rows(db: &TestDatabase) {
    let raw = db.raw().await;
    let [held, parked, undecodable] = [MachineId::random(), MachineId::random(), MachineId::random()];
    let (session, work, process) = (SessionId::random(), WorkId::random(), Survey::NAME);
    for machine in [held, parked, undecodable] {
        tamper(
            &raw,
            &format!("INSERT INTO machine (machine_id, created_at, fence) VALUES ('{machine}', 'infinity', 7)"),
        )
        .await;
    }
    for odd in [
        format!(
            "INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms) \
             VALUES ('{session}', 'odd', '', '-infinity', 9223372036854775807)"
        ),
        format!("INSERT INTO session_lease (session_id, deadline) VALUES ('{session}', '-infinity')"),
        format!(
            "INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at) \
             VALUES ('{held}', '{process}', '{process}', '{work}', '{session}', 7, now())"
        ),
        format!(
            "INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at) \
             VALUES ('{held}', 7, 'started', '{work}', '{process}', '{process}', '{session}', 'odd', '', now())"
        ),
        format!(
            "INSERT INTO work_hold (machine_id, slot, placed_by, placed_at, reason, until) \
             VALUES ('{parked}', '', 'a test', '-infinity', 'a test', 'infinity')"
        ),
        format!(
            "INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) \
             VALUES ('{parked}', '{process}', 'infinity', 'a test', 1, 1)"
        ),
    ] {
        tamper(&raw, &odd).await;
    }
}
