//! Tag: an agent was started on this machine.

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
                    .table("machine_agent_started")
                    .if_not_exists()
                    .col(pk_uuid("machine_id"))
                    .col(timestamp_with_time_zone("at"))
                    .col(ColumnDef::new_with_type("public_key", ColumnType::VarBinary(StringLen::None)).not_null())
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-machine_agent_started-machine_id")
                            .from("machine_agent_started", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("machine_agent_started").if_exists().take())
            .await
    }
}
