//! Which machines are fit for a process: one predicate, for claims, counts and explanations.

use std::time::Duration;

use bmdb_entity::{Generation, MachineId, MachineRow, Tag, machine};
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition, Query, SelectStatement};
use sea_orm::{Condition, EntityTrait, IdenStatic, Order};

use crate::db::dialect::Dialect;

type Test = Box<dyn Fn(Dialect, KeyRange) -> Condition + Send + Sync>;

/// Which machines a search asks about, in the order of their keys, for clauses to say so of every table that they look into.
///
/// It follows from the keys being equal, but PostgreSQL does not draw that conclusion: to find the first few machines after a random one it may read
/// what a clause excludes from the beginning up to there (PostgreSQL 15, a million machines, one in a hundred eligible: up to 238 ms, and 9 ms when
/// told).
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyRange {
    /// All of them, or one that is named otherwise.
    All,
    /// This one and those after it.
    From(MachineId),
    /// Those before this one.
    Before(MachineId),
}

impl KeyRange {
    pub(crate) fn of(self, machine_id: Expr) -> Condition {
        match self {
            Self::All => Condition::all(),
            Self::From(first) => Condition::all().add(machine_id.gte(first)),
            Self::Before(end) => Condition::all().add(machine_id.lt(end)),
        }
    }
}

/// One condition of a process, with its name for people.
pub(crate) struct Clause {
    pub(crate) why: String,
    pub(crate) test: Test,
    /// The tables that it looks into, as far as its kind says.
    pub(crate) tables: Vec<String>,
    /// A row in this table is all that it asks for.
    has: Option<&'static str>,
}

/// The machines that are fit for a process: every clause must be met. Clauses can be put together in a function of yours and shared by processes.
///
/// Clauses are evaluated by the database, with the database's clock. What BMDB adds is not said here: that nobody works in the slot, that no backoff and no
/// hold keeps the machine from the process, and that it has the process's item. See [`Process`](crate::Process) for a whole example.
///
/// ```
/// use bmdb::{Eligible, Process, agent_heartbeat, agent_started, os_installation_report, os_installation_request, provided};
/// use sea_orm::ColumnTrait;
/// use std::time::Duration;
///
/// struct Recovery;
///
/// impl Process for Recovery {
///     const NAME: &'static str = "recovery";
///     type Item = provided::Model;
///
///     fn eligible(&self, machines: Eligible) -> Eligible {
///         machines
///             .has::<agent_started::Entity>()
///             .unmet::<os_installation_request::Entity, os_installation_report::Entity>()
///             .lacks_where::<provided::Entity>("is not rented out", provided::Column::Status.eq("rented"))
///             .either(
///                 |never_heard| never_heard.lacks::<agent_heartbeat::Entity>(),
///                 |silent| silent.stale::<agent_heartbeat::Entity>(agent_heartbeat::Column::At, Duration::from_secs(600)),
///             )
///     }
/// }
/// ```
pub struct Eligible {
    pub(crate) clauses: Vec<Clause>,
    pub(crate) order: Vec<(Expr, Order)>,
    /// The table of the process's item, which every machine that is asked about has.
    item: Option<&'static str>,
}

impl Eligible {
    pub(crate) fn all(item: Option<&'static str>) -> Self {
        Self {
            clauses: Vec::new(),
            order: Vec::new(),
            item,
        }
    }

    fn clause(
        self,
        why: String,
        tables: Vec<String>,
        test: impl Fn(Dialect, KeyRange) -> Condition + Send + Sync + 'static,
    ) -> Self {
        self.with(Clause {
            why,
            test: Box::new(test),
            tables,
            has: None,
        })
    }

    fn with(mut self, clause: Clause) -> Self {
        self.clauses.push(clause);
        self
    }

    /// The machine has the tag `T`.
    #[must_use]
    pub fn has<T: Tag>(self) -> Self {
        self.with(Clause {
            why: format!("has {}", T::name()),
            test: Box::new(|_, among| exists(rows_of::<T>(among))),
            tables: vec![name_of::<T>()],
            has: Some(T::default().table_name()),
        })
    }

