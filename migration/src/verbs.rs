//! What can be done to a schema.

use std::time::{Duration, Instant};

use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::sea_query::{Alias, ColumnDef, Table};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};

use crate::catalogue::refuse_referenced;
use crate::destroy::{Destroy, MARK};
use crate::guard::{Guard, is_race};
use crate::migrations::{Migrations, State, Step, created, named};
use crate::target::{Access, PATIENCE, Target};
use crate::{Drift, Error, Migrator, rights};

/// Applies the pending steps, or the first `steps` of them, and names those that it applied. Then it gives the roles of
/// [`make_roles`](crate::make_roles), where there are such, the rights that they lack.
///
/// It can be run by any number of processes at once, and again after it was killed: on SQLite all of its steps are one transaction; elsewhere
/// each step can run twice. A SQLite file is made if there is none and the URL does not say `mode=rw`. Where nothing is to be done it only
/// reads.
///
/// A database with newer steps than ours and none of ours pending is left as it is.
///
/// # Errors
/// [`Error::Url`], [`Error::Missing`], [`Error::Open`] and [`Error::NotAllowed`] before anything is changed; [`Error::UnknownSteps`] if steps of
/// ours are pending beside steps that we do not know; [`Error::Dangling`] or [`Error::Database`] if a step fails.
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn up(url: &str, steps: Option<u32>) -> Result<Vec<String>, Error> {
    Schema::bmdb().up(url, steps).await
}

/// Applies the pending steps of BMDB and then those of `M`, a migrator of your own with tables of your own, and names those that it applied.
///
/// Both run under one guard, each with a record of its own: `M::migration_table_name()` must not be the default. See
/// [the crate](crate#tables-of-your-own) for an example.
///
/// # Errors
/// [`Error::SharedRecord`] if `M` has no record of its own; else as [`up`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn up_with<M: MigratorTrait + 'static>(url: &str) -> Result<Vec<String>, Error> {
    Schema::with::<M>()?.up(url, None).await
}

/// Undoes the last `steps` steps and names them, last first.
///
/// # Errors
/// [`Error::WouldDestroy`] if rows would be lost that may not be, [`Error::Referenced`] if others' tables refer to what would be dropped,
/// [`Error::UnknownSteps`] if the last step is not one of ours; else as [`up`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn down(url: &str, steps: u32, destroy: Destroy) -> Result<Vec<String>, Error> {
    Schema::bmdb().down(url, steps, destroy).await
}

/// Undoes every step and applies them all again, and names those that it applied. Tables that are not ours stay.
///
/// # Errors
/// As [`down`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn fresh(url: &str, destroy: Destroy) -> Result<Vec<String>, Error> {
    Schema::bmdb().fresh(url, destroy).await
}

/// Undoes every step, and removes the record of steps; names the steps, last first. Tables that are not ours stay.
///
/// # Errors
/// As [`down`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn reset(url: &str, destroy: Destroy) -> Result<Vec<String>, Error> {
    Schema::bmdb().reset(url, destroy).await
}

/// Says how the database stands to every step, ours in their order and then those that we do not know. Writes nothing and makes no file.
///
/// # Errors
/// [`Error::Url`], [`Error::Missing`], [`Error::Open`], [`Error::NotAllowed`] or [`Error::Database`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn status(url: &str) -> Result<Vec<Step>, Error> {
    Schema::bmdb().status(url).await
}

/// What the applied steps of BMDB made and the database does not have any more, or has otherwise: tables, columns, keys, indexes. It only reads.
///
/// # Errors
/// As [`status`].
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn drift(url: &str) -> Result<Vec<Drift>, Error> {
    let schema = Schema::bmdb();
    let database = Target::parse(url)?.connect(Access::Look).await?;
    schema.refuse_blind(&database).await?;
    let drift = crate::drift::find(&database, &schema.bmdb).await?;
    close(database).await?;
    Ok(drift)
}

/// The grants that the roles of [`make_roles`] lack, where there are such roles, as statements: the next [`up`] gives them. None on SQLite. It only reads.
///
/// # Errors
/// As [`status`].
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn missing_grants(url: &str) -> Result<Vec<String>, Error> {
    let schema = Schema::bmdb();
    let database = Target::parse(url)?.connect(Access::Look).await?;
    schema.refuse_blind(&database).await?;
    let grants = rights::missing(&database, &schema.bmdb).await?;
    close(database).await?;
    Ok(grants)
}

