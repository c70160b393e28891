//! Tag: a provider gave us this machine.

use sea_orm::entity::prelude::*;

use crate::{MachineId, text::text_enum};

/// Where the machine comes from and how to reach it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "machine_provided")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// The provider's name.
    #[sea_orm(column_type = "Text", unique_key = "identity")]
    pub provider: String,
    /// The provider's own id of the machine; unique within the provider.
    #[sea_orm(column_type = "Text", indexed, unique_key = "identity")]
    pub provider_id: String,
    /// The provider's reservation that the machine belongs to.
    #[sea_orm(column_type = "Text", nullable)]
    pub reservation: Option<String>,
    /// Where it answers.
    #[sea_orm(column_type = "Text", nullable, indexed)]
    pub address: Option<String>,
    /// Where it stands.
    #[sea_orm(column_type = "Text", nullable)]
    pub location: Option<String>,
    /// What the provider last said of it.
    pub status: Status,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

crate::tag!();

text_enum! {
    /// What a provider says of a machine.
    Status {
        /// The provider has not said.
        Unstated = "unstated",
        /// On its way to us.
        Provisioning = "provisioning",
        /// Ours and switched on.
        Running = "running",
        /// Ours and switched off.
        Stopped = "stopped",
        /// The provider does not know it any more.
        Missing = "missing",
    }
}
