//! The processes that components have registered, as operators see them.

use std::time::Duration;

use bmdb_entity::process_pause;
use chrono::{DateTime, Utc};
use sea_orm::{DbErr, QueryResult};

use crate::admin::pause::{self, PAUSES};
use crate::bmdb::Bmdb;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;

/// A process that some component has registered, and where its machines stand. What is eligible, its [rules](Bmdb::rules) count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its name.
    pub process: String,
    /// Its slot.
    pub slot: String,
    /// What it does, for people.
    pub description: String,
    /// How long a slot is held that an expiry freed.
    pub cool_down: Duration,
    /// When it was first registered.
    pub registered_at: DateTime<Utc>,
    /// The component that registered it.
    pub registered_by: String,
    /// How many rules of it have been used within a day.
    pub rules: u64,
    /// When one was used last, to the hour.
    pub used_at: Option<DateTime<Utc>>,
    /// On how many machines somebody works for it.
    pub in_work: u64,
    /// How many machines it leaves alone for a while.
    pub backing_off: u64,
    /// How many machines it leaves alone until a person has looked.
    pub parked: u64,
    /// On how many machines its slot, or the whole machine, is held.
    pub held: u64,
    /// Until when no component claims for it, if somebody has paused it.
    pub pause: Option<process_pause::Model>,
    /// When this was so.
    pub as_of: DateTime<Utc>,
}

impl Bmdb {
    /// All processes, by slot and name, with counts of their machines. It reads every work, backoff and hold once.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
    /// for process in bmdb.processes().await? {
    ///     println!("{}: {} in work, {} parked", process.process, process.in_work, process.parked);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn processes(&self) -> Result<Vec<ProcessStatus>, Error> {
        const DOING: &str = "list processes";
        const PROCESSES: &str = "
            SELECT p.name, p.slot, p.description, p.cool_down_ms, {moment p.registered_at} AS registered_at, p.registered_by,
                COALESCE(r.rules, 0) AS rules, {moment r.used_at} AS used_at, COALESCE(w.works, 0) AS works,
                COALESCE(b.backing_off, 0) AS backing_off, COALESCE(b.parked, 0) AS parked,
                (SELECT CAST(count(DISTINCT h.machine_id) AS BIGINT) FROM work_hold h
                    WHERE h.slot IN (p.slot, '*') AND (h.until IS NULL OR h.until > {now})) AS held, {now} AS as_of
            FROM process p
                LEFT JOIN (SELECT process, CAST(count(digest) AS BIGINT) AS rules, max(used_at) AS used_at FROM process_rule GROUP BY process) r
                    ON r.process = p.name
                LEFT JOIN (SELECT process, CAST(count(work_id) AS BIGINT) AS works FROM work GROUP BY process) w ON w.process = p.name
                LEFT JOIN (SELECT process, CAST(sum(CASE WHEN until > {now} THEN 1 ELSE 0 END) AS BIGINT) AS backing_off,
                        CAST(sum(CASE WHEN until IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS parked FROM work_backoff GROUP BY process) b
                    ON b.process = p.name
            ORDER BY p.slot, p.name";
        let read_all = async |tx: &Tx| {
            let pauses = pause::read(&tx.query_text(PAUSES, []).await?)?;
            let rows = tx.query_text(PROCESSES, []).await?;
            let rows = rows.iter().map(|row| read(row, &pauses));
            Ok::<Vec<_>, Error>(rows.collect::<Result<_, _>>()?)
        };
        let runner = self.database().snapshot(DOING);
        runner.run(read_all).await.or_else(TxError::or_read)
    }
}

fn read(row: &QueryResult, pauses: &[process_pause::Model]) -> Result<ProcessStatus, DbErr> {
    let process: String = row.try_get("", "name")?;
    let count = |column| Ok::<_, DbErr>(row.try_get::<i64>("", column)?.unsigned_abs());
    Ok(ProcessStatus {
        pause: pauses.iter().find(|pause| pause.process == process).cloned(),
        process,
        slot: row.try_get("", "slot")?,
        description: row.try_get("", "description")?,
        cool_down: Duration::from_millis(count("cool_down_ms")?),
        registered_at: row.try_get("", "registered_at")?,
        registered_by: row.try_get("", "registered_by")?,
        rules: count("rules")?,
        used_at: row.try_get("", "used_at")?,
        in_work: count("works")?,
        backing_off: count("backing_off")?,
        parked: count("parked")?,
        held: count("held")?,
        as_of: row.try_get("", "as_of")?,
    })
}
