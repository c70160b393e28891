//! What can be done to a schema.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sea_orm_migration::sea_orm::sea_query::{ColumnDef, Table};
use sea_orm_migration::sea_orm::{ConnectionTrait, DbErr, EntityTrait};
use sea_orm_migration::{MigrationName, MigratorTrait, SchemaManager, seaql_migrations};

use crate::destroy::{Destroy, MARK};
use crate::guard::{Guard, is_race};
use crate::target::{Access, PATIENCE, Target};
use crate::{Error, Migrator};

/// The table in which SeaORM writes down what was applied.
const RECORD: &str = "seaql_migrations";

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

/// Applies the pending steps, or the first `steps` of them, and names those that it applied.
///
/// It can be run by any number of processes at once, and again after it was killed: on SQLite all of its steps are one transaction; elsewhere
/// each step can run twice. A SQLite file is made if there is none and the URL does not say `mode=rw`.
///
/// A database with newer steps than ours and none of ours pending is left as it is.
///
/// # Errors
/// [`Error::Url`], [`Error::Missing`] and [`Error::Open`] before anything is changed; [`Error::UnknownSteps`] if steps of ours are pending
/// beside steps that we do not know; [`Error::Dangling`] or [`Error::Database`] if a step fails.
pub async fn up(url: &str, steps: Option<u32>) -> Result<Vec<String>, Error> {
    let guard = Guard::acquire(&Target::parse(url)?, Access::Create).await?;
    let applied = apply(&guard, steps).await?;
    guard.commit().await?;
    Ok(applied)
}

/// Undoes the last `steps` steps and names them, last first.
///
/// # Errors
/// [`Error::WouldDestroy`] if rows would be lost that may not be, [`Error::UnknownSteps`] if the last step is not one of ours; else as [`up`].
pub async fn down(url: &str, steps: u32, destroy: Destroy) -> Result<Vec<String>, Error> {
    let guard = Guard::acquire(&Target::parse(url)?, Access::Change).await?;
    let undone = undo(&guard, Some(steps), destroy).await?;
    guard.commit().await?;
    Ok(undone)
}

/// Undoes every step and applies them all again, and names those that it applied. Tables that are not ours stay.
///
/// # Errors
/// As [`down`].
pub async fn fresh(url: &str, destroy: Destroy) -> Result<Vec<String>, Error> {
    let guard = Guard::acquire(&Target::parse(url)?, Access::Create).await?;
    undo(&guard, None, destroy).await?;
    let applied = apply(&guard, None).await?;
    guard.commit().await?;
    Ok(applied)
}

/// Undoes every step, and removes the record of steps; names the steps, last first. Tables that are not ours stay.
///
/// # Errors
/// As [`down`].
pub async fn reset(url: &str, destroy: Destroy) -> Result<Vec<String>, Error> {
    let guard = Guard::acquire(&Target::parse(url)?, Access::Change).await?;
    let undone = undo(&guard, None, destroy).await?;
    let drop = Table::drop().table(RECORD).if_exists().take();
    guard
        .executor()
        .execute(&drop)
        .await
        .map_err(Error::database("remove the record of steps"))?;
    guard.commit().await?;
    Ok(undone)
}

/// Says how the database stands to every step, ours in their order and then those that we do not know. Writes nothing and makes no file.
///
/// # Errors
/// [`Error::Url`], [`Error::Missing`], [`Error::Open`] or [`Error::Database`].
pub async fn status(url: &str) -> Result<Vec<Step>, Error> {
    let database = Target::parse(url)?.connect(Access::Look).await?;
    let steps = steps(&SchemaManager::new(&database)).await?;
    database
        .close()
        .await
        .map_err(Error::database("close the connection"))?;
    Ok(steps)
}

/// Marks the database as one whose rows never matter: from then on [`down`], [`fresh`] and [`reset`] destroy them unasked.
///
/// # Errors
/// As [`status`].
pub async fn mark_development(url: &str) -> Result<(), Error> {
    let guard = Guard::acquire(&Target::parse(url)?, Access::Change).await?;
    let key = ColumnDef::new("id").big_integer().not_null().primary_key().take();
    let mark = Table::create().table(MARK).if_not_exists().col(key).take();
    guard
        .executor()
        .execute(&mark)
        .await
        .map_err(Error::database("mark the database"))?;
    guard.commit().await
}

