//! What a claim asks of a machine: the clauses of its process, and BMDB's own.

use bmdb_entity::{MachineRow, machine, process_pause, work, work_backoff, work_hold};
use sea_orm::sea_query::{Expr, ExprTrait, JoinType, Query, SelectStatement};
use sea_orm::{ColumnTrait, Condition, EntityName, ModelTrait};

use crate::db::dialect::Dialect;
use crate::rules::eligible::{Eligible, KeyRange, lacks, rows_of_machine};
use crate::rules::process::Process;

/// The clauses of a process.
pub(crate) fn eligible_for<P: Process>(process: &P) -> Eligible {
    process.eligible(Eligible::all(item_table::<P>()))
}

/// All clauses of `P` and what BMDB itself asks of a machine: a fence that can rise, nobody in its slot, no backoff, no hold. For [`from_machines`].
/// Whether the process is paused is asked by who takes a machine, and not by who counts or finds some: a pause changes no machine.
pub(crate) fn claimable<P: Process>(eligible: &Eligible, dialect: Dialect, among: KeyRange) -> Condition {
    let machine = Expr::col((machine::Entity, machine::Column::MachineId));
    claimable_but_for_backoff::<P>(eligible, dialect, among).add(without_backoff(
        machine,
        P::NAME,
        dialect.now_expr(),
        among,
    ))
}

/// The same without the question for a backoff.
pub(crate) fn claimable_but_for_backoff<P: Process>(
    eligible: &Eligible,
    dialect: Dialect,
    among: KeyRange,
) -> Condition {
    Condition::all()
        .add(among.of(Expr::col((ItemOf::<P>::default(), ItemOf::<P>::MACHINE_ID))))
        .add(eligible.condition(dialect, among))
        .add(unoccupied(P::SLOT, dialect, among))
}

/// What BMDB itself asks of any machine, for a process and its slot.
pub(crate) fn free_for(process: &str, slot: &str, dialect: Dialect) -> Condition {
    let machine = Expr::col((machine::Entity, machine::Column::MachineId));
    let backoff = without_backoff(machine, process, dialect.now_expr(), KeyRange::All);
    unoccupied(slot, dialect, KeyRange::All).add(backoff)
}

/// A fence that can rise, nobody in the slot, no hold.
fn unoccupied(slot: &str, dialect: Dialect, among: KeyRange) -> Condition {
    let machine = || Expr::col((machine::Entity, machine::Column::MachineId));
    Condition::all()
        .add(fence_can_rise())
        .add(without_work(machine(), slot, among))
        .add(without_hold(machine(), slot, dialect.now_expr(), among))
}

type ItemOf<P> = <<P as Process>::Item as ModelTrait>::Entity;

/// Selects from `machine`, joined with the item of `P` where that is another table.
pub(crate) fn from_machines<P: Process>() -> SelectStatement {
    let mut select = Query::select();
    select.from(machine::Entity);
    if item_table::<P>().is_some() {
        let item = ItemOf::<P>::default();
        let on = Expr::col((item, ItemOf::<P>::MACHINE_ID)).equals((machine::Entity, machine::Column::MachineId));
        select.join(JoinType::InnerJoin, item, on);
    }
    select
}

/// A machine at the end of the numbers, where only a statement by hand can have put it, is nobody's: it would fail every claim that meets it.
fn fence_can_rise() -> Expr {
    Expr::col((machine::Entity, machine::Column::Fence)).lt(Expr::Constant(i64::MAX.into()))
}

/// Nobody works on `slot` of `machine`.
pub(crate) fn without_work(machine: Expr, slot: &str, among: KeyRange) -> Condition {
    let rows = rows_of_machine::<work::Entity>(work::Column::MachineId, machine, among);
    lacks(rows.to_owned().and_where(work::Column::Slot.eq(slot)).take())
}

/// `process` does not back off from `machine`.
pub(crate) fn without_backoff(machine: Expr, process: &str, now: Expr, among: KeyRange) -> Condition {
    use work_backoff::{Column, Entity};
    let rows = rows_of_machine::<Entity>(Column::MachineId, machine, among);
    lacks(
        rows.to_owned()
            .and_where(Column::Process.eq(process))
            .cond_where(open_at(Column::Until, now))
            .take(),
    )
}

/// `machine` is not held, neither as a whole nor on `slot`.
pub(crate) fn without_hold(machine: Expr, slot: &str, now: Expr, among: KeyRange) -> Condition {
    use work_hold::{Column, Entity};
    let rows = rows_of_machine::<Entity>(Column::MachineId, machine, among);
    let slots = Column::Slot.is_in([slot, work_hold::ALL_SLOTS]);
    lacks(
        rows.to_owned()
            .and_where(slots)
            .cond_where(open_at(Column::Until, now))
            .take(),
    )
}

/// `process` is not paused. Of no machine: a database answers it once for a statement.
pub(crate) fn not_paused(process: &str, now: Expr) -> Condition {
    use process_pause::{Column, Entity};
    let rows = Query::select()
        .column(Column::Process)
        .from(Entity)
        .and_where(Column::Process.eq(process))
        .cond_where(open_at(Column::Until, now))
        .take();
    lacks(rows)
}

/// A time that is still to come, or never.
fn open_at<C: ColumnTrait>(until: C, now: Expr) -> Condition {
    Condition::any().add(until.is_null()).add(until.into_expr().gt(now))
}

/// The table of the item of `P`, unless it is the machine's own.
fn item_table<P: Process>() -> Option<&'static str> {
    let table = <P::Item as ModelTrait>::Entity::default().table_name();
    (table != machine::Entity.table_name()).then_some(table)
}
