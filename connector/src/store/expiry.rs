//! The statements of a collector: what it reads of sessions, and how it expires them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bmdb_entity::SessionId;
use bmdb_entity::work_history::Event;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use crate::db::database::Database;
use crate::db::sql::SqlBuilder;
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::rules::sightings::{Clocks, Seen};
use crate::runtime::lease::BootInstant;
use crate::runtime::retry::pause_after;
use crate::store::history::{self, Sessions};

/// What a sweep has read.
pub(crate) struct Read {
    /// `None`: there is no session.
    pub(crate) clocks: Option<Clocks>,
    pub(crate) leases: Vec<Seen>,
    /// The rows that could not be read, by name, with the reason.
    pub(crate) unreadable: Vec<(String, DbErr)>,
}

/// Reads every session's lease, row by row.
pub(crate) async fn read(database: &Database) -> Result<Read, Error> {
    const DOING: &str = "read the sessions";
    // An interval is an hour at most, but somebody may have written another: to add one that is far too long would be an error, for all.
    // What collectors before have written down counts only once no heartbeat can follow. Before that, somebody may write `infinity` twice, with a
    // heartbeat in between, and it would look like one that stood all the time.
    const READ: &str = "
        SELECT s.session_id, s.interval_ms, {exact l.deadline},
            CAST(CASE WHEN l.deadline BETWEEN {now} AND {after CASE WHEN s.interval_ms < 86400000 THEN s.interval_ms ELSE 86400000 END} THEN 0 ELSE 1 END
                 AS BIGINT),
            {now}, {exact s.session_id},
            CAST(CASE WHEN l.deadline <= {now} AND w.deadline = {exact l.deadline} THEN w.age_ms ELSE 0 END AS BIGINT)
        FROM session s LEFT JOIN session_lease l ON l.session_id = s.session_id
        LEFT JOIN session_sighting w ON w.session_id = s.session_id";
    let asked = BootInstant::now();
    let rows = database.read(DOING, READ, []).await?;
    let answered = BootInstant::now();
    let database_now = rows.first().map(|row| row.try_get_by_index::<DateTime<Utc>>(4));
    let database_now = database_now.transpose().map_err(Error::database(DOING))?;
    let mut read = Read {
        clocks: database_now.map(|database| Clocks {
            asked,
            answered,
            database,
        }),
        leases: Vec::with_capacity(rows.len()),
        unreadable: Vec::new(),
    };
    for row in rows {
        match seen(&row) {
            Ok(lease) => read.leases.push(lease),
            Err(error) => {
                let name = row.try_get_by_index(5).unwrap_or_default();
                read.unreadable.push((name, error));
            }
        }
    }
    Ok(read)
}

fn seen(row: &QueryResult) -> Result<Seen, DbErr> {
    let (interval, past): (i64, i64) = (row.try_get_by_index(1)?, row.try_get_by_index(3)?);
    let age: i64 = row.try_get_by_index(6)?;
    Ok(Seen {
        session: row.try_get_by_index(0)?,
        deadline: row.try_get_by_index(2)?,
        interval: Duration::from_millis(interval.unsigned_abs()),
        past: past == 1,
        age: Duration::from_millis(age.unsigned_abs()),
    })
}

/// Writes down for how long these leases have stood, for collectors to come. Those of sessions that have ended meanwhile, or that somebody has locked, are
/// left out: they keep nobody waiting, and no other from being noted.
pub(crate) async fn remember(runner: &TxRunner<'_>, waiting: &[Seen]) -> Result<(), Error> {
    const SEE: &str = "INSERT INTO session_sighting (session_id, deadline, age_ms) VALUES ";
    /// Of two ages of one lease both are true, and the longer says more.
    const LONGER: &str = "
        ON CONFLICT (session_id) DO UPDATE SET deadline = excluded.deadline, age_ms = CASE
            WHEN session_sighting.deadline = excluded.deadline AND session_sighting.age_ms > excluded.age_ms THEN session_sighting.age_ms
            ELSE excluded.age_ms END";
    let row = |seen: &Seen| {
        let age = i64::try_from(seen.age.as_millis()).unwrap_or(i64::MAX);
        [
            seen.session.into(),
            seen.deadline.clone().unwrap_or_default().into(),
            age.into(),
        ]
    };
    let seeing = runner.run(async |tx: &Tx| {
        let mut text = SqlBuilder::new(tx.dialect());
        text.put("SELECT session_id FROM session WHERE session_id IN (", [])
            .each(waiting, "$1", |seen| [seen.session.into()])
            .put(") {kept session}", []);
        let rows = tx.query_all_raw(text.finish()).await?;
        let kept = rows.iter().map(|row| row.try_get_by_index(0));
        let kept = kept.collect::<Result<HashSet<SessionId>, _>>()?;
        let waiting = waiting.iter().filter(|seen| kept.contains(&seen.session));
        if kept.is_empty() {
            return Ok(0);
        }
        let mut text = SqlBuilder::new(tx.dialect());
        text.put(SEE, []).each(waiting, "($1, $2, $3)", row).put(LONGER, []);
        Ok::<_, Error>(tx.write(text).await?)
    });
    match seeing.await {
        Ok(_) | Err(TxError::Unknown { .. }) => Ok(()),
        Err(TxError::NotCommitted(error)) => Err(error),
    }
}

