//! What ends of work write: the works' rows go, and backoffs, hints, and history are left.

use std::collections::BTreeMap;
use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait, Query, Value};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, Statement};

use bmdb_entity::work_history::Event;
use bmdb_entity::{MachineId, WorkId, work_backoff};

use crate::db::autocommit_pool::AutocommitPool;
use crate::db::dialect::Dialect;
use crate::db::sql::SqlBuilder;
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics;
use crate::rules::backoff::Backoff;
use crate::rules::backoff::Failures;
use crate::rules::facts::{Fact, Facts, Shape};
use crate::rules::work_key::{RuleKey, WorkKey};
use crate::runtime::escaped::Escaped;
use crate::store::hints;
use crate::store::history;
use crate::store::writer::Writer;

/// What an end leaves behind besides history.
#[derive(Clone)]
pub(crate) enum Ending {
    /// No backoff.
    Finished,
    /// A backoff that follows from the failures before.
    Failed { cause: Arc<str>, backoff: Backoff },
    /// A hint: nothing has changed for the process.
    Canceled,
}

impl Ending {
    pub(crate) fn event(&self) -> Event {
        match self {
            Self::Finished => Event::Finished,
            Self::Failed { .. } => Event::Failed,
            Self::Canceled => Event::Canceled,
        }
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// Says that a work has ended so.
    pub(crate) fn log(&self, key: &WorkKey) {
        let (WorkKey { machine, fence, .. }, process) = (key, key.process());
        metrics::work_ended(process, self.word());
        match self {
            Self::Finished => tracing::debug!(%machine, process, %fence, "work finished"),
            Self::Failed { cause, .. } => {
                tracing::warn!(%machine, process, %fence, cause = %Escaped(cause), "work failed");
            }
            Self::Canceled => tracing::debug!(%machine, process, %fence, "work canceled"),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
        }
    }

    fn cause(&self) -> Option<&str> {
        match self {
            Self::Failed { cause, .. } => Some(cause),
            Self::Finished | Self::Canceled => None,
        }
    }
}

/// A work that is to end.
#[derive(Clone)]
pub(crate) struct EndRequest {
    pub(crate) key: WorkKey,
    /// As they were when the machine was claimed.
    pub(crate) failures: Option<Failures>,
    pub(crate) ending: Ending,
    /// What it states about its machine.
    pub(crate) facts: Facts,
}

/// Ends of one kind can share a statement: the event, and the shape of what they state.
pub(crate) type EndShape = (Event, Shape);

impl EndRequest {
    pub(crate) fn canceled(key: WorkKey) -> Self {
        Self {
            key,
            failures: None,
            ending: Ending::Canceled,
            facts: Facts::none(),
        }
    }

    pub(crate) fn shape(&self) -> EndShape {
        (self.ending.event(), self.facts.shape())
    }

