//! An attempt to claim as one statement: PostgreSQL's and CockroachDB's way.
//!
//! It reads candidates, raises the fence of those that are eligible if they still are what it saw, and inserts works and history. At READ COMMITTED
//! what it saw may be older than what it raises; then the fence differs, nothing is raised, and nothing inserted. The work's reference to its session
//! is what orders a claim against the session's expiry: it waits for an expiry under way, and is refused after one.

use bmdb_entity::{WorkId, machine};
use sea_orm::Statement;
use sea_orm::sea_query::{Expr, ExprTrait, JoinType, SelectStatement, Value};

use crate::db::dialect::Dialect;
use crate::db::pools::AutocommitPools;
use crate::db::sql::SqlBuilder;
use crate::db::transaction::TxRunner;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics::StatementKind;
use crate::rules::claim_plan::{AttemptReport, CandidateSource, SearchProgress};
use crate::rules::process::Process;
use crate::rules::work_key::RuleKey;
use crate::runtime::detach::Detach;
use crate::store::attempt::{Attempt, ClaimRequest};
use crate::store::candidate::{Candidate, ClaimSql, ClaimedMachine};
use crate::store::end;
use crate::store::hints::{END_SEARCH, TAKE_SEARCH_LEASE, paused, search};
use crate::store::rule::Rule;
use crate::store::writer::Writer;

/// Nothing is taken when the work that was to end was not ours.
const AFTER: &str = " AND EXISTS (SELECT ended.work_id FROM ended)";

/// Nor are the machines whose works end here: a statement does not see what it writes, such as facts that make them unfit. Their hints stay for the next.
const BUT_THOSE: &str = " AND machine_id NOT IN (SELECT to_end.machine_id FROM to_end)";

/// One attempt to take a machine for each of `works`.
pub(crate) async fn attempt<P: Process>(
    by: &Writer<'_>,
    pools: &AutocommitPools,
    request: ClaimRequest<'_>,
    detach: Option<&Detach>,
) -> Result<Attempt<P>, TxError<(), Error>> {
    let ClaimRequest { source, works, .. } = request;
    let statement = statement::<P>(by, request);
    let (pool, kind) = match source {
        CandidateSource::HintsOnly | CandidateSource::HintsThenSearch | CandidateSource::Machine(_) => {
            (&pools.by_keys, StatementKind::Claim)
        }
        CandidateSource::Search(_) | CandidateSource::Scan => (&pools.searches, StatementKind::Search),
    };
    let runner = TxRunner {
        // It need not be this machine.
        is_patient: false,
        kind,
        ..by.runner("claim a machine")
    };
    let rows = runner.autocommit(pool, &statement, detach).await?;
    // It has taken effect, so what cannot be read cannot be told from what is not known.
    read(&rows, source, works.len() as u64).map_err(|source| TxError::Unknown {
        value: (),
        source: Some(source),
    })
}

fn read<P: Process>(
    rows: &[sea_orm::QueryResult],
    source: CandidateSource,
    count: u64,
) -> Result<Attempt<P>, sea_orm::DbErr> {
    let first = rows
        .first()
        .ok_or(sea_orm::DbErr::RecordNotFound("a claim's answer".to_owned()))?;
    let report = match source {
        CandidateSource::HintsOnly => None,
        _ => Some(AttemptReport {
            more: source.may_have_more(first.try_get::<i64>("", "bmdb_candidates")?.unsigned_abs(), count),
            eligible: first.try_get("", "bmdb_eligible")?,
            paused: first.try_get("", "bmdb_paused")?,
            search_lease: first.try_get("", "bmdb_search_lease")?,
            searches: SearchProgress::read(first)?,
        }),
    };
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(work) = row.try_get("", "bmdb_work")? {
            taken.push(ClaimedMachine {
                work,
                seen: Candidate::read(row)?,
            });
        }
    }
    Ok(Attempt {
        ended: ids(first.try_get("", "bmdb_left")?)?,
        taken,
        report,
        is_void: false,
    })
}

/// Ids between blanks. (An array would be nearer, and needs a feature of each crate between here and the driver.)
fn ids(list: Option<String>) -> Result<Vec<WorkId>, sea_orm::DbErr> {
    let list = list.unwrap_or_default();
    let id = |text: &str| {
        text.parse()
            .map(WorkId)
            .map_err(|error| sea_orm::DbErr::Type(format!("{text}: {error}")))
    };
    list.split_whitespace().map(id).collect()
}

