//! How the tables of a database differ from what its steps have made. What they have made is found out by making it: in an empty SQLite database in memory.

use std::collections::BTreeSet;

use sea_orm_migration::sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr};

use crate::Error;
use crate::catalogue::{is_sqlite, pairs};
use crate::migrations::{Migrations, State, named};

/// Something that an applied step made, and that the database does not have any more, or has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drift {
    /// The table.
    pub table: String,
    /// What is not there: `table`, or such as `column fence`, `key (machine_id, slot)`, `reference of machine_id to machine` and `index idx-work-session_id (session_id)`.
    pub missing: String,
    /// The statement that makes it again, where that restores all there was: for an index.
    pub statement: Option<String>,
}

/// A table, and what is of it, in words that are the same for every kind of database.
type Part = (String, String);

/// Compares the database with what its applied steps make. Columns, keys and indexes that are more than that are no drift, and neither are types.
pub(crate) async fn find(db: &impl ConnectionTrait, bmdb: &Migrations) -> Result<Vec<Drift>, Error> {
    let doing = "compare the tables with what the steps make";
    let steps = bmdb.read(db).await?;
    let applied = named(&steps, State::Applied);
    let model = model(bmdb, applied.len()).await.map_err(Error::database(doing))?;
    let wanted = parts(&model).await.map_err(Error::database(doing))?;
    let found = parts(db).await.map_err(Error::database(doing))?;
    let tables: BTreeSet<&String> = found.iter().map(|(table, _)| table).collect();
    let mut drift: Vec<Drift> = Vec::new();
    for (table, part) in wanted.difference(&found) {
        let is_there = tables.contains(table);
        if !is_there && drift.last().is_some_and(|last| last.table == *table) {
            continue;
        }
        let index = part.split_once("index ").filter(|_| is_there);
        let statement = match index.and_then(|(_, index)| index.split(" (").next()) {
            Some(index) => statement(&model, index).await.map_err(Error::database(doing))?,
            None => None,
        };
        drift.push(Drift {
            table: table.clone(),
            missing: if is_there { part.clone() } else { "table".to_owned() },
            statement,
        });
    }
    model.close().await.map_err(Error::database(doing))?;
    Ok(drift)
}

/// An empty database after the first steps.
async fn model(bmdb: &Migrations, steps: usize) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    // Each connection would have a database of its own.
    options.max_connections(1).sqlx_logging(false);
    let model = Database::connect(options).await?;
    // None would be all of them.
    if let Ok(steps @ 1..) = u32::try_from(steps) {
        (bmdb.up)((&model).into(), steps).await?;
    }
    Ok(model)
}

async fn parts(db: &impl ConnectionTrait) -> Result<BTreeSet<Part>, DbErr> {
    const SQLITE: &str = r#"
        SELECT m.name, 'column ' || c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'
        UNION SELECT m.name, 'key (' || (SELECT group_concat(name, ', ') FROM (SELECT c.name FROM pragma_table_info(m.name) c WHERE c.pk > 0 ORDER BY c.pk)) || ')'
            FROM sqlite_master m WHERE m.type = 'table' AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) c WHERE c.pk > 0)
        UNION SELECT m.name, CASE l."unique" WHEN 1 THEN 'unique index ' ELSE 'index ' END || l.name || ' ('
                || (SELECT group_concat(name, ', ') FROM (SELECT i.name FROM pragma_index_info(l.name) i ORDER BY i.seqno)) || ')'
            FROM sqlite_master m, pragma_index_list(m.name) l WHERE m.type = 'table' AND l.origin = 'c'
        UNION SELECT m.name, 'reference of ' || f."from" || ' to ' || f."table" FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'"#;
    // An index that a failed CREATE INDEX CONCURRENTLY has left is not valid, and serves nobody.
    const SERVER: &str = "
        SELECT CAST(t.relname AS TEXT), 'column ' || CAST(a.attname AS TEXT) FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
            JOIN pg_attribute a ON a.attrelid = t.oid WHERE n.nspname = current_schema() AND t.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
        UNION SELECT CAST(t.relname AS TEXT), CASE WHEN x.indisprimary THEN 'key (' WHEN x.indisunique THEN 'unique index ' || CAST(i.relname AS TEXT) || ' ('
                ELSE 'index ' || CAST(i.relname AS TEXT) || ' (' END
                || (SELECT string_agg(CAST(a.attname AS TEXT), ', ' ORDER BY k.place) FROM unnest(CAST(x.indkey AS INT2[])) WITH ORDINALITY AS k (number, place)
                    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number) || ')'
            FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
            WHERE n.nspname = current_schema() AND x.indisvalid
        UNION SELECT CAST(t.relname AS TEXT), 'reference of ' || CAST(a.attname AS TEXT) || ' to ' || CAST(p.relname AS TEXT) FROM pg_constraint k
            JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_class p ON p.oid = k.confrelid
            JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (k.conkey) WHERE n.nspname = current_schema() AND k.contype = 'f'";
    let text = if is_sqlite(db) { SQLITE } else { SERVER };
    Ok(pairs(db, text.to_owned()).await?.into_iter().collect())
}

/// How the model made an index. SQLite keeps the text.
async fn statement(model: &DatabaseConnection, index: &str) -> Result<Option<String>, DbErr> {
    let all = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
    let made = pairs(model, all.to_owned()).await?;
    Ok(made.into_iter().find(|(name, _)| name == index).map(|(_, text)| text))
}
