//! What the database's own catalogue says about tables. Unlike `information_schema`, which SeaORM asks, it also tells of tables that we may not
//! use: a missing right must not look like a missing table.

use sea_orm_migration::SchemaManager;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement};

use crate::Error;
use crate::destroy::MARK;
use crate::guard::LOCK;
use crate::migrations::tables;

pub(crate) fn is_sqlite(db: &impl ConnectionTrait) -> bool {
    db.get_database_backend() == DatabaseBackend::Sqlite
}

/// Names as an SQL list. They are constants of ours, or stand in the catalogue.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names
        .into_iter()
        .map(|name| format!("'{}'", name.replace('\'', "''")))
        .collect();
    quoted.join(", ")
}

/// Rows of two texts.
pub(crate) async fn pairs(db: &impl ConnectionTrait, sql: String) -> Result<Vec<(String, String)>, DbErr> {
    let rows = db
        .query_all_raw(Statement::from_string(db.get_database_backend(), sql))
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)))
        .collect()
}

/// Whether the schema has such a table.
pub(crate) async fn exists(db: &impl ConnectionTrait, table: &str) -> Result<bool, Error> {
    let name = list([table]);
    let sql = if is_sqlite(db) {
        format!("SELECT name, name FROM sqlite_master WHERE type = 'table' AND name = {name}")
    } else {
        format!(
            "SELECT CAST(c.relname AS TEXT), CAST(n.nspname AS TEXT) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relname = {name} AND c.relkind = 'r'"
        )
    };
    let found = pairs(db, sql).await.map_err(Error::database("look for a table"))?;
    Ok(!found.is_empty())
}

/// Whether a table of the schema has such a column.
pub(crate) async fn has_column(db: &impl ConnectionTrait, table: &str, column: &str) -> Result<bool, Error> {
    let (table, column) = (list([table]), list([column]));
    let sql = if is_sqlite(db) {
        format!("SELECT name, type FROM pragma_table_info({table}) WHERE name = {column}")
    } else {
        format!(
            "SELECT CAST(a.attname AS TEXT), CAST(c.relname AS TEXT) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relname = {table} AND a.attname = {column} AND NOT a.attisdropped"
        )
    };
    let found = pairs(db, sql).await.map_err(Error::database("look for a column"))?;
    Ok(!found.is_empty())
}

/// Adds a column that may be null, unless it is there. SQLite has no words for "unless".
pub(crate) async fn add_column(
    manager: &SchemaManager<'_>,
    table: &str,
    column: &str,
    kind: &str,
) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let unless = match is_sqlite(db) {
        true if manager.has_column(table, column).await? => return Ok(()),
        true => "",
        false => "IF NOT EXISTS ",
    };
    let sql = format!(r#"ALTER TABLE "{table}" ADD COLUMN {unless}"{column}" {kind}"#);
    db.execute_unprepared(&sql).await.map(drop)
}

/// Drops a column, if it is there.
pub(crate) async fn drop_column(manager: &SchemaManager<'_>, table: &str, column: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let sql = match is_sqlite(db) {
        true if !manager.has_column(table, column).await? => return Ok(()),
        true => format!(r#"ALTER TABLE "{table}" DROP COLUMN "{column}""#),
        false => format!(r#"ALTER TABLE IF EXISTS "{table}" DROP COLUMN IF EXISTS "{column}""#),
    };
    db.execute_unprepared(&sql).await.map(drop)
}

/// The tables that neither BMDB's steps nor migrators keep.
pub(crate) async fn others(db: &impl ConnectionTrait) -> Result<Vec<String>, Error> {
    let sql = if is_sqlite(db) {
        "SELECT name, name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    } else {
        "SELECT CAST(c.relname AS TEXT), CAST(n.nspname AS TEXT) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() AND c.relkind = 'r' ORDER BY 1"
    };
    let found = pairs(db, sql.to_owned())
        .await
        .map_err(Error::database("look for tables"))?;
    let ours = tables();
    let is_record = |name: &str| name == LOCK || name == MARK || name.contains("migrations");
    let names = found.into_iter().map(|(name, _)| name);
    Ok(names.filter(|name| !ours.contains(name) && !is_record(name)).collect())
}

/// Refuses to drop tables of BMDB that tables or views of others refer to: on servers the drop would fail in the middle of the steps, and on SQLite
/// it would leave a reference to nothing.
pub(crate) async fn refuse_referenced(db: &impl ConnectionTrait, dropped: &[String]) -> Result<(), Error> {
    if dropped.is_empty() {
        return Ok(());
    }
    let tables = tables();
    let ours = list(tables.iter().map(String::as_str));
    let sql = if is_sqlite(db) {
        format!(
            "SELECT DISTINCT t.name, lower(f.\"table\") FROM sqlite_master t, pragma_foreign_key_list(t.name) f \
             WHERE t.type = 'table' AND lower(t.name) NOT IN ({ours}) ORDER BY t.name"
        )
    } else {
        format!(
            "SELECT CAST(CAST(k.conrelid AS REGCLASS) AS TEXT), CAST(p.relname AS TEXT) FROM pg_constraint k \
             JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace \
             WHERE k.contype = 'f' AND n.nspname = current_schema() AND (c.relnamespace <> p.relnamespace OR c.relname NOT IN ({ours})) \
             UNION SELECT CAST(CAST(r.ev_class AS REGCLASS) AS TEXT), CAST(p.relname AS TEXT) FROM pg_rewrite r \
             JOIN pg_depend d ON d.objid = r.oid JOIN pg_class p ON p.oid = d.refobjid JOIN pg_namespace n ON n.oid = p.relnamespace \
             WHERE d.classid = CAST('pg_rewrite' AS REGCLASS) AND d.refclassid = CAST('pg_class' AS REGCLASS) AND p.relkind = 'r' AND r.ev_class <> p.oid AND n.nspname = current_schema() ORDER BY 1, 2"
        )
    };
    let mut references = pairs(db, sql)
        .await
        .map_err(Error::database("look for what refers to our tables"))?;
    references.retain(|(_, table)| dropped.contains(table));
    if references.is_empty() {
        Ok(())
    } else {
        Err(Error::Referenced { references })
    }
}
