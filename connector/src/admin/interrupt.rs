//! What an operator may do to sessions and to work that somebody holds: ask, or break the whole session. Never delete a work's row: then two would believe.

use bmdb_entity::{Fence, MachineId, SessionId, WorkId};

use crate::admin::operator::{Act, Operator};
use crate::db::tx::Tx;
use crate::error::Error;

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

impl Operator {
    /// Asks the holder of a work to stop: its stop token fires at its next heartbeat, with the operator's reason. What it does then is its own decision.
    /// `false`: there is no such work.
    ///
    /// # Errors
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future asks or does not.
    pub async fn ask_to_stop(&self, work: WorkId) -> Result<bool, Error> {
        const ASK: &str = "UPDATE work SET stop_requested = $2 WHERE work_id = $1 RETURNING machine_id, slot, process";
        let ask = async |tx: &Tx| {
            let rows = tx.query_text(ASK, [work.into(), self.reason.as_str().into()]).await?;
            let Some(row) = rows.first() else {
                return Ok(false);
            };
            let (slot, process): (String, String) = (row.try_get_by_index(1)?, row.try_get_by_index(2)?);
            let act = Act {
                verb: "ask-to-stop",
                machine: Some(row.try_get_by_index(0)?),
                slot: Some(&slot),
                process: Some(&process),
                work: Some(work),
                ..Act::default()
            };
            self.record(tx, act).await?;
            Ok::<_, Error>(true)
        };
        self.database().runner("ask a work to stop").run_or_error(ask).await
    }

    /// Drains a session: from its next heartbeat on it takes no new work, and the works that it holds go on to their end. Its claims answer [`Error::Draining`]; a
    /// [`Runner`](crate::Runner) idles until it is shut down, and starts no other session. There is no way back but to restart the component. Components built
    /// before this (schema step 29) do not obey.
    ///
    /// Answers what the session holds; `None`: there is no such session, or none that lives.
    ///
    /// # Errors
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future drains the session or does not.
    pub async fn drain_session(&self, session: SessionId) -> Result<Option<HeldBySession>, Error> {
        const DRAIN: &str = "
            UPDATE session_lease SET drain_requested = $2 WHERE session_id = $1 AND deadline > {now} AND drain_requested IS NULL";
        const LIVES: &str = "SELECT session_id FROM session_lease WHERE session_id = $1 AND deadline > {now}";
        let drain = async |tx: &Tx| {
            let values = [session.into(), self.reason.as_str().into()];
            let is_new = tx.execute_text(DRAIN, values).await? == 1;
            if !is_new && tx.query_text(LIVES, [session.into()]).await?.is_empty() {
                return Ok(None);
            }
            let Some(held) = held_by(tx, session).await? else {
                return Ok(None);
            };
            // One that drains already keeps its reason.
            if is_new {
                let act = Act {
                    verb: "drain-session",
                    session: Some(session),
                    detail: Some(held.detail()),
                    ..Act::default()
                };
                self.record(tx, act).await?;
            }
            Ok::<_, Error>(Some(held))
        };
        self.database().runner("drain a session").run_or_error(drain).await
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
        let body = async |tx: &Tx| self.break_within(tx, session, None).await;
        self.database().runner("break a session").run_or_error(body).await
    }

    /// [Breaks the session](Self::break_session) that holds a work, if it still holds it with this fence. For who decided by what they saw: a work that has
    /// ended since costs nobody anything.
    ///
    /// Answers what the session holds, all of which is lost with it; `None`: the work is not held with this fence, and nothing was done.
    ///
    /// # Errors
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future breaks the session or does not.
    pub async fn break_holder(&self, work: WorkId, fence: Fence) -> Result<Option<HeldBySession>, Error> {
        const HOLDER: &str = "SELECT session_id, machine_id FROM work WHERE work_id = $1 AND fence = $2 {lock}";
        let body = async |tx: &Tx| {
            let rows = tx.query_text(HOLDER, [work.into(), fence.into()]).await?;
            match rows.first() {
                Some(row) => {
                    let because = (work, row.try_get_by_index(1)?);
                    self.break_within(tx, row.try_get_by_index(0)?, Some(because)).await
                }
                None => Ok(None),
            }
        };
        self.database()
            .runner("break a work's session")
            .run_or_error(body)
            .await
    }

    async fn break_within(
        &self,
        tx: &Tx,
        session: SessionId,
        because_of: Option<(WorkId, MachineId)>,
    ) -> Result<Option<HeldBySession>, Error> {
        /// A deadline of now cannot be extended: a heartbeat demands one that is still to come. One that has passed stays.
        const BREAK: &str = "UPDATE session_lease SET deadline = {now} WHERE session_id = $1 AND deadline > {now}";
        let is_new = tx.execute_text(BREAK, [session.into()]).await? == 1;
        let Some(held) = held_by(tx, session).await? else {
            return Ok(None);
        };
        let act = Act {
            verb: "break-session",
            machine: because_of.map(|(_, machine)| machine),
            work: because_of.map(|(work, _)| work),
            session: Some(session),
            detail: Some(held.detail()),
            ..Act::default()
        };
        // One whose deadline has passed was broken before, or is dead.
        if is_new {
            self.record(tx, act).await?;
        }
        Ok(Some(held))
    }
}

impl HeldBySession {
    /// In words that are kept.
    fn detail(&self) -> String {
        format!("{}; works that it holds: {}", self.component_name, self.works.len())
    }
}

/// What a session holds. `None`: there is no such session.
async fn held_by(tx: &Tx, session: SessionId) -> Result<Option<HeldBySession>, Error> {
    const SESSION: &str = "SELECT component_name, runtime_info FROM session WHERE session_id = $1";
    const WORKS: &str = "SELECT machine_id, process FROM work WHERE session_id = $1 ORDER BY machine_id";
    let rows = tx.query_text(SESSION, [session.into()]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let works = tx.query_text(WORKS, [session.into()]).await?;
    let works = works
        .iter()
        .map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)));
    Ok(Some(HeldBySession {
        component_name: row.try_get_by_index(0)?,
        runtime_info: row.try_get_by_index(1)?,
        works: works.collect::<Result<_, sea_orm::DbErr>>()?,
    }))
}
