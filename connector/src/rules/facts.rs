//! Facts about a machine as values: what an end of its work states in its own statement.

use std::sync::Arc;

use bmdb_entity::{MachineId, MachineRow, Tag, WorkId, machine_provided};
use sea_orm::sea_query::{
    Condition, DynIden, Expr, ExprTrait, InsertStatement, IntoIden, LockType, OnConflict, Order, Query,
    SelectStatement, TableRef, UpdateStatement, Value, ValueTuple, ValueType,
};
use sea_orm::{ActiveModelTrait, ActiveValue, ColumnTrait, EntityName, EntityTrait, IdenStatic, Iterable};

use crate::db::dialect::Dialect;
use crate::db::sql::SqlBuilder;
use crate::error::Error;
use crate::rules::check::check_value;

/// Facts to state about a work's machine [when the work ends](crate::End::stating): at most one row of each tag. A row replaces the machine's [whole
/// row](crate::store::tag::set); [`updating`](Self::updating) changes single columns.
///
/// ```
/// use bmdb::{Facts, agent_heartbeat, agent_started, provided};
/// use sea_orm::ActiveValue::Set;
///
/// let one = Facts::from(agent_started::row(*b"key"));
/// let two = one.and(agent_heartbeat::row());
/// let runs = provided::ActiveModel { status: Set(provided::Status::Running), ..Default::default() };
/// let three = two.and(Facts::updating(runs));
/// # let _stated = three;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Facts(Arc<[Fact]>);

impl Facts {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Changes the columns that are set in `row`, of a row of the tag that the machine has already: see [`tag::update`](crate::store::tag::update).
    #[must_use]
    pub fn updating<A>(row: A) -> Self
    where
        A: ActiveModelTrait<Entity: Tag>,
    {
        Self([Fact::of(&row, Verb::Update)].into())
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

    /// Those that change rows which must be there.
    pub(crate) fn updates(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter().filter(|fact| fact.verb == Verb::Update)
    }

    /// Checks whether they can be stated about this machine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row that names another machine, for a text with NUL, and for two rows of one tag; [`Error::TagIncomplete`].
    pub(crate) fn check(&self, machine: MachineId) -> Result<(), Error> {
        self.check_demands(machine)?;
        self.0.iter().try_for_each(Fact::check)
    }

    /// The same for rows that are not stated, but compared with what is there.
    pub(crate) fn check_demands(&self, machine: MachineId) -> Result<(), Error> {
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
            fact.check_values()?;
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
        Self([Fact::of(&row, Verb::Set)].into())
    }
}

/// What is done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verb {
    /// It is the machine's row from now on, whether or not it had one.
    Set,
    /// Its columns replace those of the row that the machine has.
    Update,
}

/// The tag of each fact, what is done with its row, and the columns that are set, as their places in the tag.
pub(crate) type Shape = Vec<(&'static str, Verb, Vec<usize>)>;

/// A provider, and its id for a machine, as far as a row says.
pub(crate) type Identity<'a> = (Option<&'a str>, Option<&'a str>);

/// One row of a tag, whatever the tag.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) tag: &'static str,
    verb: Verb,
    table: TableRef,
    machine: DynIden,
    /// What the database's clock fills.
    stated_at: Option<DynIden>,
    /// The machine that the row names, if it names one.
    pub(crate) about: Option<MachineId>,
    set: Vec<Set>,
    /// Columns that are not set and can do without: NULL, or what the table has for them.
    unset: Vec<DynIden>,
    /// The first column that is not set and cannot.
    lacks: Option<&'static str>,
    save: Save,
}

/// A column, by its place in the tag, and its value.
#[derive(Clone, Debug)]
struct Set {
    place: usize,
    column: DynIden,
    value: Value,
}

impl Set {
    fn bound(_nth: usize, set: &Self) -> Expr {
        Expr::val(set.value.clone())
    }
}

/// Wraps a value as the column at this place of the tag wants it.
type Save = fn(usize, Expr) -> Expr;

fn save<T: Tag>(place: usize, value: Expr) -> Expr {
    let column = T::Column::iter().nth(place).expect("BUG: the place is a column's");
    column.save_as(value)
}

