//! Tag: the agent on this machine was heard.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// When the agent was last heard.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine_agent_heartbeat")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// When, by the database's clock.
    pub at: DateTimeUtc,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

crate::tag!(At);
