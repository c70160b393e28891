//! Taking a machine: retrieval finds candidates, the claim takes one by its key.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bmdb_entity::work_history::Event;
use bmdb_entity::{Fence, MachineId, WorkId, machine};
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition, SelectStatement, Value};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, FromQueryResult, IdenStatic, Iterable, ModelTrait, Order, QueryResult,
};

use crate::eligible::{Eligible, from_machines};
use crate::error::Error;
use crate::history;
use crate::process::{self, Process};
use crate::session::{Core, Session};
use crate::tx::{Failure, Tx, answer_of, check_not_nested, pause_after};
use crate::work::{Claimed, Key, Release, Work};

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// How many candidates one retrieval reads beyond those that are asked for: spares for races that others win.
const SPARES: u64 = 8;

/// The most that [`ClaimMany`] takes at once: every machine is some bound values in one statement.
const MOST: u32 = 1000;

/// A claim of one machine; await it.
///
/// `Ok(None)`: nothing is eligible now. Losing a race for a machine is not an error: the next candidate is tried.
///
/// # Errors
/// [`Error::SessionExpired`], [`Error::Draining`], [`Error::SlotClash`], [`Error::InvalidBackoff`] and [`Error::Invalid`] for the process,
/// [`Error::CommitUnknown`] when the database could not be asked what became of the claim; what it may have taken is let go of in the background.
///
/// # Cancel safety
/// Dropping the future leaks nothing: what it claims, or has claimed, is let go of by the session's task.
#[must_use = "a claim does nothing until it is awaited"]
pub struct Claim<P: Process> {
    session: Session,
    machine: Option<MachineId>,
    filter: Condition,
    process: std::marker::PhantomData<fn() -> P>,
}

