//! Why an operator asked a session to take no new work. Its heartbeat answers it.

use sea_orm_migration::prelude::*;

use crate::catalogue::{add_column, drop_column};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_column(manager, "session_lease", "drain_requested", "TEXT").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_column(manager, "session_lease", "drain_requested").await
    }
}
