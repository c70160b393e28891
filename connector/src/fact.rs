//! Facts about a machine as values: what an end of its work states in its own statement.

use std::sync::Arc;

use bmdb_entity::{MachineId, MachineRow, Tag, WorkId};
use sea_orm::sea_query::{
    Condition, DynIden, Expr, ExprTrait, InsertStatement, IntoIden, OnConflict, Order, Query, SelectStatement,
    TableRef, Value, ValueTuple, ValueType,
};
use sea_orm::{ActiveModelTrait, ActiveValue, ColumnTrait, EntityName, EntityTrait, IdenStatic, Iterable};

use crate::dialect::Dialect;
use crate::error::Error;
use crate::tag::check_value;

/// Facts about the machine of a work, to be stated [with its end](crate::End::stating): rows of tags, at most one of each.
///
/// ```
/// use bmdb::{Facts, agent_heartbeat, agent_started};
///
/// let one = Facts::from(agent_started::row(*b"key"));
/// let two = one.and(agent_heartbeat::row());
/// # let _stated = two;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Facts(Arc<[Fact]>);

impl Facts {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These and more.
    #[must_use]
    pub fn and(self, more: impl Into<Self>) -> Self {
        Self(self.0.iter().chain(&*more.into().0).cloned().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter()
    }

    /// How many bound values it takes to state them about a machine.
    pub(crate) fn values(&self) -> usize {
        self.0.iter().map(|fact| fact.set.len() + 1).sum()
    }

    /// Checks whether they can be stated about this machine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row that names another machine, for a text with NUL, and for two rows of one tag.
    pub(crate) fn check(&self, machine: MachineId) -> Result<(), Error> {
        for (place, fact) in self.0.iter().enumerate() {
            if fact.about.is_some_and(|about| about != machine) {
                return Err(Error::invalid(
                    "a fact",
                    fact.tag,
                    "a row without a machine, or of the work's",
                ));
            }
            if self.0[..place].iter().any(|earlier| earlier.tag == fact.tag) {
                return Err(Error::invalid("a fact", fact.tag, "one row of each tag"));
            }
            fact.check()?;
        }
        Ok(())
    }

    /// Facts of one shape can be stated in one statement, about any number of machines.
    pub(crate) fn shape(&self) -> Shape {
        self.0.iter().map(Fact::shape).collect()
    }
}

impl<A> From<A> for Facts
where
    A: ActiveModelTrait<Entity: Tag>,
{
    fn from(row: A) -> Self {
        Self([Fact::of(&row)].into())
    }
}

/// The tag of each fact, and the columns that it sets, as their places in the tag.
pub(crate) type Shape = Vec<(&'static str, Vec<usize>)>;

/// One row of a tag, whatever the tag: it has the columns that are set, and all others stay what they are.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    tag: &'static str,
    table: TableRef,
    machine: DynIden,
    /// What the database's clock fills.
    stated_at: Option<DynIden>,
    /// The machine that the row names, if it names one.
    pub(crate) about: Option<MachineId>,
    set: Vec<Set>,
    save: Save,
}

/// A column, by its place in the tag, and its value.
#[derive(Clone, Debug)]
struct Set {
    place: usize,
    column: DynIden,
    value: Value,
}

/// Wraps a value as the column at this place of the tag wants it.
type Save = fn(usize, Expr) -> Expr;

fn save<T: Tag>(place: usize, value: Expr) -> Expr {
    let column = T::Column::iter().nth(place).expect("BUG: the place is a column's");
    column.save_as(value)
}

impl Fact {
    pub(crate) fn of<A>(row: &A) -> Self
    where
        A: ActiveModelTrait<Entity: Tag>,
    {
        type Column<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;
        let stated_at = <A::Entity as Tag>::STATED_AT;
        let is =
            |column: &Column<A>, other: Option<Column<A>>| other.is_some_and(|other| other.as_str() == column.as_str());
        let (mut about, mut set) = (None, Vec::new());
        for (place, column) in Column::<A>::iter().enumerate() {
            let (ActiveValue::Set(value) | ActiveValue::Unchanged(value)) = row.get(column) else {
                continue;
            };
            if is(&column, Some(A::Entity::MACHINE_ID)) {
                about = <MachineId as ValueType>::try_from(value).ok();
            } else if !is(&column, stated_at) {
                let column = column.into_iden();
                set.push(Set { place, column, value });
            }
        }
        Self {
            tag: <A::Entity as Tag>::name(),
            table: A::Entity::default().table_ref(),
            machine: A::Entity::MACHINE_ID.into_iden(),
            stated_at: stated_at.map(IntoIden::into_iden),
            about,
            set,
            save: save::<A::Entity>,
        }
    }

    /// # Errors
    /// [`Error::Invalid`] for a text with NUL.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.set.iter().try_for_each(|set| check_value(&set.value))
    }

    pub(crate) fn shape(&self) -> (&'static str, Vec<usize>) {
        (self.tag, self.set.iter().map(|set| set.place).collect())
    }

