//! The thing worked on, with the counter that its claims raise.

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
                    .table("machine")
                    .if_not_exists()
                    .col(pk_uuid("machine_id"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(big_integer("fence").check(Expr::col("fence").gte(0)))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("machine").if_exists().take())
            .await
    }
}