/// On a server, makes the roles `bmdb_migrator`, `bmdb_component` and `bmdb_console` where they are missing, and gives each the least that it
/// needs; the tables of BMDB that are there go to `bmdb_migrator`. Answers the statements that it ran.
///
/// It is for an administrator of the database, before the first [`up`] or at any time after it, and can be run again. The roles have no password
/// yet. Later tables get their rights with the step that makes them, from [`up`].
///
/// # Errors
/// [`Error::Url`] for SQLite, which has no roles; else as [`status`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn make_roles(url: &str) -> Result<Vec<String>, Error> {
    let target = Target::parse(url)?;
    if matches!(target, Target::Sqlite { .. }) {
        return Err(Error::Url {
            reason: "SQLite has no roles",
        });
    }
    let database = target.connect(Access::Change).await?;
    let ran = rights::make_roles(&database, &Migrations::of::<Migrator>()).await?;
    close(database).await?;
    Ok(ran)
}

/// Marks the database as one whose rows never matter: from then on [`down`], [`fresh`] and [`reset`] destroy them unasked.
///
/// # Errors
/// As [`status`].
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn mark_development(url: &str) -> Result<(), Error> {
    let guard = Schema::bmdb().change(url, Access::Change).await?;
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
///
/// # Cancel safety
/// Dropping the future leaves the steps that were done, and on a server the statement that was sent may still take effect. Run the verb again.
pub async fn unmark_development(url: &str) -> Result<(), Error> {
    let guard = Schema::bmdb().change(url, Access::Change).await?;
    let unmark = Table::drop().table(MARK).if_exists().take();
    guard
        .executor()
        .execute(&unmark)
        .await
        .map_err(Error::database("take the mark away"))?;
    guard.commit().await
}

/// What a verb moves: BMDB's migrations, and perhaps those of a crate whose tables refer to BMDB's. They are applied in this order and undone in
/// the other.
pub(crate) struct Schema {
    bmdb: Migrations,
    mine: Option<Migrations>,
}

impl Schema {
    pub(crate) fn bmdb() -> Self {
        Self {
            bmdb: Migrations::of::<Migrator>(),
            mine: None,
        }
    }

    /// # Errors
    /// [`Error::SharedRecord`] if the two would take each other's steps for steps of a newer build.
    pub(crate) fn with<M: MigratorTrait + 'static>() -> Result<Self, Error> {
        let (bmdb, mine) = (Migrations::of::<Migrator>(), Migrations::of::<M>());
        if bmdb.record == mine.record {
            return Err(Error::SharedRecord { record: bmdb.record });
        }
        Ok(Self { bmdb, mine: Some(mine) })
    }

    fn each(&self) -> impl DoubleEndedIterator<Item = &Migrations> {
        std::iter::once(&self.bmdb).chain(&self.mine)
    }

    pub(crate) async fn up(&self, url: &str, steps: Option<u32>) -> Result<Vec<String>, Error> {
        let database = Target::parse(url)?.connect(Access::Create).await?;
        if self.is_up(&database).await? {
            close(database).await?;
            return Ok(Vec::new());
        }
        let guard = Guard::acquire(database).await?;
        let applied = self.apply(&guard, steps).await?;
        guard.commit().await?;
        Ok(applied)
    }

    pub(crate) async fn down(&self, url: &str, steps: u32, destroy: Destroy) -> Result<Vec<String>, Error> {
        let guard = self.change(url, Access::Change).await?;
        let undone = self.undo(&guard, Some(steps), destroy).await?;
        guard.commit().await?;
        Ok(undone)
    }

    pub(crate) async fn fresh(&self, url: &str, destroy: Destroy) -> Result<Vec<String>, Error> {
        let guard = self.change(url, Access::Create).await?;
        self.undo(&guard, None, destroy).await?;
        let applied = self.apply(&guard, None).await?;
        guard.commit().await?;
        Ok(applied)
    }

    pub(crate) async fn reset(&self, url: &str, destroy: Destroy) -> Result<Vec<String>, Error> {
        let guard = self.change(url, Access::Change).await?;
        let undone = self.undo(&guard, None, destroy).await?;
        for migrations in self.each() {
            let drop = Table::drop().table(Alias::new(&migrations.record)).if_exists().take();
            let dropped = guard.executor().execute(&drop).await;
            dropped.map_err(Error::database("remove the record of steps"))?;
        }
        guard.commit().await?;
        Ok(undone)
    }

    pub(crate) async fn status(&self, url: &str) -> Result<Vec<Step>, Error> {
        let database = Target::parse(url)?.connect(Access::Look).await?;
        let mut steps = Vec::new();
        self.refuse_blind(&database).await?;
        for migrations in self.each() {
            steps.extend(migrations.read(&database).await?);
        }
        close(database).await?;
        Ok(steps)
    }

    /// Whether nothing is to be done. It only reads, so a role that may do no more finds it out as well.
    async fn is_up(&self, database: &DatabaseConnection) -> Result<bool, Error> {
        self.refuse_blind(database).await?;
        for migrations in self.each() {
            if !named(&migrations.read(database).await?, State::Pending).is_empty() {
                rights::refuse_stranger(database, &self.bmdb).await?;
                return Ok(false);
            }
        }
        let is_up = rights::missing(database, &self.bmdb).await?.is_empty();
        if !is_up {
            rights::refuse_stranger(database, &self.bmdb).await?;
        }
        Ok(is_up)
    }

    /// Takes the guard, for a role that may do what follows.
    async fn change(&self, url: &str, access: Access) -> Result<Guard, Error> {
        let database = Target::parse(url)?.connect(access).await?;
        self.refuse_blind(&database).await?;
        rights::refuse_stranger(&database, &self.bmdb).await?;
        Guard::acquire(database).await
    }

    async fn refuse_blind(&self, database: &DatabaseConnection) -> Result<(), Error> {
        let records: Vec<_> = self.each().map(|migrations| migrations.record.as_str()).collect();
        rights::refuse_blind(database, &records).await
    }

    async fn apply(&self, guard: &Guard, limit: Option<u32>) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        for migrations in self.each() {
            let known = migrations.read(&guard.executor()).await?;
            let mut wanted = named(&known, State::Pending);
            if !wanted.is_empty() {
                refuse_unknown(&known)?;
            }
            if let Some(limit) = limit {
                wanted.truncate((limit as usize).saturating_sub(all.len()));
            }
            let started = Instant::now();
            while let Some(left) = left_in(guard, migrations, &wanted, State::Pending).await? {
                let applied = (migrations.up)(guard.executor(), left).await;
                again_after_race(guard, applied, started)
                    .await
                    .map_err(Error::database("apply the steps"))?;
            }
            all.extend(wanted);
        }
        rights::give(&guard.executor(), &self.bmdb).await?;
        Ok(all)
    }

    async fn undo(&self, guard: &Guard, limit: Option<u32>, destroy: Destroy) -> Result<Vec<String>, Error> {
        let (mut undone, mut each) = (Vec::new(), Vec::new());
        for migrations in self.each().rev() {
            let known = migrations.read(&guard.executor()).await?;
            refuse_unknown(&known)?;
            let mut applied = named(&known, State::Applied);
            applied.reverse();
            if let Some(limit) = limit {
                applied.truncate((limit as usize).saturating_sub(undone.len()));
            }
            undone.extend(applied.iter().cloned());
            each.push((migrations, applied));
        }
        for (migrations, steps) in &each {
            let is_bmdb = migrations.record == self.bmdb.record;
            destroy.permit(&guard.executor(), steps, is_bmdb).await?;
        }
        for (migrations, steps) in each {
            if migrations.record == self.bmdb.record {
                let dropped: Vec<_> = steps.iter().filter_map(|step| created(step)).collect();
                refuse_referenced(&guard.executor(), &dropped).await?;
            }
            let started = Instant::now();
            while let Some(left) = left_in(guard, migrations, &steps, State::Applied).await? {
                let reverted = (migrations.down)(guard.executor(), left).await;
                again_after_race(guard, reverted, started)
                    .await
                    .map_err(Error::database("undo the steps"))?;
            }
        }
        Ok(undone)
    }
}

async fn close(database: DatabaseConnection) -> Result<(), Error> {
    database.close().await.map_err(Error::database("close the connection"))
}

/// How many of these steps are still in this state; `None` for none.
async fn left_in(guard: &Guard, migrations: &Migrations, names: &[String], state: State) -> Result<Option<u32>, Error> {
    let known = migrations.read(&guard.executor()).await?;
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

fn refuse_unknown(known: &[Step]) -> Result<(), Error> {
    let unknown = named(known, State::Unknown);
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Error::UnknownSteps { steps: unknown })
    }
}
