//! Tag: what came of an installation.

use sea_orm::entity::prelude::*;

use crate::{Generation, MachineId, text::text_enum};

/// The observed installation.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine_os_installation_report")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// The generation of the request that this answers.
    pub generation: i64,
    /// How it went.
    pub result: Outcome,
    /// The report's bytes.
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

text_enum! {
    /// How an installation went.
    Outcome {
        /// The system is installed.
        Success = "success",
        /// It is not.
        Error = "error",
    }
}
