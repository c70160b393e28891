//! Pauses: until when no component claims for a process, and why.

use bmdb_entity::{WorkId, process_pause};
use chrono::{DateTime, Utc};
use sea_orm::{DbErr, FromQueryResult, QueryResult};

use crate::admin::operator::{Act, Operator};
use crate::admin::until::Until;
use crate::bmdb::Bmdb;
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::store::process::check_registered;

const END: &str = "the end of a pause";

/// So many works are asked to stop at once: nobody waits for long for what that locks.
const TOGETHER: usize = 500;

impl Bmdb {
    /// The pauses that are on, by process. [`processes`](Self::processes) has them too, with counts for which it reads much more.
    ///
    /// # Errors
    /// When the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn pauses(&self) -> Result<Vec<process_pause::Model>, Error> {
        const DOING: &str = "read the pauses";
        let rows = self
            .database()
            .read(DOING, &format!("{PAUSES} ORDER BY process"), [])
            .await?;
        read(&rows).map_err(Error::database(DOING))
    }
}

impl Operator {
    /// Pauses a process: no component claims for it until the pause ends. Work that is going on goes on; [`ask_all_to_stop`](Self::ask_all_to_stop) asks it to
    /// stop as well. A pause replaces one that ends earlier, and never one that lasts as long: somebody has a reason for that one; resume the process first.
    ///
    /// A claim whose statement had begun before the pause may still get its machine. What is eligible [stays so](crate::Registered::count), and hints are kept:
    /// a process that is resumed goes on where it was. Components built before pauses (schema step 28) do not obey them.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
    /// use bmdb::Until;
    /// use std::time::Duration;
    ///
    /// let ada = bmdb.operator("ada", "the new image does not boot")?;
    /// ada.pause_process("install", Until::For(Duration::from_secs(3600))).await?;
    /// println!("{} works were asked to stop", ada.ask_all_to_stop("install").await?);
    /// ada.resume_process("install").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no process and for an end that is past or lies too far away, [`Error::UnknownProcess`], [`Error::AlreadyPaused`]: nothing
    /// was written.
    ///
    /// # Cancel safety
    /// Dropping the future pauses the process or does not.
    pub async fn pause_process(&self, process: &str, until: Until) -> Result<(), Error> {
        until.check(END)?;
        check_registered(self.database(), process).await?;
        let pause = async |tx: &Tx| {
            let (end, value) = until.value("$2");
            let text = format!(
                "INSERT INTO process_pause (process, until, reason, paused_by, paused_at, ticket) VALUES ($1, {end}, $3, $4, {{now}}, $5) \
                 ON CONFLICT (process) DO UPDATE SET until = excluded.until, reason = excluded.reason, paused_by = excluded.paused_by, \
                 paused_at = excluded.paused_at, ticket = excluded.ticket \
                 WHERE process_pause.until <= {{now}} OR (process_pause.until IS NOT NULL AND (excluded.until IS NULL OR excluded.until > process_pause.until))"
            );
            until.check_to_come(tx, END).await?;
            let values = [
                process.into(),
                value,
                self.reason.as_str().into(),
                self.by.as_str().into(),
                self.ticket.as_deref().into(),
            ];
            if tx.execute_text(&text, values).await? == 0 {
                return Err(standing(tx, process).await?);
            }
            let act = Act {
                verb: "pause-process",
                process: Some(process),
                detail: Some(until.detail("resumed")),
                ..Act::default()
            };
            Ok(self.record(tx, act).await?)
        };
        self.database().runner("pause a process").run_or_error(pause).await
    }

    /// Ends the pause of a process. `false`: it was not paused.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no process, [`Error::UnknownProcess`], or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future resumes the process or does not.
    pub async fn resume_process(&self, process: &str) -> Result<bool, Error> {
        const RESUME: &str = "DELETE FROM process_pause WHERE process = $1 RETURNING until IS NULL OR until > {now}";
        check_registered(self.database(), process).await?;
        let resume = async |tx: &Tx| {
            let rows = tx.query_text(RESUME, [process.into()]).await?;
            let was_paused = rows.first().map(|row| row.try_get_by_index(0)).transpose()?;
            if was_paused != Some(true) {
                return Ok(false);
            }
            let act = Act {
                verb: "resume-process",
                process: Some(process),
                ..Act::default()
            };
            self.record(tx, act).await?;
            Ok::<_, Error>(true)
        };
        self.database().runner("resume a process").run_or_error(resume).await
    }

