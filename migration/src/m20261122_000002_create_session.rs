//! The liveness of one component incarnation.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("session")
                    .if_not_exists()
                    .col(pk_uuid("session_id"))
                    .col(text("component_name"))
                    .col(text("runtime_info"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(big_integer("interval_ms").check(Expr::col("interval_ms").gt(0)))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("session").if_exists().take())
            .await
    }
}
