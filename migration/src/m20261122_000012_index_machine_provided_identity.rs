//! A provider knows a machine by one id, and one machine by an id.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_index(
                Index::create()
                    .name("idx-machine_provided-identity")
                    .if_not_exists()
                    .table("machine_provided")
                    .col("provider")
                    .col("provider_id")
                    .unique()
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_index(
                Index::drop()
                    .name("idx-machine_provided-identity")
                    .table("machine_provided")
                    .if_exists()
                    .to_owned(),
            )
            .await
    }
}
