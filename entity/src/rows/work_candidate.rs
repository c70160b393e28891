//! Hints: which machines are believed to be eligible.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// One machine that may be eligible by one rule. Every claim verifies: a wrong hint costs a read, a missing one is found by the next search.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_candidate")]
pub struct Model {
    /// The rule, as `name@digest`; the bare name is an older component's.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// When it was found.
    pub found_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
