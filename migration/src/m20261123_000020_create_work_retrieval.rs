//! The searches for each process's machines, by number, and whether somebody is at one: one component at a time searches for all.

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
                    .table("work_retrieval")
                    .if_not_exists()
                    .col(text("process").primary_key())
                    .col(big_integer("begun"))
                    .col(big_integer("ended"))
                    .col(timestamp_with_time_zone("began_at"))
                    .col(timestamp_with_time_zone("until"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("work_retrieval").if_exists().take())
            .await
    }
}
