//! What became of a claim or an end that was not answered.

use bmdb_entity::work_history::Event;
use bmdb_entity::{Fence, MachineId, WorkId};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};

use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::rules::work_key::{RuleKey, WorkKey};
use crate::store::writer::Writer;

/// What a claim of unknown outcome has taken, as far as it has arrived.
pub(crate) async fn claimed(
    by: &Writer<'_>,
    slot: &'static str,
    rule: RuleKey,
    works: &[WorkId],
) -> Result<Vec<WorkKey>, Error> {
    const DOING: &str = "find out what became of a claim";
    use bmdb_entity::work::{Column, Entity};
    let rows: Vec<(MachineId, WorkId, Fence)> = Entity::find()
        .select_only()
        .columns([Column::MachineId, Column::WorkId, Column::Fence])
        .filter(Column::WorkId.is_in(works.iter().copied()))
        .into_tuple()
        .all(by.database)
        .await
        .map_err(Error::database(DOING))?;
    let key = |(machine, work, fence)| WorkKey {
        machine,
        slot,
        rule,
        work,
        fence,
    };
    Ok(rows.into_iter().map(key).collect())
}

/// What became of a work whose end has an unknown outcome.
pub(crate) enum Resolution {
    /// Its row is there: the end did not take effect, and cannot any more.
    StillHeld,
    /// It has ended this way.
    Ended(Event),
    /// Its row is gone, and history does not know its end.
    Gone,
}

/// Decides an unknown outcome by a write that collides with the end's own: it waits for a commit that is still on its way. A read would not.
pub(crate) async fn resolve(by: &Writer<'_>, key: &WorkKey) -> Result<Resolution, Error> {
    const TOUCH: &str = "
        UPDATE work SET stop_requested = stop_requested WHERE machine_id = $1 AND slot = $2 AND fence = $3 AND work_id = $4";
    const ENDED: &str = "
        SELECT event FROM work_history WHERE machine_id = $1 AND fence = $2 AND work_id = $3 AND event <> 'started'";
    let runner = by.runner("find out what became of the end of a work");
    let ask = async |tx: &Tx| {
        let values = [key.machine.into(), key.slot.into(), key.fence.into(), key.work.into()];
        if tx.execute_text(TOUCH, values).await? == 1 {
            return Ok(Resolution::StillHeld);
        }
        let ends = tx
            .query_text(ENDED, [key.machine.into(), key.fence.into(), key.work.into()])
            .await?;
        let event = ends.first().map(|row| row.try_get_by_index::<Event>(0)).transpose()?;
        Ok::<_, Error>(event.map_or(Resolution::Gone, Resolution::Ended))
    };
    runner.run(ask).await.or_else(TxError::or_read)
}
