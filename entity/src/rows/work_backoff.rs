//! Until when a process leaves a machine alone after failures.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// One process that failed on one machine. A finish deletes the row.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_backoff")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// The process that failed.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// Until when; `None` is parked: only a person brings it back.
    pub until: Option<DateTimeUtc>,
    /// Why the last attempt failed.
    #[sea_orm(column_type = "Text")]
    pub cause: String,
    /// How often it failed in a row.
    pub attempts: i64,
    /// The last interval before jitter, in seconds: what the next one grows from.
    pub last_interval_seconds: i64,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
