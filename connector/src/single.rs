//! An attempt to claim as one statement: PostgreSQL's and CockroachDB's way.
//!
//! It looks at candidates, raises the fence of those that are eligible if they still are what it saw, and inserts works and history. At READ COMMITTED
//! what it saw may be older than what it raises; then the fence differs, nothing is raised, and nothing inserted. The work's reference to its session
//! is what orders a claim against the session's expiry: it waits for an expiry under way, and is refused after one.

use bmdb_entity::{MachineId, WorkId, machine};
use sea_orm::Statement;
use sea_orm::sea_query::{Expr, ExprTrait, JoinType, SelectStatement, Value};

use crate::candidate::{END_TURN, Searches, Source, TAKE_TURN, Told, search};
use crate::claim::{Attempt, Claim};
use crate::dialect::Dialect;
use crate::eligible::Eligible;
use crate::error::Error;
use crate::leave::{self, After};
use crate::process::Process;
use crate::seen::{Seen, Taken};
use crate::session::Core;
use crate::text::Text;
use crate::tx::Failure;

/// Nothing is taken when the work that was to end was not ours.
const AFTER: &str = " AND EXISTS (SELECT ended.work_id FROM ended)";

/// One attempt to take a machine for each of `works`.
pub(crate) async fn attempt<P: Process>(
    core: &Core,
    claim: &Claim<P>,
    source: Source,
    begun: Option<i64>,
    works: &[WorkId],
    after: Option<&After<'_>>,
) -> Result<Attempt<P>, Failure<(), Error>> {
    let eligible = Eligible::of_process();
    let statement = statement(core, claim, &eligible, source, begun, works, after);
    let scope = core.library("claim a machine");
    let rows = match scope.once(&statement).await {
        // The only key that a claim can miss is its session's: the machine is locked.
        Err(Failure::NotCommitted(error)) if crate::once::is_dangling(&error) => {
            core.lose("its row is gone");
            return Err(Failure::NotCommitted(core.expired()));
        }
        // Another claim has taken the slot and its fence, and this one looked in between.
        Err(Failure::NotCommitted(error)) if crate::once::is_taken(&error) => return Ok(Attempt::lost_race()),
        rows => rows?,
    };
    // It has taken effect, so what cannot be read cannot be told from what is not known.
    read(&rows).map_err(|source| Failure::Unknown {
        value: (),
        source: Some(source),
    })
}

fn read<P: Process>(rows: &[sea_orm::QueryResult]) -> Result<Attempt<P>, sea_orm::DbErr> {
    let first = rows
        .first()
        .ok_or(sea_orm::DbErr::RecordNotFound("a claim's answer".to_owned()))?;
    let told = Told {
        candidates: first.try_get::<i64>("", "bmdb_candidates")?.unsigned_abs(),
        ended: first.try_get("", "bmdb_left")?,
        eligible: first.try_get("", "bmdb_eligible")?,
        turn: first.try_get("", "bmdb_turn")?,
        searches: Searches::read(first)?,
    };
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(work) = row.try_get("", "bmdb_work")? {
            taken.push(Taken {
                work,
                seen: Seen::read(row)?,
            });
        }
    }
    Ok(Attempt { taken, told })
}

