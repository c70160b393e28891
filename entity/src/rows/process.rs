//! A process that some component has registered.

use sea_orm::entity::prelude::*;

/// One process: written when a component registers it, read by consoles and by the collector.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "process")]
pub struct Model {
    /// The process's name.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub name: String,
    /// What it occupies on a machine.
    #[sea_orm(column_type = "Text")]
    pub slot: String,
    /// What it does, for people.
    #[sea_orm(column_type = "Text")]
    pub description: String,
    /// How long the collector holds a slot that an expiry freed, in milliseconds.
    pub cool_down_ms: i64,
    /// When it was first registered, by the database's clock.
    pub registered_at: DateTimeUtc,
    /// The component that registered it.
    #[sea_orm(column_type = "Text")]
    pub registered_by: String,
}

impl ActiveModelBehavior for ActiveModel {}
