//! What stands between a verb and rows that somebody needs.

use sea_orm_migration::sea_orm::{ConnectionTrait, Statement};
use sea_orm_migration::{MigrationName, MigratorTrait, SchemaManager};

use crate::{Error, Migrator};

/// Exists in a database whose rows never matter.
pub(crate) const MARK: &str = "bmdb_development";

/// Whether a verb may destroy rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroy {
    /// Only in a database that is marked as a development one; elsewhere rows are refused, not destroyed.
    OnlyInDevelopment,
    /// Anywhere. Somebody has said so.
    Anyway,
}

impl Destroy {
    /// Refuses to undo `steps` where rows would be lost that may not be.
    pub(crate) async fn permit(self, manager: &SchemaManager<'_>, steps: &[String]) -> Result<(), Error> {
        let doing = "count the rows that would be destroyed";
        if self == Self::Anyway || manager.has_table(MARK).await.map_err(Error::database(doing))? {
            return Ok(());
        }
        let mut tables = Vec::new();
        for table in destroyed_by(steps) {
            if manager.has_table(&table).await.map_err(Error::database(doing))? {
                let rows = count(manager, &table).await?;
                if rows > 0 {
                    tables.push((table, rows));
                }
            }
        }
        if tables.is_empty() {
            Ok(())
        } else {
            Err(Error::WouldDestroy { tables })
        }
    }
}

async fn count(manager: &SchemaManager<'_>, table: &str) -> Result<i64, Error> {
    let doing = "count the rows that would be destroyed";
    let db = manager.get_connection();
    let count = Statement::from_string(db.get_database_backend(), format!(r#"SELECT count(*) FROM "{table}""#));
    let row = db.query_one_raw(count).await.map_err(Error::database(doing))?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
        .map_err(Error::database(doing))
}

/// The tables that undoing `steps` takes rows from, as the steps' names say. A step of a kind that we do not know may touch any table.
fn destroyed_by(steps: &[String]) -> Vec<String> {
    let harmless = |step: &String| ["index", "tune"].iter().any(|kind| kind_of(step).0 == *kind);
    let created = |step: &str| match kind_of(step) {
        ("create", table) => Some(table.to_owned()),
        _ => None,
    };
    if steps.iter().all(|step| harmless(step) || created(step).is_some()) {
        return steps.iter().filter_map(|step| created(step)).collect();
    }
    Migrator::migrations()
        .iter()
        .filter_map(|step| created(MigrationName::name(step.as_ref())))
        .collect()
}

/// Splits `m20261122_000001_create_machine` into `create` and `machine`.
fn kind_of(step: &str) -> (&str, &str) {
    let words = step.splitn(3, '_').nth(2).unwrap_or_default();
    words.split_once('_').unwrap_or((words, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destroyed(steps: &[&str]) -> Vec<String> {
        destroyed_by(&steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn undoing_a_table_destroys_its_rows_and_undoing_an_index_none() {
        assert_eq!(
            destroyed(&[
                "m20261122_000003_create_session_lease",
                "m20261122_000005_index_work_work_id"
            ]),
            ["session_lease"]
        );
    }

    #[test]
    fn undoing_an_unknown_kind_of_step_may_destroy_any_rows() {
        assert!(destroyed(&["m20270101_000001_backfill_rack"]).contains(&"work_history".to_owned()));
    }
}