fn statement<P: Process>(
    core: &Core,
    claim: &Claim<P>,
    eligible: &Eligible<P>,
    source: Source,
    begun: Option<i64>,
    works: &[WorkId],
    after: Option<&After<'_>>,
) -> Statement {
    let dialect = core.database.dialect;
    let count = works.len() as u64;
    let by_hints = matches!(source, Source::Hints);
    let mut text = Text::new(dialect);
    text.put("WITH ", []);
    if let Some(After { leaving, trace }) = after {
        // The session's row first, as everybody does who takes both: an expiry that has it waits for its works.
        text.put(
            "lives AS MATERIALIZED (SELECT session_id FROM session WHERE session_id = $1 {share}), ",
            [core.id.into()],
        );
        const WHILE_IT_LIVES: &str = " AND EXISTS (SELECT lives.session_id FROM lives)";
        leave::put(&mut text, core, std::slice::from_ref(leaving), trace, WHILE_IT_LIVES);
        text.put(", ", []);
    }
    text.put("q AS (", []);
    put_candidates(&mut text, claim, eligible, source, dialect, count, after.is_some());
    text.put("), c AS MATERIALIZED (", []);
    let skips = by_hints && dialect == Dialect::Postgres;
    if by_hints {
        put_look_at_hints::<P>(&mut text, eligible, dialect, count);
    } else {
        text.query(&look(claim, eligible, source, dialect, count));
    }
    text.put(
        "), l AS (UPDATE machine SET fence = machine.fence + 1 FROM c \
         WHERE machine.machine_id = c.bmdb_machine AND machine.fence = c.bmdb_fence \
         RETURNING machine.machine_id, machine.fence), \
         n AS (SELECT machine_id, fence, row_number() OVER (ORDER BY machine_id) AS nth FROM l), \
         ids (nth, work_id) AS (VALUES ",
        [],
    );
    for (place, work) in works.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        text.put(
            &format!("{comma}(CAST({} AS BIGINT), CAST($1 AS UUID))", place + 1),
            [(*work).into()],
        );
    }
    let author = core.author();
    text.put(
        "), w AS (INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at) \
         SELECT n.machine_id, CAST($1 AS TEXT), CAST($2 AS TEXT), ids.work_id, CAST($3 AS UUID), n.fence, {now} \
         FROM n JOIN ids ON ids.nth = n.nth RETURNING machine_id, slot, process, work_id, session_id, fence), \
         h AS (INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at) \
         SELECT w.machine_id, w.fence, 'started', w.work_id, w.process, w.slot, w.session_id, CAST($4 AS TEXT), CAST($5 AS TEXT), {now} \
         FROM w RETURNING machine_id)",
        [
            P::SLOT.into(),
            P::NAME.into(),
            core.id.into(),
            author.component.into(),
            author.runtime_info.into(),
        ],
    );
    match source {
        Source::Hints => {
            put_hints_after::<P>(&mut text, skips, begun, source.window(count), after.is_some());
        }
        Source::Fleet(turn) => {
            text.put(
                ", s AS (INSERT INTO work_candidate (process, machine_id, found_at) SELECT CAST($1 AS TEXT), q.machine_id, {now} FROM q \
                 WHERE NOT EXISTS (SELECT l.machine_id FROM l WHERE l.machine_id = q.machine_id) ORDER BY q.machine_id \
                 ON CONFLICT (process, machine_id) DO NOTHING), e AS (",
                [P::NAME.into()],
            )
            .put(END_TURN, [P::NAME.into(), turn.into()])
            .put(")", []);
        }
        Source::Alone | Source::Machine(_) => {}
    }
    text.put(" SELECT (SELECT CAST(count(machine_id) AS BIGINT) FROM q) AS bmdb_candidates, EXISTS (SELECT bmdb_machine FROM c)", [])
        .put(" AS bmdb_eligible, ", [])
        .put(if after.is_some() { "EXISTS (SELECT ended.work_id FROM ended)" } else { "true" }, [])
        .put(" AS bmdb_left, ", [])
        .put(if by_hints { "(SELECT begun FROM t)" } else { "CAST(NULL AS BIGINT)" }, [])
        .put(" AS bmdb_turn, ", [])
        .put(Searches::COLUMNS, [])
        .put(", w.fence AS bmdb_fence, w.work_id AS bmdb_work", []);
    for name in Seen::<P>::columns() {
        text.put(&format!(", c.\"{name}\""), []);
    }
    text.put(
        " FROM (VALUES (CAST(1 AS BIGINT))) AS one (n) LEFT JOIN work_retrieval ON work_retrieval.process = $1 \
         LEFT JOIN (w JOIN c ON c.bmdb_machine = w.machine_id) ON true",
        [P::NAME.into()],
    );
    text.finish()
}

