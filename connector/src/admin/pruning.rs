//! History that nobody needs any more.

use std::time::{Duration, Instant};

use bmdb_entity::{Fence, MachineId};
use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{DbErr, QueryResult, Value};
use uuid::Uuid;

use crate::admin::operator::{Act, Operator};
use crate::bmdb::Bmdb;
use crate::db::dialect::Dialect;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::error::fault::Fault;

/// A claim by its key, in whose order history is read.
type Key = (MachineId, Fence);

/// Before all keys: fences begin at 1.
const FIRST: Key = (MachineId(Uuid::nil()), Fence(0));
const LAST: Key = (MachineId(Uuid::max()), Fence(i64::MAX));

/// A transaction reads so many events, in the order of their keys, and locks what it deletes of them. On a server nobody waits for that: history is only added to.
const TOGETHER: i64 = 1000;

/// Of a window of history, the claims that ended before `$5`. The window stands twice, so that no plan reads all of history for one of them.
const ENDED: &str = "
    WHERE (machine_id, fence) > ($1, $2) AND (machine_id, fence) <= ($3, $4) AND EXISTS (
        SELECT e.event FROM work_history AS e WHERE e.machine_id = work_history.machine_id AND e.fence = work_history.fence
            AND (e.machine_id, e.fence) > ($1, $2) AND (e.machine_id, e.fence) <= ($3, $4) AND e.event <> 'started' AND e.at < {time $5})";

/// SQLite's writers ask again after so long, at most.
const SHORTEST_REST: Duration = Duration::from_millis(100);

/// Where a window ends that begins after a key: at an event that is this far on.
const WINDOW: &str = "
    SELECT machine_id, fence FROM work_history WHERE (machine_id, fence) > ($1, $2) ORDER BY machine_id, fence LIMIT 1 OFFSET $3";

/// Where the window after a key ends, and whether others follow.
fn end_of(rows: &[QueryResult]) -> Result<(Key, bool), DbErr> {
    match rows.first() {
        Some(row) => Ok(((row.try_get_by_index(0)?, row.try_get_by_index(1)?), true)),
        None => Ok((LAST, false)),
    }
}

fn window((machine, fence): Key) -> [Value; 3] {
    [machine.into(), fence.into(), TOGETHER.into()]
}

fn ended((machine, fence): Key, (last_machine, last_fence): Key, before: DateTime<Utc>) -> [Value; 5] {
    [
        machine.into(),
        fence.into(),
        last_machine.into(),
        last_fence.into(),
        before.into(),
    ]
}

/// What happened in the last day may be what somebody asks for just now.
fn check_age(now: DateTime<Utc>, before: DateTime<Utc>) -> Result<(), Error> {
    if before <= now - TimeDelta::days(1) {
        return Ok(());
    }
    let what = "the time before which history goes";
    Err(Error::invalid(what, &before.to_string(), "at least a day ago"))
}

impl Bmdb {
    /// How many events of history [`prune_history`](Operator::prune_history) would delete. It reads all of history, some thousand events at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time less than a day ago; or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn prunable_history(&self, before: DateTime<Utc>) -> Result<u64, Error> {
        const DOING: &str = "count old history";
        let count = format!("SELECT CAST(count(event) AS BIGINT) FROM work_history {ENDED}");
        check_age(self.now().await?, before)?;
        let (mut all, mut after) = (0, Some(FIRST));
        while let Some(from) = after {
            let rows = self.database().read(DOING, WINDOW, window(from)).await?;
            let (to, more) = end_of(&rows).map_err(Error::database(DOING))?;
            let rows = self.database().read(DOING, &count, ended(from, to, before)).await?;
            let many: Option<i64> = rows
                .first()
                .map(|row| row.try_get_by_index(0))
                .transpose()
                .map_err(Error::database(DOING))?;
            all += many.unwrap_or_default().unsigned_abs();
            after = more.then_some(to);
        }
        Ok(all)
    }
}

impl Operator {
    /// Deletes the history of claims that ended before this time; answers how many events that were. What has not ended keeps its start, however old that is.
    /// Some thousand at a time, so it may take long and can be stopped at any time. Only a role that may delete history can do it: a component's may not.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
    /// use std::time::Duration;
    ///
    /// let quarter_ago = bmdb.now().await? - Duration::from_secs(90 * 24 * 3600);
    /// let ada = bmdb.operator("ada", "we keep a quarter")?;
    /// println!("{} events are gone", ada.prune_history(quarter_ago).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time less than a day ago, [`Error::NotAllowed`]; or when the database cannot be written: some may be deleted by then.
    ///
    /// # Cancel safety
    /// Dropping the future half-way has deleted some of it.
    pub async fn prune_history(&self, before: DateTime<Utc>) -> Result<u64, Error> {
        const DOING: &str = "prune history";
        let delete = format!("DELETE FROM work_history {ENDED}");
        let rows = self.database().read(DOING, "SELECT {now} AS now", []).await?;
        let now: Option<DateTime<Utc>> = rows
            .first()
            .map(|row| row.try_get_by_index(0))
            .transpose()
            .map_err(Error::database(DOING))?;
        check_age(now.unwrap_or_default(), before)?;
        let runner = self.database().runner(DOING);
        let (mut all, mut after) = (0, Some(FIRST));
        while let Some(from) = after {
            let began = Instant::now();
            let some = async |tx: &Tx| {
                let (to, more) = end_of(&tx.query_text(WINDOW, window(from)).await?)?;
                let deleted = tx.execute_text(&delete, ended(from, to, before)).await?;
                // With the first that go.
                if all == 0 && deleted > 0 {
                    let act = Act {
                        verb: "prune-history",
                        detail: Some(format!(
                            "of claims that ended before {}",
                            before.format("%Y-%m-%d %H:%M:%S UTC")
                        )),
                        ..Act::default()
                    };
                    self.record(tx, act).await?;
                }
                Ok::<_, Error>((deleted, more.then_some(to)))
            };
            let (deleted, next) = match runner.run_or_error(some).await {
                Err(Error::Database { source, .. }) if Fault::of(&source) == Fault::NotAllowed => {
                    return Err(self.may_not_delete().await);
                }
                some => some?,
            };
            all += deleted;
            after = next;
            if self.database().dialect == Dialect::Sqlite {
                // Where one writes at a time, heartbeats are to have their turn.
                tokio::time::sleep(began.elapsed().max(SHORTEST_REST)).await;
            }
        }
        Ok(all)
    }

    async fn may_not_delete(&self) -> Error {
        let database = self.database();
        let role = database
            .read("read our own role", "SELECT CAST(current_user AS TEXT)", [])
            .await;
        let role = role.ok().and_then(|rows| rows.first()?.try_get_by_index(0).ok());
        Error::NotAllowed {
            database: database.name.clone(),
            role: role.unwrap_or_default(),
            lacks: vec!["DELETE on work_history".to_owned()],
        }
    }
}
