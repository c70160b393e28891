//! The backoffs in the database, as operators see them.

use bmdb_entity::{MachineId, work_backoff};

use crate::admin::operator::{Act, Operator};
use crate::admin::page::{BACKOFF_COLUMNS, of_machines};
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::store::process::check_registered;

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

impl Operator {
    /// Forgets how a process failed on a machine: it may be claimed at once, also when it was parked, and its next failure is the first. `false`: there was
    /// nothing to forget.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no process, [`Error::UnknownProcess`], or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the backoff or does not.
    pub async fn clear_backoff(&self, machine: MachineId, process: &str) -> Result<bool, Error> {
        const CLEAR: &str = "DELETE FROM work_backoff WHERE machine_id = $1 AND process = $2";
        self.change_backoff("clear-backoff", CLEAR, machine, process).await
    }

    /// Ends the wait of a process for a machine, also when it was parked, and remembers its failures: one more, and it waits as long as after so many, or is
    /// parked again. `false`: it does not wait.
    ///
    /// # Errors
    /// As [`clear_backoff`](Self::clear_backoff).
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait or does not.
    pub async fn run_now(&self, machine: MachineId, process: &str) -> Result<bool, Error> {
        const RUN: &str = "
            UPDATE work_backoff SET until = {now} WHERE machine_id = $1 AND process = $2 AND (until IS NULL OR until > {now})";
        self.change_backoff("run-now", RUN, machine, process).await
    }

    async fn change_backoff(
        &self,
        verb: &'static str,
        change: &str,
        machine: MachineId,
        process: &str,
    ) -> Result<bool, Error> {
        let database = self.database();
        check_registered(database, process).await?;
        let change = async |tx: &Tx| {
            let was_there = tx.execute_text(change, [machine.into(), process.into()]).await? == 1;
            if was_there {
                let act = Act {
                    verb,
                    machine: Some(machine),
                    process: Some(process),
                    ..Act::default()
                };
                self.record(tx, act).await?;
            }
            Ok::<_, Error>(was_there)
        };
        database.runner("change a backoff").run_or_error(change).await
    }
}
