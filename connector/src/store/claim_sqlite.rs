//! An attempt to claim as a transaction of several statements: SQLite's way, where one writer at a time excludes all others.

use bmdb_entity::work_history::Event;
use bmdb_entity::{MachineId, WorkId, machine};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ConnectionTrait, DbErr};

use crate::db::sql::SqlBuilder;
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics::StatementKind;
use crate::rules::claim_plan::{AttemptReport, CandidateSource, SearchProgress};
use crate::rules::process::Process;
use crate::rules::work_key::{RuleKey, WorkKey};
use crate::runtime::detach::Detach;
use crate::store::attempt::{Attempt, ClaimRequest};
use crate::store::candidate::{Candidate, ClaimedMachine};
use crate::store::end;
use crate::store::hints::{self, TAKE_SEARCH_LEASE, paused};
use crate::store::history;
use crate::store::writer::Writer;

/// One attempt to take a machine for each of `works`.
pub(crate) async fn attempt<P: Process>(
    by: &Writer<'_>,
    request: ClaimRequest<'_>,
    detach: Option<&Detach>,
) -> Result<Attempt<P>, TxError<(), Error>> {
    let ClaimRequest {
        source,
        works,
        after,
        baseline,
        rule,
        ..
    } = request;
    let asked = works.len() as u64;
    // Before the transaction: a search takes its time, and nobody else could write in it.
    let found = match source {
        CandidateSource::HintsOnly | CandidateSource::HintsThenSearch => Ok(Vec::new()),
        CandidateSource::Machine(machine) => Ok(vec![machine]),
        CandidateSource::Search(_) | CandidateSource::Scan => {
            hints::search_now::<P>(by.database, &rule.eligible, request.filter, source.window(asked)).await
        }
    };
    let found = found.map_err(TxError::NotCommitted)?;
    if detach.is_some_and(|detach| !detach.may_begin()) {
        return Ok(Attempt::void());
    }
    let whole = async |tx: &Tx| {
        let ended = end::within(tx, by, after).await?;
        if !after.is_empty() && ended.is_empty() {
            return Ok(Attempt::void());
        }
        // One for each that has ended.
        let works = if after.is_empty() { works } else { &works[..ended.len()] };
        let count = works.len() as u64;
        let candidates = match source {
            CandidateSource::HintsThenSearch => hints::hints(tx, rule.key, source, count).await?,
            _ => found.clone(),
        };
        let taken = choose(tx, request, &candidates, works).await?;
        let (searches, paused) = match source {
            CandidateSource::HintsOnly => (None, false),
            _ => searches(tx, rule.key).await?,
        };
        let gone: Vec<MachineId> = match source {
            // Of a process that is paused they are as good as before.
            CandidateSource::HintsThenSearch if taken.is_empty() && !paused => candidates.clone(),
            _ => taken.iter().map(|taken| taken.seen.machine).collect(),
        };
        let mut writes = SqlBuilder::new(tx.dialect());
        put_taken(&mut writes, by, rule.key, &taken);
        if !matches!(source, CandidateSource::Search(_)) {
            hints::put_forget(&mut writes, "work_candidate", rule.key.into(), &gone);
        }
        tx.write(writes).await?;
        if matches!(source, CandidateSource::HintsOnly) {
            let report = None;
            let is_void = false;
            return Ok(Attempt {
                ended,
                taken,
                report,
                is_void,
            });
        }
        let mut report = AttemptReport {
            more: source.may_have_more(candidates.len() as u64, asked),
            // What a search of its own had found was taken before this transaction began: it reads other candidates.
            eligible: !taken.is_empty() || source == CandidateSource::Scan && !candidates.is_empty(),
            paused,
            search_lease: None,
            searches,
        };
        match source {
            CandidateSource::HintsThenSearch if taken.is_empty() && !report.more => {
                report.search_lease = take_search_lease(tx, rule.key, baseline, report.searches).await?;
            }
            CandidateSource::Search(number) => {
                let left: Vec<MachineId> = candidates
                    .iter()
                    .filter(|machine| !gone.contains(machine))
                    .copied()
                    .collect();
                hints::end_search(tx, rule.key, number, &left).await?;
            }
            _ => {}
        }
        let report = Some(report);
        let is_void = false;
        Ok::<_, Error>(Attempt {
            ended,
            taken,
            report,
            is_void,
        })
    };
    let runner = TxRunner {
        kind: StatementKind::Claim,
        ..by.runner("claim a machine")
    };
    let attempt = runner.run(whole).await;
    attempt.map_err(TxError::without_value)
}