fn statement<P: Process>(by: &Writer<'_>, request: ClaimRequest<'_>) -> Statement {
    let ClaimRequest {
        source,
        works,
        after,
        baseline,
        rule,
        ..
    } = request;
    let dialect = by.database.dialect;
    let count = works.len() as u64;
    let mut text = SqlBuilder::new(dialect);
    text.put("WITH ", []);
    if !after.is_empty() {
        // The session's row first, as everybody does who takes both: an expiry that has it waits for its works.
        text.put(
            "live_session AS MATERIALIZED (SELECT session_id FROM session WHERE session_id = $1 {share}), ",
            [by.author.session.into()],
        );
        const WHILE_IT_LIVES: &str = " AND EXISTS (SELECT live_session.session_id FROM live_session)";
        end::put(&mut text, by, after, WHILE_IT_LIVES);
        text.put(", ", []);
    }
    text.put("candidates AS (", []);
    put_candidates::<P>(&mut text, request, count);
    text.put("), chosen AS MATERIALIZED (", []);
    if source.is_by_hints() {
        let most = match after {
            // One for each that has ended.
            [_, _, ..] => "(SELECT CAST(count(work_id) AS BIGINT) FROM ended)".to_owned(),
            _ => count.to_string(),
        };
        put_chosen_of_hints(&mut text, &rule.sql, &most);
    } else {
        text.query(&chosen_by_key::<P>(request, dialect, count));
    }
    text.put(
        "), fenced AS (UPDATE machine SET fence = {fence} FROM chosen \
         WHERE machine.machine_id = chosen.bmdb_machine AND machine.fence = chosen.bmdb_fence \
         RETURNING machine.machine_id, machine.fence), identified AS (",
        [],
    );
    put_numbered(&mut text, works);
    let author = &by.author;
    text.put(
        "), claimed AS (INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at) \
         SELECT identified.machine_id, CAST($1 AS TEXT), CAST($2 AS TEXT), identified.work_id, CAST($3 AS UUID), identified.fence, {now} \
         FROM identified RETURNING machine_id, slot, process, work_id, session_id, fence), \
         recorded AS (INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at) \
         SELECT claimed.machine_id, claimed.fence, 'started', claimed.work_id, claimed.process, claimed.slot, claimed.session_id, CAST($4 AS TEXT), CAST($5 AS TEXT), {now} \
         FROM claimed RETURNING machine_id)",
        [
            rule.slot.into(),
            rule.key.process.into(),
            by.author.session.into(),
            author.component.into(),
            author.runtime_info.into(),
        ],
    );
    match source {
        CandidateSource::HintsOnly => put_gone(&mut text, rule.key, TAKEN_OR_PASSED),
        CandidateSource::HintsThenSearch => {
            put_hints_after(&mut text, rule.key, baseline, source.window(count), !after.is_empty());
        }
        CandidateSource::Search(number) => {
            text.put(
                ", new_hints AS (INSERT INTO work_candidate (process, machine_id, found_at) SELECT CAST($1 AS TEXT), candidates.machine_id, {now} FROM candidates \
                 WHERE NOT EXISTS (SELECT fenced.machine_id FROM fenced WHERE fenced.machine_id = candidates.machine_id) ORDER BY candidates.machine_id \
                 ON CONFLICT (process, machine_id) DO NOTHING), search_end AS (",
                [rule.key.into()],
            )
            .put(END_SEARCH, [rule.key.into(), number.into()])
            .put(")", []);
        }
        CandidateSource::Scan | CandidateSource::Machine(_) => {}
    }
    put_answer(&mut text, rule, source, !after.is_empty());
    text.finish()
}

