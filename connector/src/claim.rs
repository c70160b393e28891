//! Taking a machine: from hints, from a search of the fleet when there are none, until something is taken or nothing is there.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bmdb_entity::{Fence, MachineId, WorkId, machine, work, work_backoff};
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition, JoinType, SelectStatement};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, FromQueryResult, IdenStatic, Iterable, ModelTrait, QueryResult,
};

use crate::candidate::{self, Source, Told};
use crate::dialect::Dialect;
use crate::eligible::{Eligible, from_machines};
use crate::error::Error;
use crate::process::{self, Process};
use crate::session::{Core, Session};
use crate::tx::{Failure, Tx, answer_of, check_not_nested, pause_after};
use crate::work::{Claimed, Key, Release, Work};
use crate::{single, stepwise};

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

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
        let mut source = match self.machine {
            Some(machine) => Source::Machine(machine),
            None if self.filter.is_empty() && Eligible::<P>::of_process().order.is_empty() => Source::Hints,
            None => Source::Alone,
        };
        let (started, mut rounds) = (Instant::now(), 0);
        // The search that had begun when this claim first looked: what the one after it does not find is not there.
        let mut begun = None;
        loop {
            core.check_open()?;
            let Attempt { taken, told } = self.attempt(&core, source, begun, count).await?;
            if !taken.is_empty() {
                if matches!(source, Source::Hints) && told.searches.is_some_and(|searches| searches.old) {
                    refresh::<P>(&core);
                }
                return Ok(self.guards(taken));
            }
            begun = begun.or(told.searches.map(|searches| searches.now()));
            let searched = told
                .searches
                .zip(begun)
                .is_some_and(|(searches, begun)| searches.has_ended_since(begun));
            let next = match (source, told.turn) {
                (_, Some(turn)) => Source::Fleet(turn),
                // Others were faster.
                (Source::Fleet(_), _) if told.eligible => Source::Hints,
                (_, _) if told.eligible => source,
                (Source::Hints, _) if told.searches.is_none() => {
                    process::add_searches::<P>(&core.database).await?;
                    source
                }
                // There may be more hints, or somebody is searching.
                (Source::Hints, _) if !searched || told.candidates >= source.window(count) => source,
                _ => return Ok(Vec::new()),
            };
            let at_once = told.turn.is_some() || told.candidates >= source.window(count);
            source = next;
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
            if !at_once {
                tokio::time::sleep(pause_after(rounds)).await;
            }
        }
    }

    /// One attempt. If its outcome is unknown and cannot be found out, what it may have taken is let go of whenever it turns up.
    async fn attempt(
        &self,
        core: &Arc<Core>,
        source: Source,
        begun: Option<i64>,
        count: u64,
    ) -> Result<Attempt<P>, Error> {
        // Made here, so that the works of an attempt whose outcome is unknown can be asked for.
        let works: Vec<WorkId> = (0..count).map(|_| WorkId::random()).collect();
        let attempted = match core.database.dialect {
            Dialect::Sqlite => stepwise::attempt(core, self, source, begun, &works).await,
            Dialect::Postgres | Dialect::Cockroach => single::attempt(core, self, source, begun, &works).await,
        };
        let unknown = match attempted {
            Ok(attempt) => return Ok(attempt),
            Err(Failure::NotCommitted(error)) => return Err(error),
            Err(Failure::Unknown { source, .. }) => source,
        };
        let claimed = claimed::<P>(core, &works).await;
        // The statement may still be on its way, and arrive when we have looked.
        if !matches!(&claimed, Ok(taken) if !taken.is_empty()) {
            let _unheard = core.releases.send(Release::Doubt {
                slot: P::SLOT,
                process: P::NAME,
                works,
            });
        }
        match claimed {
            Ok(taken) => Ok(Attempt {
                taken,
                ..Attempt::lost_race()
            }),
            Err(_unreachable) => Err(Error::CommitUnknown {
                doing: "claim a machine",
                source: unknown,
            }),
        }
    }

    pub(crate) fn filter_condition(&self) -> &Condition {
        &self.filter
    }

    fn guards(&self, taken: Vec<Taken<P>>) -> Vec<Work<P>> {
        let guard = |taken: Taken<P>| {
            let key = taken.key();
            tracing::debug!(machine = %key.machine, process = key.process, fence = %key.fence, "machine claimed");
            Work {
                claimed: Claimed::new(self.session.clone(), key, taken.seen.failures, P::MAX_RUN),
                item: taken.seen.item,
            }
        };
        taken.into_iter().map(guard).collect()
    }
}

/// What came of one attempt.
pub(crate) struct Attempt<P: Process> {
    pub(crate) taken: Vec<Taken<P>>,
    pub(crate) told: Told,
}

impl<P: Process> Attempt<P> {
    /// Something was eligible, and others were faster.
    pub(crate) fn lost_race() -> Self {
        Self {
            taken: Vec::new(),
            told: Told {
                candidates: 0,
                eligible: true,
                turn: None,
                searches: None,
            },
        }
    }
}