/// A machine for each of `works`, of the candidates, from the first on. Nobody else writes meanwhile.
async fn choose<P: Process>(
    tx: &Tx,
    request: ClaimRequest<'_>,
    candidates: &[MachineId],
    works: &[WorkId],
) -> Result<Vec<ClaimedMachine<P>>, DbErr> {
    let (dialect, count, source) = (tx.dialect(), works.len(), request.source);
    let mut text = SqlBuilder::new(dialect);
    if let CandidateSource::Scan | CandidateSource::Machine(_) = source {
        let eligible = &request.rule.eligible;
        let machine = Expr::col((machine::Entity, machine::Column::MachineId));
        let mut select = Candidate::<P>::select_eligible(eligible, dialect);
        select
            .and_where(machine.is_in(candidates.iter().copied()))
            .cond_where(request.filter.clone());
        hints::in_order(&mut select, eligible, candidates.first());
        text.query(&select);
    } else {
        let first = candidates.first().copied().unwrap_or_else(MachineId::random);
        text.piece(&request.rule.sql.eligible)
            .put(" AND machine.machine_id IN (", []);
        if matches!(source, CandidateSource::HintsOnly) {
            hints::put_hinted(&mut text, request.rule.key, source, count as u64, first);
        } else {
            text.each(candidates, "$1", |machine| [(*machine).into()]);
        }
        text.put(") ORDER BY machine.machine_id < $1, machine.machine_id", [first.into()]);
    }
    // As a value, SQLite would plan the statement anew for each.
    text.put(&format!(" LIMIT {count}"), []);
    let rows = tx.query_all_raw(text.finish()).await?;
    let taken = rows.iter().zip(works).map(|(row, work)| {
        Ok(ClaimedMachine {
            work: *work,
            seen: Candidate::read(row)?,
        })
    });
    taken.collect()
}

/// Raises fences, and writes works and history.
fn put_taken<P: Process>(text: &mut SqlBuilder, by: &Writer<'_>, rule: RuleKey, taken: &[ClaimedMachine<P>]) {
    if taken.is_empty() {
        return;
    }
    let row = |key: WorkKey| {
        [
            key.machine.into(),
            key.slot.into(),
            key.process().into(),
            key.work.into(),
            by.author.session.into(),
            key.fence.into(),
        ]
    };
    text.another()
        .put("UPDATE machine SET fence = raised.column2 FROM (VALUES ", [])
        .each(taken, "($1, $2)", |taken| {
            [taken.seen.machine.into(), taken.seen.fence.into()]
        })
        .put(") AS raised WHERE machine.machine_id = raised.column1", [])
        .another()
        .put(
            "INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at) VALUES ",
            [],
        )
        .each(
            taken.iter().map(|taken| taken.key(rule)),
            "($1, $2, $3, $4, $5, $6, {now})",
            row,
        );
    let started = taken.iter().map(|taken| (taken.key(rule), None));
    history::put(text, &by.author, started, Event::Started);
}

/// The searches for a rule, and whether its process is paused.
async fn searches(tx: &Tx, rule: RuleKey) -> Result<(Option<SearchProgress>, bool), DbErr> {
    let text = format!(
        "SELECT {}, {} AS bmdb_paused FROM (SELECT 1) AS one LEFT JOIN work_retrieval ON work_retrieval.process = $1",
        SearchProgress::COLUMNS,
        paused!("$2")
    );
    let rows = tx.query_text(&text, [rule.into(), rule.process.into()]).await?;
    let row = rows
        .first()
        .ok_or(DbErr::RecordNotFound("a rule's searches".to_owned()))?;
    Ok((SearchProgress::read(row)?, row.try_get("", "bmdb_paused")?))
}

async fn take_search_lease(
    tx: &Tx,
    rule: RuleKey,
    baseline: Option<i64>,
    searches: Option<SearchProgress>,
) -> Result<Option<i64>, DbErr> {
    let took = tx
        .execute_text(TAKE_SEARCH_LEASE, [rule.into(), baseline.into(), rule.process.into()])
        .await?
        == 1;
    Ok(searches
        .filter(|_| took)
        .map(|searches| searches.now().saturating_add(1)))
}
