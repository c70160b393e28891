//! Which machines are believed to be eligible for which process: hints, so that a claim need not search the fleet.
//!
//! No foreign key: a hint at a machine that is gone is as harmless as any other stale one, and the next claim removes it.

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
                    .table("work_candidate")
                    .if_not_exists()
                    .col(text("process"))
                    .col(uuid("machine_id"))
                    .col(timestamp_with_time_zone("found_at"))
                    .primary_key(
                        Index::create()
                            .name("pk-work_candidate")
                            .col("process")
                            .col("machine_id")
                            .primary(),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("work_candidate").if_exists().take())
            .await
    }
}
