//! Machines by what their providers call them, for people who do not know which provider that is.

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
                    .name("idx-machine_provided-provider_id")
                    .if_not_exists()
                    .table("machine_provided")
                    .col("provider_id")
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_index(
                Index::drop()
                    .name("idx-machine_provided-provider_id")
                    .table("machine_provided")
                    .if_exists()
                    .to_owned(),
            )
            .await
    }
}