impl<P: Process> Claim<P> {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            machine: None,
            filter: Condition::all(),
            process: std::marker::PhantomData,
        }
    }

    /// Claims this machine, if it is eligible.
    pub fn on(mut self, machine: MachineId) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Claims only a machine that also meets `condition`, on columns of `machine` or of the process's item.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.filter = self.filter.add(condition.into_condition());
        self
    }

    fn up_to(self, count: u64) -> Answer<Vec<Work<P>>> {
        Box::pin(async move {
            let core = Arc::clone(self.session.core());
            check_not_nested()?;
            core.check_open()?;
            process::register::<P>(&core.database).await?;
            // In a task of the session's: if this future is dropped, the guards in the task's answer are dropped with it, and let go of.
            let claiming = core.claiming();
            let task = core.tasks.spawn({
                let core = Arc::clone(&core);
                async move {
                    let works = self.run(count).await?;
                    // Told to drain meanwhile: the guards are dropped, and let go of.
                    core.check_open()?;
                    drop(claiming);
                    Ok(works)
                }
            });
            answer_of(task).await.unwrap_or_else(|| Err(core.expired()))
        })
    }

    async fn run(self, count: u64) -> Result<Vec<Work<P>>, Error> {
        let core = Arc::clone(self.session.core());
        let eligible = Eligible::<P>::of_process();
        let (started, mut rounds) = (Instant::now(), 0);
        loop {
            core.check_open()?;
            let candidates = match self.machine {
                Some(machine) => vec![machine],
                None => self.retrieve(&core, &eligible, count + SPARES).await?,
            };
            if candidates.is_empty() {
                return Ok(Vec::new());
            }
            match self.take(&core, &eligible, &candidates, count).await? {
                Taken::Some(works) => return Ok(works),
                // Of a stale retrieval nothing was left, or the machine asked for is not eligible.
                Taken::Nothing if self.machine.is_some() => return Ok(Vec::new()),
                Taken::Nothing | Taken::LostRace => {}
            }
            rounds += 1;
            let elapsed = started.elapsed();
            if elapsed > core.database.config.retry_budget {
                return Err(Error::Contended {
                    doing: "claim a machine",
                    attempts: rounds,
                    elapsed,
                    source: None,
                });
            }
            tokio::time::sleep(pause_after(rounds)).await;
        }
    }

    /// Phase 1: an autocommit read that may be stale. It begins at a random machine in key order and wraps around, so that components do not
    /// meet at the head; with an order of the process's own, it takes the first in that order.
    async fn retrieve(&self, core: &Core, eligible: &Eligible<P>, limit: u64) -> Result<Vec<MachineId>, Error> {
        let machine_id = || Expr::col((machine::Entity, machine::Column::MachineId));
        let dialect = core.database.dialect;
        let base = || {
            let mut select = from_machines::<P>();
            select
                .column((machine::Entity, machine::Column::MachineId))
                .cond_where(eligible.claimable(dialect))
                .cond_where(self.filter.clone())
                .limit(limit);
            in_order(&mut select, eligible, None);
            select
        };
        let start = MachineId::random();
        let parts = if eligible.order.is_empty() {
            vec![
                base().and_where(machine_id().gte(start)).to_owned(),
                base().and_where(machine_id().lt(start)).to_owned(),
            ]
        } else {
            vec![base()]
        };
        let mut found = Vec::new();
        for part in parts {
            if found.len() as u64 >= limit {
                break;
            }
            let rows = core
                .database
                .read_statement("find eligible machines", dialect.backend().build(&part))
                .await?;
            for row in rows {
                found.push(
                    row.try_get_by_index(0)
                        .map_err(Error::database("find eligible machines"))?,
                );
            }
        }
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Phase 2: one transaction that takes up to `count` of the candidates, each only if it is still eligible and nobody has claimed it since it
    /// was looked at.
    async fn take(
        &self,
        core: &Arc<Core>,
        eligible: &Eligible<P>,
        candidates: &[MachineId],
        count: u64,
    ) -> Result<Taken<P>, Error> {
        let look = self.look(core, eligible, candidates, count);
        // Made before the first attempt and kept: an attempt whose outcome is unknown can be asked for by them.
        let ids: HashMap<MachineId, WorkId> = candidates.iter().map(|machine| (*machine, WorkId::random())).collect();
        let scope = core.library("claim a machine");
        let whole = async |tx: &Tx| {
            core.lock_row(tx).await?;
            let mut seen = tx
                .query_all(&look)
                .await?
                .iter()
                .map(Seen::<P>::read)
                .collect::<Result<Vec<_>, _>>()?;
            if seen.is_empty() {
                return Ok(None);
            }
            // In key order, so that two claims of many machines do not wait for each other in a circle.
            seen.sort_by_key(|seen| seen.machine);
            let mut claimed = Vec::with_capacity(seen.len());
            for seen in seen {
                if let Some(fence) = raise_fence(tx, seen.machine, seen.fence).await? {
                    let work = ids[&seen.machine];
                    let key = Key {
                        machine: seen.machine,
                        slot: P::SLOT,
                        process: P::NAME,
                        work,
                        fence,
                    };
                    claimed.push((key, seen.item));
                }
            }
            if !claimed.is_empty() {
                let keys: Vec<Key> = claimed.iter().map(|(key, _)| *key).collect();
                insert_works(tx, core, &keys).await?;
                history::record(tx, &core.author(), &keys, Event::Started, None).await?;
            }
            Ok::<_, Error>(Some(claimed))
        };
        let (claimed, source) = match scope.run(whole).await {
            Ok(None) => return Ok(Taken::Nothing),
            Ok(Some(claimed)) if claimed.is_empty() => return Ok(Taken::LostRace),
            Ok(Some(claimed)) => return Ok(Taken::Some(self.guards(claimed))),
            Err(Failure::NotCommitted(error)) => return Err(error),
            Err(Failure::Unknown { value, source }) => (value.unwrap_or_default(), source),
        };
        // Everything was claimed in one transaction, so one machine tells for all.
        let Some((first, _)) = claimed.first() else {
            return Ok(Taken::LostRace);
        };
        match settle(core, first.machine, first.work).await {
            Ok(Some(_fence)) => Ok(Taken::Some(self.guards(claimed))),
            Ok(None) => Ok(Taken::LostRace),
            Err(_unreachable) => {
                for (key, _) in claimed {
                    let Key {
                        machine,
                        slot,
                        process,
                        work,
                        ..
                    } = key;
                    let _unheard = core.releases.send(Release::Claim {
                        machine,
                        slot,
                        process,
                        work,
                    });
                }
                Err(Error::CommitUnknown {
                    doing: scope.doing,
                    source,
                })
            }
        }
    }

    /// Reads the candidates again, by key, with the same predicate: their items and fences.
    fn look(&self, core: &Core, eligible: &Eligible<P>, candidates: &[MachineId], count: u64) -> SelectStatement {
        let mut select = from_machines::<P>();
        select
            .expr_as(Expr::col((machine::Entity, machine::Column::MachineId)), "bmdb_machine")
            .expr_as(Expr::col((machine::Entity, machine::Column::Fence)), "bmdb_fence");
        for column in columns_of::<P::Item>() {
            let entity = <P::Item as ModelTrait>::Entity::default();
            let alias = format!("{ITEM}{}", column.as_str());
            select.expr_as(column.select_as(Expr::col((entity, column))), alias);
        }
        select
            .and_where(Expr::col((machine::Entity, machine::Column::MachineId)).is_in(candidates.iter().copied()))
            .cond_where(eligible.claimable(core.database.dialect))
            .cond_where(self.filter.clone())
            .limit(count);
        in_order(&mut select, eligible, candidates.first());
        select
    }

    fn guards(&self, claimed: Vec<(Key, P::Item)>) -> Vec<Work<P>> {
        let guard = |(key, item): (Key, P::Item)| {
            tracing::debug!(machine = %key.machine, process = key.process, fence = %key.fence, "machine claimed");
            Work {
                item,
                claimed: Claimed::new(self.session.clone(), key, P::MAX_RUN),
            }
        };
        claimed.into_iter().map(guard).collect()
    }
}

enum Taken<P: Process> {
    Some(Vec<Work<P>>),
    /// No candidate is eligible any more.
    Nothing,
    /// Others were faster.
    LostRace,
}