/// A row for each work, or one without.
fn put_answer(text: &mut SqlBuilder, rule: &Rule, source: CandidateSource, is_after: bool) {
    let ended = if is_after {
        "(SELECT string_agg(CAST(work_id AS TEXT), ' ') FROM ended)"
    } else {
        "CAST(NULL AS TEXT)"
    };
    text.put(
        &format!(" SELECT {ended} AS bmdb_left, claimed.fence AS bmdb_fence, claimed.work_id AS bmdb_work"),
        [],
    );
    text.put(", ", []).piece(&rule.sql.columns);
    if !matches!(source, CandidateSource::HintsOnly) {
        let search_lease = if matches!(source, CandidateSource::HintsThenSearch) {
            "(SELECT begun FROM search_lease)"
        } else {
            "CAST(NULL AS BIGINT)"
        };
        text.put(
            &format!(
                ", (SELECT CAST(count(machine_id) AS BIGINT) FROM candidates) AS bmdb_candidates, EXISTS (SELECT bmdb_machine FROM chosen) AS bmdb_eligible, \
                 {search_lease} AS bmdb_search_lease, {PAUSED} AS bmdb_paused, {}",
                SearchProgress::COLUMNS
            ),
            [rule.key.process.into()],
        );
    }
    text.put(
        " FROM (VALUES (CAST(1 AS BIGINT))) AS one (number) LEFT JOIN (claimed JOIN chosen ON chosen.bmdb_machine = claimed.machine_id) ON true",
        [],
    );
    if !matches!(source, CandidateSource::HintsOnly) {
        text.put(
            " LEFT JOIN work_retrieval ON work_retrieval.process = $1",
            [rule.key.into()],
        );
    }
}

/// What was taken, with an id of a work for each.
fn put_numbered(text: &mut SqlBuilder, works: &[WorkId]) {
    if let [work] = works {
        text.put(
            "SELECT machine_id, fence, CAST($1 AS UUID) AS work_id FROM fenced",
            [(*work).into()],
        );
        return;
    }
    text.put(
        "SELECT taken.machine_id, taken.fence, ids.work_id FROM (SELECT machine_id, fence, row_number() OVER (ORDER BY machine_id) AS nth \
         FROM fenced) AS taken JOIN (VALUES ",
        [],
    );
    text.each(
        works.iter().zip(1_i64..),
        "(CAST($1 AS BIGINT), CAST($2 AS UUID))",
        |(work, nth)| [nth.into(), (*work).into()],
    );
    text.put(") AS ids (nth, work_id) ON ids.nth = taken.nth", []);
}

fn put_candidates<P: Process>(text: &mut SqlBuilder, request: ClaimRequest<'_>, count: u64) {
    let (dialect, source, is_after) = (text.dialect(), request.source, !request.after.is_empty());
    match source {
        CandidateSource::HintsOnly | CandidateSource::HintsThenSearch => {
            // A limit in the text lets the server plan the statement once and for all.
            let (window, most, hint) = (source.window(count), source.scan_limit(count), hint_of(dialect));
            let (only_after, but_those) = if is_after { (AFTER, BUT_THOSE) } else { ("", "") };
            let part = |part: u8, side: &str| {
                format!(
                    "(SELECT {part} AS part, machine_id, {hint} AS hint FROM work_candidate WHERE process = $1 AND machine_id {side} $2\
                     {but_those} ORDER BY machine_id LIMIT {most})"
                )
            };
            let around = format!(
                "SELECT part, machine_id, hint FROM ({} UNION ALL {}) AS around WHERE true{only_after} LIMIT {window} OFFSET CAST($3 AS BIGINT)",
                part(1, ">="),
                part(2, "<")
            );
            let start = request.rule.refresh.start();
            text.put(&around, [request.rule.key.into(), start.into(), source.skip().into()]);
        }
        CandidateSource::Search(_) | CandidateSource::Scan => {
            let window = source.window(count);
            let parts = search::<P>(&request.rule.eligible, request.filter, dialect, window);
            for (detach, part) in parts.iter().enumerate() {
                text.put(if detach == 0 { "(" } else { " UNION ALL (" }, [])
                    .query(part)
                    .put(")", []);
            }
        }
        CandidateSource::Machine(machine) => {
            text.put("SELECT CAST($1 AS UUID) AS machine_id", [machine.into()]);
        }
    }
}

/// Verifies hints one by one, from the start, until there are enough.
fn put_chosen_of_hints(text: &mut SqlBuilder, sql: &ClaimSql, most: &str) {
    let dialect = text.dialect();
    text.put("SELECT chosen.bmdb_fence, ", [])
        .piece(&sql.columns)
        .put(" FROM candidates CROSS JOIN LATERAL (", [])
        .piece(&sql.eligible)
        .put(" AND candidates.machine_id = machine.machine_id", []);
    match dialect {
        // Candidates that others are at are left to them. A lock that lets keys refer to the machine meanwhile; and with it in there, PostgreSQL
        // cannot but take the hints as they come.
        Dialect::Postgres => text.put(" FOR NO KEY UPDATE OF machine SKIP LOCKED) AS chosen", []),
        Dialect::Cockroach | Dialect::Sqlite => {
            text.put(") AS chosen ORDER BY candidates.part, candidates.machine_id", [])
        }
    }
    .put(&format!(" LIMIT {most}"), []);
}

