//! The migrator of a crate with tables of its own beside BMDB's.

use sea_orm::DynIden;
use sea_orm_migration::{prelude::*, schema::*};

/// Makes a table whose rows refer to machines, and an index on it.
pub struct Mine;

impl MigratorTrait for Mine {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateRack), Box::new(IndexRack)]
    }

    fn migration_table_name() -> DynIden {
        "my_migrations".into()
    }
}

struct CreateRack;

impl MigrationName for CreateRack {
    fn name(&self) -> &'static str {
        "m20261130_000001_create_rack"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateRack {
    // As `sea-orm-cli migrate generate` leaves it: in a transaction on PostgreSQL, which the trap of test databases allows for one change.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut machine = ForeignKey::create();
        machine.from("rack", "machine_id").to("machine", "machine_id");
        let rack = Table::create()
            .table("rack")
            .if_not_exists()
            .col(pk_uuid("machine_id"))
            .col(text("name"))
            .foreign_key(&mut machine)
            .take();
        manager.create_table(rack).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("rack").if_exists().take()).await
    }
}

struct IndexRack;

impl MigrationName for IndexRack {
    fn name(&self) -> &'static str {
        "m20261130_000002_index_rack_name"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for IndexRack {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = Index::create()
            .name("idx-rack-name")
            .table("rack")
            .col("name")
            .if_not_exists()
            .take();
        manager.create_index(index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = Index::drop().name("idx-rack-name").table("rack").if_exists().to_owned();
        manager.drop_index(index).await
    }
}
