//! A database as it looks after a while: machines in work, backed off from, held, with a past.

use bmdb::{MachineId, SessionId, WorkId};
use bmdb_entity::work;
use harness::TestDatabase;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, QueryFilter, Statement};

use crate::world::tamper;

/// How many machines there are, and one in how many has no agent yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) machines: u32,
    pub(crate) every: u32,
}

/// The works, and so the sessions, that others hold.
fn held(size: Size) -> u32 {
    (size.machines / 10).min(10_000)
}

/// Fills a migrated database, which has no other rows.
pub(crate) async fn fill(db: &TestDatabase, size: Size) {
    let raw = db.raw().await;
    let (Size { machines, every }, held) = (size, held(size));
    let tenth = every * 10;
    // What refers to what is known to be there, and a million looks at keys take their time.
    let rows = format!(
        "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO machine (machine_id, created_at, fence) SELECT gen_random_uuid(), now(), 7 FROM generate_series(1, {machines});
         CREATE TEMPORARY TABLE nth AS SELECT machine_id, row_number() OVER () AS nth FROM machine;
         INSERT INTO machine_provided (machine_id, provider, provider_id, address, status)
         SELECT machine_id, 'test', nth, '192.0.2.1', 'running' FROM nth;
         INSERT INTO machine_agent_started (machine_id, at, public_key) SELECT machine_id, now(), '\\x01' FROM nth WHERE nth % {every} <> 0;
         INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at)
         SELECT machine_id, 7, event, machine_id, 'agent-start', 'agent', machine_id, 'test', '', now()
         FROM nth, unnest(ARRAY['started', 'finished']) AS event WHERE nth % 2 = 0;
         INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds)
         SELECT machine_id, 'agent-start', now() + INTERVAL '1 day', 'no answer', 3, 600 FROM nth WHERE nth % {tenth} = 0 OR nth % 100 = 3;
         INSERT INTO work_hold (machine_id, slot, reason, placed_by, placed_at)
         SELECT machine_id, '*', 'no disk', 'ada', now() FROM nth WHERE nth % {tenth} = {every} OR nth % 500 = 7;
         INSERT INTO machine_os_installation_request (machine_id, generation, raw) SELECT machine_id, 1, '\\x01' FROM nth WHERE nth % 20 = 9;
         INSERT INTO machine_os_installation_report (machine_id, generation, result, raw)
         SELECT machine_id, 1, 'success', '\\x01' FROM nth WHERE nth % 20 = 9;
         CREATE TEMPORARY TABLE holder AS SELECT nth, machine_id, gen_random_uuid() AS session_id FROM nth WHERE nth % {every} = 1 LIMIT {held};
         INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms)
         SELECT session_id, 'test', '', now(), 3600000 FROM holder;
         INSERT INTO session_lease (session_id, deadline) SELECT session_id, now() + INTERVAL '50 minutes' FROM holder;
         INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at)
         SELECT machine_id, 'agent', 'agent-start', gen_random_uuid(), session_id, 7, now() FROM holder;
         DROP TABLE nth; DROP TABLE holder;
         COMMIT;"
    );
    tamper(&raw, &rows).await;
    tamper(&raw, "VACUUM (ANALYZE)").await;
}

/// Some machines that an agent start is due on.
pub(crate) async fn due(raw: &DatabaseConnection, count: u32) -> Vec<MachineId> {
    machines(
        raw,
        &format!(
            "SELECT m.machine_id FROM machine m WHERE NOT EXISTS (SELECT FROM machine_agent_started s WHERE s.machine_id = m.machine_id)
             AND NOT EXISTS (SELECT FROM work_backoff b WHERE b.machine_id = m.machine_id)
             AND NOT EXISTS (SELECT FROM work_hold h WHERE h.machine_id = m.machine_id)
             AND NOT EXISTS (SELECT FROM work w WHERE w.machine_id = m.machine_id) LIMIT {count}"
        ),
    )
    .await
}

/// Some machines that are in work.
pub(crate) async fn in_work(raw: &DatabaseConnection, count: u32) -> Vec<MachineId> {
    machines(raw, &format!("SELECT machine_id FROM work LIMIT {count}")).await
}

async fn machines(raw: &DatabaseConnection, text: &str) -> Vec<MachineId> {
    let rows = raw
        .query_all_raw(Statement::from_string(raw.get_database_backend(), text))
        .await;
    let machines = rows.expect("they can be read");
    machines.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// The works of a session.
pub(crate) async fn works_of(raw: &DatabaseConnection, session: SessionId) -> Vec<WorkId> {
    let works = work::Entity::find()
        .filter(work::Column::SessionId.eq(session))
        .all(raw)
        .await;
    works
        .expect("they can be read")
        .iter()
        .map(|work| work.work_id)
        .collect()
}
