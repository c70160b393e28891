//! The audit of all work, append-only.

use sea_orm::entity::prelude::*;

use crate::{Fence, MachineId, SessionId, WorkId, text::text_enum};

/// One event in the life of a work. The key allows one start and, with the protocol, one end per claim. It outlives the machine.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_history")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// The number of the claim: a machine's history is ordered by it, never by time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub fence: Fence,
    /// What happened.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub event: Event,
    /// The claim's id.
    pub work_id: WorkId,
    /// The process that the machine was claimed for.
    #[sea_orm(column_type = "Text")]
    pub process: String,
    /// The slot that it occupied.
    #[sea_orm(column_type = "Text")]
    pub slot: String,
    /// Who held it.
    pub session_id: SessionId,
    /// The holder's component.
    #[sea_orm(column_type = "Text")]
    pub component_name: String,
    /// The holder's version, host and process.
    #[sea_orm(column_type = "Text")]
    pub runtime_info: String,
    /// When the transaction that wrote it began, by the database's clock. A claim that waited for the end before it may have begun earlier than that:
    /// fences order, times do not.
    pub at: DateTimeUtc,
    /// Why, for a failure or an expiry.
    #[sea_orm(column_type = "Text", nullable)]
    pub cause: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}

text_enum! {
    /// What happened to a work.
    Event {
        /// A session claimed the machine.
        Started = "started",
        /// The holder finished; its commit phase is in the database.
        Finished = "finished",
        /// The holder gave up with a cause; the process backs off.
        Failed = "failed",
        /// The holder let go without a verdict.
        Canceled = "canceled",
        /// The holder's session was expired.
        Expired = "expired",
    }
}
