//! The rules of processes, as text: which machines each component finds eligible, for those who have no code of it.

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
                    .table("process_rule")
                    .if_not_exists()
                    .col(text("process"))
                    .col(text("digest"))
                    .col(text("item"))
                    .col(text("item_machine_id"))
                    .col(json_binary("clauses"))
                    .col(text("component"))
                    .col(timestamp_with_time_zone("used_at"))
                    .primary_key(
                        Index::create()
                            .name("pk-process_rule")
                            .col("process")
                            .col("digest")
                            .primary(),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-process_rule-process")
                            .from("process_rule", "process")
                            .to("process", "name")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("process_rule").if_exists().take())
            .await
    }
}
