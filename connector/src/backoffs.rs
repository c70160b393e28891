//! The backoffs in the database, as operators see them.

use bmdb_entity::{MachineId, work_backoff};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};

use crate::database::Database;
use crate::error::Error;
use crate::process::{check_name, known_names};
use crate::tx::Tx;

pub(crate) async fn list(database: &Database, machine: Option<MachineId>) -> Result<Vec<work_backoff::Model>, Error> {
    let mut find = work_backoff::Entity::find();
    if let Some(machine) = machine {
        find = find.filter(work_backoff::Column::MachineId.eq(machine));
    }
    find.order_by_asc(work_backoff::Column::MachineId)
        .order_by_asc(work_backoff::Column::Process)
        .all(database)
        .await
        .map_err(Error::database("list backoffs"))
}

pub(crate) async fn clear(database: &Database, machine: MachineId, process: &str) -> Result<bool, Error> {
    const CLEAR: &str = "DELETE FROM work_backoff WHERE machine_id = $1 AND process = $2";
    check_name("the name of a process", process)?;
    let known = known_names(database).await?;
    if !known.iter().any(|name| name == process) {
        return Err(Error::UnknownProcess {
            process: process.to_owned(),
            known,
        });
    }
    let scope = database.scope("clear a backoff");
    let cleared =
        scope.run(async |tx: &Tx| Ok::<_, Error>(tx.execute_text(CLEAR, [machine.into(), process.into()]).await?));
    Ok(cleared.await.map_err(|failure| failure.into_error("clear a backoff"))? == 1)
}