    /// Writes rows of this shape; [`row`](Self::row) has the values.
    fn insert(&self) -> InsertStatement {
        let others = || {
            self.stated_at
                .iter()
                .chain(self.set.iter().map(|set| &set.column))
                .cloned()
        };
        let mut conflict = OnConflict::column(self.machine.clone());
        if others().next().is_some() {
            conflict.update_columns(others());
        } else {
            conflict.do_nothing();
        }
        let mut insert = Query::insert();
        insert
            .into_table(self.table.clone())
            .columns(std::iter::once(self.machine.clone()).chain(others()))
            .on_conflict(conflict);
        insert
    }

    fn row(&self, dialect: Dialect, machine: Expr, value: impl Fn(usize, &Set) -> Expr) -> Vec<Expr> {
        let stated_at = self.stated_at.iter().map(|_| dialect.now_expr());
        let values = self
            .set
            .iter()
            .enumerate()
            .map(|(nth, set)| (self.save)(set.place, value(nth, set)));
        std::iter::once(machine).chain(stated_at).chain(values).collect()
    }

    /// States facts of one shape about machines.
    pub(crate) fn state<'a>(
        dialect: Dialect,
        facts: impl IntoIterator<Item = (MachineId, &'a Self)>,
    ) -> InsertStatement {
        let mut facts = facts.into_iter().peekable();
        let (_, first) = facts.peek().expect("BUG: there is something to state");
        let mut insert = first.insert();
        for (machine, fact) in facts {
            insert.values_panic(fact.row(dialect, Expr::val(machine), |_, set| Expr::val(set.value.clone())));
        }
        insert
    }

    /// Asks which of these machines have the tag of these facts of one shape, with what is set in them.
    pub(crate) fn select_equal<'a>(facts: impl IntoIterator<Item = (MachineId, &'a Self)>) -> SelectStatement {
        let mut facts = facts.into_iter().peekable();
        let (_, first) = *facts.peek().expect("BUG: something is demanded");
        let (table, key) = (first.table.clone(), first.machine.clone());
        let equal = |(machine, fact): (MachineId, &Self)| {
            let of_machine = Condition::all().add(Expr::col(fact.machine.clone()).eq(machine));
            fact.set.iter().fold(of_machine, |all, set| {
                let column = Expr::col(set.column.clone());
                all.add(if set.value == set.value.as_null() {
                    column.is_null()
                } else {
                    column.eq((fact.save)(set.place, Expr::val(set.value.clone())))
                })
            })
        };
        let any = facts.map(equal).fold(Condition::any(), Condition::add);
        Query::select()
            .column(key.clone())
            .from(table)
            .cond_where(any)
            .order_by(key, Order::Asc)
            .take()
    }

    /// The same within a statement that ends works, about the machines of those that are in its `ended`.
    pub(crate) fn state_ended<'a>(
        dialect: Dialect,
        facts: impl IntoIterator<Item = (WorkId, &'a Self)>,
    ) -> InsertStatement {
        let mut facts = facts.into_iter().peekable();
        let (_, first) = *facts.peek().expect("BUG: there is something to state");
        // PostgreSQL and CockroachDB name the columns of VALUES so.
        let nth_column = |nth: usize, _: &Set| Expr::col(("stated", format!("column{}", nth + 2)));
        let row = first.row(dialect, Expr::col(("ended", "machine_id")), nth_column);
        let tuple = |(work, fact): (WorkId, &Self)| {
            let values = fact.set.iter().map(|set| set.value.clone());
            ValueTuple::Many(std::iter::once(work.into()).chain(values).collect())
        };
        let mut select = Query::select();
        select
            .exprs(row)
            .from("ended")
            .from_values(facts.map(tuple), "stated")
            .and_where(Expr::col(("ended", "work_id")).equals(("stated", "column1")))
            .order_by(("ended", "machine_id"), Order::Asc);
        let mut insert = first.insert();
        insert
            .select_from(select)
            .expect("BUG: there is a value for each column");
        insert
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent_heartbeat, agent_started};

    #[test]
    fn the_shape_of_facts_is_their_tags_and_columns() {
        let started = |key: &[u8]| Facts::from(agent_started::row(key));
        let beat = || Facts::from(agent_heartbeat::row());
        assert_eq!(started(b"one").shape(), started(b"two").shape());
        assert_ne!(started(b"one").shape(), beat().shape());
        assert_ne!(started(b"one").shape(), started(b"one").and(beat()).shape());
        let empty = Facts::from(<agent_started::ActiveModel as Default>::default());
        assert_ne!(started(b"one").shape(), empty.shape());
        // A value for each column that is set, and one for what says whose.
        assert_eq!((Facts::none().values(), empty.values()), (0, 1));
        assert_eq!((started(b"one").values(), started(b"one").and(beat()).values()), (2, 3));
        assert!(Facts::none().is_empty() && !beat().is_empty());
    }
}
