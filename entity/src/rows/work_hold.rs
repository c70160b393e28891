//! Until when nobody touches a machine, and why.

use sea_orm::entity::prelude::*;

use crate::MachineId;

/// One hold: an operator's, or the cool-down that an expiry left.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_hold")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// The slot that is held, or [`ALL_SLOTS`].
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub slot: String,
    /// Until when; `None` is open-ended.
    pub until: Option<DateTimeUtc>,
    /// Why.
    #[sea_orm(column_type = "Text")]
    pub reason: String,
    /// Who placed it.
    #[sea_orm(column_type = "Text")]
    pub placed_by: String,
    /// When it was placed, by the database's clock.
    pub placed_at: DateTimeUtc,
    /// Where people can read more, such as the name of a ticket.
    #[sea_orm(column_type = "Text", nullable)]
    pub ticket: Option<String>,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

/// The slot of a hold on the whole machine. No process can be named so.
pub const ALL_SLOTS: &str = "*";
