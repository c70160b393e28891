//! Tag: the agent on this machine was heard.

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
                    .table("machine_agent_heartbeat")
                    .if_not_exists()
                    .col(pk_uuid("machine_id"))
                    .col(timestamp_with_time_zone("at"))
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-machine_agent_heartbeat-machine_id")
                            .from("machine_agent_heartbeat", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("machine_agent_heartbeat").if_exists().take())
            .await
    }
}
