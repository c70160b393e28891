//! What an operator may do to work that somebody holds: ask, or break the whole session. Never delete a work's row: then two would believe.

use bmdb_entity::{MachineId, SessionId, WorkId};

use crate::bmdb::Bmdb;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::check_text;

/// What a session holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldBySession {
    /// The session's component.
    pub component_name: String,
    /// Its version, host and process.
    pub runtime_info: String,
    /// Each machine that it holds, with the process.
    pub works: Vec<(MachineId, String)>,
}

impl Bmdb {
    /// Asks the holder of a work to stop: its stop token fires at its next heartbeat. What it does then is its own decision. `false`: there is no
    /// such work.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a reason, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future asks or does not.
    pub async fn ask_to_stop(&self, work: WorkId, reason: &str) -> Result<bool, Error> {
        let database = self.database();
        const ASK: &str = "UPDATE work SET stop_requested = $2 WHERE work_id = $1";
        if reason.trim().is_empty() {
            return Err(Error::invalid("the reason to stop", reason, "a reason"));
        }
        check_text("the reason to stop", reason, 4096)?;
        let runner = database.runner("ask a work to stop");
        let ask = async |tx: &Tx| Ok::<_, Error>(tx.execute_text(ASK, [work.into(), reason.into()]).await?);
        Ok(runner.run_or_error(ask).await? == 1)
    }

    /// Breaks a session: it cannot be renewed any more, its holder learns that at its next heartbeat or when its trust ends, and a collector
    /// expires it an interval later, when nobody can believe in it any longer. There is no way to take a single work from a live holder: for a
    /// while both would believe.
    ///
    /// Answers what the session holds, all of which is lost with it; `None`: there is no such session.
    ///
    /// # Errors
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future breaks the session or does not.
    pub async fn break_session(&self, session: SessionId) -> Result<Option<HeldBySession>, Error> {
        let database = self.database();
        const SESSION: &str = "SELECT component_name, runtime_info FROM session WHERE session_id = $1";
        const WORKS: &str = "SELECT machine_id, process FROM work WHERE session_id = $1 ORDER BY machine_id";
        /// A deadline of now cannot be extended: a heartbeat demands one that is still to come. One that has passed stays.
        const BREAK: &str = "UPDATE session_lease SET deadline = {now} WHERE session_id = $1 AND deadline > {now}";
        let runner = database.runner("break a session");
        let body = async |tx: &Tx| {
            let rows = tx.query_text(SESSION, [session.into()]).await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            tx.execute_text(BREAK, [session.into()]).await?;
            let works = tx.query_text(WORKS, [session.into()]).await?;
            let works = works
                .iter()
                .map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)));
            let works = works.collect::<Result<_, sea_orm::DbErr>>()?;
            Ok::<_, Error>(Some(HeldBySession {
                component_name: row.try_get_by_index(0)?,
                runtime_info: row.try_get_by_index(1)?,
                works,
            }))
        };
        runner.run_or_error(body).await
    }
}
