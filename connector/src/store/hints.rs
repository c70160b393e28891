//! Candidates: machines that may be eligible. A claim takes from hints that others left; when there are none, one component at a time searches the
//! fleet and leaves hints for all. A hint promises nothing: every claim verifies.

use std::time::{Duration, Instant};

use bmdb_entity::{MachineId, machine};
use sea_orm::sea_query::{Expr, ExprTrait, SelectStatement, Value};
use sea_orm::{Condition, ConnectionTrait, DbErr, Order};

use crate::db::database::Database;
use crate::db::dialect::Dialect;
use crate::db::sql::SqlBuilder;
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::metrics::StatementKind;
use crate::rules::check::check_name;
use crate::rules::claim_plan::{CandidateSource, SEARCH_LIMIT};
use crate::rules::claimable::{claimable, from_machines};
use crate::rules::eligible::{Eligible, KeyRange};
use crate::rules::hint_refresh::AFTER_NOTHING;
use crate::rules::process::Process;
use crate::rules::work_key::RuleKey;
use crate::store::rule::Rule;

/// Whether a process is paused, of which a statement has the name in this place.
macro_rules! paused {
    ($process:literal) => {
        concat!(
            "EXISTS (SELECT pause.process FROM process_pause AS pause WHERE pause.process = ",
            $process,
            " AND (pause.until IS NULL OR pause.until > {now}))"
        )
    };
}
pub(crate) use paused;

/// Takes the search lease, unless the process `$3` is paused, somebody has the lease, or a search that began after `$2` has ended; NULL: the search that had
/// begun when this statement's snapshot was taken, since the locked row may say a later one. After ten seconds whoever began is taken for dead. A lease that
/// seems to end more than 20 s ahead is ignored: the clock has gone back.
pub(crate) const TAKE_SEARCH_LEASE: &str = concat!(
    "UPDATE work_retrieval SET begun = begun + 1, began_at = {now}, until = {after 10000} \
     WHERE process = $1 AND (until <= {now} OR until > {after 20000}) AND ended <= \
     COALESCE(CAST($2 AS BIGINT), (SELECT seen.begun FROM work_retrieval AS seen WHERE seen.process = $1)) AND NOT ",
    paused!("$3")
);

pub(crate) const END_SEARCH: &str =
    "UPDATE work_retrieval SET ended = begun, until = {now} WHERE process = $1 AND begun = $2";

/// The process's own order, and then key order, around the circle if there is a start.
pub(crate) fn in_order(select: &mut SelectStatement, eligible: &Eligible, start: Option<&MachineId>) {
    let machine_id = || Expr::col((machine::Entity, machine::Column::MachineId));
    for (by, order) in &eligible.order {
        select.order_by_expr(by.clone(), order.clone());
    }
    if let Some(start) = start {
        select.order_by_expr(machine_id().lt(*start), Order::Asc);
    }
    select.order_by_expr(machine_id(), Order::Asc);
}

/// A search of the fleet, in parts that find up to `limit` machines each. It begins at a random machine in key order and wraps around, so that
/// components do not meet at the head; with an order of the process's own, it takes the first in that order.
pub(crate) fn search<P: Process>(
    eligible: &Eligible,
    filter: &Condition,
    dialect: Dialect,
    limit: u64,
) -> Vec<SelectStatement> {
    // Large limits scan far anyway; there PostgreSQL plans better without the range hint.
    let range_hint = |among| if limit < SEARCH_LIMIT { among } else { KeyRange::All };
    let base = |among: KeyRange| {
        let mut select = from_machines::<P>();
        select
            .column((machine::Entity, machine::Column::MachineId))
            .cond_where(among.of(Expr::col((machine::Entity, machine::Column::MachineId))))
            .cond_where(claimable::<P>(eligible, dialect, range_hint(among)))
            .cond_where(filter.clone())
            .limit(limit);
        in_order(&mut select, eligible, None);
        select
    };
    if !eligible.order.is_empty() {
        return vec![base(KeyRange::All)];
    }
    let start = MachineId::random();
    vec![base(KeyRange::From(start)), base(KeyRange::Before(start))]
}