fn put_candidates<P: Process>(
    text: &mut Text,
    claim: &Claim<P>,
    eligible: &Eligible<P>,
    source: Source,
    dialect: Dialect,
    count: u64,
    is_after: bool,
) {
    match source {
        Source::Hints => {
            // A limit in the text lets the server plan the statement once and for all.
            let window = source.window(count);
            let part = |part: u8, side: &str| {
                format!(
                    "(SELECT {part} AS part, machine_id FROM work_candidate WHERE process = $1 AND machine_id {side} $2 \
                     ORDER BY machine_id LIMIT {window})"
                )
            };
            let only_after = if is_after { AFTER } else { "" };
            let around = format!(
                "SELECT part, machine_id FROM ({} UNION ALL {}) AS around WHERE true{only_after} LIMIT {window}",
                part(1, ">="),
                part(2, "<")
            );
            text.put(&around, [P::NAME.into(), MachineId::random().into()]);
        }
        Source::Fleet(_) | Source::Alone => {
            for (place, part) in search(eligible, claim.filter_condition(), dialect, source.window(count))
                .iter()
                .enumerate()
            {
                text.put(if place == 0 { "(" } else { " UNION ALL (" }, [])
                    .query(part)
                    .put(")", []);
            }
        }
        Source::Machine(machine) => {
            text.put("SELECT CAST($1 AS UUID) AS machine_id", [machine.into()]);
        }
    }
}

/// Verifies hints one by one, from the random start, until there are enough.
fn put_look_at_hints<P: Process>(text: &mut Text, eligible: &Eligible<P>, dialect: Dialect, count: u64) {
    let mut columns = Seen::<P>::columns().join("\", seen.\"");
    columns.push_str("\", seen.\"bmdb_fence");
    let mut one = Seen::<P>::look();
    one.cond_where(eligible.claimable(dialect))
        .and_where(Expr::col(("q", "machine_id")).equals((machine::Entity, machine::Column::MachineId)));
    text.put(&format!("SELECT seen.\"{columns}\" FROM q CROSS JOIN LATERAL ("), [])
        .query(&one);
    match dialect {
        // Candidates that others are at are left to them. A lock that lets keys refer to the machine meanwhile; and with it in there, PostgreSQL
        // cannot but take the hints as they come.
        Dialect::Postgres => text.put(" FOR NO KEY UPDATE OF machine SKIP LOCKED) AS seen", []),
        Dialect::Cockroach | Dialect::Sqlite => text.put(") AS seen ORDER BY q.part, q.machine_id", []),
    }
    .put(&format!(" LIMIT {count}"), []);
}

/// Reads candidates by their keys, with the process's predicate, until there are enough.
fn look<P: Process>(
    claim: &Claim<P>,
    eligible: &Eligible<P>,
    source: Source,
    dialect: Dialect,
    count: u64,
) -> SelectStatement {
    let mut select = Seen::<P>::look();
    among_candidates(&mut select);
    select.cond_where(eligible.claimable(dialect)).limit(count);
    if matches!(source, Source::Alone | Source::Machine(_)) {
        select.cond_where(claim.filter_condition().clone());
    }
    for (by, order) in &eligible.order {
        select.order_by_expr(by.clone(), order.clone());
    }
    select
}

fn among_candidates(select: &mut SelectStatement) {
    let on = Expr::col(("q", "machine_id")).equals((machine::Entity, machine::Column::MachineId));
    select.join(JoinType::InnerJoin, "q", on);
}

/// What was taken is no candidate any more, nor is any of them when none could be taken: they are not eligible, or others are just taking them. And when
/// the window was not full then, it may be time to search.
fn put_hints_after<P: Process>(text: &mut Text, skips: bool, begun: Option<i64>, window: u64, is_after: bool) {
    let process: Value = P::NAME.into();
    text.put(
        ", d AS (SELECT work_candidate.machine_id FROM work_candidate JOIN q ON q.machine_id = work_candidate.machine_id \
         WHERE work_candidate.process = $1 AND NOT EXISTS (SELECT c.bmdb_machine FROM c)",
        [process.clone()],
    );
    if skips {
        text.put(" FOR UPDATE OF work_candidate SKIP LOCKED", []);
    }
    text.put(
        "), x AS (DELETE FROM work_candidate USING (SELECT machine_id FROM l UNION ALL SELECT machine_id FROM d) AS gone (machine_id) \
         WHERE work_candidate.process = $1 AND work_candidate.machine_id = gone.machine_id), t AS (",
        [process.clone()],
    )
    .put(TAKE_TURN, [process, Value::BigInt(begun)])
    .put(
        " AND NOT EXISTS (SELECT c.bmdb_machine FROM c) AND (SELECT CAST(count(machine_id) AS BIGINT) FROM q) < $1",
        [Value::BigInt(i64::try_from(window).ok())],
    )
    .put(if is_after { AFTER } else { "" }, [])
    .put(" RETURNING begun)", []);
}
