//! Tag: an operating system shall be installed on this machine.

use sea_orm::entity::prelude::*;

use crate::{Generation, MachineId};

/// The desired installation. A report with the same generation fulfils it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine_os_installation_request")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// Rises with every new wish.
    pub generation: i64,
    /// The request's bytes.
    pub raw: Vec<u8>,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

crate::tag!();

impl Generation for Entity {
    const GENERATION: Column = Column::Generation;
}