/// Takes the mark of [`mark_development`] away.
///
/// # Errors
/// As [`status`].
pub async fn unmark_development(url: &str) -> Result<(), Error> {
    let guard = Guard::acquire(&Target::parse(url)?, Access::Change).await?;
    let unmark = Table::drop().table(MARK).if_exists().take();
    guard
        .executor()
        .execute(&unmark)
        .await
        .map_err(Error::database("take the mark away"))?;
    guard.commit().await
}

async fn apply(guard: &Guard, limit: Option<u32>) -> Result<Vec<String>, Error> {
    let known = steps(&SchemaManager::new(guard.executor())).await?;
    let pending = named(&known, State::Pending);
    if pending.is_empty() {
        return Ok(pending);
    }
    refuse_unknown(&known)?;
    let wanted = first(pending, limit);
    let started = Instant::now();
    while let Some(left) = left_in(guard, &wanted, State::Pending).await? {
        let applied = Migrator::up(guard.executor(), Some(left)).await;
        again_after_race(guard, applied, started)
            .await
            .map_err(Error::database("apply the steps"))?;
    }
    Ok(wanted)
}

/// How many of these steps are still in this state; `None` for none.
async fn left_in(guard: &Guard, names: &[String], state: State) -> Result<Option<u32>, Error> {
    let known = steps(&SchemaManager::new(guard.executor())).await?;
    let left = named(&known, state).iter().filter(|name| names.contains(name)).count();
    Ok(u32::try_from(left).ok().filter(|left| *left > 0))
}

/// A migrator that was killed holds the guard no longer, but the statement that it had sent may still run in the server and meet ours. The steps
/// can run twice, so they are tried again. SQLite has no such leftovers, and its transaction could not go on.
async fn again_after_race(guard: &Guard, done: Result<(), DbErr>, started: Instant) -> Result<(), DbErr> {
    match done {
        Err(error) if guard.may_meet_leftovers() && is_race(&error) && started.elapsed() < PATIENCE => {
            tracing::debug!(%error, "met a statement of another migrator; trying again");
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        }
        done => done,
    }
}

async fn undo(guard: &Guard, limit: Option<u32>, destroy: Destroy) -> Result<Vec<String>, Error> {
    let manager = SchemaManager::new(guard.executor());
    let known = steps(&manager).await?;
    refuse_unknown(&known)?;
    let mut applied = named(&known, State::Applied);
    applied.reverse();
    let undone = first(applied, limit);
    if undone.is_empty() {
        return Ok(undone);
    }
    destroy.permit(&manager, &undone).await?;
    let started = Instant::now();
    while let Some(left) = left_in(guard, &undone, State::Applied).await? {
        let reverted = Migrator::down(guard.executor(), Some(left)).await;
        again_after_race(guard, reverted, started)
            .await
            .map_err(Error::database("undo the steps"))?;
    }
    Ok(undone)
}

fn first(mut names: Vec<String>, limit: Option<u32>) -> Vec<String> {
    if let Some(limit) = limit {
        names.truncate(limit as usize);
    }
    names
}

fn named(steps: &[Step], state: State) -> Vec<String> {
    steps
        .iter()
        .filter(|step| step.state == state)
        .map(|step| step.name.clone())
        .collect()
}

fn refuse_unknown(known: &[Step]) -> Result<(), Error> {
    let unknown = named(known, State::Unknown);
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Error::UnknownSteps { steps: unknown })
    }
}

/// SeaORM's own query fails as soon as the database has a step that we have not, which is what a rolling update looks like.
async fn steps(manager: &SchemaManager<'_>) -> Result<Vec<Step>, Error> {
    let doing = "read the applied steps";
    let mut applied = HashSet::new();
    if manager.has_table(RECORD).await.map_err(Error::database(doing))? {
        let rows = seaql_migrations::Entity::find().all(manager.get_connection()).await;
        applied.extend(rows.map_err(Error::database(doing))?.into_iter().map(|row| row.version));
    }
    let mut steps = Vec::new();
    for step in Migrator::migrations() {
        let name = MigrationName::name(step.as_ref()).to_owned();
        let state = if applied.remove(&name) {
            State::Applied
        } else {
            State::Pending
        };
        steps.push(Step { name, state });
    }
    let mut unknown: Vec<_> = applied
        .into_iter()
        .map(|name| Step {
            name,
            state: State::Unknown,
        })
        .collect();
    unknown.sort_by(|one, other| one.name.cmp(&other.name));
    steps.extend(unknown);
    Ok(steps)
}
