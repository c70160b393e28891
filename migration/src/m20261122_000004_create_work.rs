//! The live locks. The key is the exclusion: one row per machine and slot.

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
                    .table("work")
                    .if_not_exists()
                    .col(uuid("machine_id"))
                    .col(text("slot"))
                    .col(text("process"))
                    .col(uuid("work_id"))
                    .col(uuid("session_id"))
                    .col(big_integer("fence").check(Expr::col("fence").gt(0)))
                    .col(timestamp_with_time_zone("claimed_at"))
                    .col(json_binary_null("progress"))
                    .col(text_null("stop_requested"))
                    .primary_key(Index::create().name("pk-work").col("machine_id").col("slot").primary())
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-work-machine_id")
                            .from("work", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-work-session_id")
                            .from("work", "session_id")
                            .to("session", "session_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("work").if_exists().take()).await
    }
}