    /// The machine does not have the tag `T`.
    #[must_use]
    pub fn lacks<T: Tag>(self) -> Self {
        let why = format!("lacks {}", T::name());
        self.clause(why, vec![name_of::<T>()], |_, among| lacks(rows_of::<T>(among)))
    }

    /// The machine has the tag `T`, and its row meets `condition`. `why` is what is true of the machine when the clause is met, as people read it in an
    /// explanation: `.has_where::<provided::Entity>("is in use", provided::Column::Status.eq("running"))`.
    #[must_use]
    pub fn has_where<T: Tag>(self, why: &'static str, condition: impl IntoCondition) -> Self {
        let condition = condition.into_condition();
        self.clause(why.to_owned(), vec![name_of::<T>()], move |_, among| {
            exists(rows_of::<T>(among).cond_where(condition.clone()).take())
        })
    }

    /// The machine has no row of tag `T` that meets `condition`. `why` says what is then true of the machine, usually with *not*:
    /// `.lacks_where::<provided::Entity>("is not rented out", provided::Column::Status.eq("rented"))`.
    #[must_use]
    pub fn lacks_where<T: Tag>(self, why: &'static str, condition: impl IntoCondition) -> Self {
        let condition = condition.into_condition();
        self.clause(why.to_owned(), vec![name_of::<T>()], move |_, among| {
            lacks(rows_of::<T>(among).cond_where(condition.clone()).take())
        })
    }

    /// The desire `D` is not met: there is no request, or no report `O` with the request's generation.
    ///
    /// Add [`has::<D>()`](Self::has) where there must be a request.
    #[must_use]
    pub fn unmet<D: Generation, O: Generation>(self) -> Self {
        let why = format!("{} is not met by {}", D::name(), O::name());
        self.clause(why, both::<D, O>(), |_, among| lacks(matched::<D, O>(among)))
    }

    /// The desire `D` is not met in this way: there is no request, or no report `O` with the request's generation that fulfils `condition`. `why` is
    /// what is true of the machine then, as people read it in an explanation.
    ///
    /// A report of another generation says nothing about the request that there is now, whatever its result.
    #[must_use]
    pub fn unmet_where<D: Generation, O: Generation>(self, why: &'static str, condition: impl IntoCondition) -> Self {
        let condition = condition.into_condition();
        self.clause(why.to_owned(), both::<D, O>(), move |_, among| {
            lacks(matched::<D, O>(among).cond_where(condition.clone()).take())
        })
    }

    /// The desire `D` is met: there is a request and a report `O` with its generation.
    #[must_use]
    pub fn met<D: Generation, O: Generation>(self) -> Self {
        let why = format!("{} is met by {}", D::name(), O::name());
        self.clause(why, both::<D, O>(), |_, among| exists(matched::<D, O>(among)))
    }

    /// The machine has the tag `T`, and the time in `column` lies more than `age` in the past, by the database's clock. An age above a century counts
    /// as one.
    #[must_use]
    pub fn stale<T: Tag>(self, column: T::Column, age: Duration) -> Self {
        let why = format!("{}.{} is older than {age:?}", T::name(), column.as_str());
        self.clause(why, vec![name_of::<T>()], move |dialect, among| {
            let older = dialect.older_than((T::default(), column), age);
            exists(rows_of::<T>(among).and_where(older).take())
        })
    }

    /// The opposite of [`stale`](Self::stale) for a machine that has the tag `T`: the time in `column` lies at most `age` in the past, or in the
    /// future, by the database's clock.
    #[must_use]
    pub fn fresh<T: Tag>(self, column: T::Column, age: Duration) -> Self {
        let why = format!("{}.{} is not older than {age:?}", T::name(), column.as_str());
        self.clause(why, vec![name_of::<T>()], move |dialect, among| {
            let older = dialect.older_than((T::default(), column), age);
            exists(rows_of::<T>(among).and_where(older.not()).take())
        })
    }

