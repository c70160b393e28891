//! For how long collectors have seen a lease stand unchanged, so that one that begins anew need not begin to watch anew.

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
                    .table("session_sighting")
                    .if_not_exists()
                    .col(pk_uuid("session_id"))
                    .col(text("deadline"))
                    .col(big_integer("age_ms").check(Expr::col("age_ms").gte(0)))
                    .foreign_key(
                        ForeignKey::create()
                            .name("fk-session_sighting-session_id")
                            .from("session_sighting", "session_id")
                            .to("session", "session_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("session_sighting").if_exists().take())
            .await
    }
}