    fn next(&self) -> Option<Next> {
        match &self.ending {
            Ending::Failed { backoff, .. } => Some(Next::after(self.failures, backoff)),
            Ending::Finished | Ending::Canceled => None,
        }
    }
}

/// The facts of ends of one kind, those of one tag together.
fn by_tag(to_end: &[EndRequest]) -> impl Iterator<Item = impl Iterator<Item = (WorkKey, &Fact)>> {
    let tags = to_end.first().map_or(0, |to_end| to_end.facts.iter().count());
    (0..tags).map(|tag| {
        to_end
            .iter()
            .filter_map(move |to_end| Some((to_end.key, to_end.facts.iter().nth(tag)?)))
    })
}

/// Ends works within a transaction, all with the same ending. Answers those that were ours; of the others nothing was written.
pub(crate) async fn within(tx: &Tx, by: &Writer<'_>, to_end: &[EndRequest]) -> Result<Vec<WorkId>, DbErr> {
    if to_end.is_empty() {
        return Ok(Vec::new());
    }
    if tx.dialect() == Dialect::Sqlite {
        return in_steps(tx, by, to_end).await;
    }
    let mut now = to_end.to_vec();
    know_failures(tx, &mut now).await?;
    let rows = tx.query_all_raw(statement(by, &now)).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Ends works in one statement that is a transaction of its own, all with the same ending. Answers those that were ours, and whose failures are what is known
/// of them; of the others nothing was written.
pub(crate) async fn at_once(
    runner: &TxRunner<'_>,
    pool: &AutocommitPool,
    by: &Writer<'_>,
    to_end: &[EndRequest],
) -> Result<Vec<WorkId>, TxError<(), Error>> {
    let rows = runner.autocommit(pool, &statement(by, to_end), None).await?;
    let ended = rows.iter().map(|row| row.try_get_by_index(0));
    // It has taken effect, so what cannot be read cannot be told from what is not known.
    ended.collect::<Result<_, _>>().map_err(|source| TxError::Unknown {
        value: (),
        source: Some(source),
    })
}

/// A backoff that follows from failures before it.
struct Next {
    /// `None`: it waits for a person.
    wait_ms: Option<i64>,
    attempts: i64,
    interval_seconds: i64,
}

impl Next {
    fn after(failures: Option<Failures>, backoff: &Backoff) -> Self {
        let attempts = failures.map_or(1, |failures| failures.attempts.saturating_add(1));
        let interval_seconds = backoff.interval_after(failures.map(|failures| failures.last_interval_seconds));
        Self {
            wait_ms: (!backoff.parks_after(attempts)).then(|| backoff.wait_ms(interval_seconds, fastrand::f64())),
            attempts,
            interval_seconds,
        }
    }
}

/// Reads the failures before those that are to be written. Nobody else writes these rows while the works are held; a person may delete them.
async fn know_failures(tx: &Tx, to_end: &mut [EndRequest]) -> Result<(), DbErr> {
    let failed = to_end.iter().filter(|to_end| to_end.ending.is_failure());
    let machines: Vec<MachineId> = failed.map(|to_end| to_end.key.machine).collect();
    if machines.is_empty() {
        return Ok(());
    }
    // No more than that: a person may have written `until` so that nobody can read it.
    use work_backoff::Column;
    let known: Vec<(MachineId, String, i64, i64)> = work_backoff::Entity::find()
        .select_only()
        .columns([Column::MachineId, Column::Process])
        // What is no number on SQLite, where somebody can write it, counts as 0.
        .expr(Expr::col(Column::Attempts).cast_as("BIGINT"))
        .expr(Expr::col(Column::LastIntervalSeconds).cast_as("BIGINT"))
        .filter(Column::MachineId.is_in(machines))
        .into_tuple()
        .all(tx)
        .await?;
    for EndRequest { key, failures, .. } in to_end {
        let last = known
            .iter()
            .find(|(machine, process, ..)| *machine == key.machine && process == key.process());
        *failures = last.map(|(_, _, attempts, last_interval_seconds)| Failures {
            attempts: *attempts,
            last_interval_seconds: *last_interval_seconds,
        });
    }
    Ok(())
}

/// The statement that ends works on PostgreSQL and CockroachDB. Its answer has a row for each work that was ours.
fn statement(by: &Writer<'_>, to_end: &[EndRequest]) -> Statement {
    let mut text = SqlBuilder::new(by.database.dialect);
    text.put("WITH ", []);
    put(&mut text, by, to_end, "");
    text.put(" SELECT work_id FROM ended", []);
    text.finish()
}

/// The steps of a statement that end works; `ended` has those that were ours, if `also` holds as well. A failure asks for the failures before it to be
/// what it was told.
pub(crate) fn put(text: &mut SqlBuilder, by: &Writer<'_>, to_end: &[EndRequest], also: &str) {
    let ending = &to_end.first().expect("BUG: there is something to end").ending;
    put_to_end(text, to_end, ending);
    // What is updated must be there, and stay until it is: who ends a work knows whether its facts are stated.
    let updates: Vec<&Fact> = to_end
        .first()
        .map_or_else(Vec::new, |to_end| to_end.facts.updates().collect());
    for (nth, fact) in updates.iter().enumerate() {
        let select = fact.lock_for_end(text.dialect());
        text.put(&format!("), tag_row_{nth} AS MATERIALIZED ("), [])
            .query(&select);
    }
    text.put(
        "), ended AS (DELETE FROM work USING to_end WHERE work.machine_id = to_end.machine_id AND work.slot = to_end.slot \
         AND work.fence = to_end.fence AND work.work_id = to_end.work_id",
        [],
    )
    .put(also, []);
    for (nth, fact) in updates.iter().enumerate() {
        let is_there = Query::select()
            .column((format!("tag_row_{nth}"), fact.machine().clone()))
            .from(format!("tag_row_{nth}"))
            .and_where(Expr::col((format!("tag_row_{nth}"), fact.machine().clone())).equals(("to_end", "machine_id")))
            .take();
        text.put(" AND EXISTS (", []).query(&is_there).put(")", []);
    }
    let among_them = match (text.dialect(), to_end) {
        // However large PostgreSQL takes the table for, it looks these up.
        (Dialect::Postgres, [_, _, ..]) => " AND work.work_id = ANY (ARRAY(SELECT work_id FROM to_end))",
        _ => "",
    };
    text.put(among_them, []);
    if ending.is_failure() {
        text.put(
            " AND COALESCE((SELECT work_backoff.attempts FROM work_backoff WHERE work_backoff.machine_id = to_end.machine_id \
             AND work_backoff.process = to_end.process), 0) = to_end.attempts - 1",
            [],
        );
    }
    text.put(
        " RETURNING work.machine_id, work.slot, work.process, work.work_id, work.fence",
        [],
    );
    let (returning, cause) = match ending {
        Ending::Finished => ("", "CAST(NULL AS TEXT)"),
        Ending::Canceled => (", to_end.rule", "CAST(NULL AS TEXT)"),
        Ending::Failed { .. } => (
            ", to_end.attempts, to_end.interval_seconds, to_end.wait_ms, to_end.cause",
            "ended.cause",
        ),
    };
    text.put(returning, []);
    let (aftermath, left_behind) = match ending {
        Ending::Finished => (
            "cleared_backoffs",
            "DELETE FROM work_backoff USING ended WHERE work_backoff.machine_id = ended.machine_id AND work_backoff.process = ended.process",
        ),
        Ending::Canceled => (
            "hinted",
            "INSERT INTO work_candidate (process, machine_id, found_at) SELECT ended.rule, ended.machine_id, {now} FROM ended \
             ORDER BY ended.machine_id ON CONFLICT (process, machine_id) DO NOTHING",
        ),
        Ending::Failed { .. } => (
            "backed_off",
            "INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) \
             SELECT ended.machine_id, ended.process, {after ended.wait_ms}, ended.cause, ended.attempts, ended.interval_seconds FROM ended \
             ON CONFLICT (machine_id, process) DO UPDATE SET until = excluded.until, cause = excluded.cause, \
             attempts = excluded.attempts, last_interval_seconds = excluded.last_interval_seconds",
        ),
    };
    let author = &by.author;
    text.put(&format!("), {aftermath} AS ("), []).put(left_behind, []).put(
        &format!(
            "), recorded_ends AS (INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, \
             at, cause) SELECT ended.machine_id, ended.fence, CAST($1 AS TEXT), ended.work_id, ended.process, ended.slot, CAST($2 AS UUID), \
             CAST($3 AS TEXT), CAST($4 AS TEXT), {{now}}, {cause} FROM ended)"
        ),
        [
            ending.event().to_string().into(),
            author.session.into(),
            author.component.into(),
            author.runtime_info.into(),
        ],
    );
    for (tag, facts) in by_tag(to_end).enumerate() {
        text.put(&format!(", stated_{tag} AS ("), []);
        Fact::put_ended(text, facts.map(|(key, fact)| (key.work, fact)));
        text.put(")", []);
    }
}

/// The works that are to end, with what their ends leave behind.
fn put_to_end(text: &mut SqlBuilder, to_end: &[EndRequest], ending: &Ending) {
    const KEY: &str = "CAST($1 AS UUID), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT), CAST($5 AS UUID)";
    let key = |to_end: &EndRequest| -> [Value; 5] {
        let key = &to_end.key;
        [
            key.machine.into(),
            key.slot.into(),
            key.process().into(),
            key.fence.into(),
            key.work.into(),
        ]
    };
    text.put("to_end (machine_id, slot, process, fence, work_id", []);
    match ending {
        Ending::Finished => {
            text.put(") AS (VALUES ", []).each(to_end, &format!("({KEY})"), key);
        }
        Ending::Canceled => {
            let row = |to_end: &EndRequest| {
                let [machine, slot, process, fence, work] = key(to_end);
                [machine, slot, process, fence, work, to_end.key.rule.into()]
            };
            text.put(", rule) AS (VALUES ", [])
                .each(to_end, &format!("({KEY}, CAST($6 AS TEXT))"), row);
        }
        Ending::Failed { .. } => {
            let row = |to_end: &EndRequest| {
                let [machine, slot, process, fence, work] = key(to_end);
                let next = to_end.next();
                [
                    machine,
                    slot,
                    process,
                    fence,
                    work,
                    next.as_ref().map(|next| next.attempts).into(),
                    next.as_ref().map(|next| next.interval_seconds).into(),
                    next.and_then(|next| next.wait_ms).into(),
                    to_end.ending.cause().into(),
                ]
            };
            let values =
                format!("({KEY}, CAST($6 AS BIGINT), CAST($7 AS BIGINT), CAST($8 AS BIGINT), CAST($9 AS TEXT))");
            text.put(", attempts, interval_seconds, wait_ms, cause) AS (VALUES ", [])
                .each(to_end, &values, row);
        }
    }
}

/// SQLite's way: a statement that takes the works' rows, and what follows from what was taken.
async fn in_steps(tx: &Tx, by: &Writer<'_>, to_end: &[EndRequest]) -> Result<Vec<WorkId>, DbErr> {
    let mut take = SqlBuilder::new(tx.dialect());
    // By the ids, which have an index; the rest of a key is that of its work, for no two claims of a machine have one fence.
    take.put("DELETE FROM work WHERE work_id IN (", [])
        .each(to_end, "$1", |to_end| [to_end.key.work.into()])
        .put(") AND (machine_id, slot, fence) IN (VALUES ", [])
        .each(to_end, "($1, $2, $3)", |EndRequest { key, .. }| {
            [key.machine.into(), key.slot.into(), key.fence.into()]
        })
        .put(")", []);
    for fact in to_end.iter().take(1).flat_map(|to_end| to_end.facts.updates()) {
        let is_there = fact.select(Expr::col(("work", "machine_id")));
        take.put(" AND EXISTS (", []).query(&is_there).put(")", []);
    }
    take.put(" RETURNING work_id", []);
    let rows = tx.query_all_raw(take.finish()).await?;
    let ended: Vec<WorkId> = rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?;
    let ours = to_end.iter().filter(|to_end| ended.contains(&to_end.key.work));
    let mut ours: Vec<EndRequest> = ours.cloned().collect();
    let Some(ending) = ours.first().map(|to_end| to_end.ending.clone()) else {
        return Ok(ended);
    };
    know_failures(tx, &mut ours).await?;
    let mut of_rules: BTreeMap<RuleKey, Vec<MachineId>> = BTreeMap::new();
    for EndRequest { key, failures, .. } in &ours {
        // Who had not failed when it claimed has no backoff now: nobody else writes one meanwhile.
        if matches!(ending, Ending::Finished) && failures.is_none() {
            continue;
        }
        of_rules.entry(key.rule).or_default().push(key.machine);
    }
    let mut writes = SqlBuilder::new(tx.dialect());
    match ending {
        Ending::Finished => {
            for (rule, machines) in of_rules {
                hints::put_forget(&mut writes, "work_backoff", rule.process.into(), &machines);
            }
        }
        Ending::Failed { .. } => put_backoffs(&mut writes, &ours),
        Ending::Canceled => {
            for (rule, machines) in of_rules {
                hints::put_hints(&mut writes, rule, &machines);
            }
        }
    }
    for facts in by_tag(&ours) {
        Fact::put(&mut writes, facts.map(|(key, fact)| (key.machine, fact)));
    }
    let ends = ours.iter().map(|to_end| (to_end.key, to_end.ending.cause()));
    history::put(&mut writes, &by.author, ends, ending.event());
    tx.write(writes).await?;
    Ok(ended)
}

fn put_backoffs(text: &mut SqlBuilder, to_end: &[EndRequest]) {
    let row = |to_end: &EndRequest| {
        let next = to_end.next().expect("BUG: what backs off has failed");
        [
            to_end.key.machine.into(),
            to_end.key.process().into(),
            next.wait_ms.into(),
            to_end.ending.cause().into(),
            next.attempts.into(),
            next.interval_seconds.into(),
        ]
    };
    text.another()
        .put(
            "INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) VALUES ",
            [],
        )
        .each(to_end, "($1, $2, {after $3}, $4, $5, $6)", row)
        .put(
            " ON CONFLICT (machine_id, process) DO UPDATE SET until = excluded.until, cause = excluded.cause, \
             attempts = excluded.attempts, last_interval_seconds = excluded.last_interval_seconds",
            [],
        );
}