    /// A condition of your own on the columns of `machine` or of the process's item, with a name that people will read in an explanation.
    #[must_use]
    pub fn when(self, why: &'static str, condition: impl IntoCondition) -> Self {
        let condition = condition.into_condition();
        self.clause(why.to_owned(), Vec::new(), move |_, _| condition.clone())
    }

    /// At least one of two sets of clauses is met.
    #[must_use]
    pub fn either(self, one: impl FnOnce(Self) -> Self, other: impl FnOnce(Self) -> Self) -> Self {
        let (one, other) = (one(Self::all(self.item)), other(Self::all(self.item)));
        let why = format!("either ({}) or ({})", one.why(), other.why());
        let tables = one.clauses.iter().chain(&other.clauses);
        let tables = tables.flat_map(|clause| clause.tables.clone()).collect();
        self.clause(why, tables, move |dialect, among| {
            Condition::any()
                .add(one.condition(dialect, among))
                .add(other.condition(dialect, among))
        })
    }

    /// Which machines to try first. A preference, not a promise: components that race for the first one end up with others. Without it,
    /// a search starts at a random machine, so that components do not meet at the first.
    #[must_use]
    pub fn order(mut self, by: impl Into<Expr>, order: Order) -> Self {
        self.order.push((by.into(), order));
        self
    }

    fn why(&self) -> String {
        self.clauses
            .iter()
            .map(|clause| clause.why.as_str())
            .collect::<Vec<_>>()
            .join(" and ")
    }

    /// All clauses together, for machines whose item is joined.
    pub(crate) fn condition(&self, dialect: Dialect, among: KeyRange) -> Condition {
        self.clauses
            .iter()
            .filter(|clause| clause.has.is_none() || clause.has != self.item)
            .fold(Condition::all(), |all, clause| all.add((clause.test)(dialect, among)))
    }
}

/// The table of `E`, as statements name it.
pub(crate) fn name_of<E: EntityTrait>() -> String {
    let (entity, quoted) = (E::default(), |name: &str| format!("\"{}\"", name.replace('"', "\"\"")));
    let schema = entity.schema_name().map(|schema| format!("{}.", quoted(schema)));
    schema.unwrap_or_default() + &quoted(entity.table_name())
}

fn both<D: EntityTrait, O: EntityTrait>() -> Vec<String> {
    vec![name_of::<D>(), name_of::<O>()]
}

/// The row of `T` of the machine at hand.
fn rows_of<T: MachineRow>(among: KeyRange) -> SelectStatement {
    let machine = Expr::col((machine::Entity, machine::Column::MachineId));
    rows_of_machine::<T>(T::MACHINE_ID, machine, among)
}

pub(crate) fn rows_of_machine<E: EntityTrait>(
    machine_id: E::Column,
    machine: Expr,
    among: KeyRange,
) -> SelectStatement {
    Query::select()
        .column((E::default(), machine_id))
        .from(E::default())
        .and_where(Expr::col((E::default(), machine_id)).eq(machine))
        .cond_where(among.of(Expr::col((E::default(), machine_id))))
        .take()
}

/// The request of the machine at hand, if a report carries its generation.
fn matched<D: Generation, O: Generation>(among: KeyRange) -> SelectStatement {
    rows_of::<D>(among)
        .inner_join(
            O::default(),
            Expr::col((O::default(), O::MACHINE_ID))
                .equals((D::default(), D::MACHINE_ID))
                .and(Expr::col((O::default(), O::GENERATION)).equals((D::default(), D::GENERATION))),
        )
        .cond_where(among.of(Expr::col((O::default(), O::MACHINE_ID))))
        .take()
}

fn exists(rows: SelectStatement) -> Condition {
    Condition::all().add(Expr::exists(rows))
}

pub(crate) fn lacks(rows: SelectStatement) -> Condition {
    Condition::all().add(Expr::exists(rows).not())
}
