//! What stands between a verb and rows that somebody needs.

use sea_orm_migration::sea_orm::{ConnectionTrait, Statement};

use crate::Error;
use crate::catalogue::{exists, others};
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
            others(db).await?
        };
        let mut tables = Vec::new();
        for table in in_danger {
            if exists(db, &table).await? {
                let rows = count(db, &table).await?;
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

async fn count(db: &impl ConnectionTrait, table: &str) -> Result<i64, Error> {
    let doing = "count the rows that would be destroyed";
    let table = table.replace('"', "\"\"");
    let count = Statement::from_string(db.get_database_backend(), format!(r#"SELECT count(*) FROM "{table}""#));
    let row = db.query_one_raw(count).await.map_err(Error::database(doing))?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
        .map_err(Error::database(doing))
}

/// The tables that undoing `steps` takes rows from, as the steps' names say. A step of a kind that we do not know may touch any table.
fn destroyed_by(steps: &[String]) -> Vec<String> {
    let harmless = |step: &String| ["index", "tune"].iter().any(|kind| kind_of(step).0 == *kind);
    let touched = |step: &String| created(step).or_else(|| extended(step));
    if steps.iter().all(|step| harmless(step) || touched(step).is_some()) {
        return steps.iter().filter_map(touched).collect();
    }
    tables()
}

/// The table that a step adds a column to. One table's name may begin with another's.
fn extended(step: &str) -> Option<String> {
    let ("add", what) = kind_of(step) else {
        return None;
    };
    let of_it = |table: &String| {
        what.strip_prefix(table.as_str())
            .is_some_and(|column| column.starts_with('_'))
    };
    tables().into_iter().filter(of_it).max_by_key(String::len)
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
    fn undoing_a_column_destroys_what_it_says() {
        assert_eq!(destroyed(&["m20261130_000025_add_work_hold_ticket"]), ["work_hold"]);
        assert_eq!(
            destroyed(&["m20270101_000001_add_rack_row"]),
            tables(),
            "any, of a table that is not ours"
        );
    }

    #[test]
    fn undoing_an_unknown_kind_of_step_may_destroy_any_rows() {
        assert!(destroyed(&["m20270101_000001_backfill_rack"]).contains(&"work_history".to_owned()));
    }
}
