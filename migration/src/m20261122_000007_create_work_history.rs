//! The audit. No foreign key: it outlives the machines that it speaks of.

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
                    .table("work_history")
                    .if_not_exists()
                    .col(uuid("machine_id"))
                    .col(big_integer("fence").check(Expr::col("fence").gt(0)))
                    .col(
                        text("event")
                            .check(Expr::col("event").is_in(["started", "finished", "failed", "canceled", "expired"])),
                    )
                    .col(uuid("work_id"))
                    .col(text("process"))
                    .col(text("slot"))
                    .col(uuid("session_id"))
                    .col(text("component_name"))
                    .col(text("runtime_info"))
                    .col(timestamp_with_time_zone("at"))
                    .col(text_null("cause"))
                    .primary_key(
                        Index::create()
                            .name("pk-work_history")
                            .col("machine_id")
                            .col("fence")
                            .col("event")
                            .primary(),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("work_history").if_exists().take())
            .await
    }
}