/// Reads candidates by their keys, with the process's predicate, until there are enough.
fn chosen_by_key<P: Process>(request: ClaimRequest<'_>, dialect: Dialect, count: u64) -> SelectStatement {
    let eligible = &request.rule.eligible;
    let mut select = Candidate::<P>::select_eligible(eligible, dialect);
    among_candidates(&mut select);
    select.limit(count);
    if matches!(request.source, CandidateSource::Scan | CandidateSource::Machine(_)) {
        select.cond_where(request.filter.clone());
    }
    for (by, order) in &eligible.order {
        select.order_by_expr(by.clone(), order.clone());
    }
    select
}

fn among_candidates(select: &mut SelectStatement) {
    let on = Expr::col(("candidates", "machine_id")).equals((machine::Entity, machine::Column::MachineId));
    select.join(JoinType::InnerJoin, "candidates", on);
}

/// What was taken, and what was passed over on the way to it: that is not eligible by this rule, or others are just taking it. Else each claim would read it again,
/// such as at the machines of another provider, whose hints by name are every rule's.
const TAKEN_OR_PASSED: &str = "EXISTS (SELECT fenced.machine_id FROM candidates AS taken JOIN fenced ON fenced.machine_id = taken.machine_id \
    WHERE (candidates.part, candidates.machine_id) <= (taken.part, taken.machine_id))";

/// Nothing could be taken.
const NOTHING: &str = "NOT EXISTS (SELECT chosen.bmdb_machine FROM chosen)";

/// Nobody may claim for the process: what a claim of it has seen says nothing of the machines.
const PAUSED: &str = paused!("$1");

/// What a statement knows a hint by.
fn hint_of(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "ctid",
        Dialect::Cockroach | Dialect::Sqlite => "machine_id",
    }
}

/// Whether a hint is among those of `rows`. PostgreSQL knows it by where it lies, which nothing changes as long as a statement runs: by their keys it
/// might read all hints for a few. `$1` is the process.
fn among_hints(dialect: Dialect, rows: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("ctid = ANY (ARRAY({rows}))"),
        Dialect::Cockroach | Dialect::Sqlite => format!("process = $1 AND machine_id IN ({rows})"),
    }
}

/// What was taken is no candidate any more, nor what was passed over, nor is any of them when none could be taken, unless that is for a pause. And when the window was
/// not full then, it may be time to search.
fn put_hints_after(text: &mut SqlBuilder, rule: RuleKey, baseline: Option<i64>, window: u64, is_after: bool) {
    put_gone(
        text,
        rule,
        &format!("({TAKEN_OR_PASSED} OR {NOTHING} AND NOT {})", paused!("$2")),
    );
    text.put(", search_lease AS (", [])
        .put(
            TAKE_SEARCH_LEASE,
            [rule.into(), Value::BigInt(baseline), rule.process.into()],
        )
        .put(
            &format!(" AND {NOTHING} AND (SELECT CAST(count(machine_id) AS BIGINT) FROM candidates) < $1"),
            [Value::BigInt(i64::try_from(window).ok())],
        )
        .put(if is_after { AFTER } else { "" }, [])
        .put(" RETURNING begun)", []);
}

/// Removes the hints for which `condition` holds, of those that were read; but none that somebody else is removing, for whom nobody waits.
fn put_gone(text: &mut SqlBuilder, rule: RuleKey, condition: &str) {
    let (hint, skip) = match text.dialect() {
        Dialect::Postgres => ("ctid", " FOR UPDATE OF work_candidate SKIP LOCKED"),
        Dialect::Cockroach | Dialect::Sqlite => ("machine_id", ""),
    };
    let looked_at = among_hints(
        text.dialect(),
        &format!("SELECT candidates.hint FROM candidates WHERE {condition}"),
    );
    let gone = among_hints(text.dialect(), "SELECT spent_hints.hint FROM spent_hints");
    text.put(
        &format!(
            ", spent_hints AS (SELECT {hint} AS hint FROM work_candidate WHERE {looked_at}{skip}), removed_hints AS (DELETE FROM work_candidate WHERE {gone})"
        ),
        [rule.into(), rule.process.into()],
    );
}
