//! A machine as a claim sees it: its fence, how the process has failed on it, and the item that makes it fit.

use std::panic::AssertUnwindSafe;

use bmdb_entity::{Fence, MachineId, WorkId, machine, work_backoff};
use sea_orm::prelude::{Date, DateTime, DateTimeUtc};
use sea_orm::sea_query::{Expr, ExprTrait, JoinType, SelectStatement};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityName, FromQueryResult, IdenStatic, Iterable, ModelTrait, QueryResult,
};

use crate::db::dialect::Dialect;
use crate::db::sql::SqlFragment;
use crate::rules::backoff::Failures;
use crate::rules::claimable::{claimable_but_for_backoff, from_machines, not_paused};
use crate::rules::eligible::{Eligible, KeyRange};
use crate::rules::process::Process;
use crate::rules::work_key::{RuleKey, WorkKey};

/// How claims see machines by a rule: what is the same in all their statements.
pub(crate) struct ClaimSql {
    /// The rule has an order of its own.
    pub(crate) is_ordered: bool,
    /// [`Candidate::select_eligible`]. It has a condition, so that another can follow.
    pub(crate) eligible: SqlFragment,
    /// [`Candidate::columns`], of `chosen`.
    pub(crate) columns: SqlFragment,
}

impl ClaimSql {
    pub(crate) fn of<P: Process>(eligible: &Eligible, dialect: Dialect) -> Self {
        Self {
            is_ordered: !eligible.order.is_empty(),
            eligible: SqlFragment::query(dialect, &Candidate::<P>::select_eligible(eligible, dialect)),
            columns: SqlFragment::text(format!(
                "chosen.\"{}\"",
                Candidate::<P>::columns().join("\", chosen.\"")
            )),
        }
    }
}

/// A machine that was taken.
pub(crate) struct ClaimedMachine<P: Process> {
    pub(crate) work: WorkId,
    pub(crate) seen: Candidate<P>,
}

impl<P: Process> ClaimedMachine<P> {
    pub(crate) fn key(&self, rule: RuleKey) -> WorkKey {
        WorkKey {
            machine: self.seen.machine,
            slot: P::SLOT,
            rule,
            work: self.work,
            fence: self.seen.fence,
        }
    }
}

/// Before the item's columns in an answer, so that they do not meet the machine's.
const ITEM: &str = "bmdb_item_";

fn columns_of<M: ModelTrait>() -> impl Iterator<Item = <M::Entity as sea_orm::EntityTrait>::Column> {
    <M::Entity as sea_orm::EntityTrait>::Column::iter()
}

/// A machine as a claim has seen it.
pub(crate) struct Candidate<P: Process> {
    pub(crate) machine: MachineId,
    pub(crate) fence: Fence,
    pub(crate) failures: Option<Failures>,
    /// Or why it cannot be read: one odd row is not to keep others from theirs.
    pub(crate) item: Result<P::Item, String>,
}

impl<P: Process> Candidate<P> {
    /// [`select`](Self::select) of machines that can be claimed: none while the process is paused.
    pub(crate) fn select_eligible(eligible: &Eligible, dialect: Dialect) -> SelectStatement {
        use work_backoff::Column;
        let backoff = |column: Column| Expr::col((BACKOFF, column));
        let may_try = Condition::any()
            .add(backoff(Column::MachineId).is_null())
            .add(backoff(Column::Until).lte(dialect.now_expr()));
        // Where nobody else can write meanwhile, what a claim will raise it to; elsewhere what it must still be then.
        let fence = match dialect {
            Dialect::Sqlite => dialect.next_fence(),
            Dialect::Postgres | Dialect::Cockroach => Expr::col((machine::Entity, machine::Column::Fence)),
        };
        let mut select = Self::select(fence);
        select
            .cond_where(claimable_but_for_backoff::<P>(eligible, dialect, KeyRange::All))
            .cond_where(may_try)
            .cond_where(not_paused(P::NAME, dialect.now_expr()));
        select
    }

    /// Selects what [`read`](Self::read) reads, but for the fence under the names of [`columns`](Self::columns).
    pub(crate) fn select(fence: Expr) -> SelectStatement {
        use work_backoff::Column;
        let machine_id = (machine::Entity, machine::Column::MachineId);
        let backoff = |column: Column| Expr::col((BACKOFF, column));
        let mut select = from_machines::<P>();
        select
            .expr_as(Expr::col(machine_id), "bmdb_machine")
            .expr_as(fence, "bmdb_fence")
            // What is no number on SQLite, where somebody can write it, counts as 0.
            .expr_as(backoff(Column::Attempts).cast_as("BIGINT"), "bmdb_attempts")
            .expr_as(backoff(Column::LastIntervalSeconds).cast_as("BIGINT"), "bmdb_interval")
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

    fn columns() -> Vec<String> {
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
            item: read_item::<P::Item>(row),
        })
    }
}

/// Reads the item, or says which of its columns cannot be read: it has what only a newer component knows, or nobody.
fn read_item<M: ModelTrait + FromQueryResult>(row: &QueryResult) -> Result<M, String> {
    let why = match caught(|| M::from_query_result(row, ITEM)) {
        Some(Ok(item)) => return Ok(item),
        Some(Err(error)) => Some(error.to_string().replace(ITEM, "")),
        None => None,
    };
    let columns = columns_of::<M>().map(|column| column.as_str().to_owned());
    let odd: Vec<String> = columns.filter(|column| is_odd(row, column, why.as_deref())).collect();
    let columns = match odd.join(", ") {
        none if none.is_empty() => "a column".to_owned(),
        odd => odd,
    };
    let (entity, why) = (<M::Entity as Default>::default(), why.as_deref());
    let (table, why) = (
        entity.table_name(),
        why.unwrap_or("a value outside of what its type can hold"),
    );
    Err(format!("the item cannot be read: {columns} of {table}: {why}"))
}

/// sqlx panics on `infinity` in a time (`PgTimestamp`), and a type of the user's may on anything. Nothing is changed half-way: a value is being made.
fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(read)).ok()
}

/// Whether it is this column that could not be read: the error names it, or has its text; or it is a time that cannot be read as one.
fn is_odd(row: &QueryResult, column: &str, why: Option<&str>) -> bool {
    let Some(why) = why else {
        return caught(|| row.try_get::<Option<DateTimeUtc>>(ITEM, column)).is_none()
            || caught(|| row.try_get::<Option<DateTime>>(ITEM, column)).is_none()
            || caught(|| row.try_get::<Option<Date>>(ITEM, column)).is_none();
    };
    let text = || row.try_get::<Option<String>>(ITEM, column).ok().flatten();
    why.contains(&format!("\"{column}\"")) || text().is_some_and(|text| !text.is_empty() && why.ends_with(&text))
}

const BACKOFF: &str = "bmdb_backoff";
