//! The append-only audit: every claim has one start and, once ended, one end.

use bmdb_entity::work_history::{self, Event};
use bmdb_entity::{MachineId, SessionId};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};

use crate::database::Database;
use crate::error::Error;
use crate::text::Text;
use crate::tx::Tx;
use crate::work::Key;

/// Who writes: what history keeps of a session.
pub(crate) struct Author<'a> {
    pub(crate) session: SessionId,
    pub(crate) component: &'a str,
    pub(crate) runtime_info: &'a str,
}

/// One event of each work, with its cause, on SQLite. The key (machine, fence, event) refuses a second one of a kind.
pub(crate) fn put<'a>(
    text: &mut Text,
    by: &Author<'_>,
    works: impl Iterator<Item = (Key, Option<&'a str>)>,
    event: Event,
) {
    const RECORD: &str = "INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, \
                          at, cause) VALUES ";
    let row = |(key, cause): (Key, Option<&str>)| {
        [
            key.machine.into(),
            key.fence.into(),
            event.to_string().into(),
            key.work.into(),
            key.process.into(),
            key.slot.into(),
            by.session.into(),
            by.component.into(),
            by.runtime_info.into(),
            cause.into(),
        ]
    };
    text.another()
        .put(RECORD, [])
        .each(works, "($1, $2, $3, $4, $5, $6, $7, $8, $9, {now}, $10)", row);
}

/// Ends every work of a session with the same event, and deletes the session. The caller holds the session's row.
///
/// The works are locked before their history is written: a work that its holder ends at this moment is not ended twice.
pub(crate) async fn end_session(tx: &Tx, session: SessionId, event: Event, cause: Option<&str>) -> Result<u64, DbErr> {
    const LOCK: &str = "SELECT machine_id FROM work WHERE session_id = $1 {lock}";
    const RECORD: &str = "
        INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
        SELECT w.machine_id, w.fence, CAST($2 AS TEXT), w.work_id, w.process, w.slot, w.session_id, s.component_name, s.runtime_info,
               {now}, CAST($3 AS TEXT)
        FROM work w JOIN session s ON s.session_id = w.session_id
        WHERE w.session_id = $1";
    /// A cool-down does not shorten a hold, and does not take over one that lasts longer.
    const COOL_DOWN: &str = "
        INSERT INTO work_hold (machine_id, slot, until, reason, placed_by, placed_at)
        SELECT w.machine_id, w.slot, {after p.cool_down_ms}, CAST($2 AS TEXT), CAST($3 AS TEXT), {now}
        FROM work w JOIN process p ON p.name = w.process
        WHERE w.session_id = $1 AND p.cool_down_ms > 0
        ON CONFLICT (machine_id, slot) DO UPDATE
        SET until = excluded.until, reason = excluded.reason, placed_by = excluded.placed_by, placed_at = excluded.placed_at
        WHERE work_hold.until < excluded.until";
    tx.query_text(LOCK, [session.into()]).await?;
    let ended = tx
        .execute_text(RECORD, [session.into(), event.to_string().into(), cause.into()])
        .await?;
    if ended > 0 {
        if event == Event::Expired {
            let reason = format!("cool-down after the expiry of session {session}");
            tx.execute_text(COOL_DOWN, [session.into(), reason.into(), COLLECTOR.into()])
                .await?;
        }
        tx.execute_text("DELETE FROM work WHERE session_id = $1", [session.into()])
            .await?;
    }
    tx.execute_text("DELETE FROM session WHERE session_id = $1", [session.into()])
        .await?;
    Ok(ended)
}

/// Who placed a cool-down.
const COLLECTOR: &str = "collector";

/// All events of a machine, in the order of its claims.
pub(crate) async fn of_machine(database: &Database, machine: MachineId) -> Result<Vec<work_history::Model>, Error> {
    let mut events = work_history::Entity::find()
        .filter(work_history::Column::MachineId.eq(machine))
        .order_by_asc(work_history::Column::Fence)
        .all(database)
        .await
        .map_err(Error::database("read a machine's history"))?;
    events.sort_by_key(|event| (event.fence, event.event != Event::Started));
    Ok(events)
}
