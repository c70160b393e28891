//! A machine: the thing worked on.

use sea_orm::entity::prelude::*;

use crate::{Fence, MachineId, MachineRow};

/// One machine. What is known about it stands in its tags.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// When the row was made, by the database's clock.
    pub created_at: DateTimeUtc,
    /// Rises with every claim on the machine and never falls: the compare-and-set that makes a claim exclusive.
    pub fence: Fence,
}

impl ActiveModelBehavior for ActiveModel {}

impl MachineRow for Entity {
    const MACHINE_ID: Column = Column::MachineId;
}