/// The sessions that were expired, and how many works each had.
pub(crate) type Expired = HashMap<SessionId, u64>;

/// Expires sessions in one transaction: all that are still as they were seen and that nobody has locked. What is locked is left to the next sweep.
pub(crate) async fn expire(runner: &TxRunner<'_>, dead: &[Seen]) -> Result<Expired, Error> {
    for attempt in 1..=3 {
        let expiring = runner.run(async |tx: &Tx| Ok::<_, Error>(expire_within(tx, dead).await?));
        match expiring.await {
            Ok(expired) => return Ok(expired),
            Err(TxError::NotCommitted(error)) => return Err(error),
            // Run again, it finds the sessions gone if it did take effect.
            Err(TxError::Unknown { .. }) => tokio::time::sleep(pause_after(attempt)).await,
        }
    }
    Err(Error::CommitUnknown {
        doing: runner.doing,
        source: None,
    })
}

/// All rows are locked before the deadlines are read again, and each must be the very one that the sweep saw: a heartbeat that is on its way wins,
/// and so does one that came while the database's clock stood elsewhere.
async fn expire_within(tx: &Tx, dead: &[Seen]) -> Result<Expired, DbErr> {
    const LEASES: &str = "
        SELECT l.session_id, {exact l.deadline}, CAST(CASE WHEN l.deadline BETWEEN {now} AND
            {after (SELECT CASE WHEN s.interval_ms < 86400000 THEN s.interval_ms ELSE 86400000 END FROM session s WHERE s.session_id = l.session_id)}
            THEN 1 ELSE 0 END AS BIGINT)
        FROM session_lease l WHERE l.session_id IN ";
    let all = Sessions::new(dead.iter().map(|lease| lease.session));
    let select = |text: &str, sessions: &Sessions, end: &str| {
        let mut select = SqlBuilder::new(tx.dialect());
        select.put(text, []);
        sessions.put(&mut select).put(end, []);
        select.finish()
    };
    let rows = tx
        .query_all_raw(select(
            "SELECT session_id FROM session WHERE session_id IN ",
            &all,
            " {free session}",
        ))
        .await?;
    let there: HashSet<SessionId> = rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?;
    let mut leases = HashMap::new();
    if !there.is_empty() {
        for row in tx.query_all_raw(select(LEASES, &all, " {free l}")).await? {
            let lives: i64 = row.try_get_by_index(2)?;
            let deadline: Option<String> = row.try_get_by_index(1)?;
            leases.insert(row.try_get_by_index::<SessionId>(0)?, (deadline, lives == 1));
        }
    }
    let is_dead = |seen: &&Seen| {
        there.contains(&seen.session)
            && match leases.get(&seen.session) {
                Some((deadline, lives)) => !lives && *deadline == seen.deadline,
                // A lease goes with its session only, and one that was there is locked by somebody.
                None => seen.deadline.is_none(),
            }
    };
    let still = Sessions::new(dead.iter().filter(is_dead).map(|seen| seen.session));
    if still.is_empty() {
        return Ok(Expired::new());
    }
    let works = "SELECT session_id, machine_id, slot FROM work WHERE session_id IN ";
    let mut locked: HashMap<SessionId, u64> = still.iter().map(|session| (session, 0)).collect();
    for row in tx.query_all_raw(select(works, &still, " {free work}")).await? {
        *locked.entry(row.try_get_by_index(0)?).or_default() += 1;
    }
    // A work that its holder is ending at this moment is not ours to end.
    let count = "SELECT session_id, CAST(COUNT(work_id) AS BIGINT) FROM work WHERE session_id IN ";
    for row in tx.query_all_raw(select(count, &still, " GROUP BY session_id")).await? {
        let (session, works): (SessionId, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        if locked.get(&session) != Some(&works.unsigned_abs()) {
            locked.remove(&session);
        }
    }
    if !locked.is_empty() {
        let cause = "the session's deadline passed";
        history::end_sessions(tx, &Sessions::new(locked.keys().copied()), Event::Expired, Some(cause)).await?;
    }
    Ok(locked)
}
