//! What takes room: history that nobody prunes, and snapshots that keep a server from cleaning up.

use bmdb::entity::work_history::{Column, Entity};
use bmdb::sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseBackend, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect,
    Statement,
};
use bmdb::{Bmdb, Dialect, MachineId};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Checked, Finding, Patient};
use crate::answer::words::{count, foreign, grouped, span};
use crate::failure::{Failure, Kind};

/// How many events are looked at, in two pieces of the key's order. To count all would read all.
const SAMPLE: u64 = 2000;
/// What is older is seldom asked for.
const OLD: TimeDelta = TimeDelta::days(90);
/// Of less, nobody needs to be rid.
const MANY: u64 = 1_000_000;
/// A component's transaction takes moments.
const LONG: TimeDelta = TimeDelta::minutes(5);

/// How much history there is, about, and how much of that is old.
pub(super) async fn history(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    let now = bmdb.now().await?;
    // Ids are random, so that machines of all ages stand in each piece.
    let (first, second) = (
        piece(bmdb, MachineId(Uuid::nil())).await?,
        piece(bmdb, MachineId(Uuid::new_v4())).await?,
    );
    let is_all = (first.len() as u64) < SAMPLE / 2;
    let seen: Vec<_> = if is_all {
        first
    } else {
        first.into_iter().chain(second).collect()
    };
    let old = seen.iter().filter(|at| now - **at > OLD).count() as u64;
    let (all, bytes) = if is_all {
        (Some(seen.len() as u64), None)
    } else {
        size(bmdb).await?
    };
    let bytes = bytes
        .map(|bytes| format!(", which take about {} MB", grouped(bytes / 1_000_000)))
        .unwrap_or_default();
    let of_sample = format!(
        "{} of {} events that were looked at",
        grouped(old),
        grouped(seen.len() as u64)
    );
    let Some(all) = all else {
        return Ok(Checked::Fine(format!(
            "{of_sample} are older than 90 days; how many there are in all, the database does not estimate"
        )));
    };
    let would_go = u128::from(all) * u128::from(old) / u128::from(seen.len().max(1) as u64);
    let would_go = u64::try_from(would_go).unwrap_or(u64::MAX);
    let about = if is_all { "" } else { "about " };
    let how = format!(
        "{about}{}{bytes}; {about}{} of claims older than 90 days",
        count(all, "event", "events"),
        grouped(would_go)
    );
    if would_go < MANY {
        return Ok(Checked::Fine(how));
    }
    Ok(Checked::Found(vec![Finding {
        what: format!("{how}, by {of_sample}"),
        mend: "bmdb prune --older-than 90d --reason '…' counts them, and deletes nothing yet".to_owned(),
    }]))
}

/// The times of some events that stand together.
async fn piece(bmdb: &Bmdb, from: MachineId) -> Result<Vec<DateTime<Utc>>, Failure> {
    let events = Entity::find()
        .select_only()
        .column(Column::At)
        .filter(Column::MachineId.gte(from))
        .order_by_asc(Column::MachineId)
        .order_by_asc(Column::Fence)
        .limit(SAMPLE / 2);
    Ok(events.into_tuple().all(bmdb.reads()).await.map_err(bmdb::Error::from)?)
}

/// Rows and bytes, as the server estimates them.
async fn size(bmdb: &Bmdb) -> Result<(Option<u64>, Option<u64>), Failure> {
    const ASK: &str = "
        SELECT CAST(reltuples AS BIGINT), pg_total_relation_size(oid) FROM pg_class WHERE oid = CAST('work_history' AS regclass)";
    if bmdb.dialect() != Dialect::Postgres {
        return Ok((None, None));
    }
    let rows = ask(bmdb, ASK, "the size of history cannot be read").await?;
    let number = |place: usize| {
        let number = rows.first()?.try_get_by_index::<i64>(place).ok()?;
        u64::try_from(number).ok()
    };
    Ok((number(0), number(1)))
}

/// Transactions of anybody that are open for long.
pub(super) async fn snapshots(patient: &Patient<'_>) -> Result<Checked, Failure> {
    const MAY_LOOK: &str = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')";
    const OPEN: &str = "
        SELECT CAST(pid AS BIGINT), coalesce(application_name, ''), coalesce(state, ''),
            CAST(extract(epoch FROM clock_timestamp() - xact_start) AS BIGINT), CAST(age(backend_xmin) AS BIGINT)
        FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        ORDER BY xact_start LIMIT 5";
    let bmdb = patient.bmdb()?;
    match bmdb.dialect() {
        Dialect::Sqlite => return Ok(Checked::Nothing("SQLite cleans up as it writes")),
        Dialect::Cockroach => return Ok(Checked::Nothing("CockroachDB cleans up by age, whoever reads")),
        _ => {}
    }
    let unread = "the server's activity cannot be read";
    let rows = ask(bmdb, MAY_LOOK, unread).await?;
    let may_look = rows
        .first()
        .and_then(|row| row.try_get_by_index(0).ok())
        .unwrap_or(false);
    if !may_look {
        let text = "this login may not look at the transactions of others. As an administrator: GRANT pg_read_all_stats TO it, or ask by another login";
        return Err(Failure::new(Kind::NotAllowed, text));
    }
    let mut found = Vec::new();
    for row in ask(bmdb, OPEN, unread).await? {
        let read = |_unread| Failure::new(Kind::Unreachable, unread);
        let number = |place: usize| {
            row.try_get_by_index::<Option<i64>>(place)
                .map(Option::unwrap_or_default)
        };
        let text = |place: usize| row.try_get_by_index::<String>(place);
        found.extend(held_back(&Open {
            pid: number(0).map_err(read)?,
            name: text(1).map_err(read)?,
            state: text(2).map_err(read)?,
            open: TimeDelta::seconds(number(3).map_err(read)?),
            behind: number(4).map_err(read)?.unsigned_abs(),
        }));
    }
    Ok(Checked::Found(found))
}

/// Somebody's transaction that has a snapshot.
struct Open {
    pid: i64,
    name: String,
    state: String,
    open: TimeDelta,
    /// How many transactions have begun since.
    behind: u64,
}

fn held_back(it: &Open) -> Option<Finding> {
    let pid = it.pid;
    (it.open >= LONG).then(|| Finding {
        what: format!(
            "a transaction of {} ({}, pid {pid}) is open for {}, and {} begun since: nothing that they delete is cleaned up",
            foreign(&it.name),
            foreign(&it.state),
            span(it.open),
            count(it.behind, "transaction has", "transactions have")
        ),
        mend: format!("end what it is part of, such as a backup or a forgotten psql; or as an administrator: SELECT pg_terminate_backend({pid})"),
    })
}

async fn ask(bmdb: &Bmdb, text: &str, unread: &str) -> Result<Vec<QueryResult>, Failure> {
    let asked = bmdb
        .reads()
        .query_all_raw(Statement::from_string(DatabaseBackend::Postgres, text))
        .await;
    asked.map_err(|_unread| Failure::new(Kind::Unreachable, unread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_transaction_that_is_open_for_long_is_told_of() {
        let open = |minutes| {
            held_back(&Open {
                pid: 7,
                name: "psql".to_owned(),
                state: "idle in transaction".to_owned(),
                open: TimeDelta::minutes(minutes),
                behind: 4_000,
            })
        };
        assert!(open(4).is_none());
        let found = open(90).expect("it is long");
        assert!(
            found
                .what
                .contains("psql (idle in transaction, pid 7) is open for 1 h 30 min, and 4,000 transactions have"),
            "{}",
            found.what
        );
    }
}
