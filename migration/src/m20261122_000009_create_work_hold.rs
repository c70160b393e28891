//! Until when nobody touches a machine or one of its slots, and why.

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
                    .table("work_hold")
                    .if_not_exists()
                    .col(uuid("machine_id"))
                    .col(text("slot"))
                    .col(timestamp_with_time_zone_null("until"))
                    .col(text("reason"))
                    .col(text("placed_by"))
                    .col(timestamp_with_time_zone("placed_at"))
                    .primary_key(
                        Index::create()
                            .name("pk-work_hold")
                            .col("machine_id")
                            .col("slot")
                            .primary(),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-work_hold-machine_id")
                            .from("work_hold", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("work_hold").if_exists().take())
            .await
    }
}
