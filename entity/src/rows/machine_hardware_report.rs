//! Tag: what hardware this machine is made of.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// The report as it came; readers decode it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine_hardware_report")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// The report's bytes.
    pub raw: Vec<u8>,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

crate::tag!();
