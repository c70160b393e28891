//! Until when a process leaves a machine alone after failures.

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
                    .table("work_backoff")
                    .if_not_exists()
                    .col(uuid("machine_id"))
                    .col(text("process"))
                    .col(timestamp_with_time_zone_null("until"))
                    .col(text("cause"))
                    .col(big_integer("attempts").check(Expr::col("attempts").gte(1)))
                    .col(big_integer("last_interval_seconds").check(Expr::col("last_interval_seconds").gte(1)))
                    .primary_key(
                        Index::create()
                            .name("pk-work_backoff")
                            .col("machine_id")
                            .col("process")
                            .primary(),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-work_backoff-machine_id")
                            .from("work_backoff", "machine_id")
                            .to("machine", "machine_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("work_backoff").if_exists().take())
            .await
    }
}