    /// Asks the holders of all works of a process to stop, as [`ask_to_stop`](Self::ask_to_stop) does for one, but for those that were asked before. Answers how many
    /// were asked. Some hundred at a time, each lot with a row of `operation` of its own. [Pause](Self::pause_process) the process first, else others begin
    /// meanwhile; and ask once more after the longest that a claim may take, for one that had begun before the pause may come through after the works were read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no process, [`Error::UnknownProcess`]; or when the database cannot be written: some may have been asked by then.
    ///
    /// # Cancel safety
    /// Dropping the future half-way has asked some of them.
    pub async fn ask_all_to_stop(&self, process: &str) -> Result<u64, Error> {
        const DOING: &str = "ask the works of a process to stop";
        const WORKS: &str =
            "SELECT work_id FROM work WHERE process = $1 AND stop_requested IS NULL ORDER BY machine_id, slot";
        check_registered(self.database(), process).await?;
        let rows = self.database().read(DOING, WORKS, [process.into()]).await?;
        let works = rows.iter().map(|row| row.try_get_by_index(0));
        let works: Vec<WorkId> = works.collect::<Result<_, _>>().map_err(Error::database(DOING))?;
        let mut asked = 0;
        for some in works.chunks(TOGETHER) {
            let ask = async |tx: &Tx| {
                let mut text = SqlBuilder::new(tx.dialect());
                text.put(
                    "UPDATE work SET stop_requested = $1 WHERE stop_requested IS NULL AND work_id IN (",
                    [self.reason.as_str().into()],
                )
                .each(some, "$1", |work| [(*work).into()])
                .put(")", []);
                let many = tx.write(text).await?;
                if many > 0 {
                    let act = Act {
                        verb: "ask-all-to-stop",
                        process: Some(process),
                        detail: Some(format!("works asked to stop: {many}")),
                        ..Act::default()
                    };
                    self.record(tx, act).await?;
                }
                Ok::<_, Error>(many)
            };
            asked += self.database().runner(DOING).run_or_error(ask).await?;
        }
        Ok(asked)
    }
}

/// The pause that stands in the way of another.
async fn standing(tx: &Tx, process: &str) -> Result<Error, Error> {
    const STANDING: &str = "SELECT paused_by, reason, {until until} FROM process_pause WHERE process = $1";
    let rows = tx.query_text(STANDING, [process.into()]).await?;
    let row = rows.first().ok_or(DbErr::RecordNotFound("a pause".to_owned()))?;
    let until: Option<DateTime<Utc>> = row.try_get_by_index(2)?;
    Ok(Error::AlreadyPaused {
        process: process.to_owned(),
        paused_by: row.try_get_by_index(0)?,
        reason: row.try_get_by_index(1)?,
        until,
    })
}

/// The columns of a pause that is still on.
pub(super) const PAUSES: &str = "
    SELECT process, {until until} AS until, reason, paused_by, {moment paused_at} AS paused_at, ticket FROM process_pause
    WHERE (until IS NULL OR until > {now})";

/// The rows of [`PAUSES`].
pub(super) fn read(rows: &[QueryResult]) -> Result<Vec<process_pause::Model>, DbErr> {
    let pauses = rows.iter().map(|row| process_pause::Model::from_query_result(row, ""));
    pauses.collect()
}

/// The pause of a process, unless its time is over.
pub(super) async fn of_process(tx: &Tx, process: &str) -> Result<Option<process_pause::Model>, Error> {
    let rows = tx
        .query_text(&format!("{PAUSES} AND process = $1"), [process.into()])
        .await?;
    let pauses = read(&rows).map_err(Error::database("read a process's pause"))?;
    Ok(pauses.into_iter().next())
}
