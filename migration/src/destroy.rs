//! What stands between a verb and rows that somebody needs.

use sea_orm_migration::sea_orm::{ConnectionTrait, Statement};

use crate::Error;
use crate::catalogue::{exists, has_column, others};
use crate::migrations::{created, kind_of, tables};

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
    /// Refuses to undo `steps` where rows would be lost that may not be. What steps of others destroy is not known: perhaps any table of theirs.
    pub(crate) async fn permit(self, db: &impl ConnectionTrait, steps: &[String], of_bmdb: bool) -> Result<(), Error> {
        if steps.is_empty() || self == Self::Anyway || exists(db, MARK).await? {
            return Ok(());
        }
        let in_danger = if of_bmdb {
            destroyed_by(steps)
        } else {
            others(db).await?.into_iter().map(Danger::of_table).collect()
        };
        let mut tables = Vec::new();
        for danger in in_danger {
            let rows = danger.rows(db).await?;
            if rows > 0 {
                tables.push((danger.table, rows));
            }
        }
        if tables.is_empty() {
            Ok(())
        } else {
            Err(Error::WouldDestroy { tables })
        }
    }
}

/// What undoing a step would destroy: a table, or what one column of it says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Danger {
    table: String,
    column: Option<String>,
}

impl Danger {
    fn of_table(table: String) -> Self {
        Self { table, column: None }
    }

    /// How many rows would lose something.
    async fn rows(&self, db: &impl ConnectionTrait) -> Result<i64, Error> {
        let doing = "count the rows that would be destroyed";
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let table = quoted(&self.table);
        if !exists(db, &self.table).await? {
            return Ok(0);
        }
        let filled = match &self.column {
            Some(column) if has_column(db, &self.table, column).await? => {
                format!(" WHERE {table}.{} IS NOT NULL", quoted(column))
            }
            Some(_dropped) => return Ok(0),
            None => String::new(),
        };
        let count = Statement::from_string(
            db.get_database_backend(),
            format!("SELECT count(*) FROM {table}{filled}"),
        );
        let row = db.query_one_raw(count).await.map_err(Error::database(doing))?;
        row.map_or(Ok(0), |row| row.try_get_by_index(0))
            .map_err(Error::database(doing))
    }
}

/// What undoing `steps` destroys, as the steps' names say. A step of a kind that we do not know may touch any table.
fn destroyed_by(steps: &[String]) -> Vec<Danger> {
    let made: Vec<String> = steps.iter().filter_map(|step| created(step)).collect();
    let mut all = Vec::new();
    for step in steps {
        match (kind_of(step).0, created(step), extended(step)) {
            ("index" | "tune", _, _) => {}
            (_, Some(table), _) => all.push(Danger::of_table(table)),
            // It goes with its table.
            (_, _, Some(danger)) if made.contains(&danger.table) => {}
            (_, _, Some(danger)) => all.push(danger),
            _ => return tables().into_iter().map(Danger::of_table).collect(),
        }
    }
    all
}

/// The column that a step adds. One table's name may begin with another's.
fn extended(step: &str) -> Option<Danger> {
    let ("add", what) = kind_of(step) else {
        return None;
    };
    let column_of = |table: String| {
        let column = what.strip_prefix(table.as_str())?.strip_prefix('_')?.to_owned();
        Some(Danger {
            table,
            column: Some(column),
        })
    };
    tables()
        .into_iter()
        .filter_map(column_of)
        .max_by_key(|danger| danger.table.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destroyed(steps: &[&str]) -> Vec<(String, Option<String>)> {
        let steps: Vec<_> = steps.iter().map(|step| (*step).to_owned()).collect();
        let dangers = destroyed_by(&steps).into_iter();
        dangers.map(|danger| (danger.table, danger.column)).collect()
    }

    fn table(name: &str) -> (String, Option<String>) {
        (name.to_owned(), None)
    }

    fn all_tables() -> Vec<(String, Option<String>)> {
        tables().iter().map(|name| table(name)).collect()
    }

    #[test]
    fn undoing_a_table_destroys_its_rows_and_undoing_an_index_none() {
        assert_eq!(
            destroyed(&[
                "m20261122_000003_create_session_lease",
                "m20261122_000005_index_work_work_id"
            ]),
            [table("session_lease")]
        );
    }

    #[test]
    fn undoing_a_column_destroys_what_it_says() {
        let ticket = ("work_hold".to_owned(), Some("ticket".to_owned()));
        assert_eq!(destroyed(&["m20261130_000025_add_work_hold_ticket"]), [ticket]);
        let with_its_table = [
            "m20261130_000025_add_work_hold_ticket",
            "m20261122_000009_create_work_hold",
        ];
        assert_eq!(
            destroyed(&with_its_table),
            [table("work_hold")],
            "each table is told once"
        );
        assert_eq!(
            destroyed(&["m20270101_000001_add_rack_row"]),
            all_tables(),
            "any, of a table that is not ours"
        );
    }

    #[test]
    fn undoing_an_unknown_kind_of_step_may_destroy_any_rows() {
        assert_eq!(destroyed(&["m20270101_000001_backfill_rack"]), all_tables());
    }
}
