//! Until when a session may not be expired: the only row that a heartbeat writes.

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
                    .table("session_lease")
                    .if_not_exists()
                    .col(pk_uuid("session_id"))
                    .col(timestamp_with_time_zone("deadline"))
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-session_lease-session_id")
                            .from("session_lease", "session_id")
                            .to("session", "session_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("session_lease").if_exists().take())
            .await
    }
}