impl<P: Process> IntoFuture for Claim<P> {
    type Output = Result<Option<Work<P>>, Error>;
    type IntoFuture = Answer<Option<Work<P>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.up_to(1).await?.pop()) })
    }
}

/// A claim of up to so many machines in one transaction; await it. An empty answer: nothing is eligible now. Else as [`Claim`].
#[must_use = "a claim does nothing until it is awaited"]
pub struct ClaimMany<P: Process> {
    claim: Claim<P>,
    count: u32,
}

impl<P: Process> ClaimMany<P> {
    pub(crate) fn new(session: Session, count: u32) -> Self {
        Self {
            claim: Claim::new(session),
            count,
        }
    }

    /// Claims only machines that also meet `condition`, on columns of `machine` or of the process's item.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.claim = self.claim.filter(condition);
        self
    }
}

impl<P: Process> IntoFuture for ClaimMany<P> {
    type Output = Result<Vec<Work<P>>, Error>;
    type IntoFuture = Answer<Vec<Work<P>>>;

    fn into_future(self) -> Self::IntoFuture {
        if !(1..=MOST).contains(&self.count) {
            let error = Error::invalid("the number of machines to claim", &self.count.to_string(), "1 to 1000");
            return Box::pin(async move { Err(error) });
        }
        self.claim.up_to(u64::from(self.count))
    }
}

/// The process's own order, and then key order, around the circle if there is a start.
fn in_order<P: Process>(select: &mut SelectStatement, eligible: &Eligible<P>, start: Option<&MachineId>) {
    let machine_id = || Expr::col((machine::Entity, machine::Column::MachineId));
    for (by, order) in &eligible.order {
        select.order_by_expr(by.clone(), order.clone());
    }
    if let Some(start) = start {
        select.order_by_expr(machine_id().lt(*start), Order::Asc);
    }
    select.order_by_expr(machine_id(), Order::Asc);
}

/// Before the item's columns in an answer, so that they do not meet the machine's.
const ITEM: &str = "bmdb_item_";

fn columns_of<M: ModelTrait>() -> impl Iterator<Item = <M::Entity as sea_orm::EntityTrait>::Column> {
    <M::Entity as sea_orm::EntityTrait>::Column::iter()
}

struct Seen<P: Process> {
    machine: MachineId,
    fence: Fence,
    item: P::Item,
}

impl<P: Process> Seen<P> {
    fn read(row: &QueryResult) -> Result<Self, sea_orm::DbErr> {
        Ok(Self {
            machine: row.try_get("", "bmdb_machine")?,
            fence: row.try_get("", "bmdb_fence")?,
            item: P::Item::from_query_result(row, ITEM)?,
        })
    }
}

/// The compare-and-set that makes the claim exclusive at every isolation level. `None`: someone has claimed the machine since we looked, and
/// may even have finished by now.
async fn raise_fence(tx: &Tx, machine: MachineId, seen: Fence) -> Result<Option<Fence>, sea_orm::DbErr> {
    const RAISE: &str = "UPDATE machine SET fence = fence + 1 WHERE machine_id = $1 AND fence = $2";
    let raised = tx.execute_text(RAISE, [machine.into(), seen.into()]).await?;
    Ok((raised == 1).then_some(Fence(seen.0 + 1)))
}

async fn insert_works(tx: &Tx, core: &Core, keys: &[Key]) -> Result<(), sea_orm::DbErr> {
    let mut text =
        "INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at) VALUES ".to_owned();
    let mut values: Vec<Value> = vec![core.id.into()];
    for (nth, key) in keys.iter().enumerate() {
        let first = values.len() + 1;
        let comma = if nth == 0 { "" } else { ", " };
        let [slot, process, work, fence] = [first + 1, first + 2, first + 3, first + 4];
        text.push_str(&format!(
            "{comma}(${first}, ${slot}, ${process}, ${work}, $1, ${fence}, {{now}})"
        ));
        values.extend([
            key.machine.into(),
            key.slot.into(),
            key.process.into(),
            key.work.into(),
            key.fence.into(),
        ]);
    }
    tx.execute_text(&text, values).await.map(drop)
}

/// Decides a claim of unknown outcome by a write that collides with the claim's own: it waits for a commit that is still on its way. The fence,
/// if the machine was claimed and still is.
pub(crate) async fn settle(core: &Core, machine: MachineId, work: WorkId) -> Result<Option<Fence>, Error> {
    const TOUCH: &str = "UPDATE machine SET fence = fence WHERE machine_id = $1";
    let scope = core.library("settle a claim");
    let ask = async |tx: &Tx| {
        tx.execute_text(TOUCH, [machine.into()]).await?;
        let rows = tx
            .query_text("SELECT fence FROM work WHERE work_id = $1", [work.into()])
            .await?;
        let fence: Option<Fence> = rows.first().map(|row| row.try_get_by_index(0)).transpose()?;
        Ok::<_, Error>(fence)
    };
    match scope.run(ask).await {
        // What was read is true whether or not the transaction that read it committed.
        Ok(fence) | Err(Failure::Unknown { value: fence, .. }) => Ok(fence),
        Err(Failure::NotCommitted(error)) => Err(error),
    }
}