impl Fact {
    pub(crate) fn of<A>(row: &A, verb: Verb) -> Self
    where
        A: ActiveModelTrait<Entity: Tag>,
    {
        type Column<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;
        let stated_at = <A::Entity as Tag>::STATED_AT;
        let is =
            |column: &Column<A>, other: Option<Column<A>>| other.is_some_and(|other| other.as_str() == column.as_str());
        let (mut about, mut set, mut unset, mut lacks) = (None, Vec::new(), Vec::new(), None);
        for (place, column) in Column::<A>::iter().enumerate() {
            let (is_machine, is_time) = (is(&column, Some(A::Entity::MACHINE_ID)), is(&column, stated_at));
            match row.get(column) {
                ActiveValue::Set(value) | ActiveValue::Unchanged(value) if is_machine => {
                    about = <MachineId as ValueType>::try_from(value).ok();
                }
                _ if is_machine || is_time => {}
                ActiveValue::Set(value) | ActiveValue::Unchanged(value) => {
                    let column = column.into_iden();
                    set.push(Set { place, column, value });
                }
                ActiveValue::NotSet => {
                    let definition = column.def();
                    if definition.is_null() || definition.get_column_default().is_some() {
                        unset.push(column.into_iden());
                    } else {
                        lacks.get_or_insert(column.as_str());
                    }
                }
            }
        }
        Self {
            tag: <A::Entity as Tag>::name(),
            verb,
            table: A::Entity::default().table_ref(),
            machine: A::Entity::MACHINE_ID.into_iden(),
            stated_at: stated_at.map(IntoIden::into_iden),
            about,
            set,
            unset,
            lacks,
            save: save::<A::Entity>,
        }
    }

