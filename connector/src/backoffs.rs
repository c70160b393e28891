//! The backoffs in the database, as operators see them.

use bmdb_entity::{MachineId, work_backoff};
use sea_orm::FromQueryResult;

use crate::database::Database;
use crate::error::Error;
use crate::process::{check_name, known_names};
use crate::tx::Tx;

/// A backoff's row, as the driver can read it, and its name for people.
pub(crate) const COLUMNS: &str = "
    SELECT machine_id, process, {until until} AS until, cause, attempts, last_interval_seconds, {id machine_id} || ' ' || process AS row_name
    FROM work_backoff";

/// The backoff of a process from a machine, unless its time is over.
pub(crate) async fn of_process(
    tx: &Tx,
    machine: MachineId,
    process: &str,
) -> Result<Option<work_backoff::Model>, Error> {
    const DOING: &str = "read a machine's backoff";
    let backoff = format!("{COLUMNS} WHERE machine_id = $1 AND process = $2 AND (until IS NULL OR until > {{now}})");
    let rows = tx
        .query_text(&backoff, [machine.into(), process.into()])
        .await
        .map_err(Error::database(DOING))?;
    let backoff = rows.first().map(|row| work_backoff::Model::from_query_result(row, ""));
    backoff.transpose().map_err(Error::database(DOING))
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
