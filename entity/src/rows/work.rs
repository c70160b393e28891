//! A work: a machine that a session holds for one process.

use sea_orm::entity::prelude::*;

use crate::{Fence, MachineId, SessionId, WorkId};

/// One live lock. The key makes it exclusive; the row disappears with the work.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work")]
pub struct Model {
    /// The machine.
    #[sea_orm(primary_key, auto_increment = false)]
    pub machine_id: MachineId,
    /// What the process occupies on the machine; two processes with one slot exclude each other.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub slot: String,
    /// The process that the machine was claimed for.
    #[sea_orm(column_type = "Text")]
    pub process: String,
    /// The claim's id, made by the client.
    #[sea_orm(unique)]
    pub work_id: WorkId,
    /// Who holds it.
    #[sea_orm(indexed)]
    pub session_id: SessionId,
    /// The number of the claim. Every write of the holder names it.
    pub fence: Fence,
    /// When the machine was claimed, by the database's clock.
    pub claimed_at: DateTimeUtc,
    /// What the holder last said of its progress.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub progress: Option<Json>,
    /// An operator's wish that the holder stop, with the reason.
    #[sea_orm(column_type = "Text", nullable)]
    pub stop_requested: Option<String>,
    /// The machine's row.
    #[sea_orm(belongs_to, from = "machine_id", to = "machine_id")]
    pub machine: BelongsTo<super::machine::Entity>,
    /// The holder's row.
    #[sea_orm(belongs_to, from = "session_id", to = "session_id", on_delete = "Cascade")]
    pub session: BelongsTo<super::session::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