    /// # Errors
    /// [`Error::Invalid`] for a text with NUL; [`Error::TagIncomplete`] for a row to be set that lacks what it must have.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let (Verb::Set, Some(column)) = (self.verb, self.lacks) {
            return Err(Error::TagIncomplete { tag: self.tag, column });
        }
        self.check_values()
    }

    /// What the row says of the provider's id for a machine: the provider, and the id. `None`: it is of another tag, or says neither.
    pub(crate) fn identity(&self) -> Option<Identity<'_>> {
        let text = |name: &str| {
            let set = self.set.iter().find(|set| set.column.to_string() == name)?;
            match &set.value {
                Value::String(Some(text)) => Some(text.as_str()),
                _ => None,
            }
        };
        let identity = (text("provider"), text("provider_id"));
        (self.tag == machine_provided::Entity.table_name() && identity != (None, None)).then_some(identity)
    }

    fn check_values(&self) -> Result<(), Error> {
        self.set.iter().try_for_each(|set| check_value(&set.value))
    }

    pub(crate) fn shape(&self) -> (&'static str, Verb, Vec<usize>) {
        (self.tag, self.verb, self.set.iter().map(|set| set.place).collect())
    }

    /// What is written beside the machine.
    fn columns(&self) -> impl Iterator<Item = DynIden> {
        let set = self.set.iter().map(|set| &set.column);
        self.stated_at.iter().chain(set).cloned()
    }

    /// Writes rows of this shape, whole; [`row`](Self::row) has the values. Of a column that is not inserted, `excluded` has NULL or the default.
    fn insert(&self) -> InsertStatement {
        let all = || self.columns().chain(self.unset.iter().cloned());
        let mut conflict = OnConflict::column(self.machine.clone());
        if all().next().is_some() {
            conflict.update_columns(all());
        } else {
            conflict.do_nothing();
        }
        let mut insert = Query::insert();
        insert
            .into_table(self.table.clone())
            .columns(std::iter::once(self.machine.clone()).chain(self.columns()))
            .on_conflict(conflict);
        insert
    }

    /// Changes rows of this shape.
    fn update(&self, dialect: Dialect, machine: Expr, value: impl Fn(usize, &Set) -> Expr) -> UpdateStatement {
        let columns = std::iter::once(self.machine.clone()).chain(self.columns());
        let is_it = self.machine_column().eq(machine.clone());
        // The machine alone, where there is nothing else.
        let known = usize::from(self.columns().next().is_some());
        let values = columns.zip(self.row(dialect, machine, value)).skip(known);
        Query::update()
            .table(self.table.clone())
            .values(values)
            .and_where(is_it)
            .take()
    }

    fn machine_column(&self) -> Expr {
        Expr::col((self.tag, self.machine.clone()))
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

    /// Sets the row of one machine.
    pub(crate) fn set(&self, dialect: Dialect, machine: MachineId) -> InsertStatement {
        Self::set_all(dialect, [(machine, self)])
    }

    /// Sets rows of one shape.
    pub(crate) fn set_all<'a>(
        dialect: Dialect,
        facts: impl IntoIterator<Item = (MachineId, &'a Self)>,
    ) -> InsertStatement {
        let mut facts = facts.into_iter().peekable();
        let (_, first) = facts.peek().expect("BUG: there is something to state");
        let mut insert = first.insert();
        for (machine, fact) in facts {
            insert.values_panic(fact.row(dialect, Expr::val(machine), Set::bound));
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

    /// Updates the row of one machine.
    pub(crate) fn update_one(&self, dialect: Dialect, machine: MachineId) -> UpdateStatement {
        self.update(dialect, Expr::val(machine), Set::bound)
    }

    /// States facts of one shape about machines, on SQLite.
    pub(crate) fn put<'a>(text: &mut SqlBuilder, facts: impl IntoIterator<Item = (MachineId, &'a Self)>) {
        let mut facts = facts.into_iter().peekable();
        let dialect = text.dialect();
        match facts.peek().map(|(_, first)| first.verb) {
            Some(Verb::Set) => {
                text.another().query(&Self::set_all(dialect, facts));
            }
            Some(Verb::Update) => {
                for (machine, fact) in facts {
                    text.another().query(&fact.update_one(dialect, machine));
                }
            }
            None => {}
        }
    }

    /// Reads the machine's row: nothing but whether it is there.
    pub(crate) fn select(&self, machine: Expr) -> SelectStatement {
        Query::select()
            .column(self.machine.clone())
            .from(self.table.clone())
            .and_where(self.machine_column().eq(machine))
            .take()
    }

    /// The rows of works' machines, which are kept there until the statement has ended.
    pub(crate) fn lock_for_end(&self, dialect: Dialect) -> SelectStatement {
        let machines = Query::select().column(("to_end", "machine_id")).from("to_end").take();
        let mut select = Query::select();
        select
            .column(self.machine.clone())
            .from(self.table.clone())
            .and_where(self.machine_column().in_subquery(machines))
            .order_by(self.machine.clone(), Order::Asc);
        // CockroachDB is SERIALIZABLE throughout.
        if dialect == Dialect::Postgres {
            select.lock(LockType::NoKeyUpdate);
        }
        select
    }

    /// The name of the machine's column.
    pub(crate) fn machine(&self) -> &DynIden {
        &self.machine
    }

    /// States facts of one shape within a statement that ends works, about the machines of those that are in its `ended`.
    pub(crate) fn put_ended<'a>(text: &mut SqlBuilder, facts: impl IntoIterator<Item = (WorkId, &'a Self)>) {
        let mut facts = facts.into_iter().peekable();
        let (_, first) = *facts.peek().expect("BUG: there is something to state");
        // PostgreSQL and CockroachDB name the columns of VALUES so.
        let nth_column = |nth: usize, _: &Set| Expr::col(("stated", format!("column{}", nth + 2)));
        let tuple = |(work, fact): (WorkId, &Self)| {
            let values = fact.set.iter().map(|set| set.value.clone());
            ValueTuple::Many(std::iter::once(work.into()).chain(values).collect())
        };
        let (dialect, machine) = (text.dialect(), Expr::col(("ended", "machine_id")));
        let is_stated = Expr::col(("ended", "work_id")).equals(("stated", "column1"));
        match first.verb {
            Verb::Set => {
                let mut select = Query::select();
                select
                    .exprs(first.row(dialect, machine, nth_column))
                    .from("ended")
                    .from_values(facts.map(tuple), "stated")
                    .and_where(is_stated)
                    .order_by(("ended", "machine_id"), Order::Asc);
                let mut insert = first.insert();
                insert
                    .select_from(select)
                    .expect("BUG: there is a value for each column");
                text.query(&insert);
            }
            Verb::Update => {
                let stated = TableRef::ValuesList(facts.map(tuple).collect(), "stated".into_iden());
                let mut update = first.update(dialect, machine, nth_column);
                update.from("ended").from(stated).and_where(is_stated);
                text.query(&update);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_heartbeat;
    use crate::agent_started;

    #[test]
    fn the_shape_of_facts_is_their_tags_and_columns() {
        let started = |key: &[u8]| Facts::from(agent_started::row(key));
        let beat = || Facts::from(agent_heartbeat::row());
        assert_eq!(started(b"one").shape(), started(b"two").shape());
        assert_ne!(started(b"one").shape(), beat().shape());
        assert_ne!(started(b"one").shape(), started(b"one").and(beat()).shape());
        let empty = Facts::from(<agent_started::ActiveModel as Default>::default());
        assert_ne!(started(b"one").shape(), empty.shape());
        assert_ne!(
            started(b"one").shape(),
            Facts::updating(agent_started::row(b"one")).shape()
        );
        // A value for each column that is set, and one for what says whose.
        assert_eq!((Facts::none().values(), empty.values()), (0, 1));
        assert_eq!((started(b"one").values(), started(b"one").and(beat()).values()), (2, 3));
        assert!(Facts::none().is_empty() && !beat().is_empty());
    }
}
