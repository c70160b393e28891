//! Hints: which machines are believed to be eligible.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// One machine that a retrieval found for one process. Every claim verifies: a stale hint costs a look, a missing one is found again.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_candidate")]
pub struct Model {
    /// The process.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// When it was found.
    pub found_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
