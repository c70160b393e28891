//! Leaves room in the pages of the two tables whose rows are updated most, so that PostgreSQL can write the new version beside the old one
//! and has no index to touch (a HOT update): every heartbeat writes `session_lease`, every claim writes `machine`.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DatabaseBackend, Statement};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        alter(manager, "session_lease", "SET (fillfactor = 80)").await?;
        alter(manager, "machine", "SET (fillfactor = 90)").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        alter(manager, "session_lease", "RESET (fillfactor)").await?;
        alter(manager, "machine", "RESET (fillfactor)").await
    }
}

/// Only PostgreSQL has heap pages: SQLite has no such word, CockroachDB takes it and does nothing.
async fn alter(manager: &SchemaManager<'_>, table: &str, action: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    if db.get_database_backend() != DatabaseBackend::Postgres {
        return Ok(());
    }
    let version: String = match db
        .query_one_raw(Statement::from_string(db.get_database_backend(), "SELECT version()"))
        .await?
    {
        Some(row) => row.try_get_by_index(0)?,
        None => String::new(),
    };
    if version.starts_with("CockroachDB") {
        return Ok(());
    }
    db.execute_unprepared(&format!(r#"ALTER TABLE IF EXISTS "{table}" {action}"#))
        .await?;
    Ok(())
}
