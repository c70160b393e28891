//! One migrator's steps, and the record in which SeaORM writes down which of them were applied.

use std::collections::HashSet;
use std::pin::Pin;

use sea_orm_migration::sea_orm::sea_query::{Alias, Query};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseExecutor, DbErr};
use sea_orm_migration::{MigrationName, MigratorTrait};

use crate::catalogue::exists;
use crate::{Error, Migrator};

/// A step and how the database stands to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How the database stands to it.
    pub state: State,
}

/// How a database stands to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Applied.
    Applied,
    /// Not applied yet.
    Pending,
    /// Applied by a build that has a step which this build has not.
    Unknown,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        })
    }
}

type Run = for<'a> fn(DatabaseExecutor<'a>, u32) -> Pin<Box<dyn Future<Output = Result<(), DbErr>> + Send + 'a>>;

/// A migrator as a value.
pub(crate) struct Migrations {
    /// The table in which SeaORM writes down what was applied.
    pub(crate) record: String,
    names: Vec<String>,
    /// Apply or undo so many steps.
    pub(crate) up: Run,
    pub(crate) down: Run,
}

impl Migrations {
    pub(crate) fn of<M: MigratorTrait + 'static>() -> Self {
        Self {
            record: M::migration_table_name().to_string(),
            names: names_of::<M>(),
            up: |on, steps| Box::pin(async move { M::up(on, Some(steps)).await }),
            down: |on, steps| Box::pin(async move { M::down(on, Some(steps)).await }),
        }
    }

    /// Its steps as the database stands to them, and then those of the record that it does not know.
    ///
    /// SeaORM's own query fails as soon as the database has a step that we have not, which is what a rolling update looks like.
    pub(crate) async fn read(&self, db: &impl ConnectionTrait) -> Result<Vec<Step>, Error> {
        let doing = "read the applied steps";
        let mut applied = HashSet::new();
        if exists(db, &self.record).await? {
            let select = Query::select().column("version").from(Alias::new(&self.record)).take();
            for row in db.query_all(&select).await.map_err(Error::database(doing))? {
                applied.insert(row.try_get_by_index::<String>(0).map_err(Error::database(doing))?);
            }
        }
        let ours = self.names.iter().map(|name| Step {
            name: name.clone(),
            state: if applied.remove(name) {
                State::Applied
            } else {
                State::Pending
            },
        });
        let mut steps: Vec<_> = ours.collect();
        let mut unknown: Vec<_> = applied.into_iter().collect();
        unknown.sort();
        steps.extend(unknown.into_iter().map(|name| Step {
            name,
            state: State::Unknown,
        }));
        Ok(steps)
    }
}

fn names_of<M: MigratorTrait>() -> Vec<String> {
    let steps = M::migrations();
    let names = steps.iter().map(|step| MigrationName::name(step.as_ref()).to_owned());
    names.collect()
}

/// The tables that BMDB's steps make, in their order.
pub(crate) fn tables() -> Vec<String> {
    names_of::<Migrator>().iter().filter_map(|step| created(step)).collect()
}

/// The table that a step makes.
pub(crate) fn created(step: &str) -> Option<String> {
    match kind_of(step) {
        ("create", table) => Some(table.to_owned()),
        _ => None,
    }
}

/// Splits `m20261122_000001_create_machine` into `create` and `machine`.
pub(crate) fn kind_of(step: &str) -> (&str, &str) {
    let words = step.splitn(3, '_').nth(2).unwrap_or_default();
    words.split_once('_').unwrap_or((words, ""))
}

/// The names of those in this state.
pub(crate) fn named(steps: &[Step], state: State) -> Vec<String> {
    let is = steps.iter().filter(|step| step.state == state);
    is.map(|step| step.name.clone()).collect()
}
