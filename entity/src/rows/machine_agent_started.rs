//! Tag: an agent was started on this machine.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// The agent that was started, and its key.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine_agent_started")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// When it was started, by the database's clock.
    pub at: DateTimeUtc,
    /// The agent's public key: what it must prove to be heard.
    pub public_key: Vec<u8>,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

crate::tag!(At);
