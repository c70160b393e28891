//! An attempt to claim as a transaction of several statements: SQLite's way, where one writer at a time excludes all others.

use bmdb_entity::work_history::Event;
use bmdb_entity::{MachineId, WorkId, machine};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ConnectionTrait, DbErr};

use crate::attempt::Attempt;
use crate::call::Place;
use crate::candidate::{self, TAKE_TURN};
use crate::claim::Claim;
use crate::eligible::Eligible;
use crate::error::Error;
use crate::failure::Failure;
use crate::history;
use crate::leave::{self, Leaving};
use crate::process::Process;
use crate::seen::{Seen, Taken};
use crate::session::Core;
use crate::source::{Searches, Source, Told};
use crate::text::Text;
use crate::tx::Tx;
use crate::work::Key;

/// One attempt to take a machine for each of `works`.
pub(crate) async fn attempt<P: Process>(
    core: &Core,
    claim: &Claim<P>,
    source: Source,
    begun: Option<i64>,
    works: &[WorkId],
    after: &[Leaving],
    place: Option<&Place>,
) -> Result<Attempt<P>, Failure<(), Error>> {
    let asked = works.len() as u64;
    // Before the search: whoever searched first and waited then would find that others have taken all that it had found.
    let turn = match place {
        Some(place) => {
            place.wait();
            core.crowds.alone.acquire().await.ok()
        }
        None => None,
    };
    // Before the transaction: a search takes its time, and nobody else could write in it.
    let found = match source {
        Source::Plenty | Source::Hints => Ok(Vec::new()),
        Source::Machine(machine) => Ok(vec![machine]),
        Source::Fleet(_) | Source::Alone => {
            candidate::search_now(
                &core.database,
                &Eligible::<P>::of_process(),
                claim.filter_condition(),
                source.window(asked),
            )
            .await
        }
    };
    let found = found.map_err(Failure::NotCommitted)?;
    if place.is_some_and(|place| !place.may_begin()) {
        return Ok(Attempt::lost_race());
    }
    let whole = async |tx: &Tx| {
        let ended = leave::within(tx, core, after).await?;
        if !after.is_empty() && ended.is_empty() {
            return Ok(Attempt::lost_race());
        }
        // One for each that has ended.
        let works = if after.is_empty() { works } else { &works[..ended.len()] };
        let count = works.len() as u64;
        let candidates = match source {
            Source::Hints => candidate::hints::<P>(tx, source, count).await?,
            _ => found.clone(),
        };
        let taken = look(tx, core, claim, source, &candidates, works).await?;
        let gone: Vec<MachineId> = match source {
            Source::Hints if taken.is_empty() => candidates.clone(),
            _ => taken.iter().map(|taken| taken.seen.machine).collect(),
        };
        let mut writes = Text::new(tx.dialect());
        put_taken(&mut writes, core, &taken);
        if !matches!(source, Source::Fleet(_)) {
            candidate::put_forget(&mut writes, "work_candidate", P::NAME, &gone);
        }
        tx.write(writes).await?;
        if matches!(source, Source::Plenty) {
            let told = None;
            return Ok(Attempt { ended, taken, told });
        }
        let mut told = Told {
            more: source.may_have_more(candidates.len() as u64, asked),
            // What a search of its own had found was taken before this transaction began: it looks for others.
            eligible: !taken.is_empty() || source == Source::Alone && !candidates.is_empty(),
            turn: None,
            searches: searches::<P>(tx).await?,
        };
        match source {
            Source::Hints if taken.is_empty() && !told.more => {
                told.turn = take_turn::<P>(tx, begun, told.searches).await?;
            }
            Source::Fleet(turn) => {
                let left: Vec<MachineId> = candidates
                    .iter()
                    .filter(|machine| !gone.contains(machine))
                    .copied()
                    .collect();
                candidate::end_turn::<P>(tx, turn, &left).await?;
            }
            _ => {}
        }
        let told = Some(told);
        Ok::<_, Error>(Attempt { ended, taken, told })
    };
    let attempt = core.library("claim a machine").run(whole).await;
    drop(turn);
    attempt.map_err(Failure::without_value)
}

/// A machine for each of `works`, of the candidates, from the first on. Nobody else writes meanwhile.
async fn look<P: Process>(
    tx: &Tx,
    core: &Core,
    claim: &Claim<P>,
    source: Source,
    candidates: &[MachineId],
    works: &[WorkId],
) -> Result<Vec<Taken<P>>, DbErr> {
    let (dialect, count) = (tx.dialect(), works.len());
    let mut text = Text::new(dialect);
    if let Source::Alone | Source::Machine(_) = source {
        let eligible = Eligible::<P>::of_process();
        let machine = Expr::col((machine::Entity, machine::Column::MachineId));
        let mut look = Seen::<P>::look_for(&eligible, dialect);
        look.and_where(machine.is_in(candidates.iter().copied()))
            .cond_where(claim.filter_condition().clone());
        candidate::in_order(&mut look, &eligible, candidates.first());
        text.query(&look);
    } else {
        let first = candidates.first().copied().unwrap_or_else(MachineId::random);
        text.piece(&core.database.views.of::<P>().look)
            .put(" AND machine.machine_id IN (", []);
        if matches!(source, Source::Plenty) {
            candidate::put_hinted::<P>(&mut text, source, count as u64, first);
        } else {
            text.each(candidates, "$1", |machine| [(*machine).into()]);
        }
        text.put(") ORDER BY machine.machine_id < $1, machine.machine_id", [first.into()]);
    }
    // As a value, SQLite would plan the statement anew for each.
    text.put(&format!(" LIMIT {count}"), []);
    let rows = tx.query_all_raw(text.finish()).await?;
    let taken = rows.iter().zip(works).map(|(row, work)| {
        Ok(Taken {
            work: *work,
            seen: Seen::read(row)?,
        })
    });
    taken.collect()
}

/// Raises fences, and writes works and history.
fn put_taken<P: Process>(text: &mut Text, core: &Core, taken: &[Taken<P>]) {
    if taken.is_empty() {
        return;
    }
    let row = |key: Key| {
        [
            key.machine.into(),
            key.slot.into(),
            key.process.into(),
            key.work.into(),
            core.id.into(),
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
        .each(taken.iter().map(Taken::key), "($1, $2, $3, $4, $5, $6, {now})", row);
    let started = taken.iter().map(|taken| (taken.key(), None));
    history::put(text, &core.author(), started, Event::Started);
}

async fn searches<P: Process>(tx: &Tx) -> Result<Option<Searches>, DbErr> {
    let text = format!("SELECT {} FROM work_retrieval WHERE process = $1", Searches::COLUMNS);
    let rows = tx.query_text(&text, [P::NAME.into()]).await?;
    Ok(rows.first().map(Searches::read).transpose()?.flatten())
}

async fn take_turn<P: Process>(tx: &Tx, begun: Option<i64>, searches: Option<Searches>) -> Result<Option<i64>, DbErr> {
    let took = tx.execute_text(TAKE_TURN, [P::NAME.into(), begun.into()]).await? == 1;
    Ok(searches
        .filter(|_| took)
        .map(|searches| searches.now().saturating_add(1)))
}
