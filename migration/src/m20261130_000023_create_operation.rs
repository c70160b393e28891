//! What operators have done, append-only. No foreign key: it outlives what it speaks of.

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
                    .table("operation")
                    .if_not_exists()
                    .col(uuid("operation_id").primary_key())
                    .col(timestamp_with_time_zone("at"))
                    .col(text("done_by"))
                    .col(text("component"))
                    .col(text("verb"))
                    .col(uuid_null("machine_id"))
                    .col(text_null("slot"))
                    .col(text_null("process"))
                    .col(uuid_null("work_id"))
                    .col(uuid_null("session_id"))
                    .col(text_null("detail"))
                    .col(text("reason"))
                    .col(text_null("ticket"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("operation").if_exists().take())
            .await
    }
}
