//! The backoffs in the database, as operators see them.

use bmdb_entity::{MachineId, work_backoff};

use crate::admin::page::{BACKOFF_COLUMNS, of_machines};
use crate::bmdb::Bmdb;
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::check_name;
use crate::store::process::known_names;

/// The backoffs of a process from some machines, but for those whose time is over.
pub(crate) async fn of_process(
    tx: &Tx,
    machines: &[MachineId],
    process: &str,
) -> Result<Vec<(MachineId, Result<work_backoff::Model, Error>)>, Error> {
    const DOING: &str = "read a machine's backoff";
    let backoffs =
        format!("{BACKOFF_COLUMNS} WHERE process = $1 AND (until IS NULL OR until > {{now}}) AND machine_id IN (");
    let mut text = SqlBuilder::new(tx.dialect());
    text.put(&backoffs, [process.into()])
        .each(machines, "$1", |machine| [(*machine).into()])
        .put(")", []);
    of_machines(tx, text, DOING).await
}

impl Bmdb {
    /// Forgets how a process failed on a machine: it may be claimed at once, also when it was parked. `false`: there was nothing to forget.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no process, [`Error::UnknownProcess`], or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the backoff or does not.
    pub async fn clear_backoff(&self, machine: MachineId, process: &str) -> Result<bool, Error> {
        let database = self.database();
        const CLEAR: &str = "DELETE FROM work_backoff WHERE machine_id = $1 AND process = $2";
        check_name("the name of a process", process)?;
        let known = known_names(database).await?;
        if !known.iter().any(|name| name == process) {
            return Err(Error::UnknownProcess {
                process: process.to_owned(),
                known,
            });
        }
        let runner = database.runner("clear a backoff");
        let clear = async |tx: &Tx| Ok::<_, Error>(tx.execute_text(CLEAR, [machine.into(), process.into()]).await?);
        Ok(runner.run_or_error(clear).await? == 1)
    }
}
