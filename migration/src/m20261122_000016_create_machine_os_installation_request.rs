//! Tag: an operating system shall be installed on this machine.

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
                    .table("machine_os_installation_request")
                    .if_not_exists()
                    .col(pk_uuid("machine_id"))
                    .col(big_integer("generation").check(Expr::col("generation").gte(0)))
                    .col(ColumnDef::new_with_type("raw", ColumnType::VarBinary(StringLen::None)).not_null())
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-machine_os_installation_request-machine_id")
                            .from("machine_os_installation_request", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(
                Table::drop()
                    .table("machine_os_installation_request")
                    .if_exists()
                    .take(),
            )
            .await
    }
}
