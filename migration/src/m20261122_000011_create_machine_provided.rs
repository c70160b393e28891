//! Tag: a provider gave us this machine.

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
                    .table("machine_provided")
                    .if_not_exists()
                    .col(pk_uuid("machine_id"))
                    .col(text("provider"))
                    .col(text("provider_id"))
                    .col(text_null("reservation"))
                    .col(text_null("address"))
                    .col(text_null("location"))
                    .col(text("status"))
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-machine_provided-machine_id")
                            .from("machine_provided", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("machine_provided").if_exists().take())
            .await
    }
}
