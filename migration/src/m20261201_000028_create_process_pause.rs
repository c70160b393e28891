//! Until when no component claims for a process, and why.

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
                    .table("process_pause")
                    .if_not_exists()
                    .col(text("process").primary_key())
                    .col(timestamp_with_time_zone_null("until"))
                    .col(text("reason"))
                    .col(text("paused_by"))
                    .col(timestamp_with_time_zone("paused_at"))
                    .col(text_null("ticket"))
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-process_pause-process")
                            .from("process_pause", "process")
                            .to("process", "name"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("process_pause").if_exists().take())
            .await
    }
}
