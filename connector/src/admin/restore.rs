//! What a database needs that was put back from a backup, before components work on it.

use std::time::Duration;

use bmdb_entity::SessionId;
use bmdb_entity::work_history::Event;

use crate::admin::operator::{Act, Operator};
use crate::db::tx::Tx;
use crate::error::Error;
use crate::store::history;

/// What was done to a database that was put back from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The sessions that were in the backup. They are over.
    pub expired: Vec<SessionId>,
    /// How many works they held.
    pub freed: u64,
    /// On how many machines the fence is ahead of the database's clock. If any, the clock is too early and may repeat fences given out after the
    /// backup: correct it before components start.
    pub ahead: u64,
}

/// No session can be longer between heartbeats.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

impl Operator {
    /// Makes a restored database safe to work on. Run it once, after all components have stopped and the old database is unreachable, and before any
    /// component starts. It breaks every session of the backup, waits for the longest of their intervals, or this component's if that is
    /// longer, so that nobody believes in one any more, and expires them: history gets its ends, machines their cool-downs. Work that was claimed after
    /// the backup is not in it, and free; new fences are above those that were given out for it, as long as the database's clock did not go back.
    ///
    /// On a database in use it ends all work.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bmdb::Error> {
    /// use bmdb::{Bmdb, Config, runtime_info};
    ///
    /// let bmdb = Bmdb::connect(Config::from_env("after-restore", runtime_info!())?).await?;
    /// let restored = bmdb.operator("ada", "the disk of db1 broke")?.after_restore().await?;
    /// assert_eq!(restored.ahead, 0, "the database's clock stands too early");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be written. Run it again: what has been done is not done twice.
    ///
    /// # Cancel safety
    /// Dropping the future leaves sessions that are broken, which a collector expires, or which this does when it is run again.
    pub async fn after_restore(&self) -> Result<Restored, Error> {
        let database = self.database();
        const SESSIONS: &str = "SELECT session_id, interval_ms FROM session";
        const BREAK: &str = "UPDATE session_lease SET deadline = {now} WHERE deadline > {now}";
        const AHEAD: &str = "SELECT CAST(count(machine_id) AS BIGINT) FROM machine WHERE fence > {clock}";
        const DOING: &str = "end the sessions of a backup";
        let rows = database.read(DOING, SESSIONS, []).await?;
        // The first thing that was wrong; all others are done first.
        let mut wrong = None;
        let mut sessions: Vec<(SessionId, Duration)> = Vec::with_capacity(rows.len());
        for row in &rows {
            // An interval that cannot be read may be any.
            let interval = row.try_get_by_index::<i64>(1);
            let interval = interval.map_or(LONGEST_INTERVAL, |interval| {
                Duration::from_millis(interval.unsigned_abs())
            });
            match row.try_get_by_index(0) {
                Ok(session) => sessions.push((session, interval)),
                Err(error) => wrong = wrong.or(Some(Error::database(DOING)(error))),
            }
        }
        let runner = database.runner(DOING);
        let break_all = async |tx: &Tx| {
            tx.execute_text(BREAK, []).await?;
            let act = Act {
                verb: "after-restore",
                detail: Some(format!("{} sessions were in the backup", sessions.len())),
                ..Act::default()
            };
            Ok::<_, Error>(self.record(tx, act).await?)
        };
        runner.run_or_error(break_all).await?;
        // Those that came after the backup, of which nothing is known, are taken to beat as often as this component.
        let intervals = sessions.iter().map(|(_, interval)| *interval);
        let longest = intervals.fold(database.config.interval, Duration::max);
        tokio::time::sleep(longest.min(LONGEST_INTERVAL)).await;
        let mut restored = Restored::default();
        for (session, _) in sessions {
            match runner.run_or_error(async |tx: &Tx| expire(tx, session).await).await {
                Ok(Some(freed)) => {
                    restored.expired.push(session);
                    restored.freed += freed;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%session, error = &error as &dyn std::error::Error, "a session of the backup is not expired");
                    wrong = wrong.or(Some(error));
                }
            }
        }
        if let Some(error) = wrong {
            return Err(error);
        }
        let ahead = database.dialect.statement(AHEAD, []);
        restored.ahead = database.read_count(DOING, ahead).await?;
        Ok(restored)
    }
}

/// `None`: it is over already.
async fn expire(tx: &Tx, session: SessionId) -> Result<Option<u64>, Error> {
    const LOCK: &str = "SELECT session_id FROM session WHERE session_id = $1 {lock}";
    const WORKS: &str = "SELECT work_id FROM work WHERE session_id = $1 {lock}";
    if tx.query_text(LOCK, [session.into()]).await?.is_empty() {
        return Ok(None);
    }
    let cause = Some("the database was put back from a backup");
    let works = tx.query_text(WORKS, [session.into()]).await?.len();
    history::end_session(tx, session, Event::Expired, cause).await?;
    Ok(Some(works as u64))
}