/// A machine that was taken.
pub(crate) struct Taken<P: Process> {
    pub(crate) work: WorkId,
    pub(crate) seen: Seen<P>,
}

impl<P: Process> Taken<P> {
    pub(crate) fn key(&self) -> Key {
        Key {
            machine: self.seen.machine,
            slot: P::SLOT,
            process: P::NAME,
            work: self.work,
            fence: self.seen.fence,
        }
    }
}

/// The machines that an attempt of unknown outcome has taken, as far as it has arrived.
async fn claimed<P: Process>(core: &Core, works: &[WorkId]) -> Result<Vec<Taken<P>>, Error> {
    let scope = core.library("settle a claim");
    let mut look = Seen::<P>::look();
    look.expr_as(Expr::col((work::Entity, work::Column::WorkId)), "bmdb_work")
        .join(
            JoinType::InnerJoin,
            work::Entity,
            Expr::col((work::Entity, work::Column::MachineId)).equals((machine::Entity, machine::Column::MachineId)),
        )
        .and_where(Expr::col((work::Entity, work::Column::WorkId)).is_in(works.iter().copied()));
    let ask = async |tx: &Tx| {
        let rows = tx.query_all(&look).await?;
        let taken = rows.iter().map(|row| {
            Ok(Taken {
                work: row.try_get("", "bmdb_work")?,
                seen: Seen::read(row)?,
            })
        });
        taken.collect::<Result<Vec<_>, DbErr>>().map_err(Error::from)
    };
    match scope.run(ask).await {
        // What was read is true whether or not the transaction that read it committed.
        Ok(taken) | Err(Failure::Unknown { value: taken, .. }) => Ok(taken),
        Err(Failure::NotCommitted(error)) => Err(error),
    }
}

/// Searches behind the claim's back.
fn refresh<P: Process>(core: &Arc<Core>) {
    let database = Arc::clone(&core.database);
    core.tasks.spawn(async move {
        if let Err(error) = candidate::refresh::<P>(&database).await {
            tracing::debug!(process = P::NAME, %error, "hints were not refreshed");
        }
    });
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

/// Before the item's columns in an answer, so that they do not meet the machine's.
const ITEM: &str = "bmdb_item_";

fn columns_of<M: ModelTrait>() -> impl Iterator<Item = <M::Entity as sea_orm::EntityTrait>::Column> {
    <M::Entity as sea_orm::EntityTrait>::Column::iter()
}

/// How the process has failed on the machine before, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) attempts: i64,
    pub(crate) last_interval_seconds: i64,
}

/// A machine as a claim has seen it.
pub(crate) struct Seen<P: Process> {
    pub(crate) machine: MachineId,
    pub(crate) fence: Fence,
    pub(crate) failures: Option<Failures>,
    pub(crate) item: P::Item,
}

impl<P: Process> Seen<P> {
    /// Selects what [`read`](Self::read) reads, but for the fence under the names of [`columns`](Self::columns).
    pub(crate) fn look() -> SelectStatement {
        use work_backoff::Column;
        let machine_id = (machine::Entity, machine::Column::MachineId);
        let backoff = |column: Column| Expr::col((BACKOFF, column));
        let mut select = from_machines::<P>();
        select
            .expr_as(Expr::col(machine_id), "bmdb_machine")
            .expr_as(Expr::col((machine::Entity, machine::Column::Fence)), "bmdb_fence")
            .expr_as(backoff(Column::Attempts), "bmdb_attempts")
            .expr_as(backoff(Column::LastIntervalSeconds), "bmdb_interval")
            .join_as(
                JoinType::LeftJoin,
                work_backoff::Entity,
                BACKOFF,
                backoff(Column::MachineId)
                    .equals(machine_id)
                    .and(backoff(Column::Process).eq(P::NAME)),
            );
        for column in columns_of::<P::Item>() {
            let entity = <P::Item as ModelTrait>::Entity::default();
            let alias = format!("{ITEM}{}", column.as_str());
            select.expr_as(column.select_as(Expr::col((entity, column))), alias);
        }
        select
    }

    pub(crate) fn columns() -> Vec<String> {
        let own = ["bmdb_machine", "bmdb_attempts", "bmdb_interval"].map(str::to_owned);
        let items = columns_of::<P::Item>().map(|column| format!("{ITEM}{}", column.as_str()));
        own.into_iter().chain(items).collect()
    }

    pub(crate) fn read(row: &QueryResult) -> Result<Self, DbErr> {
        let attempts: Option<i64> = row.try_get("", "bmdb_attempts")?;
        let interval: Option<i64> = row.try_get("", "bmdb_interval")?;
        Ok(Self {
            machine: row.try_get("", "bmdb_machine")?,
            fence: row.try_get("", "bmdb_fence")?,
            failures: attempts
                .zip(interval)
                .map(|(attempts, last_interval_seconds)| Failures {
                    attempts,
                    last_interval_seconds,
                }),
            item: P::Item::from_query_result(row, ITEM)?,
        })
    }
}

const BACKOFF: &str = "bmdb_backoff";