/// Searches the fleet in statements of their own, outside transactions.
pub(crate) async fn search_now<P: Process>(
    database: &Database,
    eligible: &Eligible,
    filter: &Condition,
    limit: u64,
) -> Result<Vec<MachineId>, Error> {
    const DOING: &str = "find eligible machines";
    let mut found = Vec::new();
    for part in search::<P>(eligible, filter, database.dialect, limit) {
        if found.len() as u64 >= limit {
            break;
        }
        let statement = database.dialect.backend().build(&part);
        for row in database.read_as(StatementKind::Search, DOING, statement).await? {
            found.push(row.try_get_by_index(0).map_err(Error::database(DOING))?);
        }
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// With fewer hints than this, it is time to search for more: a search for a large fleet takes as long as some hundreds of claims.
const LOW: i64 = 250;

fn are_few(hints: i64) -> bool {
    hints < LOW
}

/// Searches ahead of time take no more than a fifth of it.
const REST: u32 = 4;
const SHORTEST_REST: Duration = Duration::from_millis(20);

/// How long after a search that found so many new hints in so long the next may follow.
fn rest_after(new: u64, took: Duration) -> Duration {
    if new == 0 {
        AFTER_NOTHING
    } else {
        SHORTEST_REST.max(REST * took)
    }
}

/// Searches once more if the last search is old or hints are few, and nobody is at it.
pub(crate) async fn refresh<P: Process>(database: &Database, rule: &Rule) -> Result<(), Error> {
    let few = format!(
        "SELECT CAST(count(process) AS BIGINT) FROM (SELECT process FROM work_candidate WHERE process = $1 LIMIT {LOW}) AS some_hints"
    );
    let began = Instant::now();
    let runner = TxRunner {
        kind: StatementKind::Search,
        ..database.runner("refresh hints")
    };
    let begin = async |tx: &Tx| {
        const OLD: &str = " AND (began_at < {after -30000} OR began_at > {after 10000})";
        let hints = tx.query_text(&few, [rule.key.into()]).await?;
        let hints: Option<i64> = hints.first().map(|row| row.try_get_by_index(0)).transpose()?;
        let only = if hints.is_some_and(are_few) { "" } else { OLD };
        let take = format!("{TAKE_SEARCH_LEASE}{only}");
        if tx
            .execute_text(
                &take,
                [rule.key.into(), Option::<i64>::None.into(), rule.key.process.into()],
            )
            .await?
            == 0
        {
            return Ok(None);
        }
        let rows = tx
            .query_text("SELECT begun FROM work_retrieval WHERE process = $1", [rule.key.into()])
            .await?;
        let number: Option<i64> = rows.first().map(|row| row.try_get_by_index(0)).transpose()?;
        Ok::<_, Error>(number)
    };
    let Some(number) = runner.run_or_error(begin).await? else {
        // There are enough, or somebody is at it.
        rule.refresh.rest(SHORTEST_REST);
        return Ok(());
    };
    let found = match search_now::<P>(database, &rule.eligible, &Condition::all(), SEARCH_LIMIT).await {
        Ok(found) => found,
        Err(error) => {
            release_search_lease(database, rule.key, number).await;
            return Err(error);
        }
    };
    let end = async |tx: &Tx| end_search(tx, rule.key, number, &found).await.map_err(Error::from);
    let new = runner.run_or_error(end).await?;
    rule.refresh.rest(rest_after(new, began.elapsed()));
    Ok(())
}

/// Releases the lease of a search that failed, so that others can search.
pub(crate) async fn release_search_lease(database: &Database, rule: RuleKey, number: i64) {
    const RELEASE: &str = "UPDATE work_retrieval SET until = {now} WHERE process = $1 AND begun = $2 AND ended < begun";
    let runner = database.runner("leave a search to others");
    let release_search_lease = async |tx: &Tx| {
        tx.execute_text(RELEASE, [rule.into(), number.into()])
            .await
            .map_err(Error::from)
    };
    // If it cannot be told, the lease ends by itself.
    if let Err(error) = runner.run_or_error(release_search_lease).await {
        tracing::debug!(process = rule.process, %error, "a search lease was not released");
    }
}

/// Leaves what a search has found as hints, and ends the search lease. Answers how many hints are new.
pub(crate) async fn end_search(tx: &Tx, rule: RuleKey, number: i64, found: &[MachineId]) -> Result<u64, DbErr> {
    let new = leave_hints(tx, rule, found).await?;
    tx.execute_text(END_SEARCH, [rule.into(), number.into()]).await?;
    Ok(new)
}

/// Hints that a machine may be eligible for a process, so that the next claims try it. Call it in the body that makes it eligible; otherwise a search
/// finds it within half a minute of other claims. Every rule of the process gets the hint, and each that refuses the machine pays one read; with a
/// handle, use [`Registered::hint`](crate::Registered::hint).
///
/// ```no_run
/// # use bmdb::{Error, MachineId, Tx, os_installation_request, tag};
/// async fn request(tx: &Tx, request: os_installation_request::ActiveModel, machine: MachineId) -> Result<(), Error> {
///     tag::set::<os_installation_request::Entity>(tx, request).await?;
///     bmdb::machine::hint(tx, "install", machine).await
/// }
/// ```
///
/// # Errors
/// [`Error::Invalid`] for what is no process's name; or when the database cannot be written.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn hint(tx: &Tx, process: &str, machine: MachineId) -> Result<(), Error> {
    // Older components' hints are the process's, without a rule.
    const HINT: &str = "
        INSERT INTO work_candidate (process, machine_id, found_at)
        SELECT process, $2, {now} FROM work_retrieval WHERE process = $1 OR substr(process, 1, length($1) + 1) = $1 || '@' ORDER BY process
        ON CONFLICT (process, machine_id) DO NOTHING";
    check_name("the name of a process", process)?;
    let written = tx.execute_text(HINT, [process.into(), machine.into()]).await;
    written.map(drop).map_err(Error::database("leave a hint"))
}

/// Answers how many were not there yet.
pub(crate) async fn leave_hints(tx: &Tx, rule: RuleKey, machines: &[MachineId]) -> Result<u64, DbErr> {
    let mut text = SqlBuilder::new(tx.dialect());
    put_hints(&mut text, rule, machines);
    tx.write(text).await
}

pub(crate) fn put_hints(text: &mut SqlBuilder, rule: RuleKey, machines: &[MachineId]) {
    if machines.is_empty() {
        return;
    }
    // In key order, as everybody leaves hints: who waits for a key that another is just writing keeps none that the other waits for.
    let mut machines = machines.to_vec();
    machines.sort();
    text.another()
        .put("INSERT INTO work_candidate (process, machine_id, found_at) VALUES ", [])
        .each(machines, "($1, $2, {now})", |machine| [rule.into(), machine.into()])
        .put(" ON CONFLICT (process, machine_id) DO NOTHING", []);
}

/// SQLite's: some hints, around the circle from a start. With limits as values, SQLite would plan the statement anew for each
/// (`sqlite3ExprIsInteger`).
pub(crate) fn put_hinted(text: &mut SqlBuilder, rule: RuleKey, source: CandidateSource, count: u64, start: MachineId) {
    let (window, most) = (source.window(count), source.scan_limit(count));
    let part = |side: &str| {
        format!(
            "SELECT * FROM (SELECT machine_id FROM work_candidate WHERE process = $1 AND machine_id {side} $2 ORDER BY machine_id LIMIT {most})"
        )
    };
    let around = format!(
        "SELECT machine_id FROM ({} UNION ALL {}) LIMIT {window} OFFSET $3",
        part(">="),
        part("<")
    );
    text.put(&around, [rule.into(), start.into(), source.skip().into()]);
}

/// [Some hints](put_hinted), around the circle from a random start.
pub(crate) async fn hints(
    tx: &Tx,
    rule: RuleKey,
    source: CandidateSource,
    count: u64,
) -> Result<Vec<MachineId>, DbErr> {
    let mut text = SqlBuilder::new(tx.dialect());
    put_hinted(&mut text, rule, source, count, MachineId::random());
    let rows = tx.query_all_raw(text.finish()).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Removes what a process, or a rule of it, has in `table` on these machines.
pub(crate) fn put_forget(text: &mut SqlBuilder, table: &str, of: Value, machines: &[MachineId]) {
    if machines.is_empty() {
        return;
    }
    let them = format!("DELETE FROM {table} WHERE process = $1 AND machine_id IN (");
    text.another()
        .put(&them, [of])
        .each(machines, "$1", |machine| [(*machine).into()])
        .put(")", []);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::claimable::eligible_for;
    use crate::rules::process::tests::Survey;

    const RULE: RuleKey = RuleKey {
        process: "survey",
        digest: 0,
    };

    #[test]
    fn it_is_time_to_search_when_hints_are_few_and_not_at_once_again() {
        assert!(are_few(0) && are_few(LOW - 1) && !are_few(LOW) && !are_few(LOW + 1));
        let second = Duration::from_secs(1);
        assert_eq!(rest_after(0, second), AFTER_NOTHING);
        assert_eq!(rest_after(1, second), 4 * second);
        assert_eq!(rest_after(500, Duration::ZERO), SHORTEST_REST);
    }

    #[test]
    fn a_search_has_two_parts_unless_the_process_has_an_order() {
        let texts = |eligible: &Eligible, limit| -> Vec<String> {
            let parts = search::<Survey>(eligible, &Condition::all(), Dialect::Postgres, limit);
            let build = |part: &SelectStatement| Dialect::Postgres.backend().build(part).sql;
            parts.iter().map(build).collect()
        };
        let plain = eligible_for(&Survey);
        assert_eq!(texts(&plain, 10).len(), 2);
        let ordered = eligible_for(&Survey).order(Expr::col(machine::Column::Fence), Order::Asc);
        assert_eq!(texts(&ordered, 10).len(), 1);
        // Who wants few tells what it skips in each of the tables, too.
        let report = |limit| texts(&plain, limit).concat().matches(">=").count();
        assert_eq!(report(SEARCH_LIMIT - 1), report(1));
        assert!(report(1) > report(SEARCH_LIMIT) && report(SEARCH_LIMIT) == report(2 * SEARCH_LIMIT));
    }

    #[test]
    fn hints_are_looked_at_on_both_sides_of_a_start() {
        let start = MachineId::random();
        let mut text = SqlBuilder::new(Dialect::Sqlite);
        put_hinted(&mut text, RULE, CandidateSource::HintsOnly, 3, start);
        let statement = text.finish();
        let (window, most) = (
            CandidateSource::HintsOnly.window(3),
            CandidateSource::HintsOnly.scan_limit(3),
        );
        let limits: Vec<&str> = statement.sql.split("LIMIT ").skip(1).collect();
        assert_eq!(limits.len(), 3, "{}", statement.sql);
        for (limit, wanted) in limits.iter().zip([most, most, window]) {
            assert!(limit.starts_with(&wanted.to_string()), "{limit}");
        }
        let values = statement.values.unwrap().0;
        assert_eq!((&values[1], &values[3]), (&start.into(), &start.into()));
        assert!(matches!(values[4], Value::BigUnsigned(Some(skip)) if skip <= most - window));
    }
}
