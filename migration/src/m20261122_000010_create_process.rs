//! The processes that components have registered.

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
                    .table("process")
                    .if_not_exists()
                    .col(text("name").primary_key())
                    .col(text("slot"))
                    .col(text("description"))
                    .col(big_integer("cool_down_ms").check(Expr::col("cool_down_ms").gte(0)))
                    .col(timestamp_with_time_zone("registered_at"))
                    .col(text("registered_by"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("process").if_exists().take())
            .await
    }
}
